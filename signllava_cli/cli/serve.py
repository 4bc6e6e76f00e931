"""`signllava serve`: a web page that translates with a checkpoint."""

from pathlib import Path
from typing import Annotated

import typer


def serve(
    checkpoint: Annotated[
        str, typer.Option("--checkpoint", "-c", help="A run, a step folder, or a repository of the Hugging Face hub.")
    ],
    data: Annotated[
        str | None,
        typer.Option(help="The dataset folder to choose recordings from. Default: data.root of the recipe."),
    ] = None,
    split: Annotated[str, typer.Option(help="The split of the dataset.")] = "test",
    videos: Annotated[
        Path | None,
        typer.Option(
            help="A folder of videos (.mp4, .webm, .mkv, .mov): to play with the dataset, RECORDING.mp4 or CLIP.mp4; "
            "and any, to be translated, if the streams of the model can be made from videos."
        ),
    ] = None,
    pose_model: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Landmark model for videos. Default: in the user's cache."),
    ] = None,
    dino: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Image backbone of stream dino for videos: a folder, or a hub id."),
    ] = None,
    dino_hands: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Backbone for the hands. Default: that of --dino.")
    ] = None,
    video_streams: Annotated[
        str | None,
        typer.Option(metavar="NAMES", help="Streams to make from videos, with commas. Default: all of the model."),
    ] = None,
    max_video_seconds: Annotated[
        float, typer.Option(min=1, max=36000, help="The longest cut of a video, in seconds.")
    ] = 600,
    beams: Annotated[int | None, typer.Option(min=1, help="Beam width. Default: the recipe's.")] = None,
    host: Annotated[
        str, typer.Option(help="The address to listen on; the default accepts only this machine.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0: any free one.")] = 8000,
    max_upload_mb: Annotated[int, typer.Option(min=1, max=65536, help="The largest upload, in MiB.")] = 64,
) -> None:
    """Translate in the browser: choose a recording, a video or feature files, and watch the sentences appear."""
    from signllava_cli.console import loading_packages

    with loading_packages():
        from signllava_cli.api.video_features import VideoOptions
        from signllava_cli.serving.server import serve as serve_until_stopped

    config = {} if beams is None else {"num_beams": beams}
    names = None if video_streams is None else tuple(name.strip() for name in video_streams.split(","))
    options = VideoOptions(pose_model, dino, dino_hands, names)
    serve_until_stopped(
        checkpoint, data, split, host, port, max_upload_mb, videos, config, options, max_video_seconds
    )
