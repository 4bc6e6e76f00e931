"""The web app: a page, and the HTTP endpoints that it calls, described in /openapi.json."""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import FastAPI, File, Form, Query, Request, UploadFile
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, StringConstraints
from starlette.middleware.trustedhost import TrustedHostMiddleware

from signllava_cli.api.translator import SignLlava
from signllava_cli.data.split import Split
from signllava_cli.errors import UserError
from signllava_cli.serving.clip_lines import ClipLine, Source, translate_dataset_clips, translate_uploaded_clips
from signllava_cli.serving.limits import UploadLimit
from signllava_cli.serving.uploads import read_uploads
from signllava_cli.serving.videos import Videos

LINES = "application/x-ndjson"
Sentences = Annotated[int, Query(ge=0, le=100)]
SentencesField = Annotated[int, Form(ge=0, le=100)]
Name = Annotated[str, StringConstraints(max_length=500)]
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; media-src 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


class ModelFacts(BaseModel):
    """What the page shows of the model."""

    checkpoint: str
    streams: dict[str, int]
    window: int
    prelude: int
    split: str | None


class RecordingFacts(BaseModel):
    """A recording of the dataset."""

    name: str
    clips: int
    video: bool


class ErrorDetail(BaseModel):
    """Why a request cannot be answered."""

    detail: str


@dataclass(frozen=True)
class ServedModel:
    """What the app works on: a model, perhaps a split of a dataset with its videos, and the limit of an upload."""

    model: SignLlava
    split: Split | None
    videos: Path | None
    upload_limit: int
    hosts: tuple[str, ...]


def make_app(served: ServedModel) -> FastAPI:
    """The app on `served`. It answers to `served.hosts` alone, and so to no site that borrows its address."""
    app = FastAPI(
        title="signllava",
        description="Sign-language translation: recordings of a dataset, or feature files that are uploaded.",
        docs_url=None,  # its page would be fetched from another host
        redoc_url=None,
    )
    app.add_middleware(UploadLimit, limit=served.upload_limit)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(served.hosts))

    @app.middleware("http")
    async def with_headers(request: Request, call_next: Any) -> Response:
        response: Response = await call_next(request)
        response.headers.update(HEADERS)
        return response

    @app.exception_handler(UserError)
    def refused(request: Request, error: UserError) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, status_code=422)

    by_recording = _by_recording(served.split)
    videos = Videos(served.videos, served.split.annotated if served.split else [])

    @app.get("/api/model")
    def model() -> ModelFacts:
        """The model, the streams that it takes, and its own context window and prelude."""
        recipe, checkpoint = served.model.recipe, served.model.checkpoint
        return ModelFacts(
            checkpoint=f"{checkpoint.resolve().parent.name}/{checkpoint.resolve().name}",
            streams=served.model.streams,
            window=recipe.context.window,
            prelude=recipe.context.prelude,
            split=served.split.name if served.split else None,
        )

    @app.get("/api/recordings")
    def recordings() -> list[RecordingFacts]:
        """The recordings of the dataset, in its order."""
        return [
            RecordingFacts(name=name, clips=len(rows), video=videos.of_recording(name) is not None)
            for name, rows in by_recording.items()
        ]

    @app.get("/api/video", responses={404: {"model": ErrorDetail}}, response_class=FileResponse)
    def video(recording: Name, clip: Name | None = None) -> Response:
        """The video of a recording of the dataset, or of one of its clips alone."""
        rows = by_recording.get(recording, [])
        if clip is None:
            found = videos.of_recording(recording) if rows else None
        else:
            its = (served.split.annotated[row] for row in rows) if served.split else ()
            found = next((videos.of_clip(each) for each in its if each.name == clip), None)
        what = repr(recording) if clip is None else f"clip {clip!r} of {recording!r}"
        return _not_found(f"no video of {what}") if found is None else FileResponse(found)

    @app.post(
        "/api/recordings/translate",
        response_class=StreamingResponse,
        responses={200: {"content": {LINES: {"schema": ClipLine.model_json_schema()}}}, 404: {"model": ErrorDetail}},
    )
    def translate_recording(
        recording: Name, window: Sentences = 0, prelude: Sentences = 0, source: Source = "predicted"
    ) -> Response:
        """Translate a recording of the dataset: one JSON object a clip, each sent as soon as it is there."""
        if served.split is None or recording not in by_recording:
            return _not_found(f"no recording {recording!r}")
        clips = [served.split.annotated[row] for row in by_recording[recording]]
        return _stream_lines(
            translate_dataset_clips(served.model, served.split, videos, clips, window, prelude, source)
        )

    @app.post(
        "/api/uploads/translate",
        response_class=StreamingResponse,
        responses={200: {"content": {LINES: {"schema": ClipLine.model_json_schema()}}}, 413: {"model": ErrorDetail}},
    )
    def translate_uploads(
        uploads: Annotated[list[UploadFile], File(description=".h5, .npy, .npz and .pose files of one recording")],
        window: SentencesField = 0,
        prelude: SentencesField = 0,
        source: Annotated[Literal["none", "predicted"], Form()] = "predicted",
    ) -> Response:
        """Translate feature files as one recording, their clips in the order of their names."""
        with tempfile.TemporaryDirectory() as folder:
            kept = []
            for number, upload in enumerate(uploads):
                path = Path(folder) / str(number)
                with open(path, "wb") as file:
                    while block := upload.file.read(1 << 20):
                        file.write(block)
                kept.append((upload.filename or "", path))
            clips = read_uploads(kept, served.model.streams, served.upload_limit, served.model.layouts)
        return _stream_lines(translate_uploaded_clips(served.model, clips, window, prelude, source))

    page = files("signllava_cli.serving") / "page"
    app.mount("/", StaticFiles(directory=str(page), html=True), name="page")
    return app


def _stream_lines(lines: Iterator[ClipLine]) -> Response:
    return StreamingResponse((line.model_dump_json() + "\n" for line in lines), media_type=LINES)


def _not_found(detail: str) -> JSONResponse:
    return JSONResponse({"detail": detail}, status_code=404)


def _by_recording(split: Split | None) -> dict[str, Sequence[int]]:
    """Recording -> the rows of its clips."""
    clips = split.annotated if split else []
    return {name: [clip.row for clip in its] for name, its in groupby(clips, key=lambda clip: clip.recording)}
