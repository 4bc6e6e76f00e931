"""Which array of the shards is a clip's: the one in its recording's own group, else the one of its name elsewhere."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from signllava_cli.data.annotations import Clip


class Listed(Protocol):
    """An array `clip` of the HDF5 group `recording`."""

    @property
    def recording(self) -> str: ...
    @property
    def clip(self) -> str: ...


Array = TypeVar("Array", bound=Listed)


class ClipNames:
    """The rows of `clips` by id, and by name where the names alone identify the clips of the split."""

    def __init__(self, clips: Sequence[Clip]) -> None:
        self.clips = clips
        self.row_of = {clip.id: row for row, clip in enumerate(clips)}

    @cached_property
    def repeated(self) -> tuple[str, str, str] | None:
        """A name that two recordings give to a clip, and the recordings; None where every name is unique."""
        if len({clip.name for clip in self.clips}) == len(self.clips):
            return None
        recording_of: dict[str, str] = {}
        for clip in self.clips:
            first = recording_of.setdefault(clip.name, clip.recording)
            if first != clip.recording:
                return clip.name, first, clip.recording
        return None

    @cached_property
    def row_of_name(self) -> dict[str, int]:
        """The row of a clip of each name."""
        return {clip.name: row for row, clip in enumerate(self.clips)}


class ArrayMatcher(Generic[Array]):
    """Finds the clip of each array of one stream.

    An array in the group of the clip's recording is the clip's. Another array is if its name is the clip's, and the
    metadata names its file for its group or for the clip's recording. After `match`, `ambiguous` holds the rows that
    two such arrays fit, with both, and `unidentified` counts the arrays that only a repeated name kept from a clip.
    """

    def __init__(self, names: ClipNames, shard_of: Mapping[str, str], file_of: Mapping[str, Path]) -> None:
        self.names = names
        self._file_of = {group: file_of.get(shard) for group, shard in shard_of.items()}
        self.ambiguous: dict[int, list[tuple[Path, Array]]] = {}
        self.unidentified = 0

    def match(self, listed: Iterable[tuple[Path, Array]]) -> Iterator[tuple[int, Path, Array]]:
        """(row, file, array) of each array that is a clip's."""
        row_of, has_own = self.names.row_of, bytearray(len(self.names.clips))
        elsewhere: dict[int, list[tuple[Path, Array]]] = {}
        for file, array in listed:
            row = row_of.get(f"{array.recording}/{array.clip}")
            if row is None:
                self._note(elsewhere, file, array)
            elif self._file_of.get(array.recording) == file:
                has_own[row] = 1
                yield row, file, array
        for row, indices in elsewhere.items():
            if has_own[row]:
                continue
            if len(indices) > 1:
                self.ambiguous[row] = indices
            else:
                yield row, *indices[0]

    def both_places(self, row: int) -> str:
        """Two places of the arrays of an ambiguous clip."""
        return " and in ".join(f"group {array.recording} of {file}" for file, array in self.ambiguous[row][:2])

    def _note(self, elsewhere: dict[int, list[tuple[Path, Array]]], file: Path, array: Array) -> None:
        """Keep an array of a group that is not the recording's own, if its name is a clip's."""
        row = self.names.row_of_name.get(array.clip)
        if row is None:
            return
        if self.names.repeated:
            self.unidentified += 1
            return
        recording = self.names.clips[row].recording
        named = self._file_of.get(array.recording, self._file_of.get(recording))
        if named == file:
            elsewhere.setdefault(row, []).append((file, array))
