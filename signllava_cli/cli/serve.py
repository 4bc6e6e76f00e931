"""`signllava serve`: the model behind a web page."""

from pathlib import Path
from typing import Annotated

import typer


def serve(
    checkpoint: Annotated[
        str, typer.Option("--checkpoint", "-c", help="A run, a step folder, or a repository of the Hugging Face hub.")
    ],
    data: Annotated[
        str | None, typer.Option(help="A dataset whose recordings can be chosen. Default: the recipe's.")
    ] = None,
    split: Annotated[str, typer.Option(help="Of the dataset.")] = "test",
    videos: Annotated[
        Path | None,
        typer.Option(help="A folder of RECORDING.mp4 or CLIP.mp4 (.webm, .mkv, .mov), to play."),
    ] = None,
    beams: Annotated[int | None, typer.Option(min=1, help="Beam width. Default: the recipe's.")] = None,
    host: Annotated[str, typer.Option(help="Where to listen; by default this machine alone.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 8000,
    max_upload_mb: Annotated[int, typer.Option(min=1, max=65536, help="The largest upload, in MiB.")] = 64,
) -> None:
    """Translate in the browser: choose a recording or drop feature files, and watch the sentences appear."""
    from signllava_cli.serving.server import serve as serve_until_stopped

    config = {} if beams is None else {"num_beams": beams}
    serve_until_stopped(checkpoint, data, split, host, port, max_upload_mb, videos, config)
