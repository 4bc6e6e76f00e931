"""What came of each annotated clip in `prepare pack`: packed, faulty, or without a file."""

from collections.abc import Sequence
from dataclasses import dataclass

from signllava_cli.console import say, warn
from signllava_cli.data.packing.find import FoundClips
from signllava_cli.data.packing.plan import Plan
from signllava_cli.data.packing.shard_writing import Shard, read_left_out
from signllava_cli.data.packing.stream_out import StreamOut
from signllava_cli.errors import UserError, first_names


@dataclass(frozen=True)
class Outcome:
    """The clips, by `recording/clip`: `packed`; `faulty`, and why; `missing`, which have no file."""

    packed: list[str]
    faulty: dict[str, str]
    missing: list[str]

    @property
    def annotated(self) -> int:
        """How many clips there are."""
        return len(self.packed) + len(self.faulty) + len(self.missing)

    def to_json(self, out: StreamOut, plan: Plan) -> dict[str, object]:
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

    def metadata(self, plan: Plan) -> dict[str, int]:
        """The shard of each recording of which a clip was packed."""
        recordings = {clip.partition("/")[0] for clip in self.packed}
        return {recording: shard for recording, shard in plan.shard_of.items() if recording in recordings}


def read_outcome(shards: Sequence[Shard], found: FoundClips) -> Outcome:
    """The outcome as the shards tell it, whichever run wrote them.

    Raises:
        UserError: a shard is damaged, or was packed for something else.
    """
    packed: list[str] = []
    faulty = dict(found.unusable)
    for shard in shards:
        left_out = read_left_out(shard.file)
        if not left_out.keys() <= shard.clips.keys():
            raise UserError(f"{shard.file} was packed for other clips: remove it, and run the command again.")
        faulty |= {clip: f"{why} ({shard.clips[clip].file})" for clip, why in left_out.items()}
        packed += [clip for clip in shard.clips if clip not in left_out]
    return Outcome(packed, faulty, found.missing)


def say_outcome(outcome: Outcome, out: StreamOut, plan: Plan) -> None:
    """Print how many clips were packed, and warn of those left out."""
    say(
        f"stream {out.stream} of split {out.split}: {len(outcome.packed)} of {outcome.annotated} clips, "
        f"width {plan.width}, in {plan.shards} shards in {out.folder}"
    )
    if outcome.faulty:
        why = next(iter(outcome.faulty.values()))
        warn(
            f"{len(outcome.faulty)} clips are faulty and left out ({first_names(outcome.faulty)}; the first: {why}); "
            f"extract them again, and pack with --overwrite. All are "
            f"named in {out.report}."
        )
    if outcome.missing:
        warn(
            f"{len(outcome.missing)} clips have no file and are left out ({first_names(outcome.missing)}); complete "
            f"the sources, or name where they lie with --pattern or --key, and pack with --overwrite. All are "
            f"named in {out.report}."
        )
