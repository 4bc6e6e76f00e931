"""Opens the model and the split that the web app serves."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from signllava_cli.api.dataset_split import open_model_split
from signllava_cli.api.translator import SignLlava
from signllava_cli.api.video_features import VideoOptions, VideoStreams, choose_video_streams
from signllava_cli.console import warning
from signllava_cli.data.split import Split
from signllava_cli.errors import UserError
from signllava_cli.serving.app import ServedModel


@dataclass(frozen=True)
class VideoConfig:
    """How videos are translated. `max_seconds`: of a cut."""

    options: VideoOptions = field(default_factory=VideoOptions)
    max_seconds: float = 600


def open_served_model(
    checkpoint: str,
    data: str | None,
    split: str,
    upload_limit: int,
    videos: Path | None,
    hosts: tuple[str, ...],
    config: dict[str, Any],
    video_config: VideoConfig | None = None,
) -> ServedModel:
    """The model of `checkpoint` and the split of `data`; see `serving.server.serve`.

    Raises:
        UserError: the model, the split or the folder of videos cannot be opened.
    """
    if videos is not None and not videos.is_dir():
        raise UserError(f"--videos {videos}: not a folder.")
    model = SignLlava.from_pretrained(checkpoint, **config)
    video_config = video_config or VideoConfig()
    video_streams = _choose_video_streams(model, video_config.options)
    opened_split = _open_split(model, data, split)
    return ServedModel(model, opened_split, videos, upload_limit, hosts, video_streams, video_config.max_seconds)


def _choose_video_streams(model: SignLlava, options: VideoOptions) -> VideoStreams | str:
    """How the streams of the model are made from a video, or why they cannot be made.

    Raises:
        UserError: they cannot be made, although an option for videos was given.
    """
    try:
        return choose_video_streams(list(model.streams), model.layouts, options)
    except UserError as error:
        if options != VideoOptions():
            raise
        return str(error)


def _open_split(model: SignLlava, data: str | None, split: str) -> Split | None:
    try:
        return open_model_split(model, split, data)
    except UserError as error:
        if data is not None:
            raise
        warning(f"no dataset is served, only uploads are possible: {error}")
        return None
