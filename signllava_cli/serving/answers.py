"""What the endpoints of the web app share: types of fields, answers, and uploads on disk."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, BinaryIO

from fastapi import Form
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, StringConstraints

NDJSON = "application/x-ndjson"
SentenceCountField = Annotated[int, Form(ge=0, le=100)]
Name = Annotated[str, StringConstraints(max_length=500)]


class ErrorDetail(BaseModel):
    """The reason why a request failed."""

    detail: str


def stream_lines(lines: Iterator[BaseModel]) -> Response:
    """An answer of one JSON object per line, each sent when it is there."""
    return StreamingResponse((line.model_dump_json() + "\n" for line in lines), media_type=NDJSON)


def not_found(detail: str) -> JSONResponse:
    """An answer with status 404."""
    return JSONResponse({"detail": detail}, status_code=404)


def save_upload(upload: BinaryIO, path: Path) -> Path:
    """Write an uploaded file to `path`, and return it."""
    with open(path, "wb") as file:
        shutil.copyfileobj(upload, file, 1 << 20)
    return path
