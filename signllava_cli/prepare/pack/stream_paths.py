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
        """`{recording: shard}`, written last: a stream that has it is whole."""
        return self.folder / f"metadata_{self.stream}.{self.split}.json"

    @property
    def plan(self) -> Path:
        """What was asked for, and which shard each recording goes to."""
        return self.folder / f"pack.{self.stream}.{self.split}.plan.json"

    @property
    def report(self) -> Path:
        """What was packed, and what was left out."""
        return self.folder / f"pack.{self.stream}.{self.split}.json"

    def shard(self, number: int | str) -> Path:
        """`{stream}.{split}.{number}.h5`."""
        return self.folder / f"{self.stream}.{self.split}.{number}.h5"

    def shards(self) -> list[Path]:
        """Every shard that is there, links too."""
        return self._named(r"\d+\.h5")

    def half_written(self) -> list[Path]:
        """What a killed process was writing."""
        return self._named(rf"\d+\.h5\.\d+{re.escape(TEMPORARY_SUFFIX)}")

    def _named(self, ending: str) -> list[Path]:
        name = re.compile(rf"{re.escape(self.stream)}\.{re.escape(self.split)}\.{ending}")
        return sorted(file for file in self.folder.iterdir() if name.fullmatch(file.name))

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        """Keep other processes from writing this stream and split; other splits may be written meanwhile.

        Raises:
            UserError: another process is writing it, or no stream may have this name.
        """
        if not re.fullmatch(r"[A-Za-z0-9_-]+", self.stream):
            raise UserError(f"--stream {self.stream!a}: a stream's name may hold letters, digits, `_` and `-`.")
        lock = self.folder / f".pack.{self.stream}.{self.split}.lock"
        refusal = f"Another process is writing stream {self.stream}, split {self.split}, of {self.root}: wait."
        with acquire_lock(lock, refusal):
            yield
