"""`signllava prepare describe`: statistics of a dataset."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from signllava_cli.cli.completion import complete_recipe
from signllava_cli.cli.options import DatasetArgument, SetOption, SplitsOption
from signllava_cli.cli.prompts import load_prompts
from signllava_cli.errors import UserError, format_count, require_extra

if TYPE_CHECKING:
    from signllava_cli.prepare.describe import Description, Histogram
    from signllava_cli.prepare.sequence_lengths import RecipeStatistics

SPLITS_PER_ROW, BAR_CHARS = 3, 13  # histograms side by side, and characters of a bar: they fit into 80 columns
UNKNOWN = "-"


def describe(
    data: DatasetArgument,
    splits: SplitsOption = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe", "-r", autocompletion=complete_recipe, help="Describe only its streams, and its sequences."
        ),
    ] = None,
    overrides: SetOption = None,
    png: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Draw histograms as PNG files into this folder.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write all statistics to this JSON file.")
    ] = None,
    fps: Annotated[
        float | None,
        typer.Option(
            min=1, help="Frames per second, for the duration of clips without times, by their longest stream."
        ),
    ] = None,
) -> None:
    """Describe a dataset: texts, lengths and context of each split, and with a recipe what training truncates."""
    if png:
        require_extra("plot", "--png", "matplotlib")
    from signllava_cli.console import info, is_json, print_document
    from signllava_cli.files import write_json
    from signllava_cli.prepare.describe import describe_dataset
    from signllava_cli.recipe import read_recipe

    if overrides and not recipe:
        raise UserError("--set changes a recipe; name it with --recipe.")
    config = read_recipe(recipe, overrides or []) if recipe else None
    prompts = load_prompts(config, "only frames are counted, not the tokens of sequences") if config else None
    description = describe_dataset(data, splits, config, prompts, fps)
    document = {"data": str(data), "recipe": recipe, "set": overrides or [], **description.to_dict()}
    if is_json():
        print_document(document)
    else:
        _print_description(description)
    if report:
        write_json(report, document)
        info(f"statistics in {report}")
    if png:
        from signllava_cli.prepare.describe_charts import draw_charts

        info(f"charts in {', '.join(map(str, draw_charts(description, png)))}")


def _print_description(description: "Description") -> None:
    from signllava_cli.console import print_line

    _print_splits(description)
    _print_preceding(description)
    _print_frames(description)
    for stream, histogram in description.histograms.items():
        splits = list(histogram.clips)
        for start in range(0, len(splits), SPLITS_PER_ROW):
            print_line(f"frames of {stream}, share of clips", style="bold")
            for line in _format_histogram(histogram, splits[start : start + SPLITS_PER_ROW]):
                print_line(line)
    _print_sequences(description)


def _print_splits(description: "Description") -> None:
    from signllava_cli.console import print_line

    splits = description.statistics.values()
    texts = [split.texts for split in splits]
    sizes = [split.clips_per_recording for split in splits]
    rows = [
        ("recordings", *(split.recordings for split in splits)),
        ("clips", *(split.clips for split in splits)),
        ("clips per recording", *(f"{size.min}-{size.max}" for size in sizes)),
        ("clips per recording, median", *(size.median for size in sizes)),
        ("hours", *(_round(split.durations.hours, 2) or "unknown" for split in splits)),
        ("clips of unknown duration", *(split.durations.clips_unknown for split in splits)),
        ("words", *(text.words for text in texts)),
        ("vocabulary", *(text.vocabulary for text in texts)),
        ("words that occur once", *(text.singletons for text in texts)),
        ("running words not in train", *(_percent(text.oov_rate) for text in texts)),
        ("sentences that occur more than once", *(text.repeated_sentences for text in texts)),
        ("keywords per clip", *(_round(text.keywords_per_clip, 2) for text in texts)),
        ("paraphrases per clip", *(_round(text.paraphrases_per_clip, 2) for text in texts)),
    ]
    _print_rows("splits", ["", *description.statistics], rows)
    with_characters = [name for name, split in description.statistics.items() if split.texts.are_characters]
    if with_characters:
        names = ", ".join(with_characters)
        print_line(f"{names}: the texts have no spaces between words; each character is counted as a word.")


def _print_preceding(description: "Description") -> None:
    splits = description.statistics.values()
    shares = [[_percent(clips / split.clips) for clips in split.preceding.values()] for split in splits]
    labels = next(iter(splits)).preceding
    _print_rows("clips by sentences before them", ["", *description.statistics], zip(labels, *shares, strict=True))


def _print_frames(description: "Description") -> None:
    rows = [
        (
            f"{name}, {split}",
            stream.frames.min,
            stream.frames.median,
            _round(stream.frames.mean, 1),
            stream.frames.p95,
            stream.frames.max,
            stream.clips_without,
        )
        for name in description.histograms
        for split, statistics in description.statistics.items()
        if (stream := statistics.streams.get(name))
    ]
    if rows:
        _print_rows("frames per clip", ["", "min", "median", "mean", "95%", "max", "clips without"], rows)


def _format_histogram(histogram: "Histogram", splits: Sequence[str]) -> list[str]:
    """The histograms of `splits` side by side: a line with their names, and a line for each bin."""
    from signllava_cli.console import stdout_console

    block = "#" if stdout_console.options.ascii_only else "\N{FULL BLOCK}"
    shares = [[clips / max(1, sum(histogram.clips[split])) for clips in histogram.clips[split]] for split in splits]
    max_share = max(map(max, shares)) or 1.0
    firsts, lasts = histogram.bounds[:-1], [bound - 1 for bound in histogram.bounds[1:]]
    labels = [str(first) if first == last else f"{first}-{last}" for first, last in zip(firsts, lasts, strict=True)]
    margin = max(map(len, labels))
    cells = [
        [f"{block * round(BAR_CHARS * share / max_share):<{BAR_CHARS}} {share:6.1%}" for share in bin_shares]
        for bin_shares in zip(*shares, strict=True)
    ]
    names = [f"{split:<{BAR_CHARS + 7}}" for split in splits]
    return [
        "  ".join([f"{label:>{margin}}", *row]).rstrip()
        for label, row in zip(["", *labels], [names, *cells], strict=True)
    ]


def _print_sequences(description: "Description") -> None:
    from signllava_cli.console import print_line, warning
    from signllava_cli.errors import summarize_names

    with_recipe = {name: split.with_recipe for name, split in description.statistics.items() if split.with_recipe}
    if not with_recipe:
        return
    _print_embeddings(with_recipe)
    sequences = {name: split.sequences for name, split in with_recipe.items() if split.sequences}
    lengths = {}
    for name, split in with_recipe.items():
        lengths[f"{name}, frames read"] = split.frames
        if split.sequences:
            lengths[f"{name}, untruncated"] = split.sequences.untruncated
            lengths[f"{name}, truncated"] = split.sequences.truncated
    _print_rows(
        "sequences of the recipe, in tokens",
        ["", "50%", "90%", "95%", "99%", "max"],
        [(label, length.median, length.p90, length.p95, length.p99, length.max) for label, length in lengths.items()],
    )
    if sequences:
        rows = [
            (name, split.clips, split.frames_truncated, split.context_truncated, len(split.too_long))
            for name, split in sequences.items()
        ]
        max_seq_len = next(iter(sequences.values())).max_seq_len
        title = f"clips truncated to data.max_seq_len={max_seq_len}"
        _print_rows(title, ["", "of", "lose frames", "lose context", "too long"], rows)
    for name, statistics in sequences.items():
        num_clips = with_recipe[name].clips
        if statistics.clips < num_clips:
            print_line(f"{name}: sequences of a fixed sample of {statistics.clips} of {num_clips} clips")
        if statistics.too_long:
            count = format_count(len(statistics.too_long), "clip that is", "clips that are")
            warning(
                f"{name}: training would stop at {count} too long "
                f"({summarize_names(statistics.too_long)}); raise data.max_seq_len, or lower data.min_frames."
            )


def _print_embeddings(with_recipe: "dict[str, RecipeStatistics]") -> None:
    """What the projectors save: one row for each projector of a split, and one for all if there are several."""
    rows = []
    for split, statistics in with_recipe.items():
        projectors = [
            (name, each.architecture, each.frames, each.embeddings) for name, each in statistics.embeddings.items()
        ]
        if len(projectors) > 1:
            *_, frames, embeddings = zip(*projectors, strict=True)
            projectors.append(("all", "", sum(frames), sum(embeddings)))
        rows += [
            (
                f"{name}, {split}",
                architecture,
                _round(frames, 1),
                _round(embeddings, 1),
                _percent(1 - embeddings / frames),
            )
            for name, architecture, frames, embeddings in projectors
        ]
    _print_rows(
        "frames and their embeddings, mean per clip", ["", "projector", "frames", "embeddings", "saved"], rows
    )


def _print_rows(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    from signllava_cli.console import print_table

    print_table(title, columns, [[UNKNOWN if cell is None else cell for cell in row] for row in rows])


def _round(number: float | None, digits: int) -> str | None:
    return None if number is None else f"{number:.{digits}f}"


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{share:.1%}"
