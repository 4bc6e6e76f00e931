"""`signllava prepare keywords` and `signllava prepare paraphrases`: texts for clips that are annotated."""

from pathlib import Path
from typing import Annotated

import typer

from signllava_cli.cli.options import DatasetArgument

DryRunOption = Annotated[bool, typer.Option(help="Only say what would change.")]
FREQUENT_SHOWN = 10


def keywords(
    data: DatasetArgument,
    splits: Annotated[
        list[str], typer.Option("--split", help="A split; repeatable. Words are counted in the first, e.g. train.")
    ],
    most: Annotated[int, typer.Option("--max", min=1, help="Keywords of a clip at most: the rarest.")] = 8,
    language: Annotated[str, typer.Option(help="Whose stop words: `en` or `de`.")] = "en",
    stop_list: Annotated[
        Path | None, typer.Option(help="A text file of stop words, `#` begins a comment; instead of --language's.")
    ] = None,
    max_share: Annotated[
        float, typer.Option(min=0, max=1, help="A keyword stands in at most this share of the clips (or in 200).")
    ] = 0.05,
    min_count: Annotated[int, typer.Option(min=1, help="A keyword stands in at least this many clips.")] = 2,
    replace: Annotated[bool, typer.Option(help="Choose anew for clips that have keywords, too.")] = False,
    dry_run: DryRunOption = False,
) -> None:
    """Choose keywords for the clips that have none, from the words of their translations.

    A word with two letters or more that is no stop word may be one. A clip gets its rarest, in sentence order.
    """
    from signllava_cli.console import info, print_table, warning
    from signllava_cli.errors import summarize_names
    from signllava_cli.prepare.keywords import KeywordRule, fill_keywords, read_stop_words, shipped_stop_words

    stop = read_stop_words(stop_list) if stop_list else shipped_stop_words(language)
    filled = fill_keywords(data, splits, KeywordRule(stop, most, min_count, max_share), replace, dry_run)
    print_table(
        "keywords" + (" as they would be" if dry_run else ""),
        ["split", "clips", "had keywords", "filled", "still without", "vocabulary"],
        [(each.split, each.clips, each.had, each.filled, len(each.without), len(each.vocabulary)) for each in filled],
    )
    for each in filled:
        frequent = ", ".join(f"{word} {count}" for word, count in each.vocabulary.most_common(FREQUENT_SHOWN))
        info(f"{each.split}: most frequent keywords: {frequent or 'none'}")
        if each.without:
            warning(
                f"{each.split}: {len(each.without)} clips have no keywords ({summarize_names(each.without)}); "
                "a lower --min-count or a higher --max-share lets more words in."
            )


def paraphrases(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="`.json`, or a table (CSV, TSV).", show_default=False)],
    data: DatasetArgument,
    split: Annotated[str, typer.Option(help="The split whose clips FILE names.")],
    clip_column: Annotated[str, typer.Option(help="The table's column of clip or recording/clip.")] = "clip",
    columns: Annotated[
        list[str] | None,
        typer.Option("--column", help="A column of paraphrases; repeatable. Default: those called so, else all."),
    ] = None,
    replace: Annotated[bool, typer.Option(help="Put them in place of those that a clip has.")] = False,
    dry_run: DryRunOption = False,
) -> None:
    """Add paraphrases that were made elsewhere to the clips of a split.

    JSON: {clip: [..]}, {"recording/clip": [..]}, {recording: {clip: [..]}}, or the layout of an annotation file.
    Texts that say nothing, repeats and copies of the translation are left out.
    """
    from signllava_cli.console import info, print_table, warning
    from signllava_cli.errors import summarize_names
    from signllava_cli.prepare.paraphrases import merge_paraphrases

    merged = merge_paraphrases(file, data, split, clip_column, columns or (), replace, dry_run)
    rows = {"added": merged.added, **{f"left out: {why}": clips for why, clips in merged.left_out.items()}}
    print_table(
        f"paraphrases for {split}" + (" as they would be merged" if dry_run else ""),
        ["", "texts", "clips"],
        [(what, len(clips), len(set(clips))) for what, clips in rows.items()],
    )
    for why, clips in merged.left_out.items():
        if clips:
            info(f"left out, {why}: {summarize_names(dict.fromkeys(clips))}")
    if merged.unknown:
        names = [each.clip or "no name" for each in merged.unknown]
        texts = sum(len(each.texts) for each in merged.unknown)
        warning(
            f"{len(names)} clips of {file} are not in split {split}, with {texts} texts: {summarize_names(names)}."
        )
    if merged.unreadable:
        named = summarize_names(f"{row.where}: {row.reason}" for row in merged.unreadable)
        warning(f"{len(merged.unreadable)} rows of {file} cannot be read: {named}.")
