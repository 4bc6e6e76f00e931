"""Checkpoints that travel: as a folder, or as a repository of the Hugging Face hub, with a model card."""

import json
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, HfApi, ModelCard, ModelCardData, snapshot_download

from signllava_cli.errors import UserError
from signllava_cli.files import read_json, write_json, write_text, written_folder
from signllava_cli.generation.predictions import META
from signllava_cli.model.checkpoint import (
    ADAPTER,
    CONFIG,
    PROJECTOR,
    RECIPE,
    find_checkpoint,
    read_config,
    weights_hash,
)
from signllava_cli.recipe import Recipe, read_recipe

CARD, SCORES = "README.md", "scores.json"
PLACES_OF_STREAMS = ("folder", "metadata", "shards")
SHOWN = {"bleu1": "BLEU-1", "bleu2": "BLEU-2", "bleu3": "BLEU-3", "bleu4": "BLEU-4", "chrf2": "chrF2"}


def find_pretrained(name: str | Path, revision: str | None = None) -> Path:
    """The checkpoint folder that `name` means: on this machine, or fetched from the hub (or its cache).

    Raises:
        UserError: there is none.
    """
    if Path(name).expanduser().exists() or not re.fullmatch(r"[\w.-]+/[\w.-]+", str(name)):
        return find_checkpoint(name)
    try:
        folder = snapshot_download(
            str(name), revision=revision, allow_patterns=[PROJECTOR, CONFIG, RECIPE, f"{ADAPTER}/*"]
        )
    except Exception as fault:  # of the hub, or of whichever HTTP library is below it
        raise UserError(f"{name} is no folder here, and not to be had from the hub: {_first_line(fault)}") from None
    return find_checkpoint(folder)


def save_checkpoint(checkpoint: Path, folder: Path, llm: str | None) -> Path:
    """Copy what inference needs of `checkpoint` into `folder`, with a model card; no path of this machine's data.

    Args:
        llm: the hub id to name as the LLM's place.

    Raises:
        UserError: `folder` holds something else, or cannot be written.
    """
    if folder.exists() and any(folder.iterdir()) and not (folder / PROJECTOR).is_file():
        raise UserError(f"{folder} holds something else than a checkpoint: choose another folder.")
    if folder.resolve() == checkpoint.resolve():
        raise UserError(f"{folder} is the checkpoint itself: choose another folder.")
    recipe = _travelling(checkpoint, llm)
    config = read_json(checkpoint / CONFIG)
    config["llm"]["path"] = recipe.llm.path
    with written_folder(folder) as new:
        shutil.copy(checkpoint / PROJECTOR, new / PROJECTOR)
        if (checkpoint / ADAPTER).is_dir():
            shutil.copytree(checkpoint / ADAPTER, new / ADAPTER)
            adapter = read_json(new / ADAPTER / "adapter_config.json")
            write_json(new / ADAPTER / "adapter_config.json", {**adapter, "base_model_name_or_path": recipe.llm.path})
            (new / ADAPTER / CARD).unlink(missing_ok=True)  # PEFT's, of placeholders
        write_json(new / CONFIG, config)
        write_text(new / RECIPE, recipe.to_yaml())
        write_text(new / CARD, str(model_card(checkpoint, recipe)))
    return folder


def push_checkpoint(checkpoint: Path, repo_id: str, private: bool, llm: str | None, token: str | None) -> str:
    """Make the hub repository `repo_id` if it is not there, and upload the checkpoint to it; its address comes back.

    Raises:
        UserError: the name is none, or the hub refuses or is out of reach.
    """
    with tempfile.TemporaryDirectory() as temporary:
        saved = save_checkpoint(checkpoint, Path(temporary) / "checkpoint", llm)
        try:
            api = HfApi(token=token)
            address = api.create_repo(repo_id, private=private, exist_ok=True)
            api.upload_folder(repo_id=repo_id, folder_path=saved, commit_message=f"Add {checkpoint.name}")
        except Exception as fault:  # of the hub, or of whichever HTTP library is below it
            raise UserError(f"{repo_id} was not uploaded: {_first_line(fault)}") from None
    return str(address)


