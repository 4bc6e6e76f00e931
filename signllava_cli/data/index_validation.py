"""Checks an index before it is used: Arrow believes the offsets in a file, and a wrong one crashes the process."""

import json
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import ConfigDict, TypeAdapter
from typing_extensions import TypedDict

FORMAT = 4
STREAM_COLUMNS = ("frames", "width", "file", "group", "offset")
# Keys of the metadata in the schema of the table.
HEAD, VOCABULARY, CHECKSUM = b"signllava index", b"signllava vocabulary", b"signllava checksum"

_TEXT = pa.large_string()
_COLUMN_TYPES = {
    "recording": _TEXT,
    "clip": _TEXT,
    "position": pa.int32(),
    "translation": _TEXT,
    "paraphrases": pa.large_list(_TEXT),
    "keywords": pa.large_list(_TEXT),
    "context_bound": _TEXT,
    "start": pa.float64(),
    "end": pa.float64(),
}
_STREAM_TYPES = {name: pa.int64() if name == "offset" else pa.int32() for name in STREAM_COLUMNS}
_NULLABLE = ("context_bound", "start", "end")


class _Source(TypedDict):
    path: str
    size: int
    mtime_ns: int


class _Hashed(_Source):
    sha256: str


class _Shard(_Source):
    sample: str


class _Stream(TypedDict):
    pattern: str | None
    metadata: _Hashed
    files: list[_Shard]
    groups: list[str]
    layout: str | None


class _Head(TypedDict):
    __pydantic_config__ = ConfigDict(strict=True)  # type: ignore[misc]
    split: str
    annotation: _Hashed
    unique_names: bool
    streams: dict[str, _Stream]


_HEAD = TypeAdapter(_Head)


def require_valid(table: Any, head: Mapping[str, Any]) -> None:
    """Check that `table` has the columns, types and values that an index has.

    Raises:
        ValueError, pyarrow.ArrowException: it has not.
    """
    _HEAD.validate_python(head)
    if not isinstance(json.loads(table.schema.metadata[VOCABULARY]), list):
        raise ValueError("its vocabulary is not a list")
    types = dict(_COLUMN_TYPES)
    for stream in head["streams"]:
        types |= {f"{stream}/{column}": kind for column, kind in _STREAM_TYPES.items()}
    for name, kind in types.items():
        if table.schema.field(name).type != kind:
            raise ValueError(f"column {name} is of type {table.schema.field(name).type}")
    table.validate(full=True)
    for name in types:
        column = table.column(name)
        if len(column) and column.num_chunks != 1:
            raise ValueError(f"column {name} has {column.num_chunks} parts")
        if name not in _NULLABLE and column.null_count:
            raise ValueError(f"column {name} has {column.null_count} missing values")
    for name, stream in head["streams"].items():
        limits: dict[str, tuple[int, int | None]] = {"frames": (0, None), "width": (0, None), "offset": (-1, None)}
        limits |= {"file": (-1, len(stream["files"])), "group": (-1, len(stream["groups"]))}
        for column, (first, end) in limits.items():
            _require_range(table.column(f"{name}/{column}"), first, end)
    if table.schema.metadata[CHECKSUM] != compute_checksum(table):
        raise ValueError("damaged")


def _require_range(column: Any, first: int, end: int | None) -> None:
    values = np.concatenate([_numbers(chunk) for chunk in column.chunks] or [np.zeros(0, np.int64)])
    if len(values) and (values.min() < first or (end is not None and values.max() >= end)):
        raise ValueError(f"values from {values.min()} to {values.max()} are not possible")


def _numbers(chunk: Any) -> np.ndarray:
    dtype = np.dtype(chunk.type.to_pandas_dtype())
    return np.frombuffer(chunk.buffers()[1], dtype)[chunk.offset : chunk.offset + len(chunk)]


def compute_checksum(table: Any) -> bytes:
    """CRC-32 of the columns and the metadata of an index, as hexadecimal digits.

    `table`: as it is read from a file, because buffers are padded when they are written.
    """
    metadata = table.schema.metadata
    checksum = zlib.crc32(
        metadata[HEAD]
        + metadata[VOCABULARY]
        + repr([*zip(table.schema.names, table.schema.types, strict=True)]).encode()
    )
    for chunk in (chunk for column in table.columns for chunk in column.chunks):
        for buffer in filter(None, chunk.buffers()):
            checksum = zlib.crc32(buffer, checksum)
    return f"{checksum:08x}".encode()
