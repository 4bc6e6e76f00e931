"""The model card of a checkpoint: its streams and settings, and the scores of predictions made with its weights."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from signllava_cli.evaluation.metrics.all_metrics import LABELS, METRICS
from signllava_cli.files import read_json
from signllava_cli.generation.predictions_folder import META_FILE
from signllava_cli.model.checkpoint import read_config, weights_hash
from signllava_cli.recipe import Recipe

SCORES = "scores.json"
HUB_ID = r"[\w.-]+/[\w.-]+"
# key of a score on the card -> the metric as the Hub calls it
METRIC_TYPES = {key: name for name in ("bleu", "chrf") for key in METRICS[name].metric.labels}
# Decoding settings of the predictions whose scores are listed: the task is translation, without a control.
TRANSLATION: dict[str, Any] = {"task": "translation", "task_prompt": None, "ablate": [], "features": "own"}


@dataclass(frozen=True)
class ScoredPredictions:
    """The scores of one predictions file, and the settings of its hypotheses."""

    split: str
    context: str
    decoding: str
    clips: int
    scores: dict[str, float]
    signatures: dict[str, str]


def model_card(checkpoint: Path, recipe: Recipe, name: str) -> ModelCard:
    """The card of `checkpoint`, saved with `recipe` in the folder or repository `name`."""
    config, scored_files = read_config(checkpoint), _matching_scores(checkpoint)
    is_on_hub = re.fullmatch(HUB_ID, recipe.llm.path) and not Path(recipe.llm.path).exists()
    llm = recipe.llm.path if is_on_hub else Path(recipe.llm.path).name
    llm_argument = "" if is_on_hub else f', llm="FOLDER_OF_{llm}"'
    data = ModelCardData(
        library_name="signllava",
        tags=["sign-language-translation", "signllava", config.stage],
        base_model=recipe.llm.path if is_on_hub else None,
        model_name=name.rpartition("/")[2],
        eval_results=[
            _eval_result(scored, key) for scored in scored_files for key in METRIC_TYPES if key in scored.scores
        ],
    )
    streams = "\n".join(
        f"| `{name}` | {stream.width} | {stream.architecture} |" for name, stream in recipe.streams.items()
    )
    return ModelCard(f"""---
{data.to_yaml()}
---
# {data.model_name}

Projectors{" and a LoRA adapter" if recipe.lora.enabled else ""} that let {llm} translate sign language from feature
streams, trained with signllava ({config.stage}, step {config.step}). The LLM is not included.

| stream | width | projector |
| --- | --- | --- |
{streams}

    from signllava_cli import SignLlava
    model = SignLlava.from_pretrained("{name}"{llm_argument})
    print(model.translate({{"{next(iter(recipe.streams))}": frames}}).text)

Context in training: window {recipe.context.window}, prelude {recipe.context.prelude}.

{_score_table(scored_files)}
""")


def _matching_scores(checkpoint: Path) -> list[ScoredPredictions]:
    """The scores in the run's `predictions` folders of translations made with the weights of `checkpoint`."""
    weights, scored_files = weights_hash(checkpoint), {}
    for file in sorted((checkpoint.resolve().parent / "predictions").glob(f"**/{SCORES}")):
        for result in read_json(file)["results"]:
            # found by its name: the run may have been moved, and the stored path may be relative
            folder = file.parent.parent / Path(result["file"]).parent.name
            meta = read_json(folder / META_FILE) if (folder / META_FILE).is_file() else {}
            if meta.get("weights") == weights and TRANSLATION.items() <= meta["decoding"].items():
                scored_files[folder] = _read_scores(result, meta)
    return list(scored_files.values())


def _read_scores(result: dict[str, Any], meta: dict[str, Any]) -> ScoredPredictions:
    decoding = meta["decoding"]
    context, temperature, mbr = decoding["context_source"], decoding["temperature"], decoding["mbr"]
    beams = "greedy" if decoding["num_beams"] == 1 else f"{decoding['num_beams']} beams"
    search = f"temperature {temperature}" if temperature else beams
    return ScoredPredictions(
        split=meta["split"],
        context=context if context == "none" else f"{context}, N {meta['window']}, M {meta['prelude']}",
        decoding=f"{search}, MBR by {mbr} of {decoding['num_return_sequences']}" if mbr else search,
        clips=result["clips"],
        scores=result["scores"],
        signatures=result["signatures"],
    )


def _eval_result(scored: ScoredPredictions, key: str) -> EvalResult:
    return EvalResult(
        task_type="translation",
        dataset_type="sign-language",
        dataset_name=f"split {scored.split}; context {scored.context}; {scored.decoding}",
        metric_type=METRIC_TYPES[key],
        metric_name=LABELS[key],
        metric_value=round(float(scored.scores[key]), 2),
    )


def _score_table(scored_files: list[ScoredPredictions]) -> str:
    """The scores as a Markdown table, with the signatures of the metrics below."""
    if not scored_files:
        return "No scores were found in the run; `signllava generate` and `signllava eval` make them."
    keys = [key for key in METRIC_TYPES if any(key in scored.scores for scored in scored_files)]
    header = ["split", "context", "decoding", "clips", *(LABELS[key] for key in keys)]
    rows = [
        [
            *(scored.split, scored.context, scored.decoding, str(scored.clips)),
            *(_format_score(scored.scores.get(key)) for key in keys),
        ]
        for scored in scored_files
    ]
    signatures = {metric: text for scored in scored_files for metric, text in scored.signatures.items()}
    table = [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)]
    return "\n".join([*table, "", *(f"{metric}: `{text}`  " for metric, text in signatures.items())])


def _format_score(score: float | None) -> str:
    return "-" if score is None else f"{score:.2f}"
