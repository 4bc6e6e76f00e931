"""Reads and writes checkpoints: the trained weights and what inference needs, and nothing else.

projector.safetensors   every projector and boundary vector
adapter/                the LoRA adapter in PEFT's format, after finetune
config.json             LLM, chat template, data hash, versions
recipe.yaml             the resolved recipe: streams, prompts, context, decoding
"""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from signllava_cli._version import __version__
from signllava_cli.data.chat_turns import ChatTurns
from signllava_cli.data.projector_inputs import ProjectorInput
from signllava_cli.errors import UserError, first_validation_error
from signllava_cli.files import read_json, read_link, write_json, write_text
from signllava_cli.model.llm import read_tensors, require_same_tensors
from signllava_cli.model.lora import ADAPTER_WEIGHTS, load_adapter, save_adapter
from signllava_cli.model.signllava_model import SignLlavaModel
from signllava_cli.recipe import Recipe, read_recipe

FORMAT = "signllava-checkpoint-1"
PROJECTOR, ADAPTER, CONFIG, RECIPE, PROGRESS = (
    "projector.safetensors",
    "adapter",
    "config.json",
    "recipe.yaml",
    "progress.json",
)
# Training settings that do not apply to generation: the ranges of window and prelude, and the launch profile.
GENERATION_OVERRIDES = ("context.min_window=null", "context.min_prelude=null", "launch.profile=null")
STEP_FOLDER = re.compile(r"step-(\d{6,})")


@dataclass(frozen=True)
class CheckpointConfig:
    """The config.json of a checkpoint.

    `llm`: the result of `llm_identity`. `turns`: the rendered chat template of training. `data`: the fingerprint of
    the training split. `layouts`: stream -> the name of what its numbers are, if known.
    """

    stage: str
    step: int
    llm: dict[str, Any]
    turns: ChatTurns
    data: str
    versions: dict[str, str]
    layouts: dict[str, str] = field(default_factory=dict)
    format: str = FORMAT


def library_versions() -> dict[str, str]:
    """The versions of this package and of the libraries on which the contents of a checkpoint depend."""
    names = ("torch", "transformers", "accelerate", "peft", "bitsandbytes", "safetensors")
    return {"signllava": __version__, **{name: version(name) for name in names}}


def write_checkpoint(
    folder: Path, model: SignLlavaModel, weights: dict[str, Tensor], config: CheckpointConfig, recipe: Recipe
) -> None:
    """Write the files of a checkpoint that inference needs into the empty `folder`.

    Args:
        weights: the trained weights by their names in `model`, complete even if `model` is partitioned (ZeRO-3).
    """
    projectors = _strip_prefix("projectors.", weights)
    widths = {name: stream.width for name, stream in recipe.streams.items()}
    metadata = {"format": FORMAT, "stage": config.stage, "llm": recipe.llm.path, "widths": widths}
    if inputs := _input_settings(model):
        metadata["inputs"] = inputs
    # one entry, because safetensors writes several in random order, and equal weights should give equal files
    save_file(projectors, folder / PROJECTOR, metadata={"signllava": json.dumps(metadata)})
    if recipe.lora.enabled:
        save_adapter(model.llm, _strip_prefix("llm.", weights), folder / ADAPTER)
    write_json(folder / CONFIG, asdict(config))
    write_text(folder / RECIPE, recipe.to_yaml())


def _input_settings(model: SignLlavaModel) -> dict[str, Any]:
    """For each projector that shortens or joins streams: the settings that the shapes of its tensors do not tell."""
    settings = {}
    for name, projector in model.projectors.items():
        projector_input = cast(ProjectorInput, projector.input)
        config = projector_input.config
        changed = {
            "stack": None if config.stack == 1 else config.stack,
            "conv": None if config.conv is None else asdict(config.conv),
            "join": list(projector_input.streams) if projector_input.is_joined else None,
        }
        if any(changed.values()):
            settings[name] = {key: value for key, value in changed.items() if value}
    return settings


def _require_same_inputs(model: SignLlavaModel, file: Path) -> None:
    """Check that the projectors of `file` were trained to shorten and join streams as those of `model` do."""
    with safe_open(file, "pt") as stored:
        metadata = stored.metadata() or {}
    if "signllava" not in metadata:
        return  # of another tool: the shapes of its tensors are compared
    trained, expected = _parse_inputs(metadata["signllava"], file), _input_settings(model)
    for name in sorted(trained.keys() | expected.keys()):
        if trained.get(name) != expected.get(name):
            here = _format_settings(expected.get(name)) if name in model.projectors else "no such projector"
            raise UserError(
                f"{file}: the projector of {name} was trained with {_format_settings(trained.get(name))}, but this "
                f"recipe has {here}; use the stack, conv and join of its training."
            )


def _parse_inputs(text: str, file: Path) -> dict[str, Any]:
    """The settings of the projectors in the metadata of `file`."""
    try:
        inputs: dict[str, Any] = TypeAdapter(dict[str, dict[str, Any]]).validate_python(
            json.loads(text).get("inputs", {})
        )
    except (ValueError, AttributeError, RecursionError):
        raise UserError(f"{file} is damaged: its metadata cannot be read; copy the checkpoint again.") from None
    return inputs


def _format_settings(settings: dict[str, Any] | None) -> str:
    return ", ".join(f"{key}={value}" for key, value in (settings or {"stack": 1}).items())


