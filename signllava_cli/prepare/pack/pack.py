"""`signllava prepare pack`: packs feature files of other tools into the shards of a stream."""

from collections.abc import Sequence
from dataclasses import dataclass

from signllava_cli.console import info, warning
from signllava_cli.data.annotations import Recording, read_annotations
from signllava_cli.data.keypoints import require_pose_format
from signllava_cli.errors import UserError, format_count, summarize_names
from signllava_cli.files import write_json
from signllava_cli.prepare.pack.find_clips import ClipLocations, find_clips
from signllava_cli.prepare.pack.plan import PackFingerprint, PackPlan, fingerprint_differences, make_plan, read_plan
from signllava_cli.prepare.pack.request import PackRequest
from signllava_cli.prepare.pack.shard_writer import Shard, read_skipped
from signllava_cli.prepare.pack.stream_paths import StreamPaths
from signllava_cli.prepare.pack.unused_files import UnusedFiles
from signllava_cli.prepare.pack.workers import write_shards
from signllava_cli.processes import call_in_child


def pack(request: PackRequest, out: StreamPaths, workers: int, overwrite: bool) -> None:
    """Pack the clips of `out`'s annotation, or continue where a killed run stopped.

    Raises:
        UserError: nothing can be packed, another plan or other shards are in the folder, or a file cannot be written.
        RunStopped: a signal arrived; the same command continues.
    """
    recordings = read_annotations(out.root, out.split)
    with out.lock():
        clips = [clip for recording in recordings for clip in recording.clips]
        locations = call_in_child(find_clips, request, clips)
        if any(source.format == "pose" for source in locations.sources.values()):
            require_pose_format()
        result, plan = pack_locations(request, recordings, locations, out, workers, overwrite)
        print_result(
            result,
            out,
            plan,
            faulty_fix=f"extract them again, and pack with --overwrite. {out.report} lists all of them.",
            missing_fix="complete the sources, or give the location of the files with --pattern or --key, and pack "
            f"with --overwrite. {out.report} lists all of them.",
        )


def pack_locations(
    request: PackRequest,
    recordings: Sequence[Recording],
    locations: ClipLocations,
    out: StreamPaths,
    workers: int,
    overwrite: bool,
) -> "tuple[PackResult, PackPlan]":
    """Pack clips whose arrays were found with `request`; the caller holds the lock of `out`. Errors: see `pack`."""
    for temporary in out.list_temporary_files():
        temporary.unlink()
    clips = [clip for recording in recordings for clip in recording.clips]
    fingerprint = PackFingerprint.of(request, clips, locations)
    plan = None if overwrite else _read_matching_plan(fingerprint, out)
    if plan is None:
        plan = _write_plan(fingerprint, recordings, locations, out)
    shards = _assign_clips(plan, recordings, locations, out)
    unwritten = [shard for shard in shards if not shard.file.exists()]
    if unwritten:
        info(f"writing {len(unwritten)} of {len(shards)} shards")
        write_shards(unwritten, workers)
    result = read_result(shards, locations)
    if unwritten or not out.metadata.exists():
        write_json(out.report, result.to_json(out, plan))
        write_json(out.metadata, result.shard_map(plan))
    else:
        info("packed before: nothing to do")
    return result, plan


def _read_matching_plan(fingerprint: PackFingerprint, out: StreamPaths) -> PackPlan | None:
    """The plan of an earlier run with the same inputs; None if the folder holds no earlier run.

    Raises:
        UserError: the earlier run had other inputs, or the folder holds shards without a plan.
    """
    if not out.plan.exists():
        files = (out.metadata, *out.list_shards())
        if existing := [file.name for file in files if file.exists() or file.is_symlink()]:
            raise UserError(
                f"{out.folder} holds {summarize_names(existing)}, but no plan of `prepare pack`; name another "
                "--stream or --out, or give --overwrite to replace them."
            )
        return None
    plan = read_plan(out.plan)
    if differences := fingerprint_differences(plan.fingerprint, fingerprint):
        raise UserError(
            f"{out.plan} was made for other inputs; what differs: {'; '.join(differences)}. Give --overwrite to pack "
            "again, or continue with the earlier options."
        )
    return plan


def _write_plan(
    fingerprint: PackFingerprint, recordings: Sequence[Recording], locations: ClipLocations, out: StreamPaths
) -> PackPlan:
    """Make a plan, remove the files of an earlier one, and write it; if nothing can be packed, no file is removed."""
    plan = call_in_child(make_plan, fingerprint, recordings, locations)
    _remove_outputs(out)
    write_json(out.plan, plan.to_json())
    return plan


