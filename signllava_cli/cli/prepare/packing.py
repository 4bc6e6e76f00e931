"""`signllava prepare pack` and `signllava prepare link`."""

from pathlib import Path
from typing import Annotated

import typer

from signllava_cli.prepare.pack.request import Format

OutOption = Annotated[Path, typer.Option(metavar="DATA", help="The dataset folder, with the annotation in it.")]
StreamOption = Annotated[str, typer.Option(help="The stream: `mae`, `dino`, `pose`, or any other name.")]
SplitOption = Annotated[str, typer.Option(help="The split whose clips are meant.")]


def pack(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="SOURCE", help="Folders with a file per clip, or HDF5 files with many.", show_default=False
        ),
    ],
    stream: StreamOption,
    out: OutOption,
    split: SplitOption,
    format: Annotated[Format, typer.Option(help="What the files are. `auto`: as their names end.")] = "auto",
    pattern: Annotated[
        str | None,
        typer.Option(help="A clip's file in a folder. Default: `{recording}/{clip}.EXT`, else `{clip}.EXT`."),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(
            help="The array in a file of many. Default: `{recording}/{clip}` in a SOURCE, else the only one."
        ),
    ] = None,
    shard_mb: Annotated[
        float, typer.Option(min=0, help="A shard's bound, in MiB. A recording is never split.")
    ] = 1024,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes. Default: one a CPU core.")] = None,
    layout: Annotated[
        str | None,
        typer.Option(help="The name of what the numbers are. Default: what key points or HDF5 sources tell."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what an earlier run packed.")] = False,
) -> None:
    """Pack other tools' features into the shards of a stream. Run again after a kill, it goes on."""
    from signllava_cli.prepare.pack.pack import pack
    from signllava_cli.prepare.pack.request import PackRequest
    from signllava_cli.prepare.pack.stream_paths import StreamPaths
    from signllava_cli.processes import cpu_cores

    request = PackRequest(tuple(source.resolve() for source in sources), format, pattern, key, shard_mb, layout)
    pack(request, StreamPaths(out, stream, split), workers or cpu_cores(), overwrite)


def link(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE", help="HDF5: a group per recording, a dataset per clip.", show_default=False),
    ],
    stream: StreamOption,
    out: OutOption,
    split: SplitOption,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace earlier links, never real files.")] = False,
) -> None:
    """Take up existing shards of our layout where they lie, whatever their names, without a copy."""
    from signllava_cli.prepare.pack.link import link
    from signllava_cli.prepare.pack.stream_paths import StreamPaths

    link(files, StreamPaths(out, stream, split), overwrite)
