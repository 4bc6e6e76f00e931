"""Writes the findings to a file: JSON for programs, HTML for people."""

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
MAX_NAMES_ON_PAGE = 1000  # of one finding
_TEMPLATE = Path(__file__).with_name("report.html.j2")


def require_report_suffix(file: Path) -> None:
    """Check the suffix of a report file, before the validation takes hours.

    Raises:
        UserError: the suffix is neither `.json` nor `.html`, or `file` is a folder.
    """
    if file.suffix not in REPORT_SUFFIXES or file.is_dir():
        raise UserError(f"--report {file}: expected a file that ends in {' or '.join(REPORT_SUFFIXES)}.")


def write_report(file: Path, result: ValidationResult, arguments: Mapping[str, Any]) -> None:
    """Write the report in the format of the suffix of `file`.

    Raises:
        UserError: the file cannot be written.
    """
    report = _to_json(result, arguments)
    if file.suffix == ".json":
        # in ASCII: a name may hold text that is not valid UTF-8
        write_text(file, json.dumps(report, indent=2) + "\n")
        return
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"names": format_names, "printable": escape_unprintable}
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    findings = list(zip(result.findings, _entries(result, arguments["fps"]), strict=True))
    page = template.render(
        **report | {"findings": findings, "max_names": MAX_NAMES_ON_PAGE},
        summary=summary(result.findings, result.seconds),
    )
    write_text(file, page)


@dataclass(frozen=True)
class _Entry:
    """A name of a finding; for a clip also its times in the video (if known) and its sentence."""

    name: str
    time: str = ""
    sentence: str = ""


def _entries(result: ValidationResult, fps: float) -> list[list[_Entry]]:
    """The first MAX_NAMES_ON_PAGE names of each finding."""
    names_of_findings = [(finding.split, finding.names[:MAX_NAMES_ON_PAGE]) for finding in result.findings]
    shown = {(split, name) for split, names in names_of_findings for name in names}
    clips: dict[tuple[str | None, str], _Entry] = {
        (split.name, clip.id): _Entry(clip.id, _format_times(clip_times(clip, fps)), clip.translation)
        for split in result.splits
        for recording in split.recordings
        for clip in recording.clips
        if (split.name, clip.id) in shown
    }
    return [[clips.get((split, name)) or _Entry(name) for name in names] for split, names in names_of_findings]


def _format_times(times: ClipTimes | None) -> str:
    """`0:01:02.5-0:01:04.0`"""
    if times is None:
        return ""
    return "-".join(_format_seconds(seconds) for seconds in (times.start, times.end) if seconds is not None)


def _format_seconds(seconds: float) -> str:
    minutes, tenths = divmod(round(seconds * 10), 600)
    return f"{minutes // 60}:{minutes % 60:02d}:{tenths / 10:04.1f}"


def _to_json(result: ValidationResult, arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "data": str(result.root),
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "versions": {
            "signllava": __version__,
            "python": platform.python_version(),
            "h5py": h5py.__version__,
            "numpy": np.__version__,
        },
        "arguments": dict(arguments),
        "seconds": round(result.seconds, 3),
        "counts": counts_by_severity(result.findings),
        "splits": {name: {"clips": clips} for name, clips in result.clips.items()},
        "streams": {
            name: {"width": result.widths[name], "arrays": arrays, "frames": result.frames[name]}
            for name, arrays in result.arrays.items()
        },
        "findings": [asdict(finding) for finding in result.findings],
    }