def _remove_outputs(out: StreamPaths) -> None:
    """Remove an earlier pack: first the metadata, which marks it as complete; of links only the link."""
    for file in (out.metadata, out.report, *out.list_shards()):
        file.unlink(missing_ok=True)


def _assign_clips(
    plan: PackPlan, recordings: Sequence[Recording], locations: ClipLocations, out: StreamPaths
) -> list[Shard]:
    ignore_source_layout = plan.fingerprint.layout is not None
    shards = [
        Shard(out.shard(number), {}, plan.width, plan.layout, ignore_source_layout)
        for number in range(plan.num_shards)
    ]
    for recording in recordings:
        for clip in recording.clips:
            if clip.id in locations.sources:
                shards[plan.shard_of[recording.name]].clips[clip.id] = locations.sources[clip.id]
    return shards


@dataclass(frozen=True)
class PackResult:
    """The annotated clips by result: `packed`, `faulty` (`recording/clip` -> reason), `missing` (without a file).

    `unused`: the files that are of none of them.
    """

    packed: list[str]
    faulty: dict[str, str]
    missing: list[str]
    unused: UnusedFiles

    @property
    def num_clips(self) -> int:
        """The number of annotated clips."""
        return len(self.packed) + len(self.faulty) + len(self.missing)

    def to_json(self, out: StreamPaths, plan: PackPlan) -> dict[str, object]:
        """The content of the report file."""
        return {
            "stream": out.stream,
            "split": out.split,
            "width": plan.width,
            "layout": plan.layout,
            "shards": plan.num_shards,
            "clips_annotated": self.num_clips,
            "clips_packed": len(self.packed),
            "faulty": self.faulty,
            "missing": self.missing,
            **({"missing_other_case": self.unused.other_case} if self.unused.other_case else {}),
            **({"files_of_no_clip": self.unused.of_no_clip} if self.unused.of_no_clip else {}),
        }

    def shard_map(self, plan: PackPlan) -> dict[str, int]:
        """The shard of each recording with a packed clip: the content of the metadata file."""
        recordings = {clip.partition("/")[0] for clip in self.packed}
        return {recording: shard for recording, shard in plan.shard_of.items() if recording in recordings}


def read_result(shards: Sequence[Shard], locations: ClipLocations) -> PackResult:
    """The result of a pack, read from its shards, which several runs may have written.

    Raises:
        UserError: a shard is damaged, or was packed for other clips.
    """
    packed: list[str] = []
    faulty = dict(locations.unusable)
    for shard in shards:
        skipped = read_skipped(shard.file)
        if not skipped.keys() <= shard.clips.keys():
            raise UserError(f"{shard.file} was packed for other clips; remove it, and run the command again.")
        faulty |= {clip: f"{reason} ({shard.clips[clip].file})" for clip, reason in skipped.items()}
        packed += [clip for clip in shard.clips if clip not in skipped]
    return PackResult(packed, faulty, locations.missing, locations.unused)


def print_result(result: PackResult, out: StreamPaths, plan: PackPlan, faulty_fix: str, missing_fix: str) -> None:
    """Print how many clips were packed, and a warning about those skipped, with what to do."""
    info(
        f"stream {out.stream} of split {out.split}: {len(result.packed)} of {result.num_clips} clips, "
        f"width {plan.width}, in {format_count(plan.num_shards, 'shard')} in {out.folder}"
    )
    if result.faulty:
        count, reason = format_count(len(result.faulty), "clip is", "clips are"), next(iter(result.faulty.values()))
        warning(f"{count} faulty and skipped ({summarize_names(result.faulty)}; the first: {reason}); {faulty_fix}")
    if result.missing:
        count = format_count(len(result.missing), "clip has no file and is", "clips have no file and are")
        warning(f"{count} skipped ({summarize_names(result.missing)}); {missing_fix}")
    if other_case := result.unused.other_case:
        count = format_count(len(other_case), "of these clips has a file", "of these clips have files")
        warning(
            f"{count} whose name differs in upper and lower case ({summarize_names(other_case.values())}); rename "
            f"{'it' if len(other_case) == 1 else 'them'}, and pack with --overwrite."
        )
    if files := result.unused.of_no_clip:
        count = format_count(len(files), "file is", "files are")
        info(f"{count} of no clip of split {out.split} ({summarize_names(files)})")
