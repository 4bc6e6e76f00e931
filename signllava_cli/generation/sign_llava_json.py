"""Sign_LLaVA's JSON: its annotation file with a `hypothesis` in each clip; or without, gold text."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from signllava_cli.errors import UserError, escape_unprintable, summarize_names
from signllava_cli.files import read_json
from signllava_cli.generation.prediction import Prediction

NO_HYPOTHESIS = "a hypothesis"  # what a clip lacks, in `Prediction.missing`


@dataclass(frozen=True)
class SignLlavaPredictions:
    """`rows`: the clips of the file, each with its hypothesis; in a gold file, with its reference as such.

    Clips that `clip_order` forgets stand last. `absent`: ids of clips that it names and the file lacks, as it does
    those that the system dropped.
    """

    rows: list[Prediction]
    absent: tuple[str, ...]
    is_gold: bool


def read_sign_llava_json(file: Path) -> SignLlavaPredictions:
    """The file taken apart. The reference of a clip is its `reference`, else its `translation`.

    A clip without a hypothesis in a file that has some is `missing` it.

    Raises:
        UserError: it is not such a file, or `clip_order` names a clip twice.
    """
    content = read_json(file)
    gold = not any("hypothesis" in clip for clips in content.values() for clip in _clips(clips))
    rows: list[Prediction] = []
    absent: list[str] = []
    for recording, clips in content.items():
        order = _order(file, recording, clips)
        known = set(order)
        forgotten = [name for name, clip in clips.items() if isinstance(clip, dict) and name not in known]
        for position, name in enumerate([*order, *forgotten]):
            if name in clips:
                rows.append(_prediction(file, recording, name, position, clips[name], gold))
            else:
                absent.append(f"{recording}/{name}")
    return SignLlavaPredictions(rows, tuple(absent), gold)


def _clips(clips: Any) -> list[dict[str, Any]]:
    return [clip for clip in clips.values() if isinstance(clip, dict)] if isinstance(clips, dict) else []


def _order(file: Path, recording: str, clips: Any) -> list[str]:
    order = clips.get("clip_order") if isinstance(clips, dict) else None
    if not isinstance(order, list) or not all(isinstance(name, str) for name in order):
        raise UserError(
            f"{file}, recording {recording}: no `clip_order` with the names of its clips; expected "
            "predictions.jsonl, or Sign_LLaVA's JSON (the annotation file with a `hypothesis` in each clip)."
        )
    twice = sorted(name for name, count in Counter(order).items() if count > 1)
    if twice:
        raise UserError(f"{file}, recording {recording}: clip_order names clips twice ({summarize_names(twice)}).")
    return order


def _prediction(file: Path, recording: str, name: str, position: int, clip: Any, gold: bool) -> Prediction:
    texts = clip if isinstance(clip, dict) else {}
    reference = texts.get("reference", texts.get("translation"))
    hypothesis = reference if gold else texts.get("hypothesis")
    if not isinstance(reference, str):
        raise UserError(f"{file}, clip {recording}/{name}: no reference or translation.")
    if not isinstance(hypothesis, str | None):
        raise UserError(f"{file}, clip {recording}/{name}: its hypothesis is no text.")
    if any("\ud800" <= each <= "\udfff" for text in (recording, name, reference, hypothesis or "") for each in text):
        raise UserError(
            f"{file}, clip {escape_unprintable(f'{recording}/{name}')}: holds half a character (a lone surrogate)."
        )
    missing = NO_HYPOTHESIS if hypothesis is None else None
    return Prediction(recording, name, position, "translation", reference, hypothesis or "", missing=missing)
