"""`signllava prepare how2sign|youtube-asl|openasl|phoenix14t|csv`: imports of annotation tables."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from signllava_cli.errors import UserError

if TYPE_CHECKING:
    from signllava_cli.prepare.importers.source import Source

AnnotationsOption = Annotated[
    list[Path], typer.Option("--annotations", "-a", metavar="FILE...", help="The files to read, one or more.")
]
MoreArgument = Annotated[list[Path] | None, typer.Argument(metavar="[FILE]...", help="More files.")]
OutOption = Annotated[Path, typer.Option(help="Folder of the dataset.")]
SplitOption = Annotated[
    str | None,
    typer.Option(help="The split of all rows. Default: the split in the file name; val is renamed to dev."),
]
WantedSplitOption = Annotated[
    str | None,
    typer.Option(help="The only split to import. Default: all in the split column; val is renamed to dev."),
]
OrderOption = Annotated[
    Literal["time", "name"],
    typer.Option(help="Order of the clips of a recording: by start, or by natural sort of their names."),
]
OverwriteOption = Annotated[bool, typer.Option(help="Replace existing annotation files.")]


def how2sign(
    annotations: AnnotationsOption,
    out: OutOption,
    more: MoreArgument = None,
    split: SplitOption = None,
    group_by: Annotated[
        Literal["video-name", "video-id"],
        typer.Option(help="video-id joins both signers of a script in one recording, as Sign_LLaVA did."),
    ] = "video-name",
    order: OrderOption = "time",
    overwrite: OverwriteOption = False,
) -> None:
    """Import How2Sign tables.

    Columns: VIDEO_NAME, SENTENCE_NAME, START_REALIGNED, END_REALIGNED (or START, END), SENTENCE, optionally
    STATE, KEYWORDS, GPT_Rephrase1, GPT_Rephrase2 ...; separated by TAB or comma.
    """
    from signllava_cli.prepare.importers.how2sign import how2sign_rows
    from signllava_cli.prepare.importers.source import Source

    config = {"group_by": group_by, "order": order}
    source = Source("how2sign", lambda file: how2sign_rows(file, group_by), config=config, order=order)
    leak_fix = "--group-by video-name keeps signers apart" if group_by == "video-id" else ""
    _import(source, annotations, more, out, split, overwrite, leak_fix)


def youtube_asl(
    annotations: AnnotationsOption,
    out: OutOption,
    more: MoreArgument = None,
    split: SplitOption = None,
    fps: Annotated[
        float | None, typer.Option(help="Name the clips of .vtt captions by frames, not milliseconds.")
    ] = None,
    order: OrderOption = "time",
    overwrite: OverwriteOption = False,
) -> None:
    """Import YouTube-ASL tables, or a folder of .vtt captions.

    Columns: ClipID, Beg(s), Dur(s), YouTubeID, Caption, optionally Keywords, GPT_Rephrase1, GPT_Rephrase2 ...;
    or, with TABs and no header: begin, duration, id, first frame, last frame, fps, text, state, keywords.
    """
    from signllava_cli.prepare.importers.source import Source
    from signllava_cli.prepare.importers.youtube_asl import youtube_asl_files, youtube_asl_rows

    file_of: dict[str, Path] = {}
    source = Source(
        "youtube-asl",
        lambda path: youtube_asl_rows(path, fps, file_of),
        youtube_asl_files,
        {"fps": fps, "order": order},
        order=order,
    )
    _import(source, annotations, more, out, split, overwrite)


def openasl(
    annotations: AnnotationsOption,
    out: OutOption,
    more: MoreArgument = None,
    split: WantedSplitOption = None,
    order: OrderOption = "time",
    overwrite: OverwriteOption = False,
) -> None:
    """Import OpenASL's table, all of its splits at once.

    Columns: vid, yid, start, end, raw-text, split; separated by TAB without quoting, or by commas with it.
    """
    from signllava_cli.prepare.importers.openasl import openasl_rows
    from signllava_cli.prepare.importers.source import Source

    source = Source("openasl", openasl_rows, config={"order": order}, has_split_column=True, order=order)
    _import(source, annotations, more, out, split, overwrite)


def phoenix14t(
    annotations: AnnotationsOption,
    out: OutOption,
    more: MoreArgument = None,
    split: SplitOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Import Phoenix14T corpus files.

    Columns: name (broadcast-n), translation; separated by |, without quoting. The file of the complex annotation,
    whose texts differ, is skipped.
    """
    from signllava_cli.prepare.importers.phoenix14t import official_files, phoenix14t_rows
    from signllava_cli.prepare.importers.source import Source

    official, skipped = official_files([*annotations, *(more or ())])
    config = {"skipped": [str(path) for path in skipped]}
    _import(Source("phoenix14t", phoenix14t_rows, config=config), official, None, out, split, overwrite)


