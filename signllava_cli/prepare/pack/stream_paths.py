"""The files that `prepare pack` and `prepare link` write for one stream and split."""

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from signllava_cli.data.annotations import annotation_file
from signllava_cli.errors import UserError
from signllava_cli.files import TEMPORARY_SUFFIX, acquire_lock


@dataclass(frozen=True)
class StreamPaths:
    """Stream `stream` of `split` in the dataset folder `root`: where its files are written."""

    root: Path
    stream: str
    split: str

    @property
    def folder(self) -> Path:
        """`DATA/{stream}`."""
        return self.root / self.stream

    @property
    def annotation(self) -> Path:
        """`DATA/annotation.{split}.json`."""
        return annotation_file(self.root, self.split)

    @property
    def metadata(self) -> Path:
        """`{recording: shard}`, written last: a stream that has it is complete."""
        return self.folder / f"metadata_{self.stream}.{self.split}.json"

    @property
    def plan(self) -> Path:
        """The `PackPlan`: the options of the command, and the shard of each recording."""
        return self.folder / f"pack.{self.stream}.{self.split}.plan.json"

    @property
    def report(self) -> Path:
        """The `PackResult`: how many clips were packed, and which were skipped."""
        return self.folder / f"pack.{self.stream}.{self.split}.json"

    def shard(self, number: int | str) -> Path:
        """`{stream}.{split}.{number}.h5`."""
        return self.folder / f"{self.stream}.{self.split}.{number}.h5"

    def list_shards(self) -> list[Path]:
        """The existing shards, links included."""
        return self._list_files(r"\d+\.h5")

    def list_temporary_files(self) -> list[Path]:
        """The unfinished shards of a killed process."""
        return self._list_files(rf"\d+\.h5\.\d+{re.escape(TEMPORARY_SUFFIX)}")

    def _list_files(self, ending: str) -> list[Path]:
        name = re.compile(rf"{re.escape(self.stream)}\.{re.escape(self.split)}\.{ending}")
        return sorted(file for file in self.folder.iterdir() if name.fullmatch(file.name))

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes from writing this stream and split; other splits can be written at the same time.

        Raises:
            UserError: another process is writing it, or the name of the stream is invalid.
        """
        if not re.fullmatch(r"[A-Za-z0-9_-]+", self.stream):
            raise UserError(f"--stream {self.stream!a}: expected letters, digits, `_` and `-`.")
        lock_file = self.folder / f".pack.{self.stream}.{self.split}.lock"
        message = (
            f"Another process is writing stream {self.stream}, split {self.split}, of {self.root}; try again later."
        )
        with acquire_lock(lock_file, message):
            yield