def _strip_prefix(prefix: str, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights whose names begin with `prefix`, by the rest of their names."""
    return {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}


def read_config(checkpoint: Path) -> CheckpointConfig:
    """The config.json of a checkpoint.

    Raises:
        UserError: it is missing, damaged, or has another format version.
    """
    content = read_json(checkpoint / CONFIG)
    if content.get("format") != FORMAT:
        raise UserError(
            f"{checkpoint / CONFIG} has format {content.get('format')!r}; this version of signllava reads {FORMAT!r}."
        )
    try:
        return TypeAdapter(CheckpointConfig).validate_python(content)
    except ValidationError as error:
        reason = first_validation_error(error)
        raise UserError(f"{checkpoint / CONFIG} is damaged: {reason}; copy the checkpoint again.") from None


def load_projectors(model: SignLlavaModel, file: Path) -> None:
    """Load a projector.safetensors, strictly.

    Raises:
        UserError: the file is missing or damaged, its tensors are not exactly the model's, or its projectors shorten
            or join streams in another way.
    """
    weights = read_tensors(file)
    _require_same_inputs(model, file)
    require_same_tensors(weights, model.projectors.state_dict(), file)
    model.projectors.load_state_dict(weights, strict=True)


def load_weights(model: SignLlavaModel, checkpoint: Path, with_adapter: bool) -> None:
    """Load the projectors of `checkpoint`, and its adapter if `with_adapter`, into `model`, strictly."""
    load_projectors(model, checkpoint / PROJECTOR)
    if with_adapter:
        load_adapter(model.llm, checkpoint / ADAPTER)


def find_checkpoint(path: str | Path) -> Path:
    """The checkpoint at `path`: a checkpoint folder, or the best (else the last) checkpoint of a run folder.

    Raises:
        UserError: there is none.
    """
    path = Path(path).expanduser()
    if (path / CONFIG).is_file():
        return path.resolve() if path.is_symlink() else path
    for link in ("best", "last"):
        target = read_link(path / link)
        if target is not None and (target / CONFIG).is_file():
            return path / target.name
    linked = read_link(path)
    if linked is not None and (linked / CONFIG).is_file():
        return linked
    raise UserError(
        f"No checkpoint at {path}; name a run folder, one of its step folders, or its link `best` or `last`."
    )


def find_projector(path: str | Path) -> Path:
    """The projector.safetensors at `path`: the file itself, or that of a checkpoint or run folder."""
    file = Path(path).expanduser()
    return file if file.suffix == ".safetensors" else find_checkpoint(file) / PROJECTOR


def checkpoint_recipe(checkpoint: Path, overrides: list[str]) -> Recipe:
    """The recipe that `checkpoint` was trained with, with `overrides`.

    `init.projector` and `streams.*.layout` are reset: the weights are the checkpoint's, and the layout of the
    training data does not apply to other data.

    Raises:
        UserError: an override changes `tasks` or `lora`, for which the weights were trained.
    """
    trained = read_recipe(checkpoint / RECIPE)
    layout_resets = [f"streams.{name}.layout=null" for name, stream in trained.streams.items() if stream.layout]
    recipe = read_recipe(checkpoint / RECIPE, [*layout_resets, *overrides, "init.projector=null"])
    for name in ("tasks", "lora"):
        if getattr(recipe, name) != getattr(trained, name):
            raise UserError(
                f"--set {name}.*: cannot be changed, because {checkpoint} was trained with other values; remove it."
            )
    return recipe


def weights_hash(checkpoint: Path) -> str:
    """The first 16 hex digits of the SHA-256 of the trained weights, without the metadata of their files."""
    digest = hashlib.sha256()
    for name, tensor in _trained_tensors(checkpoint):
        digest.update(name.encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()[:16]


def iterate_tensors(checkpoint: Path) -> Iterator[tuple[str, str, tuple[int, ...], int]]:
    """Name, dtype, shape and size in bytes of every trained tensor in `checkpoint`."""
    for name, tensor in _trained_tensors(checkpoint):
        size = tensor.numel() * tensor.element_size()
        yield name, str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), size


def _trained_tensors(checkpoint: Path) -> Iterator[tuple[str, Tensor]]:
    """The projector's tensors, then the adapter's if there is one, each sorted by name."""
    for file in (checkpoint / PROJECTOR, checkpoint / ADAPTER / ADAPTER_WEIGHTS):
        if file.is_file():
            yield from sorted(read_tensors(file).items())


def find_damage(checkpoint: Path) -> str | None:
    """The first error in a checkpoint's files, or None."""
    try:
        read_config(checkpoint)
        read_json(checkpoint / PROGRESS)
        recipe = read_recipe(checkpoint / RECIPE)
    except UserError as error:
        return str(error)
    files = [checkpoint / PROJECTOR, *([checkpoint / ADAPTER / ADAPTER_WEIGHTS] if recipe.lora.enabled else [])]
    return next((error for error in map(find_tensor_damage, files) if error), None)


def find_tensor_damage(file: Path) -> str | None:
    """The error of a safetensors file (missing, truncated), or None. Only the header is read."""
    try:
        with safe_open(file, "pt") as tensors:
            tensors.keys()
    except (SafetensorError, OSError) as error:
        return f"{file.name}: {error}"
    return None
