"""Checks what `prepare extract` has reported about the videos of a stream."""

from collections.abc import Sequence

from signllava_cli.errors import UserError
from signllava_cli.files import read_json
from signllava_cli.prepare.extract.pose_quality import HANDS
from signllava_cli.prepare.validation.checks import MIN_HAND_SHARE
from signllava_cli.prepare.validation.findings import Findings
from signllava_cli.prepare.validation.stream_checks import StreamShards


def check_videos(streams: Sequence[StreamShards], findings: Findings) -> None:
    """Add findings for several people, jumps, missing hands and turned pictures, from the reports of extractions."""
    for shards in streams:
        split, stream = shards.split, shards.stream
        file = shards.metadata.parent / f"extract.{stream}.{split}.json"
        if not file.is_file():
            continue
        try:
            report = read_json(file)
            findings.add("video-several-people", report.get("several_people", ()), split, stream)
            findings.add("video-jumps", report.get("jumps", ()), split, stream)
            findings.add("video-turned", report.get("rotated", ()), split, stream)
            shares = {name: entry["share"] for name, entry in report.get("recordings", {}).items()}
            rare = [name for name, share in shares.items() if min(share[hand] for hand in HANDS) < MIN_HAND_SHARE]
            findings.add("video-hands-rare", rare, split, stream)
        except (UserError, KeyError, TypeError, AttributeError) as error:
            findings.add("video-report-unreadable", [file.name], split, stream, str(error))
