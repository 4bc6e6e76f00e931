"""An evaluation as one HTML page, which needs no network and no server. All text from files is escaped."""

import base64
import hashlib
import json
import re
import time
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from signllava_cli.evaluation.analysis import FUNCTION_WORD_SHARE
from signllava_cli.evaluation.buckets import make_bucket_tables
from signllava_cli.evaluation.metrics.all_metrics import LABELS, format_score
from signllava_cli.evaluation.metrics.context_bound import is_correct_reading
from signllava_cli.evaluation.reporting.terminal import format_p_value
from signllava_cli.evaluation.results import Evaluation
from signllava_cli.evaluation.scoring import MIN_UNITS
from signllava_cli.evaluation.systems import TRANSLATION
from signllava_cli.files import write_text

MAX_TITLE_CHARS = 60  # of the names of the systems


def write_report(file: Path, evaluation: Evaluation) -> None:
    """Write the page to `file`.

    Raises:
        UserError: the file cannot be written.
    """
    page = files("signllava_cli.evaluation.reporting") / "page"
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    content = evaluation.to_dict()
    systems, resampling = content["results"], content["resampling"]
    keys = evaluation.table_keys
    script = (page / "report.js").read_text(encoding="utf-8")
    html = environment.from_string((page / "report.html").read_text(encoding="utf-8")).render(
        title=_make_title([system["name"] for system in systems]),
        format_p_value=format_p_value,
        format_score=format_score,
        break_after_punctuation=_break_after_punctuation,
        num_units=systems[0]["recordings" if resampling["units"] == "recordings" else "clips"],
        min_units=MIN_UNITS,
        content_share=f"{100 * FUNCTION_WORD_SHARE:g}",
        date=time.strftime("%Y-%m-%d"),
        baseline=systems[0],
        baseline_group=evaluation.baseline_group,
        systems=systems,
        seeds=content["seeds"],
        keys=keys,
        more_keys=[key for key in systems[0]["scores"] if key not in keys],
        ranges=_find_interval_ranges(evaluation),
        labels=LABELS,
        bucket_tables=make_bucket_tables(evaluation.results),
        signatures=content["signatures"],
        versions=content["versions"],
        preset=content["preset"],
        resampling=resampling,
        outcomes=_count_outcomes(evaluation),
        data=Markup(_json_for_script(_make_clip_data(evaluation))),
        css=Markup((page / "report.css").read_text(encoding="utf-8")),
        js=Markup(script),
        script_hash=Markup(_hash_for_policy(script)),
    )
    write_text(file, html)


def _hash_for_policy(script: str) -> str:
    """The source of a content security policy that allows `script`, and no other one, to run."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _make_title(names: Sequence[str]) -> str:
    joined = ", ".join(names)
    return "signllava evaluation: " + (joined if len(joined) <= MAX_TITLE_CHARS else f"{len(names)} systems")


def _break_after_punctuation(name: str) -> Markup:
    """`name`, with permission for the browser to break the line after its punctuation."""
    return Markup("<wbr>").join(part for part in re.split(r"(?<=[./_\-])", name) if part)


def _find_interval_ranges(evaluation: Evaluation) -> dict[str, tuple[float, float]]:
    """Key of a score -> the minimum and the maximum of the intervals of all systems."""
    ranges: dict[str, tuple[float, float]] = {}
    for result in evaluation.results:
        for key, interval in result.intervals.items():
            low, high = ranges.get(key, (interval.low, interval.high))
            ranges[key] = (min(low, interval.low), max(high, interval.high, low + 1e-9))
    return ranges


def _count_outcomes(evaluation: Evaluation) -> list[dict[str, Any]]:
    """For each system but the baseline, how many clips are better, equal and worse by sentence chrF2."""
    outcomes = []
    for result in evaluation.results:
        gains = np.array(list(result.analysis.get("gains", {}).values()))
        if len(gains):
            counts = {
                "better": int((gains > 0).sum()),
                "equal": int((gains == 0).sum()),
                "worse": int((gains < 0).sum()),
            }
            outcomes.append({"name": result.system.name, "clips": len(gains), "mean": float(gains.mean()), **counts})
    return outcomes


def _make_clip_data(evaluation: Evaluation) -> dict[str, Any]:
    """The data of the clip browser. Lists in a clip have an entry per system."""
    results = evaluation.results
    leaked_clips = [set(result.analysis.get("leaked_clips", ())) for result in results]
    marks = evaluation.context_bound_marks
    clips = []
    for index, rows in enumerate(zip(*(result.system.rows for result in results), strict=True)):
        mark = marks[index]
        clips.append(
            {
                "id": rows[0].id,
                "reference": rows[0].reference,
                "question": rows[0].question,
                "hypotheses": [row.hypothesis for row in rows],
                "contexts": [row.context for row in rows],
                "leaked": [row.id in clip_ids for row, clip_ids in zip(rows, leaked_clips, strict=True)],
                "scores": [round(float(result.clip_scores[index]), 1) for result in results],
                "reading": mark.reading if mark else None,
                "correct_readings": (
                    [is_correct_reading(row.hypothesis, mark.reading, mark.others) for row in rows] if mark else []
                ),
            }
        )
    score_label = "chrF2" if evaluation.baseline.task == TRANSLATION else "accuracy"
    return {"systems": [result.system.name for result in results], "score_label": score_label, "clips": clips}


def _json_for_script(content: Mapping[str, Any]) -> str:
    """JSON for a script element: no text in it can end the element, or begin a comment."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
