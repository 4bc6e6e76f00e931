"""The state of an import, and the conversion of single keys of Sign_LLaVA's YAML."""

import dataclasses
import posixpath
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from signllava_cli.errors import UserError, escape_unprintable
from signllava_cli.recipe.consistency import find_contradictions, format_error
from signllava_cli.recipe.reference import format_value
from signllava_cli.recipe.sections import Recipe
from signllava_cli.recipe.sign_llava_tables import BUILT_IN, RENAMED, TRAINING_DEFAULTS, WITHOUT_EQUIVALENT

Outcome = Literal["to decide", "translated", "no equivalent"]
CONVERTED = "runs/converted"  # the folder of a converted checkpoint in reports
UNKNOWN = "not known to this import; look for a setting that means the same"


@dataclasses.dataclass(frozen=True)
class KeyReport:
    """What became of `key`, the whole key of a value such as `TrainingArguments.bits`."""

    key: str
    outcome: Outcome
    note: str


class ImportState:
    """The recipe as far as it is converted.

    Attributes:
        settings: path of a setting, such as `("train", "batch_size")` -> its value.
        origins: path of a setting -> the keys of Sign_LLaVA that it comes from.
        reports: key of Sign_LLaVA -> what became of it.
        splits: train, dev or test -> the split of its annotation.
    """

    def __init__(self, config: Mapping[str, Any], num_processes: int | None) -> None:
        self.config, self.num_processes = config, num_processes
        self.settings: dict[tuple[str, ...], Any] = {}
        self.origins: dict[tuple[str, ...], list[str]] = {}
        self.reports: dict[str, KeyReport] = {}
        self.splits: dict[str, str] = {}
        self.training, self.generating = self.section("TrainingArguments"), self.section("GenerateArguments")
        self.data = self.section("SignDataArguments")
        self.root = str(self.data.get("data_dir", ""))

    def section(self, name: str) -> Mapping[str, Any]:
        """The section of Sign_LLaVA's YAML; empty where it is missing or not a mapping."""
        content = self.config.get(name)
        return content if isinstance(content, dict) else {}

    def decoding(self, name: str, default: Any = None) -> Any:
        """A setting of decoding. T5_for_SLT has them among those of the model."""
        return self.generating.get(name, self.section("ModelArguments").get(name, default))

    def report(self, key: str, outcome: Outcome, note: str) -> None:
        self.reports[key] = KeyReport(escape_unprintable(key), outcome, escape_unprintable(note))

    def set(
        self, key: str, path: str | tuple[str, ...], value: Any, note: str = "", outcome: Outcome = "translated"
    ) -> None:
        """Set the setting at `path` to `value`, which comes from the `key` of Sign_LLaVA, and report it."""
        path = tuple(path.split(".")) if isinstance(path, str) else path
        if path in self.settings and self.settings[path] != value:
            self.report(
                key, "to decide", f"another key set {'.'.join(path)} to {self.settings[path]!r}, not {value!r}"
            )
            return
        self.settings[path] = value
        self.origins.setdefault(path, []).append(key)
        setting = f"{'.'.join(path)}: {value if isinstance(value, str) else format_value(value)}"
        self.report(key, outcome, f"{setting}; {note}" if note else setting)

    def below_root(self, path: str) -> str:
        """A path below data_dir relative to it; any other path unchanged."""
        full_path, root = posixpath.normpath(posixpath.join(self.root, path)), posixpath.normpath(self.root)
        return posixpath.relpath(full_path, root) if full_path.startswith(root + "/") or root == "." else full_path

    def require_valid(self, file: Path) -> Recipe:
        """The recipe. Settings with values that a recipe does not accept are removed and reported.

        Raises:
            UserError: an error has no setting that can be removed.
        """
        while True:
            try:
                recipe = TypeAdapter(Recipe).validate_python(_nested(self.settings))
            except ValidationError as invalid:
                errors = [format_error(error) for error in invalid.errors()]
            else:
                errors = find_contradictions(recipe)
                if not errors:
                    return recipe
            for error in errors:
                paths = self._settings_at(error.partition(": ")[0])
                if not paths:
                    raise UserError(f"{file} cannot be imported: {error}")
                for path in paths:
                    self.settings.pop(path, None)
                    for key in self.origins.get(path, []):
                        self.report(key, "to decide", f"not in the recipe: {error}")

    def _settings_at(self, key: str) -> list[tuple[str, ...]]:
        """The settings at, below or above `key`; for a stream without these, all of its settings."""
        joined = {".".join(path): path for path in self.settings}
        for prefix in (key, key.rpartition(".")[0]) if key.count(".") > 1 else (key,):
            paths = [
                path
                for name, path in joined.items()
                if f"{name}.".startswith(f"{prefix}.") or prefix.startswith(f"{name}.")
            ]
            if paths:
                return paths
        return []


