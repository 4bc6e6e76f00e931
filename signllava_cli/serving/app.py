"""The web app: a page, and the HTTP endpoints that it uses, described in /openapi.json."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files as resource_files
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import FastAPI, File, Form, Query, Request, UploadFile
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel
from starlette.middleware.trustedhost import TrustedHostMiddleware

from signllava_cli.api.translator import SignLlava
from signllava_cli.api.video_features import VideoStreams
from signllava_cli.data.split import Split
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
from signllava_cli.serving.attention_endpoint import add_attention_endpoint
from signllava_cli.serving.clip_lines import ClipLine, Source, translate_dataset_clips, translate_uploaded_clips
from signllava_cli.serving.limits import SameOrigin, UploadLimit, WorkLimit
from signllava_cli.serving.recent_clips import RecentClips
from signllava_cli.serving.uploads import read_uploads
from signllava_cli.serving.video_endpoints import add_video_endpoints
from signllava_cli.serving.videos import Videos

SentenceCount = Annotated[int, Query(ge=0, le=100)]
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' data:; media-src 'self' blob:; frame-ancestors 'none'; "
        "object-src 'none'; base-uri 'none'; form-action 'self'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


class ModelInfo(BaseModel):
    """The model, as the page shows it. `window`, `prelude`: those of its training.

    `no_video`: why it cannot translate a video; None: it can.
    """

    checkpoint: str
    streams: dict[str, int]
    window: int
    prelude: int
    split: str | None
    no_video: str | None


class RecordingInfo(BaseModel):
    """A recording of the dataset. `clips`: their number; `video`: whether it has one."""

    name: str
    clips: int
    video: bool


@dataclass(frozen=True)
class ServedModel:
    """A model, optionally a split with videos, the maximal bytes of an upload, and the allowed host names.

    `video_streams`: how its streams are made from a video, or why they cannot be made. `max_video_seconds`: of a cut.
    """

    model: SignLlava
    split: Split | None
    videos: Path | None
    upload_limit: int
    hosts: tuple[str, ...]
    video_streams: VideoStreams | str
    max_video_seconds: float


def make_app(served: ServedModel) -> FastAPI:
    """The app for `served`. Requests for other hosts than `served.hosts` are rejected (DNS rebinding)."""
    app = FastAPI(
        title="signllava",
        description="Sign-language translation of recordings of a dataset, or of uploaded feature files.",
        docs_url=None,  # its page loads scripts from another host
        redoc_url=None,
    )
    app.add_middleware(UploadLimit, limit=served.upload_limit)
    app.add_middleware(WorkLimit)
    app.add_middleware(SameOrigin)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(served.hosts))

    @app.middleware("http")
    async def add_headers(request: Request, call_next: Any) -> Response:
        response: Response = await call_next(request)
        response.headers.update(HEADERS)
        return response

    @app.exception_handler(UserError)
    def answer_user_error(request: Request, error: UserError) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, status_code=422)

    rows_by_recording = _rows_by_recording(served.split)
    recent = RecentClips()
    videos = Videos(served.videos, served.split.annotated if served.split else [])

    @app.get("/api/model")
    def model() -> ModelInfo:
        """The model, its streams, and the context window and prelude of its training."""
        recipe, checkpoint = served.model.recipe, served.model.checkpoint
        return ModelInfo(
            checkpoint=f"{checkpoint.resolve().parent.name}/{checkpoint.resolve().name}",
            streams=served.model.streams,
            window=recipe.context.window,
            prelude=recipe.context.prelude,
            split=served.split.name if served.split else None,
            no_video=served.video_streams if isinstance(served.video_streams, str) else None,
        )

    @app.get("/api/recordings")
    def recordings() -> list[RecordingInfo]:
        """The recordings of the dataset, in dataset order."""
        return [
            RecordingInfo(name=name, clips=len(rows), video=videos.of_recording(name) is not None)
            for name, rows in rows_by_recording.items()
        ]

    @app.get("/api/video", responses={404: {"model": ErrorDetail}}, response_class=FileResponse)
    def video(recording: Name, clip: Name | None = None) -> Response:
        """The video of a recording of the dataset, or of one of its clips."""
        rows = rows_by_recording.get(recording, [])
        if clip is None:
            file = videos.of_recording(recording) if rows else None
        else:
            clips = (served.split.annotated[row] for row in rows) if served.split else ()
            file = next((videos.of_clip(candidate) for candidate in clips if candidate.name == clip), None)
        subject = repr(recording) if clip is None else f"clip {clip!r} of {recording!r}"
        return not_found(f"no video of {subject}") if file is None else FileResponse(file)

    @app.post(
        "/api/recordings/translate",
        response_class=StreamingResponse,
        responses={200: {"content": {NDJSON: {"schema": ClipLine.model_json_schema()}}}, 404: {"model": ErrorDetail}},
    )
    def translate_recording(
        recording: Name, window: SentenceCount = 0, prelude: SentenceCount = 0, source: Source = "predicted"
    ) -> Response:
        """Translate a recording of the dataset: one JSON object per clip, sent when the clip is translated."""
        if served.split is None or recording not in rows_by_recording:
            return not_found(f"no recording {recording!r}")
        clips = [served.split.annotated[row] for row in rows_by_recording[recording]]
        return stream_lines(
            translate_dataset_clips(served.model, recent, served.split, videos, clips, window, prelude, source)
        )

    @app.post(
        "/api/uploads/translate",
        response_class=StreamingResponse,
        responses={200: {"content": {NDJSON: {"schema": ClipLine.model_json_schema()}}}, 413: {"model": ErrorDetail}},
    )
    def translate_uploads(
        uploads: Annotated[list[UploadFile], File(description=".h5, .npy, .npz and .pose files of one recording")],
        window: SentenceCountField = 0,
        prelude: SentenceCountField = 0,
        source: Annotated[Literal["none", "predicted"], Form()] = "predicted",
    ) -> Response:
        """Translate feature files as one recording, with the clips in the order of their names."""
        with tempfile.TemporaryDirectory() as folder:
            files = [
                (upload.filename or "", save_upload(upload.file, Path(folder) / str(number)))
                for number, upload in enumerate(uploads)
            ]
            clips = read_uploads(files, served.model.streams, served.upload_limit, served.model.layouts)
        return stream_lines(translate_uploaded_clips(served.model, recent, clips, window, prelude, source))

    add_attention_endpoint(app, served.model, recent)
    add_video_endpoints(app, served.model, recent, served.videos, served.video_streams, served.max_video_seconds)
    page = resource_files("signllava_cli.serving") / "page"
    app.mount("/", StaticFiles(directory=str(page), html=True), name="page")
    return app


def _rows_by_recording(split: Split | None) -> dict[str, Sequence[int]]:
    """Recording -> the rows of its clips."""
    clips = split.annotated if split else []
    return {name: [clip.row for clip in group] for name, group in groupby(clips, key=lambda clip: clip.recording)}
