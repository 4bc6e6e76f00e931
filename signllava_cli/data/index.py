"""The index of a split: one Arrow file, mapped into memory, that says all of a clip but its frames.

A row per clip, in dataset order: names, position, texts, times, and for each stream the file, the HDF5 group, the
length, the width and the byte where the frames begin. The sources are named with their size and time of change, so
that an index that no longer tells the truth is noticed. `indexing.py` makes it.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa

from signllava_cli.data.annotations import Clip, ContextBound, annotation_file
from signllava_cli.data.stream_files import StreamLocation, find_metadata
from signllava_cli.errors import UserError

FORMAT = 3
STREAM_COLUMNS = ("frames", "width", "file", "group", "offset")
HEAD, VOCABULARY = b"signllava index", b"signllava vocabulary"


class Index:
    """An opened index. The file is only mapped: what is not asked for is not read.

    Raises:
        UserError: the file is no index, or one of another version.
    """

    def __init__(self, file: Path, root: Path) -> None:
        self.file, self.root = file, root
        try:
            with pa.memory_map(str(file)) as source:
                self._table: Any = pa.ipc.open_file(source).read_all()
            self._head: dict[str, Any] = json.loads(self._table.schema.metadata[HEAD])
            if self._head["format"] != FORMAT:
                raise ValueError("of another version")
        except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
            raise UserError(f"{file} is no index ({error}); remove it, it is made anew.") from None
        self._columns = {name: self._table.column(name) for name in self._table.column_names}

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __reduce__(self) -> tuple[Any, ...]:
        return Index, (self.file, self.root)  # a process that was not forked maps the file itself

    @property
    def streams(self) -> list[str]:
        """The names of the streams that are indexed."""
        return list(self._head["streams"])

    def clip(self, row: int) -> Clip:
        """The clip in `row`."""
        bound = self._value("context_bound", row)
        return Clip(
            recording=self._value("recording", row),
            name=self._value("clip", row),
            position=self._value("position", row),
            translation=self._value("translation", row),
            paraphrases=tuple(self._value("paraphrases", row)),
            keywords=tuple(self._value("keywords", row)),
            context_bound=None if bound is None else _context_bound(bound),
            start=self._value("start", row),
            end=self._value("end", row),
            row=row,
        )

    @property
    def has_unique_names(self) -> bool:
        """Whether no two clips have the same name."""
        return bool(self._head["unique_names"])

    def id(self, row: int) -> str:
        """`recording/clip` of the clip in `row`."""
        return f"{self._value('recording', row)}/{self._value('clip', row)}"

    def translation(self, row: int) -> str:
        """The text of the clip in `row`."""
        return str(self._value("translation", row))

    def column(self, name: str) -> Any:
        """All values of a column, as Arrow's chunked array."""
        return self._columns[name]

    @property
    def positions(self) -> np.ndarray:
        """The position of each clip in its recording, int32 (clips,)."""
        return self._numbers("position")

    @cached_property
    def text_bytes(self) -> np.ndarray:
        """The length of each clip's text in bytes of UTF-8, int64 (clips,)."""
        texts = self._columns["translation"].chunk(0)
        return np.diff(np.frombuffer(texts.buffers()[1], np.int64)[texts.offset : texts.offset + len(texts) + 1])

    def frames(self, stream: str) -> np.ndarray:
        """The number of frames of each clip, int32 (clips,); 0 where it has none."""
        return self._numbers(f"{stream}/frames")

    def widths(self, stream: str) -> np.ndarray:
        """The width of each clip's frames, int32 (clips,); 0 where it has none."""
        return self._numbers(f"{stream}/width")

    def file_numbers(self, stream: str) -> np.ndarray:
        """Which of `files(stream)` holds each clip, int32 (clips,); -1 where it has no frames."""
        return self._numbers(f"{stream}/file")

    def offsets(self, stream: str) -> np.ndarray:
        """The byte where each clip's float16 frames begin, int64 (clips,); -1 where only HDF5 can tell."""
        return self._numbers(f"{stream}/offset")

    def dataset(self, stream: str, clip: Clip) -> str:
        """The path of the array of `clip` in its HDF5 file."""
        group = int(self._numbers(f"{stream}/group")[clip.row])
        return f"{clip.recording if group < 0 else self._head['streams'][stream]['groups'][group]}/{clip.name}"

    def files(self, stream: str) -> list[Path]:
        """The shards of `stream`."""
        return [self.root / each["path"] for each in self._head["streams"][stream]["files"]]

    def layout(self, stream: str) -> str | None:
        """The name of what the numbers of the stream are, where its shards say so."""
        layout: str | None = self._head["streams"][stream]["layout"]
        return layout

    @cached_property
    def vocabulary(self) -> list[str]:
        """Every keyword of the split, case-folded, once, sorted."""
        return list(json.loads(self._table.schema.metadata[VOCABULARY]))

    def fingerprint(self, streams: Sequence[str]) -> str:
        """SHA-256 of the annotation, of the metadata of `streams`, and of their shards: names, sizes, samples."""
        digest = hashlib.sha256(self._head["annotation"]["sha256"].encode())
        for name in streams:
            stream = self._head["streams"][name]
            digest.update(stream["metadata"]["sha256"].encode())
            digest.update(
                "".join(f"{Path(s['path']).name}:{s['size']}:{s['sample']}\n" for s in stream["files"]).encode()
            )
        return digest.hexdigest()

    def why_stale(self, split: str, streams: Mapping[str, StreamLocation]) -> str | None:
        """What has changed since the index was made, or what it lacks of `streams`; None when it tells the truth.

        Raises:
            UserError: a stream has no metadata file.
        """
        annotation = annotation_file(self.root, split)
        if not _unchanged(annotation, self._head["annotation"]):
            return f"{annotation} has changed"
        return next(filter(None, (self.why_stream_stale(split, *stream) for stream in streams.items())), None)

    def why_stream_stale(self, split: str, name: str, config: StreamLocation) -> str | None:
        """The same for one stream, whatever became of the annotation."""
        indexed = self._head["streams"].get(name)
        metadata = find_metadata(self.root, split, name, config)
        if indexed is None:
            return f"stream {name} is not in it"
        if indexed["pattern"] != config.shards or self.root / indexed["metadata"]["path"] != metadata:
            return f"stream {name} was read from other files"
        return self.changed_file(name)

    def changed_file(self, stream: str) -> str | None:
        """Which of the files that `stream` was read from has changed, if one has."""
        head = self._head["streams"][stream]
        sources = ((self.root / each["path"], each) for each in (head["metadata"], *head["files"]))
        return next((f"{file} has changed" for file, source in sources if not _unchanged(file, source)), None)

    def require_unchanged(self, shard: Path) -> None:
        """Check that `shard` is what was indexed: offsets of another file would give frames of other clips.

        Raises:
            UserError: it has changed since.
        """
        if not _unchanged(shard, self._stamps[shard]):
            raise UserError(f"{shard} has changed since the split was opened; run the command again.")

    @cached_property
    def _stamps(self) -> dict[Path, dict[str, Any]]:
        streams = self._head["streams"].values()
        return {self.root / each["path"]: each for stream in streams for each in stream["files"]}

    def stream_columns(self, stream: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """All that the index holds of `stream`: its columns by name, and what is said of its files."""
        names = [f"{stream}/{column}" for column in STREAM_COLUMNS]
        return {name: self._numbers(name) for name in names}, self._head["streams"][stream]

    def _value(self, column: str, row: int) -> Any:
        return self._columns[column][row].as_py()

    def _numbers(self, column: str) -> np.ndarray:
        values = self._columns[column].chunk(0)  # not values.to_numpy(): that imports pandas, 40 MB and half a second
        dtype = np.dtype(values.type.to_pandas_dtype())
        return np.frombuffer(values.buffers()[1], dtype)[values.offset : values.offset + len(values)]


class Clips(Sequence[Clip]):
    """The clips of some rows of an index, each made when it is asked for."""

    def __init__(self, index: Index, rows: np.ndarray) -> None:
        self.source, self.rows = index, rows

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, place: int) -> Clip: ...
    @overload
    def __getitem__(self, place: slice) -> list[Clip]: ...
    def __getitem__(self, place: int | slice) -> Clip | list[Clip]:
        if isinstance(place, slice):
            return [self.source.clip(int(row)) for row in self.rows[place]]
        return self.source.clip(int(self.rows[place]))

    def __iter__(self) -> Iterator[Clip]:
        return (self.source.clip(int(row)) for row in self.rows)


def file_fingerprint(file: Path, root: Path) -> dict[str, Any]:
    """Path (relative to `root` where it lies in it), size and time of change of a source."""
    state = file.stat()
    path = file.relative_to(root) if file.is_relative_to(root) else file.absolute()
    return {"path": str(path), "size": state.st_size, "mtime_ns": state.st_mtime_ns}


def _unchanged(file: Path, source: Mapping[str, Any]) -> bool:
    try:
        state = os.stat(file)
    except OSError:
        return False
    return (state.st_size, state.st_mtime_ns) == (source["size"], source["mtime_ns"])


def _context_bound(text: str) -> ContextBound:
    bound = json.loads(text)
    return ContextBound(bound["needs"], bound["reading"], tuple(bound["others"]))
