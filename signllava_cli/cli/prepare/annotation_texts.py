"""`signllava prepare keywords` and `signllava prepare paraphrases`: adds texts to annotations."""

from pathlib import Path
from typing import Annotated

import typer

from signllava_cli.cli.options import DatasetArgument

DryRunOption = Annotated[bool, typer.Option(help="Print the changes without writing them.")]
MAX_FREQUENT = 10


def keywords(
    data: DatasetArgument,
    splits: Annotated[
        list[str],
        typer.Option("--split", help="A split; repeatable. Words are counted in the first one, usually train."),
    ],
    max_keywords: Annotated[
        int, typer.Option("--max", min=1, help="Maximum number of keywords of a clip: the rarest.")
    ] = 8,
    language: Annotated[str, typer.Option(help="Language of the stop words: `en` or `de`.")] = "en",
    stop_list: Annotated[
        Path | None, typer.Option(help="Text file of stop words, instead of --language; `#` begins a comment.")
    ] = None,
    max_share: Annotated[
        float, typer.Option(min=0, max=1, help="Maximum share of the clips with a keyword (or 200 clips).")
    ] = 0.05,
    min_count: Annotated[int, typer.Option(min=1, help="Minimum number of clips with a keyword.")] = 2,
    replace: Annotated[bool, typer.Option(help="Also choose keywords for clips that have some.")] = False,
    dry_run: DryRunOption = False,
) -> None:
    """Choose keywords for the clips that have none, from the words of their translations.

    Keywords are words of two letters or more that are not stop words. A clip gets its rarest, in sentence order.
    """
    from signllava_cli.console import info, print_table, warning
    from signllava_cli.errors import format_count, summarize_names
    from signllava_cli.prepare.keywords import KeywordRule, fill_keywords, read_stop_words, shipped_stop_words

    stop_words = read_stop_words(stop_list) if stop_list else shipped_stop_words(language)
    results = fill_keywords(
        data, splits, KeywordRule(stop_words, max_keywords, min_count, max_share), replace, dry_run
    )
    print_table(
        "keywords" + (" (dry run)" if dry_run else ""),
        ["split", "clips", "had keywords", "filled", "without", "vocabulary"],
        [
            (r.split, r.num_clips, r.num_before, r.num_filled, len(r.without_keywords), len(r.vocabulary))
            for r in results
        ],
    )
    for result in results:
        frequent = ", ".join(f"{word} {count}" for word, count in result.vocabulary.most_common(MAX_FREQUENT))
        info(f"{result.split}: most frequent keywords: {frequent or 'none'}")
        if result.without_keywords:
            count = format_count(len(result.without_keywords), "clip has", "clips have")
            warning(
                f"{result.split}: {count} no keywords "
                f"({summarize_names(result.without_keywords)}); "
                "a lower --min-count or a higher --max-share allows more words."
            )


def paraphrases(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="`.json`, or a table (CSV, TSV).", show_default=False)],
    data: DatasetArgument,
    split: Annotated[str, typer.Option(help="The split of the clips in FILE.")],
    clip_column: Annotated[str, typer.Option(help="Column of `clip` or `recording/clip`.")] = "clip",
    columns: Annotated[
        list[str] | None,
        typer.Option("--column", help="A column of paraphrases; repeatable. Default: those named so, else all."),
    ] = None,
    replace: Annotated[bool, typer.Option(help="Replace the existing paraphrases of a clip.")] = False,
    dry_run: DryRunOption = False,
) -> None:
    """Add paraphrases from a file to the clips of a split.

    JSON: {clip: [..]}, {"recording/clip": [..]}, {recording: {clip: [..]}}, or the layout of an annotation file.
    Placeholders, repetitions and copies of the translation are skipped.
    """
    from signllava_cli.console import info, print_table, warning
    from signllava_cli.errors import format_count, summarize_names
    from signllava_cli.prepare.paraphrases import merge_paraphrases

    result = merge_paraphrases(file, data, split, clip_column, columns or (), replace, dry_run)
    rows = {"added": result.added, **{f"skipped: {reason}": clips for reason, clips in result.skipped.items()}}
    print_table(
        f"paraphrases for {split}" + (" (dry run)" if dry_run else ""),
        ["", "texts", "clips"],
        [(label, len(clips), len(set(clips))) for label, clips in rows.items()],
    )
    for reason, clips in result.skipped.items():
        if clips:
            info(f"skipped, {reason}: {summarize_names(dict.fromkeys(clips))}")
    if result.unknown:
        names = [entry.clip or "no name" for entry in result.unknown]
        num_texts = sum(len(entry.texts) for entry in result.unknown)
        count = f"{format_count(len(names), 'clip')}, with {format_count(num_texts, 'text')}"
        warning(f"{file}: {count}, not in split {split}: {summarize_names(names)}.")
    if result.unreadable:
        malformed = summarize_names(f"{row.where}: {row.reason}" for row in result.unreadable)
        count = format_count(len(result.unreadable), f"row of {file} is", f"rows of {file} are")
        warning(f"{count} malformed: {malformed}.")
