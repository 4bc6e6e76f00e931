"""One HTML page of an evaluation: it needs no network and no server, and shows what the data says as text."""

import json
import time
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from signllava_cli.evaluation.behaviour import sentence_scores
from signllava_cli.evaluation.presets import Preset
from signllava_cli.evaluation.score import Scored
from signllava_cli.files import write_text

BUCKETS = {
    "context_sentences": "context sentences",
    "position": "position in the recording",
    "reference_words": "words of the reference",
    "frames": "frames shown",
}


def write_report(
    file: Path,
    scored: Sequence[Scored],
    content: Mapping[str, Any],
    keys: Sequence[str],
    labels: Mapping[str, str],
    preset: Preset,
) -> None:
    """Write the page to `file`.

    Args:
        content: that of scores.json.
        keys: the figures of the score table.
        labels: key of a figure -> its name.
    """
    page = files("signllava_cli.evaluation") / "page"
    environment = Environment(autoescape=True)
    first = content["results"][0]
    html = environment.from_string((page / "report.html").read_text(encoding="utf-8")).render(
        title="signllava evaluation: " + ", ".join(each["name"] for each in content["results"]),
        made=time.strftime("%Y-%m-%d"),
        clips=first["clips"],
        recordings=first["recordings"],
        clips_hash=first["clips_hash"],
        systems=content["results"],
        keys=[key for key in keys if any(key in each["scores"] for each in content["results"])],
        labels=labels,
        buckets=BUCKETS if first["behaviour"] else {},
        signatures=content["signatures"],
        versions=content["versions"],
        resampling=content["resampling"],
        data=Markup(_embedded(_clips(scored, preset))),
        css=Markup((page / "report.css").read_text(encoding="utf-8")),
        js=Markup((page / "report.js").read_text(encoding="utf-8")),
    )
    write_text(file, html)


def _clips(scored: Sequence[Scored], preset: Preset) -> dict[str, Any]:
    """What the clip browser holds: for each clip, what each system said, saw, and scored (sentence chrF2)."""
    scores = [sentence_scores(each.system.rows, preset).tolist() for each in scored]
    clips = [
        {
            "id": rows[0].id,
            "meant": rows[0].reference,
            "said": [row.hypothesis for row in rows],
            "saw": [row.context for row in rows],
            "score": [round(each[place], 1) for each in scores],
        }
        for place, rows in enumerate(zip(*(each.system.rows for each in scored), strict=True))
    ]
    return {"systems": [each.system.name for each in scored], "clips": clips}


def _embedded(content: Any) -> str:
    """JSON that may stand inside a script element: nothing in it can end the element."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
