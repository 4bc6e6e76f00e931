"""The model card of a checkpoint: what it says of itself, and how predictions of its very weights scored."""

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
# Settings of what counts as a score of the model: no other task, and no control.
TRANSLATION: dict[str, Any] = {"task": "translation", "task_prompt": None, "ablate": [], "features": "own"}


@dataclass(frozen=True)
class ScoredPredictions:
    """The scores of one predictions file, and how its hypotheses were made."""

    split: str
    context: str
    decoding: str
    clips: int
    scores: dict[str, float]
    signatures: dict[str, str]


def model_card(checkpoint: Path, recipe: Recipe, name: str) -> ModelCard:
    """The card of `checkpoint`, whose `recipe` travels with it to the folder or repository `name`."""
    config, scored = read_config(checkpoint), _matching_scores(checkpoint)
    on_hub = re.fullmatch(HUB_ID, recipe.llm.path) and not Path(recipe.llm.path).exists()
    llm = recipe.llm.path if on_hub else Path(recipe.llm.path).name
    where = "" if on_hub else f', llm="FOLDER_OF_{llm}"'
    data = ModelCardData(
        library_name="signllava",
        tags=["sign-language-translation", "signllava", config.stage],
        base_model=recipe.llm.path if on_hub else None,
        model_name=name.rpartition("/")[2],
        eval_results=[_eval_result(each, key) for each in scored for key in METRIC_TYPES if key in each.scores],
    )
    streams = "\n".join(f"| `{name}` | {s.width} | {s.projector} |" for name, s in recipe.streams.items())
    return ModelCard(f"""---
{data.to_yaml()}
---
# {data.model_name}

Projectors{" and a LoRA adapter" if recipe.lora.enabled else ""} that let {llm} translate sign language from feature
streams, trained with signllava ({config.stage}, step {config.step}). The LLM is not in here.

| stream | width | projector |
| --- | --- | --- |
{streams}

    from signllava_cli import SignLlava
    model = SignLlava.from_pretrained("{name}"{where})
    print(model.translate({{"{next(iter(recipe.streams))}": frames}}).text)

Context in training: window {recipe.context.window}, prelude {recipe.context.prelude}.

{_score_table(scored)}
""")


def _matching_scores(checkpoint: Path) -> list[ScoredPredictions]:
    """What scores files beside the run's predictions say of translations made with these very weights."""
    weights, found = weights_hash(checkpoint), {}
    for file in sorted((checkpoint.resolve().parent / "predictions").glob(f"**/{SCORES}")):
        for result in read_json(file)["results"]:
            # by its name beside this file: the run may have moved since, and the path was perhaps relative
            folder = file.parent.parent / Path(result["file"]).parent.name
            meta = read_json(folder / META_FILE) if (folder / META_FILE).is_file() else {}
            if meta.get("weights") == weights and TRANSLATION.items() <= meta["decoding"].items():
                found[folder] = _scored_file(result, meta)
    return list(found.values())


def _scored_file(result: dict[str, Any], meta: dict[str, Any]) -> ScoredPredictions:
    decoding = meta["decoding"]
    context, temperature, mbr = decoding["context_source"], decoding["temperature"], decoding["mbr"]
    beams = "greedy" if decoding["beams"] == 1 else f"{decoding['beams']} beams"
    how = f"temperature {temperature}" if temperature else beams
    return ScoredPredictions(
        split=meta["split"],
        context=context if context == "none" else f"{context}, N {meta['window']}, M {meta['prelude']}",
        decoding=f"{how}, MBR by {mbr} of {decoding['num_return_sequences']}" if mbr else how,
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


def _score_table(scored: list[ScoredPredictions]) -> str:
    if not scored:
        return "No scores were found beside the run; `signllava generate` and `signllava eval` make them."
    names = [key for key in METRIC_TYPES if any(key in each.scores for each in scored)]
    head = ["split", "context", "decoding", "clips", *(LABELS[key] for key in names)]
    rows = [
        [each.split, each.context, each.decoding, str(each.clips), *(_cell(each.scores.get(key)) for key in names)]
        for each in scored
    ]
    signatures = {metric: text for each in scored for metric, text in each.signatures.items()}
    table = [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]
    return "\n".join([*table, "", *(f"{metric}: `{text}`  " for metric, text in signatures.items())])


def _cell(score: float | None) -> str:
    return "-" if score is None else f"{score:.2f}"