def _nested(settings: Mapping[tuple[str, ...], Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for path, value in settings.items():
        section = nested
        for name in path[:-1]:
            section = section.setdefault(name, {})
        section[path[-1]] = value
    return nested


def translate_key(state: ImportState, key: str, name: str, value: Any) -> None:
    """Convert a key that depends on no other key, or on few."""
    special = _SPECIAL.get(name)
    if special is not None:
        special(state, key, value)
    elif name in RENAMED:
        state.set(key, RENAMED[name], value)
    elif name in WITHOUT_EQUIVALENT:
        state.report(key, "no equivalent", WITHOUT_EQUIVALENT[name])
    elif name in BUILT_IN:
        equal_values, note = BUILT_IN[name]
        if any(value == equal and type(value) is type(equal) for equal in equal_values):
            state.report(key, "no equivalent", note if value not in (None, "") else "nothing is named")
        else:
            state.report(key, "to decide", f"it was {value}; {note}")


def _dtype(state: ImportState) -> str:
    training, generating = state.training, state.generating
    if generating:
        return "bfloat16" if generating.get("bf16", True) else "float16"
    return "float16" if training.get("fp16") else "bfloat16" if training.get("bf16", True) else "float32"


def _set_dtype(state: ImportState, key: str, value: Any) -> None:
    state.set(key, "llm.dtype", _dtype(state))


def _set_bits(state: ImportState, key: str, value: Any) -> None:
    is_unquantized = value in (16, 32)  # Sign_LLaVA quantizes for 4 and 8
    state.set(key, "llm.bits", (32 if _dtype(state) == "float32" else 16) if is_unquantized else value)


def _set_batch(state: ImportState, key: str, value: Any) -> None:
    steps = state.training.get("gradient_accumulation_steps", 1)
    processes = state.num_processes
    if isinstance(value, int) and isinstance(steps, int):
        batch = value * steps * (processes or 1)
        state.set(key, "train.batch_size", batch)
        note = f"train.batch_size: {batch}, {value} x {steps} accumulated x {processes or 1} GPUs"
    else:
        note = ""
    if processes is None:
        note += "; the number of GPUs is not in the file: pass --num-processes N, or set train.batch_size"
    state.set(key, "train.micro_batch_size", value, note, "translated" if processes else "to decide")


def _set_accumulation(state: ImportState, key: str, value: Any) -> None:
    state.report(key, "translated", "part of train.batch_size, as train.micro_batch_size is of it")


def _set_betas(state: ImportState, key: str, value: Any) -> None:
    training = state.training
    state.set(key, "train.betas", [training.get("adam_beta1", 0.9), training.get("adam_beta2", 0.999)])


def _set_max_steps(state: ImportState, key: str, value: Any) -> None:
    if value == -1:
        state.report(key, "no equivalent", "-1: as long as train.num_train_epochs")
    else:
        state.set(key, "train.max_steps", value)


def _set_seed(state: ImportState, key: str, value: Any) -> None:
    state.set(key, "generate.seed" if key.startswith("Generate") else "run.seed", value)


def _set_data_seed(state: ImportState, key: str, value: Any) -> None:
    is_same = value == state.training.get("seed", TRAINING_DEFAULTS["seed"])
    note = "the order of the clips is drawn from run.seed" if is_same else "the order too is drawn from run.seed"
    state.report(key, "no equivalent" if is_same else "to decide", note)


def _set_trackers(state: ImportState, key: str, value: Any) -> None:
    names = value if isinstance(value, list) else [value]
    state.set(key, "track.report_to", [name for name in names if name not in ("none", None)])


def _set_root(state: ImportState, key: str, value: Any) -> None:
    state.set(key, "data.root", value)


def _set_paraphrases(state: ImportState, key: str, value: Any) -> None:
    if value is not True:
        state.set(key, "tasks.paraphrases", 0.0)
        return
    note = "Sign_LLaVA draws one of the translation and its k paraphrases: set k / (k + 1); 0.8333 is for k = 5"
    state.set(key, "tasks.paraphrases", 0.8333, note, "to decide")


def _tune_projectors(state: ImportState, key: str, value: Any) -> None:
    has_adapter = bool(state.training.get("lora_enable"))
    if value is True and not has_adapter:
        state.report(key, "no equivalent", "pretrain trains the projectors alone")
    elif value is True:
        note = (
            "in Sign_LLaVA's train.py this freezes all but the projectors, the LoRA adapter too; finetune trains both"
        )
        state.report(key, "to decide", note)
    else:
        trained = "the adapter alone" if has_adapter else "the whole LLM too, unless freeze_backbone was true"
        note = f"it was {value}, which trained {trained}; signllava trains the projectors, and with LoRA the adapter"
        state.report(key, "to decide", note)


def _set_sampling(state: ImportState, key: str, value: Any) -> None:
    """temperature, top_p, top_k."""
    if state.decoding("do_sample"):
        state.set(key, f"generate.{key.rpartition('.')[2]}", value)
    else:
        state.report(key, "no equivalent", f"{value} had no effect: do_sample is false")


def _set_do_sample(state: ImportState, key: str, value: Any) -> None:
    if not value:
        state.report(key, "translated", "no generate.temperature: greedy or beam search")
    elif state.decoding("num_beams", 1) == 1:
        state.report(key, "translated", "generate.temperature is set: sampling")
    else:
        note = "it sampled inside a beam search; generate samples where generate.temperature is set, else it searches"
        state.report(key, "to decide", note)


def _report_checkpoint(state: ImportState, key: str, value: Any) -> None:
    number = state.generating.get("checkpoint_num")
    source = state.generating.get("model_path")
    source = posixpath.join(str(source), f"checkpoint-{number}") if number is not None else source
    command = f"signllava checkpoint convert {shlex.quote(str(source))} --recipe NEW.yaml --out {CONVERTED}"
    note = f"first run `{command}`, then `signllava generate --checkpoint {CONVERTED}`"
    state.report(key, "to decide", note)


_SPECIAL: dict[str, Callable[[ImportState, str, Any], None]] = {
    "bf16": _set_dtype,
    "fp16": _set_dtype,
    "bits": _set_bits,
    "per_device_train_batch_size": _set_batch,
    "gradient_accumulation_steps": _set_accumulation,
    "adam_beta1": _set_betas,
    "adam_beta2": _set_betas,
    "max_steps": _set_max_steps,
    "seed": _set_seed,
    "data_seed": _set_data_seed,
    "report_to": _set_trackers,
    "data_dir": _set_root,
    "use_paraphrases": _set_paraphrases,
    "tune_mm_mlp_adapter": _tune_projectors,
    "temperature": _set_sampling,
    "top_p": _set_sampling,
    "top_k": _set_sampling,
    "do_sample": _set_do_sample,
    "model_path": _report_checkpoint,
    "checkpoint_num": _report_checkpoint,
}
