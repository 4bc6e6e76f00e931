"""One HTML page of an evaluation: it needs no network and no server, and shows what the data says as text."""

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
from signllava_cli.evaluation.buckets import bucket_tables
from signllava_cli.evaluation.metrics.context_bound import is_read_right
from signllava_cli.evaluation.reporting.terminal import format_p_value
from signllava_cli.evaluation.scoring import MIN_UNITS, TRANSLATION, Evaluation, context_bound_marks, format_score
from signllava_cli.files import write_text

MAX_TITLE_CHARS = 60  # characters of the names


def write_report(file: Path, evaluation: Evaluation) -> None:
    """Write the page to `file`.

    Raises:
        UserError: it cannot be written.
    """
    page = files("signllava_cli.evaluation.reporting") / "page"
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    content = evaluation.to_dict()
    systems = content["results"]
    shown = evaluation.shown()
    html = environment.from_string((page / "report.html").read_text(encoding="utf-8")).render(
        title=_title([each["name"] for each in systems]),
        as_p=format_p_value,
        as_figure=format_score,
        breakable=_breakable,
        units=systems[0]["recordings" if content["resampling"]["units"] == "recordings" else "clips"],
        few=MIN_UNITS,
        content_share=f"{100 * FUNCTION_WORD_SHARE:g}",
        made=time.strftime("%Y-%m-%d"),
        first=systems[0],
        systems=systems,
        seeds=content["seeds"],
        keys=shown,
        more_keys=[key for key in systems[0]["scores"] if key not in shown],
        scale=_scale(evaluation),
        labels=evaluation.labels,
        kinds=bucket_tables(evaluation.scored),
        signatures=content["signatures"],
        versions=content["versions"],
        preset=content["preset"],
        resampling=content["resampling"],
        outcomes=_outcomes(evaluation),
        data=Markup(_json_for_script(_clips(evaluation))),
        css=Markup((page / "report.css").read_text(encoding="utf-8")),
        js=Markup((page / "report.js").read_text(encoding="utf-8")),
    )
    write_text(file, html)


def _title(names: Sequence[str]) -> str:
    listed = ", ".join(names)
    return "signllava evaluation: " + (listed if len(listed) <= MAX_TITLE_CHARS else f"{len(names)} systems")


def _breakable(name: str) -> Markup:
    """`name`, which a browser may break behind its punctuation."""
    return Markup("<wbr>").join(part for part in re.split(r"(?<=[./_\-])", name) if part)


def _scale(evaluation: Evaluation) -> dict[str, tuple[float, float]]:
    """Key of a figure -> the least and the greatest value that an interval of any system reaches."""
    scale: dict[str, tuple[float, float]] = {}
    for each in evaluation.scored:
        for key, interval in each.intervals.items():
            low, high = scale.get(key, (interval.low, interval.high))
            scale[key] = (min(low, interval.low), max(high, interval.high, low + 1e-9))
    return scale


def _outcomes(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Of each system but the first, how many clips it renders better, as well, or worse (sentence chrF2)."""
    found = []
    for each in evaluation.scored:
        gains = np.array(list(each.analysis.get("gains", {}).values()))
        if len(gains):
            counts = {
                "better": int((gains > 0).sum()),
                "equal": int((gains == 0).sum()),
                "worse": int((gains < 0).sum()),
            }
            found.append({"name": each.system.name, "clips": len(gains), "mean": float(gains.mean()), **counts})
    return found


def _clips(evaluation: Evaluation) -> dict[str, Any]:
    """What the clip browser holds: what each system said, saw and scored, and whether it saw the answer."""
    scored = evaluation.scored
    name = "chrF2" if scored[0].system.task == TRANSLATION else "accuracy"
    leaked = [set(each.analysis.get("leaked", ())) for each in scored]
    marks = context_bound_marks([each.system for each in scored])
    clips = [
        {
            "id": rows[0].id,
            "meant": rows[0].reference,
            "asked": rows[0].question,
            "said": [row.hypothesis for row in rows],
            "saw": [row.context for row in rows],
            "leaked": [row.id in ids for row, ids in zip(rows, leaked, strict=True)],
            "score": [round(float(each.clip_scores[index]), 1) for each in scored],
            "reading": mark.reading if (mark := marks[index]) else None,
            "right": [is_read_right(row.hypothesis, mark.reading, mark.others) for row in rows] if mark else [],
        }
        for index, rows in enumerate(zip(*(each.system.rows for each in scored), strict=True))
    ]
    return {"systems": [each.system.name for each in scored], "score": name, "clips": clips}


def _json_for_script(content: Mapping[str, Any]) -> str:
    """JSON that may stand inside a script element: nothing in it can end the element."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
