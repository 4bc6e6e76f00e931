"""`signllava prepare link`: links existing shards into a stream, without a copy."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py

from signllava_cli.console import info, warning
from signllava_cli.data.annotations import Recording, read_annotations
from signllava_cli.data.clip_arrays import ArrayMatcher, ClipNames
from signllava_cli.data.shard import HDF5_ERRORS
from signllava_cli.errors import UserError, first_line, format_count, summarize_names
from signllava_cli.files import read_json, write_json
from signllava_cli.prepare.pack.stream_paths import StreamPaths


def link(files: Sequence[Path], out: StreamPaths, overwrite: bool) -> None:
    """Link `files` (HDF5: a group per recording, a dataset per clip), and write the metadata `{group: shard}`.

    If the stream has the same links and metadata already, nothing is written.

    Raises:
        UserError: a file has another layout, two files hold the same group or clip, no file holds a clip, or other
            files of the stream exist.
    """
    recordings = read_annotations(out.root, out.split)
    groups = _read_groups(files)
    clip_names = [clip.name for recording in recordings for clip in recording.clips]
    clips_of = _match_groups(groups, recordings)
    if not clips_of:
        raise UserError(
            f"None of the {len(files)} files holds a recording of split {out.split} "
            f"({summarize_names(recording.name for recording in recordings)}) or one of its clips "
            f"({summarize_names(clip_names)}); they hold {summarize_names(groups) or 'nothing'}. Name the files that "
            "hold them."
        )
    linked = [file for file in files if any(groups[group].file == file for group in clips_of)]
    targets = [file.resolve() for file in linked]  # before earlier links are removed: `files` may be such links
    number_of = {file: number for number, file in enumerate(linked)}
    metadata = {group: number_of[groups[group].file] for group in clips_of}
    with out.lock():
        is_unchanged = _has_links(out, targets, metadata)
        if not is_unchanged:
            _remove_links(out, overwrite)
            for number, target in enumerate(targets):
                out.shard(number).symlink_to(target)
            write_json(out.metadata, metadata)
    linked_clips = {clip for clips in clips_of.values() for clip in clips}
    covered = {clip.recording for recording in recordings for clip in recording.clips if clip.id in linked_clips}
    counts = f"{format_count(len(covered), 'recording')}, {format_count(len(linked_clips), 'clip')}"
    stream = f"stream {out.stream} of split {out.split}: {counts}"
    if is_unchanged:
        info(f"nothing changed: the same {format_count(len(linked), 'file is', 'files are')} linked as {stream}")
    else:
        info(f"linked {format_count(len(linked), 'file')} as {stream}")
    if num_ignored := len(groups) - len(clips_of):
        count = format_count(num_ignored, "recording in them is", "recordings in them are")
        info(f"{count} not in {out.annotation.name} and ignored")
    if unused := [str(file) for file in files if file not in linked]:
        count = format_count(len(unused), "file holds", "files hold")
        warning(f"not linked: {count} no recording of split {out.split} ({summarize_names(unused)})")
    if missing := [recording.name for recording in recordings if recording.name not in covered]:
        warning(
            f"{len(missing)} of {len(recordings)} annotated recordings are in none of the files "
            f"({summarize_names(missing)}); link again with the files that hold them and --overwrite."
        )


@dataclass(frozen=True)
class _Group:
    """An HDF5 group: its file and the names of its datasets."""

    file: Path
    clips: list[str]


@dataclass(frozen=True)
class _Array:
    """The array `clip` of the group `recording`, for `ArrayMatcher`."""

    recording: str
    clip: str


def _read_groups(files: Sequence[Path]) -> dict[str, _Group]:
    groups: dict[str, _Group] = {}
    for file in files:
        for name, group in _read_file_groups(file).items():
            if name in groups:
                raise UserError(f"Recording {name} is in {groups[name].file} and in {file}; name only one of them.")
            groups[name] = group
    return groups


def _match_groups(groups: Mapping[str, _Group], recordings: Sequence[Recording]) -> dict[str, list[str]]:
    """Group -> ids of its annotated clips, in the order of the annotation.

    Raises:
        UserError: two groups hold a clip, and neither is named after its recording.
    """
    names = ClipNames([clip for recording in recordings for clip in recording.clips])
    matcher: ArrayMatcher[_Array] = ArrayMatcher(
        names, {group: group for group in groups}, {name: group.file for name, group in groups.items()}
    )
    arrays = ((group.file, _Array(name, clip)) for name, group in groups.items() for clip in group.clips)
    matched = sorted((row, array.recording) for row, _, array in matcher.match(arrays))
    for row in matcher.ambiguous:
        raise UserError(
            f"Clip {names.clips[row].id} is in {matcher.format_ambiguous(row)}; name only one of the files, or "
            "remove one array."
        )
    clips_of: dict[str, list[str]] = {}
    for row, group in matched:
        clips_of.setdefault(group, []).append(names.clips[row].id)
    return clips_of


def _read_file_groups(file: Path) -> dict[str, _Group]:
    try:
        with h5py.File(file, "r") as handle:
            kinds = {name: handle.get(name, getclass=True) for name in handle}
            groups = {name: _Group(file, list(handle[name])) for name, kind in kinds.items() if kind is h5py.Group}
    except HDF5_ERRORS as error:
        raise UserError(f"{file} is not a valid HDF5 file ({first_line(error)}); copy it again.") from None
    if datasets := [name for name, kind in kinds.items() if kind is not h5py.Group]:
        raise UserError(
            f"{file} has {summarize_names(datasets)} at its top level instead of a group per recording; convert "
            "it with `signllava prepare pack`, and name each clip's array with --key."
        )
    return groups


def _has_links(out: StreamPaths, targets: Sequence[Path], metadata: Mapping[str, int]) -> bool:
    """Whether the stream consists of links to `targets`, in order, with these metadata."""
    links = [out.shard(number) for number in range(len(targets))]
    return (
        set(out.list_shards()) == set(links)
        and not out.plan.exists()
        and out.metadata.exists()
        and [file.readlink() for file in links if file.is_symlink()] == list(targets)
        and read_json(out.metadata) == metadata
    )


def _remove_links(out: StreamPaths, overwrite: bool) -> None:
    """Remove earlier links if `overwrite`; a regular file is never removed.

    Raises:
        UserError: files of the stream exist that may not be removed.
    """
    existing = out.list_shards()
    regular = [file for file in existing if not file.is_symlink()]
    regular += [file for file in (out.plan,) if file.exists()]
    if out.metadata.exists():
        shards = [out.shard(shard) for shard in set(map(str, read_json(out.metadata).values()))]
        regular += [out.metadata] if any(not file.is_symlink() for file in shards) else []
        existing = [out.metadata, *existing]
    if regular:
        raise UserError(
            f"{summarize_names(map(str, regular))} is not a link of `prepare link` and is not replaced; name another "
            "--stream or --out, or move it away."
        )
    if existing and not overwrite:
        raise UserError(
            f"{summarize_names(map(str, existing))} exists already; give --overwrite to replace earlier links."
        )
    for file in existing:
        file.unlink()
