"""What a recipe is: one YAML file that says everything about a run, checked whole before anything is opened.

Every command accepts the same file and reads the sections it needs. A recipe is built from its defaults, the
file, and `--set key=value` overrides, in this order. Unknown keys, wrong types and settings that contradict
each other are reported together, each with its key.
"""

import dataclasses
import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import yaml
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from signllava_cli.errors import UserError

Stage = Literal["pretrain", "finetune"]
Positive = Annotated[int, Field(gt=0, lt=2**31)]
Count = Annotated[int, Field(ge=0, lt=2**31)]
Probability = Annotated[float, Field(ge=0, lt=1)]
Rate = Annotated[float, Field(gt=0, le=1e6)]

# Stands where prompts.py takes a chat template apart, so no text of the template may hold it.
PLACEHOLDER = "\N{OBJECT REPLACEMENT CHARACTER}mark\N{OBJECT REPLACEMENT CHARACTER}"

section = dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))


@section
class Run:
    """Where the run lives and which random draws it makes."""

    folder: str = "runs/signllava"
    seed: Count = 0


@section
class LLM:
    """The language model: a Hugging Face folder or hub id, and the precision it is held in.

    `bits` 16 and 32 hold the weights in `dtype`; 8 and 4 quantise the linear layers with bitsandbytes and
    compute in `dtype`. 4 bits are `quantization`, with quantised constants when `double_quantization`
    (QLoRA, arXiv:2305.14314).
    """

    path: str = "meta-llama/Meta-Llama-3-8B-Instruct"
    revision: str | None = None
    bits: Literal[4, 8, 16, 32] = 16
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    quantization: Literal["nf4", "fp4"] = "nf4"
    double_quantization: bool = True
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"


@section
class Stream:
    """One feature stream and its projector.

    `stride` keeps every n-th frame and `max_frames` thins a longer clip evenly. `folder` (default: the
    stream's name under `data.root`), `metadata` and `shards` name files that do not follow the layout of
    the data folder; the last two are patterns with `{split}` and `{shard}`.
    """

    width: Positive
    projector: Annotated[str, Field(pattern=r"^(linear|mlp[1-9]x_gelu)$")] = "mlp2x_gelu"
    normalise_input: bool = True
    normalise_output: bool = True
    stride: Positive = 1
    max_frames: Positive | None = None
    folder: str | None = None
    metadata: str | None = None
    shards: str | None = None


@section
class Data:
    """The dataset folder, its splits, and what one sequence may hold.

    A sequence longer than `max_positions` loses frames first, down to `min_frames` a stream, then context
    sentences; its question and its answer stay whole.
    """

    root: str = "data"
    train: str = "train"
    dev: str = "dev"
    missing: Literal["error", "skip"] = "error"
    max_positions: Positive = 2048
    min_frames: Positive = 16
    workers: Count = 0


@section
class Tasks:
    """The words around the streams. They are stored in every checkpoint."""

    system: str = "You are a skilled interpreter who translates sign language into text."
    streams: str = "The signing of one sentence:"
    context: str = "Sentences signed before it:"
    translation: str = "What is signed?"


@section
class Context:
    """How many sentences of the same recording a clip sees: its first `prelude` and the last `window`.

    In training these are the gold sentences; a clip sees none of them with probability `dropout`.
    """

    window: Count = 0
    prelude: Count = 0
    dropout: Probability = 0.0


@section
class Lora:
    """The LoRA adapter that finetune trains (arXiv:2106.09685)."""

    enabled: bool = False
    r: Positive = 64
    alpha: Rate = 16
    dropout: Probability = 0.05
    targets: list[str] = dataclasses.field(
        default_factory=lambda: ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    )


@section
class Init:
    """Where trained weights come from: a run, a checkpoint, or a projector.safetensors."""

    projector: str | None = None


@section
class Train:
    """The optimisation.

    `batch_size` is the number of clips of one optimiser step over all processes; `micro_batch_size` is what
    one process holds at a time. `learning_rate` is that of whatever the stage adds: the projectors in
    pretrain, the adapter in finetune, where projectors have their own, `projector_learning_rate`.
    """

    epochs: Rate = 1.0
    max_steps: Positive | None = None
    batch_size: Positive = 8
    micro_batch_size: Positive = 8
    learning_rate: Rate = 2e-3
    projector_learning_rate: Rate | None = None
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup: Probability = 0.0
    weight_decay: Annotated[float, Field(ge=0, le=1e6)] = 0.0
    betas: tuple[Probability, Probability] = (0.9, 0.999)
    max_grad_norm: Rate | None = 1.0
    label_smoothing: Probability = 0.0
    gradient_checkpointing: bool = False
    eval_every: Positive = 500
    save_every: Positive = 500
    keep: Positive = 2
    stop_at_step: Positive | None = None


