"""Score predictions files: a table on the screen, and scores.json."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

from signllava_cli import __version__
from signllava_cli.console import say, show_table, warn
from signllava_cli.errors import UserError
from signllava_cli.evaluation.metrics import (
    Bleu,
    Chrf,
    ContextBoundAccuracy,
    ExactMatch,
    OfflineMetric,
    RougeL,
)
from signllava_cli.files import read_json, write_json
from signllava_cli.generation.prediction import Prediction
from signllava_cli.generation.predictions import META, find_predictions, ids_hash, read_predictions

TEXT_METRICS: tuple[type[OfflineMetric], ...] = (Bleu, Chrf, RougeL, ExactMatch)
COLUMNS = {
    "bleu1": "BLEU-1",
    "bleu2": "BLEU-2",
    "bleu3": "BLEU-3",
    "bleu4": "BLEU-4",
    "chrf2": "chrF2",
    "rougeL": "ROUGE-L",
    "exact_match": "exact",
    "context_bound_accuracy": "context-bound",
}


def score_files(predictions: list[Path], out: Path | None = None) -> dict[str, Any]:
    """Score each predictions file, print one table, and write scores.json.

    Args:
        out: the JSON file, or a folder for it; default: beside the first predictions file.

    Raises:
        UserError: a file is missing, damaged, unfinished, or scored on other clips than the first.
    """
    files = [find_predictions(path.expanduser()) for path in predictions]
    target = files[0].parent / "scores.json" if out is None else out / "scores.json" if out.is_dir() else out
    if target.exists() and not (target.is_file() and "results" in read_json(target)):
        raise UserError(f"--out {target} is there and holds no scores: choose another name.")
    results = [score_file(file) for file in files]
    first = results[0]
    for result in results[1:]:
        if result["clips_hash"] != first["clips_hash"]:
            raise UserError(
                f"{result['file']} and {first['file']} hold different clips ({result['clips']} and "
                f"{first['clips']}), so their scores cannot be compared; score them one by one."
            )
    signatures = {name: text for result in results for name, text in result["signatures"].items()}
    scores = {
        "results": results,
        "signatures": signatures,
        "versions": {
            "signllava": __version__,
            **{n: version(n) for n in ("sacrebleu", "evaluate", "rouge-score")},
        },
    }
    _show(results, signatures)
    write_json(target, scores)
    say(f"scores in {target}")
    return scores


def score_file(file: Path) -> dict[str, Any]:
    """Counts, scores and signatures of one predictions file. A clip without features scores as empty."""
    rows = read_predictions(file)
    if not rows:
        raise UserError(f"{file} holds no predictions.")
    _require_complete(file, rows)
    hypotheses, references = [row.hypothesis for row in rows], [row.reference for row in rows]
    scores: dict[str, float] = {}
    signatures: dict[str, str] = {}
    for metric in TEXT_METRICS:
        _take(metric, metric().compute(predictions=hypotheses, references=references), scores, signatures)
    bound = [(row.hypothesis, row.context_bound) for row in rows if row.context_bound]
    if bound:
        result = ContextBoundAccuracy().compute(
            predictions=[hypothesis for hypothesis, _ in bound],
            references=[mark.reading for _, mark in bound],
            others=[list(mark.others) for _, mark in bound],
        )
        _take(ContextBoundAccuracy, result, scores, signatures)
    return {
        "file": str(file),
        "context_source": rows[0].context_source,
        "clips": len(rows),
        "clips_hash": ids_hash(row.id for row in rows),
        "clips_without_features": [row.id for row in rows if row.missing],
        "context_bound_clips": len(bound),
        "scores": scores,
        "signatures": signatures,
    }


def _take(metric: type, result: dict[str, Any], scores: dict[str, float], signatures: dict[str, str]) -> None:
    signatures[metric.__name__] = result.pop("signature")
    scores.update(result)


def _require_complete(file: Path, rows: list[Prediction]) -> None:
    """Check the rows against what the meta file says was to be translated."""
    meta_file = file.parent / META
    if not meta_file.is_file():
        warn(f"{file} has no {META} beside it: whether clips are missing cannot be told.")
        return
    meta = read_json(meta_file)
    if not {"clips", "clips_hash", "split"} <= meta.keys():
        raise UserError(f"{meta_file} does not say which clips were to be translated; generate again.")
    if meta["clips_hash"] != ids_hash(row.id for row in rows):
        raise UserError(
            f"{file} holds {len(rows)} of {meta['clips']} clips of split {meta['split']}, or others; "
            "run the same `signllava generate` again to finish it."
        )


def _show(results: list[dict[str, Any]], signatures: dict[str, str]) -> None:
    names = [name for name in COLUMNS if any(name in result["scores"] for result in results)]
    rows = []
    for result in results:
        cells = [f"{result['scores'][name]:.2f}" if name in result["scores"] else "-" for name in names]
        rows.append([Path(result["file"]).parent.name, result["context_source"], result["clips"], *cells])
    show_table("Scores", ["predictions", "context", "clips", *(COLUMNS[name] for name in names)], rows)
    for metric, signature in signatures.items():
        say(f"{metric}: {signature}")
    skipped = len(results[0]["clips_without_features"])
    if skipped:
        warn(f"{skipped} clips have no features and were scored as empty hypotheses.")
    say(
        f"clips {results[0]['clips']}, of which {results[0]['context_bound_clips']} context-bound; "
        f"hash of their ids {results[0]['clips_hash']}"
    )