def csv(
    annotations: AnnotationsOption,
    out: OutOption,
    more: MoreArgument = None,
    clip: Annotated[
        str | None, typer.Option(help="Column of the clip's name. Default: uid, else made of recording and times.")
    ] = None,
    text: Annotated[
        str | None, typer.Option(help="Column of the text. Default: translation, text, sentence, word or gloss.")
    ] = None,
    recording: Annotated[
        str | None,
        typer.Option(help="Column of the recording. Without it each clip is its own recording, without context."),
    ] = None,
    start: Annotated[str | None, typer.Option(help="Column of the start, in seconds or HH:MM:SS.mmm.")] = None,
    end: Annotated[str | None, typer.Option(help="Column of the end.")] = None,
    duration: Annotated[str | None, typer.Option(help="Column of the duration, instead of the end.")] = None,
    order: Annotated[
        str | None,
        typer.Option(help="Column of a number to sort clips by. Default: the start, else the order of the rows."),
    ] = None,
    keywords: Annotated[str | None, typer.Option(help="Column of keywords, separated by commas.")] = None,
    paraphrases: Annotated[list[str] | None, typer.Option(help="Column of a paraphrase. Repeatable.")] = None,
    split_column: Annotated[str | None, typer.Option(help="Column of the split.")] = None,
    keep: Annotated[
        list[str] | None, typer.Option(help="Column to keep, for patterns of `prepare pack`. Repeatable.")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="The split of all rows, or the only one to import of --split-column.")
    ] = None,
    separator: Annotated[
        str | None,
        typer.Option(help="One character, or `tab`. Default: the most frequent separator in the first line."),
    ] = None,
    columns: Annotated[
        str | None, typer.Option(help="Column names of a file without a header, separated by commas.")
    ] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Import any delimited table; options name its columns."""
    from signllava_cli.console import info
    from signllava_cli.prepare.importers.csv_table import ColumnNames, table_rows
    from signllava_cli.prepare.importers.source import Source

    column_names = ColumnNames(
        clip=clip,
        text=text,
        recording=recording,
        start=start,
        end=end,
        duration=duration,
        order=order,
        keywords=keywords,
        paraphrases=tuple(paraphrases or ()),
        split=split_column,
        keep=tuple(keep or ()),
        separator=_parse_separator(separator),
        names=tuple(name.strip() for name in columns.split(",")) if columns else (),
    )
    source = Source(
        "csv",
        lambda file: table_rows(file, column_names),
        config=vars(column_names),
        has_split_column=split_column is not None,
    )
    _import(source, annotations, more, out, split, overwrite)
    if recording is None:
        info("No --recording column: each clip is a recording of its own, without context.")


def _parse_separator(text: str | None) -> str | None:
    if text is None:
        return None
    separator = "\t" if text in ("tab", "\\t") else text
    if len(separator) != 1 or separator in '"\r\n':
        raise UserError(f"--separator {text!r}: expected one character, or `tab`.")
    return separator


def _import(
    source: "Source",
    annotations: list[Path],
    more: list[Path] | None,
    out: Path,
    split: str | None,
    overwrite: bool,
    leak_fix: str = "",
) -> None:
    """Import, and print the leaks of an order by name, or if `leak_fix` says how to avoid them."""
    from signllava_cli.prepare.importers.import_annotations import import_annotations
    from signllava_cli.prepare.importers.leak_warning import warn_of_leaks

    recordings = import_annotations(source, [*annotations, *(more or ())], out, split, overwrite)
    fixes = [leak_fix, "--order time puts sentences in the order of signing" if source.order == "name" else ""]
    if fix := ", ".join(filter(None, fixes)):
        warn_of_leaks(recordings, fix)
