"""Reads Sign_LLaVA's JSON: its annotation format with a `hypothesis` in each clip, or without (gold text)."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from signllava_cli.errors import UserError, escape_unprintable, summarize_names
from signllava_cli.files import read_json
from signllava_cli.generation.prediction import Prediction
from signllava_cli.recipe import is_unicode

NO_HYPOTHESIS = "a hypothesis"  # what a clip lacks, in `Prediction.missing`


@dataclass(frozen=True)
class SignLlavaPredictions:
    """`rows`: the clips of the file with their hypotheses, or with their references as such in a gold file.

    Clips that are missing in `clip_order` come last. `absent`: ids of clips in `clip_order` that are missing in the
    file, such as those that the system dropped. `is_gold`: whether no clip has a hypothesis.
    """

    rows: list[Prediction]
    absent: tuple[str, ...]
    is_gold: bool


def read_sign_llava_json(file: Path) -> SignLlavaPredictions:
    """The predictions in `file`. The reference of a clip is its `reference`, or else its `translation`.

    A clip without a hypothesis in a file that is not gold is `missing` it.

    Raises:
        UserError: the file has another format, or `clip_order` lists a clip twice.
    """
    content = read_json(file)
    is_gold = not any("hypothesis" in clip for clips in content.values() for clip in _clip_entries(clips))
    rows: list[Prediction] = []
    absent: list[str] = []
    for recording, clips in content.items():
        clip_order = _read_clip_order(file, recording, clips)
        ordered = set(clip_order)
        unordered = [name for name, clip in clips.items() if isinstance(clip, dict) and name not in ordered]
        for position, name in enumerate([*clip_order, *unordered]):
            if name in clips:
                rows.append(_make_prediction(file, recording, name, position, clips[name], is_gold))
            else:
                absent.append(f"{recording}/{name}")
    return SignLlavaPredictions(rows, tuple(absent), is_gold)


def _clip_entries(clips: Any) -> list[dict[str, Any]]:
    return [clip for clip in clips.values() if isinstance(clip, dict)] if isinstance(clips, dict) else []


def _read_clip_order(file: Path, recording: str, clips: Any) -> list[str]:
    clip_order = clips.get("clip_order") if isinstance(clips, dict) else None
    if not isinstance(clip_order, list) or not all(isinstance(name, str) for name in clip_order):
        raise UserError(
            f"{file}, recording {recording}: no `clip_order` with the names of its clips; expected "
            "predictions.jsonl, or Sign_LLaVA's JSON (the annotation file with a `hypothesis` in each clip)."
        )
    repeated = sorted(name for name, count in Counter(clip_order).items() if count > 1)
    if repeated:
        raise UserError(
            f"{file}, recording {recording}: clip_order lists clips twice ({summarize_names(repeated)}); "
            "remove the repetitions."
        )
    return clip_order


def _make_prediction(file: Path, recording: str, name: str, position: int, clip: Any, is_gold: bool) -> Prediction:
    texts = clip if isinstance(clip, dict) else {}
    reference = texts.get("reference", texts.get("translation"))
    hypothesis = reference if is_gold else texts.get("hypothesis")
    if not isinstance(reference, str):
        raise UserError(f"{file}, clip {recording}/{name}: no reference or translation.")
    if not isinstance(hypothesis, str | None):
        raise UserError(f"{file}, clip {recording}/{name}: the hypothesis is not a text.")
    texts_to_store = (recording, name, reference, hypothesis or "")
    if not all(map(is_unicode, texts_to_store)):
        raise UserError(
            f"{file}, clip {escape_unprintable(f'{recording}/{name}')}: half a character (a lone surrogate)."
        )
    missing = NO_HYPOTHESIS if hypothesis is None else None
    return Prediction(recording, name, position, "translation", reference, hypothesis or "", missing=missing)
