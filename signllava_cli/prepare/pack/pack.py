"""`signllava prepare pack`: other tools' feature files become the shards of a stream."""

from collections.abc import Sequence

from signllava_cli.console import info
from signllava_cli.data.annotations import Recording, read_annotations
from signllava_cli.data.feature_files import HDF5FileCache
from signllava_cli.data.keypoints import require_pose_format
from signllava_cli.errors import UserError, summarize_names
from signllava_cli.files import write_json
from signllava_cli.prepare.pack.find import FoundClips, find_clips
from signllava_cli.prepare.pack.plan import PackFingerprint, PackPlan, fingerprint_differences, make_plan, read_plan
from signllava_cli.prepare.pack.request import PackRequest
from signllava_cli.prepare.pack.result import print_result, read_result
from signllava_cli.prepare.pack.shard_writer import Shard
from signllava_cli.prepare.pack.stream_paths import StreamPaths
from signllava_cli.prepare.pack.workers import write_shards


def pack(request: PackRequest, out: StreamPaths, workers: int, overwrite: bool) -> None:
    """Pack the clips of `out`'s annotation, or go on where a killed run stopped.

    Raises:
        UserError: nothing can be packed, another plan or other shards are in the way, or a file cannot be written.
        Stopped: a signal asked for it; the same command goes on.
    """
    recordings = read_annotations(out.root, out.split)
    clips = [clip for recording in recordings for clip in recording.clips]
    with out.taken():
        for half_written in out.half_written():
            half_written.unlink()
        found = find_clips(request, clips)
        if any(source.format == "pose" for source in found.files.values()):
            require_pose_format()
        asked = PackFingerprint.of(request, clips, found)
        plan = None if overwrite else _existing_plan(asked, out)
        if plan is None:
            plan = _new_plan(asked, recordings, found, out)
        shards = _shards(plan, recordings, found, out)
        left = [shard for shard in shards if not shard.file.exists()]
        if left:
            info(f"{len(left)} of {len(shards)} shards are to be written")
            write_shards(left, workers)
        outcome = read_result(shards, found)
        if left or not out.metadata.exists():
            write_json(out.report, outcome.to_json(out, plan))
            write_json(out.metadata, outcome.metadata(plan))
        else:
            info("packed before: nothing to do")
        print_result(outcome, out, plan)


def _existing_plan(asked: PackFingerprint, out: StreamPaths) -> PackPlan | None:
    """The plan of an earlier run for the same; None where there is nothing yet.

    Raises:
        UserError: it was asked for something else, or the folder holds shards that no plan tells of.
    """
    if not out.plan.exists():
        if there := [file.name for file in (out.metadata, *out.shards()) if file.exists() or file.is_symlink()]:
            raise UserError(
                f"{out.folder} holds {summarize_names(there)}, which no plan of `prepare pack` tells of: name another "
                "--stream or --out, or give --overwrite to replace them."
            )
        return None
    plan = read_plan(out.plan)
    if changed := fingerprint_differences(plan.asked, asked):
        raise UserError(
            f"{out.plan} was made for something else; what differs: {'; '.join(changed)}. Give --overwrite to pack "
            "anew, or go on with what was asked then."
        )
    return plan


def _new_plan(
    asked: PackFingerprint, recordings: Sequence[Recording], found: FoundClips, out: StreamPaths
) -> PackPlan:
    """A plan, on disk, and room for its shards; what was there stays if nothing can be packed."""
    with HDF5FileCache() as handles:
        plan = make_plan(asked, recordings, found, handles)
    _remove_outputs(out)
    write_json(out.plan, plan.to_json())
    return plan


def _remove_outputs(out: StreamPaths) -> None:
    """Take away an earlier pack, the file first that calls it whole, and of links the link alone."""
    for file in (out.metadata, out.report, *out.shards()):
        file.unlink(missing_ok=True)


def _shards(plan: PackPlan, recordings: Sequence[Recording], found: FoundClips, out: StreamPaths) -> list[Shard]:
    named = plan.asked.layout is not None
    shards = [Shard(out.shard(number), {}, plan.width, plan.layout, named) for number in range(plan.shards)]
    for recording in recordings:
        for clip in recording.clips:
            if clip.id in found.files:
                shards[plan.shard_of[recording.name]].clips[clip.id] = found.files[clip.id]
    return shards