@section
class Generate:
    """How hypotheses are decoded, unless the command line says otherwise."""

    split: str = "test"
    context_source: str = "gold"
    beams: Positive = 5
    max_new_tokens: Positive = 100
    batch_size: Positive = 8
    length_penalty: Annotated[float, Field(allow_inf_nan=False)] = 1.0
    repetition_penalty: Rate = 1.0


@section
class Track:
    """How often the run reports: a line of metrics.jsonl every `every` optimiser steps."""

    every: Positive = 10


@section
class Launch:
    """The launch profile of `accelerate_configs/` (a name or a file); none: this process alone."""

    profile: str | None = None
    num_processes: Positive | None = None


@section
class Recipe:
    """Everything about a run. Read with `read_recipe`, written with `Recipe.to_yaml`."""

    run: Run = Run()
    llm: LLM = LLM()
    streams: dict[str, Stream] = dataclasses.field(default_factory=dict)
    data: Data = Data()
    tasks: Tasks = Tasks()
    context: Context = Context()
    lora: Lora = dataclasses.field(default_factory=Lora)
    init: Init = Init()
    train: Train = Train()
    generate: Generate = Generate()
    track: Track = Track()
    launch: Launch = Launch()

    def to_dict(self) -> dict[str, Any]:
        """The resolved settings as plain YAML/JSON values."""
        return cast(dict[str, Any], TypeAdapter(Recipe).dump_python(self, mode="json"))

    def to_yaml(self) -> str:
        """The resolved recipe as a YAML file that reads back to the same recipe."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True, width=100)


class _UniqueKeys(yaml.SafeLoader):
    """PyYAML's safe loader, except that a key given twice is an error and not a silent overwrite."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        merge = "tag:yaml.org,2002:merge"
        keys = [self.construct_object(key, deep=True) for key, _ in node.value if key.tag != merge]
        twice = sorted({str(key) for key in keys if keys.count(key) > 1})
        if twice:
            raise yaml.constructor.ConstructorError(None, None, f"key given twice: {twice[0]}", node.start_mark)
        return super().construct_mapping(node, deep)


