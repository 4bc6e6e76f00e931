"""Reads the index of a split: one memory-mapped Arrow file with everything about its clips except the frames.

It has one row per clip, in dataset order: names, position, texts, times, and for each stream the file, the HDF5
group, the number of frames, the width and the byte offset of the frames. Its metadata records the size and
modification time of every source file, so that a stale index is detected, and a checksum, so that a damaged one is.
`prepare/indexing.py` writes it.
"""

import hashlib
import json
import os
import weakref
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from signllava_cli.data.annotations import Clip, ContextBound, annotation_file
from signllava_cli.data.index_validation import FORMAT, HEAD, STREAM_COLUMNS, VOCABULARY, require_valid
from signllava_cli.data.stream_files import StreamLocation, find_metadata
from signllava_cli.errors import UserError, first_line


class Index:
    """An open index. The file is memory-mapped: only the columns and rows that are used are read.

    Args:
        root: the dataset folder.
        is_checked: another process has checked the values in the file; a check takes 0.3 s for a million clips.

    Raises:
        UserError: the file is not an index, is damaged, or has another format version.
    """

    def __init__(self, file: Path, root: Path, is_checked: bool = False) -> None:
        self.file, self.root = file, root
        try:
            self._descriptor = os.open(file, os.O_RDONLY)
            weakref.finalize(self, os.close, self._descriptor)
            self._opened_stamp = _stamp(os.fstat(self._descriptor))
            with pa.memory_map(str(file)) as source:
                self._table: Any = pa.ipc.open_file(source).read_all()
            self._head: dict[str, Any] = json.loads(self._table.schema.metadata[HEAD])
            if self._head["format"] != FORMAT:
                raise ValueError(f"format {self._head['format']}, expected {FORMAT}")
            if not is_checked:
                require_valid(self._table, self._head)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, pa.ArrowException) as error:
            raise UserError(
                f"{file} is not a valid index ({first_line(error)}); remove it: the next command rebuilds it."
            ) from None
        self._columns = {name: self._table.column(name) for name in self._table.column_names}

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __reduce__(self) -> tuple[Any, ...]:
        return Index, (self.file, self.root, True)  # a spawned process maps the file itself

    @property
    def streams(self) -> list[str]:
        """The names of the indexed streams."""
        return list(self._head["streams"])

    def clip(self, row: int) -> Clip:
        """The clip in `row`.

        Raises:
            UserError: another program has overwritten the index.
        """
        self.require_not_overwritten()
        bound = self._value("context_bound", row)
        return Clip(
            recording=self._value("recording", row),
            name=self._value("clip", row),
            position=self._value("position", row),
            translation=self._value("translation", row),
            paraphrases=tuple(self._value("paraphrases", row)),
            keywords=tuple(self._value("keywords", row)),
            context_bound=None if bound is None else _parse_context_bound(bound),
            start=self._value("start", row),
            end=self._value("end", row),
            row=row,
        )

    @property
    def has_unique_names(self) -> bool:
        """Whether no two clips of the split have the same name."""
        return bool(self._head["unique_names"])

    def id(self, row: int) -> str:
        """`recording/clip` of the clip in `row`."""
        return f"{self._value('recording', row)}/{self._value('clip', row)}"

    def ids(self) -> Any:
        """`recording/clip` of every clip, as a pyarrow.ChunkedArray of large strings."""
        separator = pa.scalar("/", pa.large_string())
        return pc.binary_join_element_wise(self.column("recording"), self.column("clip"), separator)

    def translation(self, row: int) -> str:
        """The reference translation of the clip in `row`."""
        return str(self._value("translation", row))

    def column(self, name: str) -> Any:
        """All values of a column, as a pyarrow.ChunkedArray."""
        return self._columns[name]

    @property
    def positions(self) -> np.ndarray:
        """The position of each clip in its recording, int32 (clips,)."""
        return self._numbers("position")

    @property
    def recordings(self) -> np.ndarray:
        """The number of each clip's recording, counted from 0 in dataset order, int64 (clips,)."""
        return np.cumsum(self.positions == 0) - 1

    @cached_property
    def text_bytes(self) -> np.ndarray:
        """The UTF-8 bytes of each clip's translation, int64 (clips,)."""
        texts = self._columns["translation"].chunk(0)
        return np.diff(np.frombuffer(texts.buffers()[1], np.int64)[texts.offset : texts.offset + len(texts) + 1])

    def frame_counts(self, stream: str) -> np.ndarray:
        """The number of frames of each clip, int32 (clips,)."""
        return self._numbers(f"{stream}/frames")

    def widths(self, stream: str) -> np.ndarray:
        """The width of each clip's frames, int32 (clips,); 0 for a clip without frames."""
        return self._numbers(f"{stream}/width")

    def file_indices(self, stream: str) -> np.ndarray:
        """The index in `files(stream)` of each clip's shard, int32 (clips,); -1 for a clip without frames."""
        return self._numbers(f"{stream}/file")

    def offsets(self, stream: str) -> np.ndarray:
        """The byte offset of each clip's float16 frames in its shard, int64 (clips,); -1: only HDF5 can read them."""
        return self._numbers(f"{stream}/offset")

    def dataset_path(self, stream: str, clip: Clip) -> str:
        """The path of the HDF5 dataset of `clip` in its shard."""
        group = int(self._numbers(f"{stream}/group")[clip.row])
        return f"{clip.recording if group < 0 else self._head['streams'][stream]['groups'][group]}/{clip.name}"

    def files(self, stream: str) -> list[Path]:
        """The shards of `stream`."""
        return [self.root / file["path"] for file in self._head["streams"][stream]["files"]]

    def layout(self, stream: str) -> str | None:
        """The layout of the stream, the name of what its numbers are, if its shards have one."""
        layout: str | None = self._head["streams"][stream]["layout"]
        return layout

    @cached_property
    def vocabulary(self) -> list[str]:
        """The keywords of the split, case-folded, unique and sorted."""
        return list(json.loads(self._table.schema.metadata[VOCABULARY]))

    @property
    def annotation_hash(self) -> str:
        """SHA-256 of the annotation."""
        return str(self._head["annotation"]["sha256"])

    def fingerprint(self, streams: Sequence[str]) -> str:
        """SHA-256 of the annotation, the metadata of `streams`, and names, sizes and samples of their shards."""
        digest = hashlib.sha256(self.annotation_hash.encode())
        for name in streams:
            stream = self._head["streams"][name]
            digest.update(stream["metadata"]["sha256"].encode())
            digest.update(
                "".join(
                    f"{Path(shard['path']).name}:{shard['size']}:{shard['sample']}\n" for shard in stream["files"]
                ).encode()
            )
        return digest.hexdigest()

    def stale_reason(self, split: str, streams: Mapping[str, StreamLocation]) -> str | None:
        """Which source has changed since the index was built, or which of `streams` it lacks; None if it is current.

        Raises:
            UserError: a stream has no metadata file.
        """
        annotation = annotation_file(self.root, split)
        if not _is_unchanged(annotation, self._head["annotation"]):
            return f"{annotation} has changed"
        return next(filter(None, (self.stream_stale_reason(split, *stream) for stream in streams.items())), None)

    def stream_stale_reason(self, split: str, name: str, config: StreamLocation) -> str | None:
        """`stale_reason` of one stream; changes of the annotation are ignored."""
        indexed = self._head["streams"].get(name)
        metadata = find_metadata(self.root, split, name, config)
        if indexed is None:
            return f"stream {name} is not in it"
        if indexed["pattern"] != config.shards or self.root / indexed["metadata"]["path"] != metadata:
            return f"stream {name} was read from other files"
        return self.changed_file(name)

    def changed_file(self, stream: str) -> str | None:
        """A message that names a source file of `stream` that has changed, or None."""
        head = self._head["streams"][stream]
        sources = ((self.root / source["path"], source) for source in (head["metadata"], *head["files"]))
        return next((f"{file} has changed" for file, source in sources if not _is_unchanged(file, source)), None)

    def require_unchanged(self, shard: Path, descriptor: int | None = None) -> None:
        """Check that `shard` is the indexed file: in another one, the offsets would point to frames of other clips.

        Args:
            descriptor: of the open shard, which is checked instead of the file that has its name now.

        Raises:
            UserError: it has changed or was removed; or the index itself was overwritten.
            OSError: the file cannot be examined.
        """
        try:
            stat = os.stat(shard if descriptor is None else descriptor)
        except FileNotFoundError:
            raise UserError(
                f"{shard} was removed after the split was opened; restore it, and run the command again."
            ) from None
        if _stamp(stat) != self._fingerprints[shard]:
            raise UserError(
                f"{shard} has changed since the split was opened; restore it, write no shard that a command "
                "reads, and run the command again."
            )
        self.require_not_overwritten()

    def require_not_overwritten(self) -> None:
        """Check that the mapped file is as it was opened. It is written anew under its name, never overwritten.

        Raises:
            UserError: another program has overwritten it.
        """
        if _stamp(os.fstat(self._descriptor)) != self._opened_stamp:
            raise UserError(
                f"{self.file} was overwritten while it was in use; run the command again: it checks the index, and "
                "rebuilds it if needed."
            )

    @cached_property
    def _fingerprints(self) -> dict[Path, tuple[int, int]]:
        """Shard -> its size and modification time."""
        files = [file for stream in self._head["streams"].values() for file in stream["files"]]
        return {self.root / file["path"]: (file["size"], file["mtime_ns"]) for file in files}

    def stream_columns(self, stream: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """The columns of `stream` by name, and its metadata."""
        names = [f"{stream}/{column}" for column in STREAM_COLUMNS]
        return {name: self._numbers(name) for name in names}, self._head["streams"][stream]

    def _value(self, column: str, row: int) -> Any:
        return self._columns[column][row].as_py()

    def _numbers(self, column: str) -> np.ndarray:
        values = self._columns[column].chunk(0)  # not to_numpy(): it imports pandas, 40 MB and half a second
        dtype = np.dtype(values.type.to_pandas_dtype())
        return np.frombuffer(values.buffers()[1], dtype)[values.offset : values.offset + len(values)]


class Clips(Sequence[Clip]):
    """The clips in some rows of an index. Each is created when it is accessed."""

    def __init__(self, index: Index, rows: np.ndarray) -> None:
        self._index, self.rows = index, rows

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, key: int) -> Clip: ...
    @overload
    def __getitem__(self, key: slice) -> list[Clip]: ...
    def __getitem__(self, key: int | slice) -> Clip | list[Clip]:
        if isinstance(key, slice):
            return [self._index.clip(int(row)) for row in self.rows[key]]
        return self._index.clip(int(self.rows[key]))

    def __iter__(self) -> Iterator[Clip]:
        return (self._index.clip(int(row)) for row in self.rows)


def file_fingerprint(file: Path, root: Path) -> dict[str, Any]:
    """Path (relative to `root` if inside it), size and modification time of a source file."""
    stat = file.stat()
    path = file.relative_to(root) if file.is_relative_to(root) else file.absolute()
    return {"path": str(path), "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}


def _is_unchanged(file: Path, source: Mapping[str, Any]) -> bool:
    try:
        return _stamp(os.stat(file)) == (source["size"], source["mtime_ns"])
    except OSError:
        return False


def _stamp(stat: os.stat_result) -> tuple[int, int]:
    """Size and modification time: what changes when a file is written."""
    return stat.st_size, stat.st_mtime_ns


def _parse_context_bound(text: str) -> ContextBound:
    bound = json.loads(text)
    return ContextBound(bound["needs"], bound["reading"], tuple(bound["others"]))