def model_card(checkpoint: Path, recipe: Recipe) -> ModelCard:
    """What the checkpoint says of itself, and the scores of its own predictions that lie beside it."""
    config, results = read_config(checkpoint), _scores(checkpoint)
    streams = "\n".join(f"| `{name}` | {s.width} | {s.projector} |" for name, s in recipe.streams.items())
    local = Path(recipe.llm.path).name if Path(recipe.llm.path).is_absolute() else recipe.llm.path
    data = ModelCardData(
        library_name="signllava",
        tags=["sign-language-translation", "signllava", config.stage],
        base_model=recipe.llm.path if re.fullmatch(r"[\w.-]+/[\w.-]+", recipe.llm.path) else None,
        model_name=checkpoint.resolve().parent.name,
        eval_results=[_eval_result(result, key) for result in results for key in SHOWN if key in result["scores"]],
    )
    text = f"""---
{data.to_yaml()}
---
# {data.model_name}

Projectors{" and a LoRA adapter" if recipe.lora.enabled else ""} that let {local} translate sign language from feature
streams; trained with [signllava](https://pypi.org/project/signllava) ({config.stage}, step {config.step}). The LLM is
not in here.

| stream | width | projector |
| --- | --- | --- |
{streams}

    from signllava_cli import SignLlava
    model = SignLlava.from_pretrained("THIS_REPOSITORY", llm="FOLDER_OR_ID_OF_{local}")
    print(model.translate({{"{next(iter(recipe.streams))}": frames}}).text)

Context in training: window {recipe.context.window}, prelude {recipe.context.prelude}.

{_score_table(results)}
"""
    return ModelCard(text)


def _scores(checkpoint: Path) -> list[dict[str, Any]]:
    """The results in scores files beside the run's predictions that were made with these very weights."""
    weights, found = weights_hash(checkpoint), {}
    for file in sorted((checkpoint.resolve().parent / "predictions").glob(f"**/{SCORES}")):
        for result in read_json(file).get("results", []):
            meta = Path(result["file"]).parent / META
            if meta.is_file() and read_json(meta).get("weights") == weights:
                found[result["file"]] = {**result, "split": read_json(meta)["split"]}
    return list(found.values())


def _eval_result(result: dict[str, Any], key: str) -> EvalResult:
    return EvalResult(
        task_type="translation",
        dataset_type="sign-language",
        dataset_name=f"split {result['split']}, context {result['context_source'].partition(':')[0]}",
        metric_type="chrf" if key.startswith("chrf") else "bleu",
        metric_name=SHOWN[key],
        metric_value=round(float(result["scores"][key]), 2),
    )


def _score_table(results: list[dict[str, Any]]) -> str:
    if not results:
        return "No scores were found beside the run; `signllava generate` and `signllava eval` make them."
    names = [key for key in SHOWN if any(key in result["scores"] for result in results)]
    head = f"| split | context | clips | {' | '.join(SHOWN[key] for key in names)} |"
    rows = [
        f"| {result['split']} | {result['context_source'].partition(':')[0]} | {result['clips']} | "
        + " | ".join(f"{result['scores'][key]:.2f}" if key in result["scores"] else "-" for key in names)
        + " |"
        for result in results
    ]
    signatures = {name: text for result in results for name, text in result["signatures"].items()}
    lines = [
        head,
        "| --- " * (3 + len(names)) + "|",
        *rows,
        "",
        *(f"{n}: `{text}`  " for n, text in signatures.items()),
    ]
    return "\n".join(lines)


def _travelling(checkpoint: Path, llm: str | None) -> Recipe:
    """Its recipe without paths of this machine, but for that of an LLM without another name."""
    keys = [f"streams.{name}.{key}" for name in read_recipe(checkpoint / RECIPE).streams for key in PLACES_OF_STREAMS]
    settings = {
        **dict.fromkeys([*keys, "init.projector", "launch.profile"]),
        **{
            "run.folder": "runs/run",
            "data.root": "data",
            "context.source": "gold",
            "generate.context_source": "gold",
        },
        **({} if llm is None else {"llm.path": llm}),
    }
    return read_recipe(checkpoint / RECIPE, [f"{key}={json.dumps(value)}" for key, value in settings.items()])


def _first_line(fault: Exception) -> str:
    return next(iter(str(fault).strip().splitlines()), type(fault).__name__)
