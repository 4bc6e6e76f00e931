"""What came of each annotated clip in `prepare pack`: packed, faulty, or without a file."""

from collections.abc import Sequence
from dataclasses import dataclass

from signllava_cli.console import info, warning
from signllava_cli.errors import UserError, summarize_names
from signllava_cli.prepare.pack.find import FoundClips
from signllava_cli.prepare.pack.plan import PackPlan
from signllava_cli.prepare.pack.shard_writer import Shard, read_skipped
from signllava_cli.prepare.pack.stream_paths import StreamPaths


@dataclass(frozen=True)
class PackResult:
    """The clips, by `recording/clip`: `packed`; `faulty`, and why; `missing`, which have no file."""

    packed: list[str]
    faulty: dict[str, str]
    missing: list[str]

    @property
    def annotated(self) -> int:
        """How many clips there are."""
        return len(self.packed) + len(self.faulty) + len(self.missing)

    def to_json(self, out: StreamPaths, plan: PackPlan) -> dict[str, object]:
        """What the report file holds."""
        return {
            "stream": out.stream,
            "split": out.split,
            "width": plan.width,
            "layout": plan.layout,
            "shards": plan.shards,
            "clips_annotated": self.annotated,
            "clips_packed": len(self.packed),
            "faulty": self.faulty,
            "without_file": self.missing,
        }

    def metadata(self, plan: PackPlan) -> dict[str, int]:
        """The shard of each recording of which a clip was packed."""
        recordings = {clip.partition("/")[0] for clip in self.packed}
        return {recording: shard for recording, shard in plan.shard_of.items() if recording in recordings}


def read_result(shards: Sequence[Shard], found: FoundClips) -> PackResult:
    """The outcome as the shards tell it, whichever run wrote them.

    Raises:
        UserError: a shard is damaged, or was packed for something else.
    """
    packed: list[str] = []
    faulty = dict(found.unusable)
    for shard in shards:
        left_out = read_skipped(shard.file)
        if not left_out.keys() <= shard.clips.keys():
            raise UserError(f"{shard.file} was packed for other clips: remove it, and run the command again.")
        faulty |= {clip: f"{why} ({shard.clips[clip].file})" for clip, why in left_out.items()}
        packed += [clip for clip in shard.clips if clip not in left_out]
    return PackResult(packed, faulty, found.missing)


def print_result(outcome: PackResult, out: StreamPaths, plan: PackPlan) -> None:
    """Print how many clips were packed, and warn of those left out."""
    info(
        f"stream {out.stream} of split {out.split}: {len(outcome.packed)} of {outcome.annotated} clips, "
        f"width {plan.width}, in {plan.shards} shards in {out.folder}"
    )
    if outcome.faulty:
        why = next(iter(outcome.faulty.values()))
        warning(
            f"{len(outcome.faulty)} clips are faulty and left out ({summarize_names(outcome.faulty)}; the first: {why}); "
            f"extract them again, and pack with --overwrite. All are "
            f"named in {out.report}."
        )
    if outcome.missing:
        warning(
            f"{len(outcome.missing)} clips have no file and are left out ({summarize_names(outcome.missing)}); complete "
            f"the sources, or name where they lie with --pattern or --key, and pack with --overwrite. All are "
            f"named in {out.report}."
        )
