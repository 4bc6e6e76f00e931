"""Matches the arrays of the shards with clips: by recording and name, else by the name alone."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from signllava_cli.data.annotations import Clip


class ListedArray(Protocol):
    """The array `clip` in the HDF5 group `recording`."""

    @property
    def recording(self) -> str: ...
    @property
    def clip(self) -> str: ...


Array = TypeVar("Array", bound=ListedArray)


class ClipNames:
    """The rows of `clips` by id, and by name if the names alone identify the clips of the split."""

    def __init__(self, clips: Sequence[Clip]) -> None:
        self.clips = clips
        self.row_by_id = {clip.id: row for row, clip in enumerate(clips)}

    @cached_property
    def repeated_name(self) -> tuple[str, str, str] | None:
        """A clip name that occurs in two recordings, and these recordings; None if every name is unique."""
        if len({clip.name for clip in self.clips}) == len(self.clips):
            return None
        first_recordings: dict[str, str] = {}
        for clip in self.clips:
            first = first_recordings.setdefault(clip.name, clip.recording)
            if first != clip.recording:
                return clip.name, first, clip.recording
        return None

    @cached_property
    def row_by_name(self) -> dict[str, int]:
        """The row of a clip with each name."""
        return {clip.name: row for row, clip in enumerate(self.clips)}


class ArrayMatcher(Generic[Array]):
    """Finds the clip of each array of one stream.

    An array in the group of the clip's recording belongs to the clip. So does an array of the clip's name in another
    group, if the metadata names its file for that group or for the clip's recording, and the recording's own group
    has no array of the clip.

    After `match`, `ambiguous` maps the row of each clip that several arrays of other groups match to these arrays,
    and `num_unidentified` counts the arrays that were not matched because their clip name is repeated.

    Args:
        shard_of: recording or group -> shard, as in the metadata file.
        file_of: shard -> file.
    """

    def __init__(self, names: ClipNames, shard_of: Mapping[str, str], file_of: Mapping[str, Path]) -> None:
        self.names = names
        self._file_by_group = {group: file_of.get(shard) for group, shard in shard_of.items()}
        self.ambiguous: dict[int, list[tuple[Path, Array]]] = {}
        self.num_unidentified = 0

    def match(self, arrays: Iterable[tuple[Path, Array]]) -> Iterator[tuple[int, Path, Array]]:
        """(row of the clip, file, array) of each array that belongs to a clip."""
        is_matched = bytearray(len(self.names.clips))
        candidates: dict[int, list[tuple[Path, Array]]] = {}  # row -> arrays in groups of other names
        for file, array in arrays:
            row = self.names.row_by_id.get(f"{array.recording}/{array.clip}")
            if row is None:
                self._add_candidate(candidates, file, array)
            elif self._file_by_group.get(array.recording) == file:
                is_matched[row] = 1
                yield row, file, array
        for row, row_candidates in candidates.items():
            if is_matched[row]:
                continue
            if len(row_candidates) > 1:
                self.ambiguous[row] = row_candidates
            else:
                yield row, *row_candidates[0]

    def format_ambiguous(self, row: int) -> str:
        """Group and file of two arrays that match the clip in `row`."""
        return " and in ".join(f"group {array.recording} of {file}" for file, array in self.ambiguous[row][:2])

    def _add_candidate(self, candidates: dict[int, list[tuple[Path, Array]]], file: Path, array: Array) -> None:
        """Add an array of another group to the candidates of the clip of its name, if there is one."""
        row = self.names.row_by_name.get(array.clip)
        if row is None:
            return
        if self.names.repeated_name:
            self.num_unidentified += 1
            return
        recording = self.names.clips[row].recording
        expected_file = self._file_by_group.get(array.recording, self._file_by_group.get(recording))
        if expected_file == file:
            candidates.setdefault(row, []).append((file, array))
