"""`signllava prepare link`: shards that lie elsewhere become the shards of a stream, without a copy."""

from collections.abc import Sequence
from pathlib import Path

import h5py

from signllava_cli.console import say, warn
from signllava_cli.data.annotations import read_annotations
from signllava_cli.data.packing.stream_out import StreamOut
from signllava_cli.errors import UserError, first_names
from signllava_cli.files import read_json, write_json


def link(files: Sequence[Path], out: StreamOut, overwrite: bool) -> None:
    """Link `files`, HDF5 with a group per recording and a dataset per clip, and write their metadata.

    Raises:
        UserError: a file is none of this layout, two hold the same recording or none an annotated one, or
            something is in the way.
    """
    annotated = [recording.name for recording in read_annotations(out.root, out.split)]
    file_of = _file_of_each_recording(files)
    used = [file for file in files if any(file_of.get(name) == file for name in annotated)]
    if not used:
        raise UserError(
            f"None of the {len(files)} files holds a recording of split {out.split} ({first_names(annotated)}); "
            f"they hold {first_names(file_of) or 'nothing'}."
        )
    targets = [file.resolve() for file in used]  # before earlier links go: they may be what was named
    with out.taken():
        _make_room(out, overwrite)
        for number, target in enumerate(targets):
            out.shard(number).symlink_to(target)
        number_of = {file: number for number, file in enumerate(used)}
        shard_of = {name: number_of[file_of[name]] for name in annotated if name in file_of}
        write_json(out.metadata, shard_of)
    say(f"linked {len(used)} files as stream {out.stream} of split {out.split}: {len(shard_of)} recordings")
    if others := len(file_of) - len(shard_of):
        say(f"{others} recordings in them are not in {out.annotation.name}, and left aside")
    if unused := [str(file) for file in files if file not in used]:
        warn(f"{len(unused)} files hold no recording of split {out.split} and are not linked ({first_names(unused)})")
    if lacking := [name for name in annotated if name not in file_of]:
        warn(
            f"{len(lacking)} of {len(annotated)} annotated recordings are in none of the files "
            f"({first_names(lacking)}); name the files that hold them, with --overwrite."
        )


def _file_of_each_recording(files: Sequence[Path]) -> dict[str, Path]:
    file_of: dict[str, Path] = {}
    for file in files:
        for recording in _recordings_in(file):
            if recording in file_of:
                raise UserError(
                    f"Recording {recording} stands in {file_of[recording]} and in {file}: name one of them alone."
                )
            file_of[recording] = file
    return file_of


def _recordings_in(file: Path) -> list[str]:
    try:
        with h5py.File(file, "r") as handle:
            kinds = {name: handle.get(name, getclass=True) for name in handle}
    except (OSError, RuntimeError, KeyError) as fault:
        raise UserError(f"{file} is no whole HDF5 file ({fault}).") from None
    if bare := [name for name, kind in kinds.items() if kind is not h5py.Group]:
        raise UserError(
            f"{file} has {first_names(bare)} at its top level in place of a group per recording: copy it into our "
            "layout with `signllava prepare pack`, naming each clip's array with --key."
        )
    return list(kinds)


def _make_room(out: StreamOut, overwrite: bool) -> None:
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
            f"{first_names(map(str, real))} is no link of `prepare link` and stays: name another --stream or --out, "
            "or move it away."
        )
    if there and not overwrite:
        raise UserError(
            f"{first_names(map(str, there))} is there already: give --overwrite to replace earlier links."
        )
    for file in there:
        file.unlink()
