"""Collects what a checkpoint contains, for `signllava checkpoint inspect`."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open

from signllava_cli.data.projector_inputs import projector_inputs
from signllava_cli.files import read_json, read_link
from signllava_cli.model.checkpoint import (
    PROGRESS,
    RECIPE,
    CheckpointConfig,
    find_tensor_damage,
    iterate_tensors,
    read_config,
    weights_hash,
)
from signllava_cli.recipe import Recipe, read_recipe

RESUME, METRICS = "resume", "metrics.jsonl"  # as training writes them


@dataclass(frozen=True)
class TensorFacts:
    """One trained tensor. `size`: bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    size: int


@dataclass(frozen=True)
class Part:
    """A projector (named after its stream, or its joined streams) or the adapter. `size`: bytes."""

    name: str
    tensors: int
    parameters: int
    size: int


@dataclass(frozen=True)
class StoredFile:
    """A file of `resume/`. `size`: bytes. `tensors`: their number, in a safetensors file. `damage`: its error."""

    name: str
    size: int
    tensors: int | None
    damage: str | None


@dataclass(frozen=True)
class Inspection:
    """Everything about a checkpoint except the values of its tensors.

    `progress`: empty for a saved model, which has no progress.json. `links`: the links of its run folder that point
    to it (`best`, `last`). `scores`: its dev scores in the run's metrics.jsonl. `weights`: the hash of the trained
    weights. `resume`: None if there is no such folder.
    """

    path: Path
    config: CheckpointConfig
    recipe: Recipe
    progress: dict[str, Any]
    links: tuple[str, ...]
    scores: dict[str, float]
    weights: str
    parts: tuple[Part, ...]
    tensors: tuple[TensorFacts, ...]
    resume: tuple[StoredFile, ...] | None

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON values; the recipe with all its keys."""
        return {**asdict(self), "path": str(self.path), "recipe": self.recipe.to_dict()}


def inspect(checkpoint: Path) -> Inspection:
    """Inspect the folder `checkpoint`.

    Raises:
        UserError: one of the files that inference needs is missing or damaged.
    """
    config, recipe = read_config(checkpoint), read_recipe(checkpoint / RECIPE)
    tensors = tuple(TensorFacts(name, dtype, shape, size) for name, dtype, shape, size in iterate_tensors(checkpoint))
    return Inspection(
        path=checkpoint,
        config=config,
        recipe=recipe,
        progress=read_json(checkpoint / PROGRESS) if (checkpoint / PROGRESS).exists() else {},
        links=tuple(name for name in ("best", "last") if _links_to(checkpoint.parent / name, checkpoint)),
        scores=_dev_scores(checkpoint.parent / METRICS, config.step),
        weights=weights_hash(checkpoint),
        parts=_parts(tensors, recipe),
        tensors=tensors,
        resume=_stored_files(checkpoint / RESUME),
    )


def _parts(tensors: Sequence[TensorFacts], recipe: Recipe) -> tuple[Part, ...]:
    inputs = projector_inputs(recipe.streams)
    parts: dict[str, list[TensorFacts]] = {}
    for tensor in tensors:
        stream = tensor.name.partition(".")[0]
        parts.setdefault(f"projector {stream}" if stream in inputs else "adapter", []).append(tensor)
    return tuple(
        Part(
            name,
            len(part_tensors),
            sum(math.prod(tensor.shape) for tensor in part_tensors),
            sum(tensor.size for tensor in part_tensors),
        )
        for name, part_tensors in parts.items()
    )


def _links_to(link: Path, checkpoint: Path) -> bool:
    target = read_link(link)
    return target is not None and target.resolve() == checkpoint.resolve()


def _dev_scores(metrics: Path, step: int) -> dict[str, float]:
    """The dev scores of `step` in a run's metrics.jsonl; none if the checkpoint is outside of a run folder."""
    scores: dict[str, float] = {}
    lines = metrics.read_text(encoding="utf-8", errors="replace").split("\n") if metrics.is_file() else []
    for text in filter(None, lines):
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):  # a line that was interrupted; the run removes it on resume
            continue
        if isinstance(line, dict) and line.get("step") == step:
            scores |= {name: value for name, value in line.items() if name.startswith("dev_")}
    return scores


def _stored_files(folder: Path) -> tuple[StoredFile, ...] | None:
    if not folder.is_dir():
        return None
    stored_files = []
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        damage, tensors = None, None
        if file.suffix == ".safetensors":
            damage = find_tensor_damage(file)
            if damage is None:
                with safe_open(file, "pt") as handle:
                    tensors = len(handle.keys())
        stored_files.append(StoredFile(str(file.relative_to(folder)), file.stat().st_size, tensors, damage))
    return tuple(stored_files)
