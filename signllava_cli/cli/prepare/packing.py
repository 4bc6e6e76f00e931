"""`signllava prepare pack` and `signllava prepare link`."""

from pathlib import Path
from typing import Annotated

import typer

from signllava_cli.prepare.pack.request import Format

OutOption = Annotated[Path, typer.Option(metavar="DATA", help="The dataset folder, with the annotation in it.")]
StreamOption = Annotated[str, typer.Option(help="The stream: `mae`, `dino`, `pose`, or any other name.")]
SplitOption = Annotated[str, typer.Option(help="The split whose clips are packed or linked.")]


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
    format: Annotated[Format, typer.Option(help="Format of the files. `auto`: by their suffix.")] = "auto",
    pattern: Annotated[
        str | None,
        typer.Option(help="A clip's file in a folder. Default: `{recording}/{clip}.EXT`, else `{clip}.EXT`."),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(
            help="Key of a clip's array in its file. Default: `{recording}/{clip}` in a SOURCE, else the only one."
        ),
    ] = None,
    shard_mb: Annotated[
        float, typer.Option(min=0, help="Maximum size of a shard in MiB. A recording is never split.")
    ] = 1024,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Number of processes. Default: the number of CPU cores.")
    ] = None,
    layout: Annotated[
        str | None,
        typer.Option(help="Name of the meaning of the numbers. Default: that of keypoints or HDF5 sources."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the shards of an earlier run.")] = False,
) -> None:
    """Pack feature files of other tools into the shards of a stream. After a kill, run it again to continue."""
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
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace earlier links; regular files are never replaced.")
    ] = False,
) -> None:
    """Link existing shards of this layout into a stream, whatever their names, without a copy."""
    from signllava_cli.prepare.pack.link import link
    from signllava_cli.prepare.pack.stream_paths import StreamPaths

    link(files, StreamPaths(out, stream, split), overwrite)
