"""The endpoints of the web app for videos that are translated themselves, without feature files."""

import tempfile
from pathlib import Path
from typing import Annotated, Literal

from fastapi import FastAPI, File, Form, UploadFile
from fastapi.responses import FileResponse, Response, StreamingResponse
from pydantic import BaseModel

from signllava_cli.api.translator import SignLlava
from signllava_cli.api.video_features import VideoStreams, read_cut
from signllava_cli.errors import UserError
from signllava_cli.serving.answers import (
    NDJSON,
    ErrorDetail,
    Name,
    SentenceCountField,
    not_found,
    save_upload,
    stream_lines,
)
from signllava_cli.serving.recent_clips import RecentClips
from signllava_cli.serving.video_lines import ProgressLine, VideoLine, VideoRequest, translate_video
from signllava_cli.serving.video_process import VideoProcess
from signllava_cli.serving.videos import list_videos

SecondsField = Annotated[float | None, Form(ge=0, le=1e6)]


class ListedVideo(BaseModel):
    """A video of the folder of `--videos`."""

    name: str


def add_video_endpoints(
    app: FastAPI,
    model: SignLlava,
    recent: RecentClips,
    folder: Path | None,
    streams: VideoStreams | str,
    max_seconds: float,
) -> None:
    """Add the endpoints to `app`.

    Args:
        recent: where translated segments are kept.
        folder: of videos to choose from.
        streams: how the streams of the model are made from a video, or why they cannot be made; then no video is
            listed.
        max_seconds: of a cut.
    """
    process = None if isinstance(streams, str) else VideoProcess(streams)
    videos = {} if process is None or folder is None else list_videos(folder)

    @app.get("/api/videos")
    def list_all() -> list[ListedVideo]:
        """The videos that can be chosen."""
        return [ListedVideo(name=name) for name in videos]

    @app.get("/api/videos/file", responses={404: {"model": ErrorDetail}}, response_class=FileResponse)
    def video_file(name: Name) -> Response:
        """A video of the list."""
        return FileResponse(videos[name]) if name in videos else not_found(f"no video {name!r}")

    @app.post(
        "/api/videos/translate",
        response_class=StreamingResponse,
        responses={
            200: {"content": {NDJSON: {"schema": _line_schema()}}},
            404: {"model": ErrorDetail},
            413: {"model": ErrorDetail},
        },
    )
    def translate(
        upload: Annotated[UploadFile | None, File(description="a video: .mp4, .webm, .mkv, .mov, ...")] = None,
        name: Annotated[Name | None, Form(description="a video of the list, instead of an upload")] = None,
        start: SecondsField = None,
        end: SecondsField = None,
        cut: Annotated[
            Literal["whole", "pauses"], Form(description="one clip, or segments between pauses")
        ] = "whole",
        window: SentenceCountField = 0,
        prelude: SentenceCountField = 0,
        source: Annotated[Literal["none", "predicted"], Form()] = "predicted",
    ) -> Response:
        """Translate a video: JSON objects of the progress and of each translated segment, as they come."""
        if process is None:
            raise UserError(f"No video can be translated: {streams}")
        if (upload is None) == (name is None):
            raise UserError("Send either a video as `upload`, or the `name` of one of the list.")
        uploads = None
        if upload is not None:
            uploads = tempfile.TemporaryDirectory()
            file, title = save_upload(upload.file, Path(uploads.name) / "video"), upload.filename or "video"
        elif name in videos:
            file, title = videos[name], name
        else:
            return not_found(f"no video {name!r}")
        request = VideoRequest(title, read_cut(file, start, end), cut == "pauses", max_seconds, uploads)
        return stream_lines(translate_video(model, recent, process, request, window, prelude, source))


def _line_schema() -> dict[str, object]:
    return {"anyOf": [VideoLine.model_json_schema(), ProgressLine.model_json_schema()]}
