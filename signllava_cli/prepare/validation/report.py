"""The findings as a file: JSON for other programs, HTML for a colleague."""

import json
import platform
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import h5py
import jinja2
import numpy as np

from signllava_cli._version import __version__
from signllava_cli.errors import UserError, escape_unprintable
from signllava_cli.files import write_text
from signllava_cli.prepare.validation.display import format_names, summary
from signllava_cli.prepare.validation.findings import counts_by_severity
from signllava_cli.prepare.validation.time_checks import ClipTimes, clip_times
from signllava_cli.prepare.validation.validate import ValidationResult

REPORT_SUFFIXES = (".json", ".html")
LISTED = 1000  # names of one finding on the page
_TEMPLATE = Path(__file__).with_name("report.html.j2")


def require_report_suffix(file: Path) -> None:
    """Check, before hours of reading, that `file` names a report that can be written.

    Raises:
        UserError: it ends in neither `.json` nor `.html`, or is a folder.
    """
    if file.suffix not in REPORT_SUFFIXES or file.is_dir():
        raise UserError(f"--report {file}: expected a file that ends in {' or '.join(REPORT_SUFFIXES)}.")


def write_report(file: Path, examined: ValidationResult, arguments: Mapping[str, Any]) -> None:
    """Write the report in the format that the name of `file` says.

    Raises:
        UserError: the file cannot be written.
    """
    report = _content(examined, arguments)
    if file.suffix == ".json":
        # in ASCII: a name may hold what UTF-8 cannot
        write_text(file, json.dumps(report, indent=2) + "\n")
        return
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"names": format_names, "printable": escape_unprintable}
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    findings = list(zip(examined.findings, _entries(examined, arguments["fps"]), strict=True))
    told = summary(examined.findings, examined.seconds)
    write_text(file, template.render(**report | {"findings": findings, "most": LISTED}, summary=told))


@dataclass(frozen=True)
class _Entry:
    """A name of a finding; where it is that of a clip, its times in the video (if known) and its sentence."""

    name: str
    time: str = ""
    sentence: str = ""


def _entries(examined: ValidationResult, fps: float) -> list[list[_Entry]]:
    """The first LISTED names of each finding."""
    listed = [(finding.split, finding.names[:LISTED]) for finding in examined.findings]
    wanted = {(split, name) for split, names in listed for name in names}
    clips: dict[tuple[str | None, str], _Entry] = {
        (split.name, clip.id): _Entry(clip.id, _time(clip_times(clip, fps)), clip.translation)
        for split in examined.splits
        for recording in split.recordings
        for clip in recording.clips
        if (split.name, clip.id) in wanted
    }
    return [[clips.get((split, name)) or _Entry(name) for name in names] for split, names in listed]


def _time(times: ClipTimes | None) -> str:
    """`0:01:02.5-0:01:04.0`"""
    if times is None:
        return ""
    return "-".join(_clock(seconds) for seconds in (times.start, times.end) if seconds is not None)


def _clock(seconds: float) -> str:
    minutes, tenths = divmod(round(seconds * 10), 600)
    return f"{minutes // 60}:{minutes % 60:02d}:{tenths / 10:04.1f}"


def _content(examined: ValidationResult, arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "data": str(examined.root),
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "versions": {
            "signllava": __version__,
            "python": platform.python_version(),
            "h5py": h5py.__version__,
            "numpy": np.__version__,
        },
        "arguments": dict(arguments),
        "seconds": round(examined.seconds, 3),
        "counts": counts_by_severity(examined.findings),
        "splits": {name: {"clips": clips} for name, clips in examined.clips.items()},
        "streams": {
            name: {"width": examined.widths[name], "arrays": arrays, "frames": examined.frames[name]}
            for name, arrays in examined.arrays.items()
        },
        "findings": [asdict(finding) for finding in examined.findings],
    }