def read_recipe(path: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """The recipe in the YAML file `path` (or shipped under that name), with `key=value` overrides applied.

    Raises:
        UserError: the file is missing or not YAML, or the recipe has faults; all faults are named at once.
    """
    file = find_recipe(path)
    try:
        settings = yaml.load(file.read_text(encoding="utf-8"), Loader=_UniqueKeys)  # noqa: S506 (a SafeLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as fault:  # ValueError: !!int abc, 2026-13-01, bytes
        raise UserError(f"{file} is not YAML: {' '.join(str(fault).split())}") from None
    if settings is None:
        settings = {}
    if not isinstance(settings, dict):
        raise UserError(f"{file} is not a recipe: it must hold sections such as `llm:` and `streams:`.")
    return build_recipe(settings, overrides, source=str(file))


def build_recipe(settings: Mapping[str, Any], overrides: Iterable[str] = (), source: str = "recipe") -> Recipe:
    """The recipe made of `settings` (nested, as in YAML) and `key=value` overrides.

    Raises:
        UserError: naming every fault, each with its key and, for an unknown key, the nearest known one.
    """
    settings = _copied(settings)
    for override in overrides:
        _apply(override, settings)
    streams = settings.get("streams")
    if isinstance(streams, dict):  # `--set streams.mae=null` takes a stream out
        settings["streams"] = {name: stream for name, stream in streams.items() if stream is not None}
    try:
        recipe = TypeAdapter(Recipe).validate_python(settings)
    except ValidationError as invalid:
        raise _fault_report(source, [_fault_line(fault) for fault in invalid.errors()]) from None
    contradictions = _contradictions(recipe)
    if contradictions:
        raise _fault_report(source, contradictions)
    return recipe


def require_stage(recipe: Recipe, stage: Stage) -> None:
    """Check that the recipe is one of this stage.

    Raises:
        UserError: pretrain with a LoRA adapter, finetune without one, or no streams to train on.
    """
    faults = []
    if not recipe.streams:
        faults.append("streams: none is named; add at least one, such as `mae: {width: 768}`")
    if stage == "pretrain" and recipe.lora.enabled:
        faults.append("lora.enabled: pretrain trains projectors only; set it to false, or run finetune")
    if stage == "finetune" and not recipe.lora.enabled:
        faults.append("lora.enabled: finetune trains an adapter; set it to true, or run pretrain")
    if faults:
        raise _fault_report(f"{stage} recipe", faults)


def is_unicode(text: str) -> bool:
    """Whether `text` can be written: JSON and YAML escapes can spell half a surrogate pair, which UTF-8 has not."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def find_recipe(name: str | Path) -> Path:
    """The file `name`, or the shipped recipe of that name (`pretrain`, `toy/finetune`)."""
    path = Path(name).expanduser()
    if path.is_file():
        return path
    shipped = shipped_folder("recipes") / f"{str(name).removesuffix('.yaml').removeprefix('recipes/')}.yaml"
    if shipped.is_file():
        return shipped
    near = difflib.get_close_matches(str(name), shipped_recipes(), n=1)
    hint = f" Did you mean `{near[0]}`?" if near else " `signllava recipes list` shows those that are shipped."
    raise UserError(f"No recipe at {path}.{hint}")


def shipped_recipes() -> list[str]:
    """The names of the recipes that come with the package, such as `pretrain` and `toy/finetune`."""
    folder = shipped_folder("recipes")
    return sorted(str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.yaml"))


def shipped_folder(name: str) -> Path:
    """`recipes` or `accelerate_configs`: inside the package when installed, beside it in a checkout."""
    package = Path(__file__).parent
    return package / name if (package / name).is_dir() else package.parent / name


def _copied(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _copied(value) if isinstance(value, Mapping) else value for key, value in settings.items()}


def _apply(override: str, settings: dict[str, Any]) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise UserError(f"--set {override}: expected key=value, such as --set train.learning_rate=1e-3")
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        raise UserError(f"--set {override}: the value is not YAML") from None
    *parents, last = key.strip().split(".")
    here = settings
    for parent in parents:
        below = here.get(parent)
        if below is None:
            below = here[parent] = {}
        if not isinstance(below, dict):
            raise UserError(f"--set {override}: `{parent}` is a value, not a section")
        here = below
    here[last] = value


def _fault_report(source: str, faults: list[str]) -> UserError:
    if len(faults) == 1:
        return UserError(f"{source}: {faults[0]}")
    return UserError(f"{source} has {len(faults)} faults:\n" + "\n".join(f"  {fault}" for fault in faults))


def _fault_line(fault: Any) -> str:
    key = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "unexpected_keyword_argument":
        known = _keys_beside(fault["loc"])
        near = difflib.get_close_matches(str(fault["loc"][-1]), known, n=1)
        return f"{key}: unknown key; " + (f"did you mean `{near[0]}`?" if near else f"known here: {', '.join(known)}")
    if fault["type"] == "missing":
        return f"{key}: missing"
    if fault["type"] == "dataclass_type":
        return f"{key or 'recipe'}: expected a section with keys, got {fault['input']!r}"
    return f"{key}: {fault['msg'][0].lower()}{fault['msg'][1:]}, got {fault['input']!r}"


def _keys_beside(location: tuple[Any, ...]) -> list[str]:
    owner: Any = Recipe
    if len(location) == 2:
        owner = next(field.type for field in dataclasses.fields(owner) if field.name == location[0])
    elif len(location) > 2:
        owner = Stream
    return [field.name for field in dataclasses.fields(owner)]


def _contradictions(recipe: Recipe) -> list[str]:
    faults = [
        f"streams.{name}: a stream's name may hold letters, digits, `_` and `-`"
        for name in recipe.streams
        if not re.fullmatch(r"[A-Za-z0-9_-]+", name)
    ]
    for name, stream in recipe.streams.items():
        for key, pattern in (("metadata", stream.metadata), ("shards", stream.shards)):
            try:
                (pattern or "").format(split="train", shard="0")
            except (KeyError, ValueError, IndexError):
                faults.append(f"streams.{name}.{key}: may hold {{split}} and {{shard}} and no other {{...}}")
    for key, text in vars(recipe.tasks).items():
        if not is_unicode(text) or PLACEHOLDER in text:
            faults.append(f"tasks.{key}: holds half a surrogate pair or {PLACEHOLDER!r}, which no prompt may hold")
    llm, train, source = recipe.llm, recipe.train, recipe.generate.context_source
    if (llm.bits == 32) != (llm.dtype == "float32") and llm.bits >= 16:
        faults.append(f"llm.dtype: {llm.dtype} weights do not have llm.bits={llm.bits}")
    if train.batch_size % train.micro_batch_size:
        faults.append(
            f"train.batch_size: {train.batch_size} is not a multiple of "
            f"train.micro_batch_size ({train.micro_batch_size})"
        )
    if source not in ("none", "gold", "predicted") and not source.startswith("prepared:"):
        faults.append(f"generate.context_source: expected none, gold, predicted or prepared:FILE, got {source!r}")
    return faults
