"""The research system's JSON: its annotation file with a `hypothesis` in each clip; or without, gold text."""

from pathlib import Path
from typing import Any

from signllava_cli.errors import UserError
from signllava_cli.files import read_json
from signllava_cli.generation.prediction import Prediction


def read_research_predictions(file: Path) -> list[Prediction]:
    """The clips of the file, each with its hypothesis; in a file without hypotheses, with its reference as such.

    The reference of a clip is its `reference`, else its `translation`. Clips that `clip_order` names and the file
    lacks, as it does those without features, are left out.

    Raises:
        UserError: it is not such a file.
    """
    content = read_json(file)
    gold = not any("hypothesis" in clip for clips in content.values() for clip in _clips(clips))
    return [
        _prediction(file, recording, name, position, clips[name], gold)
        for recording, clips in content.items()
        for position, name in enumerate(_order(file, recording, clips))
        if name in clips
    ]


def _clips(clips: Any) -> list[dict[str, Any]]:
    return [clip for clip in clips.values() if isinstance(clip, dict)] if isinstance(clips, dict) else []


def _order(file: Path, recording: str, clips: Any) -> list[str]:
    order = clips.get("clip_order") if isinstance(clips, dict) else None
    if not isinstance(order, list) or not all(isinstance(name, str) for name in order):
        raise UserError(
            f"{file}, recording {recording}: no `clip_order` with the names of its clips; expected "
            "predictions.jsonl, or the research system's JSON (the annotation file with a `hypothesis` in each clip)."
        )
    return order


def _prediction(file: Path, recording: str, name: str, position: int, clip: Any, gold: bool) -> Prediction:
    texts = clip if isinstance(clip, dict) else {}
    reference = texts.get("reference", texts.get("translation"))
    hypothesis = reference if gold else texts.get("hypothesis")
    if not isinstance(reference, str) or not isinstance(hypothesis, str):
        lacking = "reference or translation" if not isinstance(reference, str) else "hypothesis"
        raise UserError(f"{file}, clip {recording}/{name}: no {lacking}.")
    return Prediction(recording, name, position, "translation", reference, hypothesis)
