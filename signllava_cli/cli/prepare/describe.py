"""`signllava prepare describe`: a dataset in figures."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from signllava_cli.cli.options import DatasetArgument, SetOption, SplitsOption
from signllava_cli.cli.prompts import load_prompts
from signllava_cli.errors import UserError, require_extra

if TYPE_CHECKING:
    from signllava_cli.prepare.describe import Description, Histogram

SPLITS_ABREAST, BAR = 3, 13  # histograms beside each other, and their characters: they fit into 80 columns
UNKNOWN = "-"


def describe(
    data: DatasetArgument,
    splits: SplitsOption = None,
    recipe: Annotated[
        str | None, typer.Option("--recipe", "-r", help="Describe its streams only, and what it makes of the clips.")
    ] = None,
    set_: SetOption = None,
    png: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Draw histograms as PNG files into this folder.")
    ] = None,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Write all figures to this file.")] = None,
    fps: Annotated[
        float | None,
        typer.Option(
            min=1, help="Frames a second, to tell the hours of clips without times by their longest stream."
        ),
    ] = None,
) -> None:
    """Describe a dataset: texts, lengths and context of each split, and under a recipe what training cuts."""
    if png:
        require_extra("plot", "--png", "matplotlib")
    from signllava_cli.console import info
    from signllava_cli.files import write_json
    from signllava_cli.prepare.describe import describe_dataset
    from signllava_cli.recipe import read_recipe

    if set_ and not recipe:
        raise UserError("--set changes a recipe: name it with --recipe.")
    config = read_recipe(recipe, set_ or []) if recipe else None
    prompts = load_prompts(config, "sequences are not measured, only their frames") if config else None
    description = describe_dataset(data, splits, config, prompts, fps)
    _print_description(description)
    if json:
        write_json(json, {"data": str(data), "recipe": recipe, "set": set_ or [], **description.to_dict()})
        info(f"figures in {json}")
    if png:
        from signllava_cli.prepare.describe_charts import draw_charts

        info(f"charts in {', '.join(map(str, draw_charts(description, png)))}")


def _print_description(description: "Description") -> None:
    from signllava_cli.console import info

    _print_splits(description)
    _print_preceding(description)
    _print_frames(description)
    for stream, histogram in description.histograms.items():
        splits = list(histogram.clips)
        for first in range(0, len(splits), SPLITS_ABREAST):
            info(f"frames of {stream}, share of clips", style="bold")
            for line in _bars(histogram, splits[first : first + SPLITS_ABREAST]):
                info(line)
    _print_sequences(description)


def _print_splits(description: "Description") -> None:
    from signllava_cli.console import info

    splits = description.figures.values()
    texts = [split.texts for split in splits]
    sizes = [split.clips_of_recording for split in splits]
    rows = [
        ("recordings", *(split.recordings for split in splits)),
        ("clips", *(split.clips for split in splits)),
        ("clips of a recording", *(f"{each.min}-{each.max}" for each in sizes)),
        ("clips of a recording, median", *(each.median for each in sizes)),
        ("hours", *(_rounded(split.durations.hours, 2) or "unknown" for split in splits)),
        ("clips of unknown duration", *(split.durations.clips_unknown for split in splits)),
        ("words", *(each.words for each in texts)),
        ("vocabulary", *(each.vocabulary for each in texts)),
        ("words that occur once", *(each.once for each in texts)),
        ("running words that train has not", *(_percent(each.unseen) for each in texts)),
        ("sentences that occur more than once", *(each.repeated for each in texts)),
        ("keywords of a clip", *(_rounded(each.keywords, 2) for each in texts)),
        ("paraphrases of a clip", *(_rounded(each.paraphrases, 2) for each in texts)),
    ]
    _table("splits", ["", *description.figures], rows)
    if unspaced := [split for split, its in description.figures.items() if its.texts.are_characters]:
        info(f"{', '.join(unspaced)}: the texts have no spaces between words; each character is counted as a word.")


def _print_preceding(description: "Description") -> None:
    splits = description.figures.values()
    shares = [[_percent(clips / split.clips) for clips in split.preceding.values()] for split in splits]
    labels = next(iter(splits)).preceding
    _table("clips by sentences before them", ["", *description.figures], zip(labels, *shares, strict=True))


def _print_frames(description: "Description") -> None:
    rows = [
        (f"{stream}, {split}", its.min, its.median, _rounded(its.mean, 1), its.p95, its.max, found.clips_without)
        for stream in description.histograms
        for split, figures in description.figures.items()
        if (found := figures.streams.get(stream))
        for its in [found.frames]
    ]
    if rows:
        _table("frames of a clip", ["", "min", "median", "mean", "95%", "max", "clips without"], rows)


def _bars(histogram: "Histogram", splits: Sequence[str]) -> list[str]:
    """The histogram of `splits`, side by side: a line of their names, and one for each class of lengths."""
    from signllava_cli.console import stdout_console

    block = "#" if stdout_console.options.ascii_only else "\N{FULL BLOCK}"
    shares = [[clips / max(1, sum(histogram.clips[split])) for clips in histogram.clips[split]] for split in splits]
    longest = max(map(max, shares)) or 1.0
    firsts, lasts = histogram.bounds[:-1], [bound - 1 for bound in histogram.bounds[1:]]
    labels = [str(first) if first == last else f"{first}-{last}" for first, last in zip(firsts, lasts, strict=True)]
    margin = max(map(len, labels))
    cells = [
        [f"{block * round(BAR * share / longest):<{BAR}} {share:6.1%}" for share in of_class]
        for of_class in zip(*shares, strict=True)
    ]
    names = [f"{split:<{BAR + 7}}" for split in splits]
    return [
        "  ".join([f"{label:>{margin}}", *row]).rstrip()
        for label, row in zip(["", *labels], [names, *cells], strict=True)
    ]


def _print_sequences(description: "Description") -> None:
    from signllava_cli.console import info, warning
    from signllava_cli.errors import summarize_names

    under_recipe = {split: its.under_recipe for split, its in description.figures.items() if its.under_recipe}
    if not under_recipe:
        return
    sequences = {split: its.sequences for split, its in under_recipe.items() if its.sequences}
    lengths = {}
    for split, found in under_recipe.items():
        lengths[f"{split}, frames read"] = found.frames
        if found.sequences:
            lengths |= {f"{split}, whole": found.sequences.whole, f"{split}, cut to fit": found.sequences.cut}
    _table(
        "sequences under the recipe, in positions",
        ["", "50%", "90%", "95%", "99%", "max"],
        [(label, each.median, each.p90, each.p95, each.p99, each.max) for label, each in lengths.items()],
    )
    if sequences:
        rows = [
            (split, its.clips, its.thinned, its.lose_context, len(its.cannot_fit)) for split, its in sequences.items()
        ]
        bound = next(iter(sequences.values())).max_seq_len
        title = f"clips that data.max_seq_len={bound} cuts"
        _table(title, ["", "of", "lose frames", "lose context", "cannot fit"], rows)
    for split, its in sequences.items():
        if its.clips < under_recipe[split].clips:
            info(
                f"{split}: sequences of a sample of {its.clips} of {under_recipe[split].clips} clips, always the same"
            )
        if its.cannot_fit:
            warning(
                f"{split}: training would stop at {len(its.cannot_fit)} clips that cannot fit "
                f"({summarize_names(its.cannot_fit)}); raise data.max_seq_len, or lower data.min_frames."
            )


def _table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    from signllava_cli.console import print_table

    print_table(title, columns, [[UNKNOWN if cell is None else cell for cell in row] for row in rows])


def _rounded(number: float | None, digits: int) -> str | None:
    return None if number is None else f"{number:.{digits}f}"


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{share:.1%}"
