"""`signllava prepare link`: shards that lie elsewhere become the shards of a stream, without a copy."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py

from signllava_cli.console import info, warning
from signllava_cli.data.annotations import Recording, read_annotations
from signllava_cli.data.clip_arrays import ArrayMatcher, ClipNames
from signllava_cli.errors import UserError, summarize_names
from signllava_cli.files import read_json, write_json
from signllava_cli.prepare.pack.stream_paths import StreamPaths


def link(files: Sequence[Path], out: StreamPaths, overwrite: bool) -> None:
    """Link `files`, HDF5 with groups of a dataset per clip, and write the shard of each group that holds a clip.

    Raises:
        UserError: a file is none of this layout, two hold the same group or one clip, none holds a clip, or
            something is in the way.
    """
    recordings = read_annotations(out.root, out.split)
    groups = _groups_in(files)
    clips = [clip.name for recording in recordings for clip in recording.clips]
    used = _groups_used(groups, recordings)
    if not used:
        raise UserError(
            f"None of the {len(files)} files holds a recording of split {out.split} "
            f"({summarize_names(recording.name for recording in recordings)}), nor one of its clips "
            f"({summarize_names(clips)}); they hold {summarize_names(groups) or 'nothing'}."
        )
    linked = [file for file in files if any(groups[group].file == file for group in used)]
    targets = [file.resolve() for file in linked]  # before earlier links go: they may be what was named
    with out.taken():
        _remove_links(out, overwrite)
        for number, target in enumerate(targets):
            out.shard(number).symlink_to(target)
        number_of = {file: number for number, file in enumerate(linked)}
        write_json(out.metadata, {group: number_of[groups[group].file] for group in used})
    linked_clips = {clip for its in used.values() for clip in its}
    covered = {clip.recording for recording in recordings for clip in recording.clips if clip.id in linked_clips}
    info(
        f"linked {len(linked)} files as stream {out.stream} of split {out.split}: {len(covered)} recordings, "
        f"{len(linked_clips)} clips"
    )
    if others := len(groups) - len(used):
        info(f"{others} recordings in them are not in {out.annotation.name}, and left aside")
    if unused := [str(file) for file in files if file not in linked]:
        warning(
            f"{len(unused)} files hold no recording of split {out.split} and are not linked ({summarize_names(unused)})"
        )
    if lacking := [recording.name for recording in recordings if recording.name not in covered]:
        warning(
            f"{len(lacking)} of {len(recordings)} annotated recordings are in none of the files "
            f"({summarize_names(lacking)}); name the files that hold them, with --overwrite."
        )


@dataclass(frozen=True)
class _Group:
    """An HDF5 group: its file and the names in it."""

    file: Path
    clips: list[str]


@dataclass(frozen=True)
class _Array:
    """The array `clip` of the group `recording`, as `ArrayMatcher` wants it."""

    recording: str
    clip: str


def _groups_in(files: Sequence[Path]) -> dict[str, _Group]:
    groups: dict[str, _Group] = {}
    for file in files:
        for name, group in _list_recordings(file).items():
            if name in groups:
                raise UserError(
                    f"Recording {name} stands in {groups[name].file} and in {file}: name one of them alone."
                )
            groups[name] = group
    return groups


def _groups_used(groups: Mapping[str, _Group], recordings: Sequence[Recording]) -> dict[str, list[str]]:
    """The groups that are recordings or hold their clips, in the order of the annotation, and the ids of the clips.

    Raises:
        UserError: two groups hold a clip, and none is its recording.
    """
    names = ClipNames([clip for recording in recordings for clip in recording.clips])
    matcher: ArrayMatcher[_Array] = ArrayMatcher(
        names, {group: group for group in groups}, {name: group.file for name, group in groups.items()}
    )
    listed = ((group.file, _Array(name, clip)) for name, group in groups.items() for clip in group.clips)
    matched = sorted((row, array.recording) for row, _, array in matcher.match(listed))
    for row in matcher.ambiguous:
        raise UserError(
            f"Clip {names.clips[row].id} lies in {matcher.format_ambiguous(row)}: name one of the files alone, or remove "
            "one array."
        )
    used: dict[str, list[str]] = {}
    for row, group in matched:
        used.setdefault(group, []).append(names.clips[row].id)
    return used


def _list_recordings(file: Path) -> dict[str, _Group]:
    try:
        with h5py.File(file, "r") as handle:
            kinds = {name: handle.get(name, getclass=True) for name in handle}
            groups = {name: _Group(file, list(handle[name])) for name, kind in kinds.items() if kind is h5py.Group}
    except (OSError, RuntimeError, KeyError) as error:
        raise UserError(f"{file} is no whole HDF5 file ({error}).") from None
    if bare := [name for name, kind in kinds.items() if kind is not h5py.Group]:
        raise UserError(
            f"{file} has {summarize_names(bare)} at its top level in place of a group per recording: copy it into our "
            "layout with `signllava prepare pack`, naming each clip's array with --key."
        )
    return groups


def _remove_links(out: StreamPaths, overwrite: bool) -> None:
    """Take away earlier links if that was asked for; a real file never.

    Raises:
        UserError: something is in the way.
    """
    there = out.shards()
    real = [file for file in there if not file.is_symlink()]
    real += [file for file in (out.plan,) if file.exists()]
    if out.metadata.exists():
        named = [out.shard(shard) for shard in set(map(str, read_json(out.metadata).values()))]
        real += [out.metadata] if any(not file.is_symlink() for file in named) else []
        there = [out.metadata, *there]
    if real:
        raise UserError(
            f"{summarize_names(map(str, real))} is no link of `prepare link` and stays: name another --stream or --out, "
            "or move it away."
        )
    if there and not overwrite:
        raise UserError(
            f"{summarize_names(map(str, there))} is there already: give --overwrite to replace earlier links."
        )
    for file in there:
        file.unlink()
