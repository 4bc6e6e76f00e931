"""The account of an import, and the keys of Sign_LLaVA's YAML that are read one by one."""

import dataclasses
import posixpath
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from signllava_cli.errors import UserError, escape_unprintable
from signllava_cli.recipe.consistency import find_contradictions, format_error
from signllava_cli.recipe.reference import format_value
from signllava_cli.recipe.sections import Recipe
from signllava_cli.recipe.sign_llava_tables import BUILT_IN, RENAMED, TRAINING_DEFAULTS, WITHOUT_EQUIVALENT

Fate = Literal["to decide", "translated", "no equivalent"]
CONVERTED = "runs/converted"  # where the account tells to put a converted checkpoint
UNKNOWN = "not known to this import; look for a setting that means the same"


@dataclasses.dataclass(frozen=True)
class KeyReport:
    """What became of `key`, the whole key of a value such as `TrainingArguments.bits`."""

    key: str
    fate: Fate
    note: str


class ImportAccount:
    """`settings` are ours, by path; `origins` the old keys that each comes from; `reports` by old key."""

    def __init__(self, config: Mapping[str, Any], num_processes: int | None) -> None:
        self.config, self.num_processes = config, num_processes
        self.settings: dict[tuple[str, ...], Any] = {}
        self.origins: dict[tuple[str, ...], list[str]] = {}
        self.reports: dict[str, KeyReport] = {}
        self.splits: dict[str, str] = {}  # train, dev, test -> the split of its annotation
        self.training, self.generating = self.section("TrainingArguments"), self.section("GenerateArguments")
        self.data = self.section("SignDataArguments")
        self.root = str(self.data.get("data_dir", ""))

    def section(self, name: str) -> Mapping[str, Any]:
        content = self.config.get(name)
        return content if isinstance(content, dict) else {}

    def report(self, key: str, fate: Fate, note: str) -> None:
        self.reports[key] = KeyReport(escape_unprintable(key), fate, escape_unprintable(note))

    def set(
        self, key: str, path: str | tuple[str, ...], value: Any, note: str = "", fate: Fate = "translated"
    ) -> None:
        """Make `value` of the old `key` the setting at `path`, and report it."""
        path = tuple(path.split(".")) if isinstance(path, str) else path
        if path in self.settings and self.settings[path] != value:
            self.report(key, "to decide", f"another key made {'.'.join(path)} {self.settings[path]!r}, not {value!r}")
            return
        self.settings[path] = value
        self.origins.setdefault(path, []).append(key)
        shown = f"{'.'.join(path)}: {value if isinstance(value, str) else format_value(value)}"
        self.report(key, fate, f"{shown}; {note}" if note else shown)

    def below_root(self, path: str) -> str:
        """A path below data_dir as the rest of it, another as it is."""
        whole, root = posixpath.normpath(posixpath.join(self.root, path)), posixpath.normpath(self.root)
        return posixpath.relpath(whole, root) if whole.startswith(root + "/") or root == "." else whole

    def require_valid(self, file: Path) -> Recipe:
        """The recipe; settings that no recipe can hold are taken out, and reported.

        Raises:
            UserError: what is wrong comes of no setting.
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
                blamed = self._blamed(error.partition(": ")[0])
                if not blamed:
                    raise UserError(f"{file} cannot be imported: {error}")
                for path in blamed:
                    self.settings.pop(path, None)
                    for key in self.origins.get(path, []):
                        self.report(key, "to decide", f"left out, since {error}")

    def _blamed(self, key: str) -> list[tuple[str, ...]]:
        """The settings that a error at `key` is about: at it, below it or around it; else all of its stream."""
        joined = {".".join(path): path for path in self.settings}
        for about in (key, key.rpartition(".")[0]) if key.count(".") > 1 else (key,):
            found = [
                path
                for name, path in joined.items()
                if f"{name}.".startswith(f"{about}.") or about.startswith(f"{name}.")
            ]
            if found:
                return found
        return []


def _nested(settings: Mapping[tuple[str, ...], Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for path, value in settings.items():
        here = nested
        for name in path[:-1]:
            here = here.setdefault(name, {})
        here[path[-1]] = value
    return nested


def translate_key(account: ImportAccount, key: str, name: str, value: Any) -> None:
    """A key whose value decides alone, or with a few others."""
    special = _SPECIAL.get(name)
    if special is not None:
        special(account, key, value)
    elif name in RENAMED:
        account.set(key, RENAMED[name], value)
    elif name in WITHOUT_EQUIVALENT:
        account.report(key, "no equivalent", WITHOUT_EQUIVALENT[name])
    elif name in BUILT_IN:
        same, note = BUILT_IN[name]
        if any(value == each and type(value) is type(each) for each in same):
            account.report(key, "no equivalent", note if value not in (None, "") else "it names nothing")
        else:
            account.report(key, "to decide", f"it was {value}; {note}")


def _dtype(account: ImportAccount) -> str:
    training, generating = account.training, account.generating
    if generating:
        return "bfloat16" if generating.get("bf16", True) else "float16"
    return "float16" if training.get("fp16") else "bfloat16" if training.get("bf16", True) else "float32"


def _set_dtype(account: ImportAccount, key: str, value: Any) -> None:
    account.set(key, "llm.dtype", _dtype(account))


def _set_bits(account: ImportAccount, key: str, value: Any) -> None:
    is_whole = value in (16, 32)  # its code quantizes for 4 and 8
    account.set(key, "llm.bits", (32 if _dtype(account) == "float32" else 16) if is_whole else value)


def _set_batch(account: ImportAccount, key: str, value: Any) -> None:
    steps = account.training.get("gradient_accumulation_steps", 1)
    processes = account.num_processes
    if isinstance(value, int) and isinstance(steps, int):
        batch = value * steps * (processes or 1)
        account.set(key, "train.batch_size", batch)
        note = f"train.batch_size: {batch}, {value} x {steps} accumulated x {processes or 1} GPUs"
    else:
        note = ""
    if processes is None:
        note += "; the file does not say how many GPUs it had: --num-processes N, or set train.batch_size"
    account.set(key, "train.micro_batch_size", value, note, "translated" if processes else "to decide")


def _set_accumulation(account: ImportAccount, key: str, value: Any) -> None:
    account.report(key, "translated", "part of train.batch_size, as train.micro_batch_size is of it")


def _set_betas(account: ImportAccount, key: str, value: Any) -> None:
    training = account.training
    account.set(key, "train.betas", [training.get("adam_beta1", 0.9), training.get("adam_beta2", 0.999)])


def _set_max_steps(account: ImportAccount, key: str, value: Any) -> None:
    if value == -1:
        account.report(key, "no equivalent", "-1: as long as train.num_train_epochs")
    else:
        account.set(key, "train.max_steps", value)


def _set_seed(account: ImportAccount, key: str, value: Any) -> None:
    account.set(key, "generate.seed" if key.startswith("Generate") else "run.seed", value)


def _set_data_seed(account: ImportAccount, key: str, value: Any) -> None:
    is_same = value == account.training.get("seed", TRAINING_DEFAULTS["seed"])
    note = "the order of the clips is drawn from run.seed" if is_same else "the order too is drawn from run.seed"
    account.report(key, "no equivalent" if is_same else "to decide", note)


def _set_trackers(account: ImportAccount, key: str, value: Any) -> None:
    names = value if isinstance(value, list) else [value]
    account.set(key, "track.report_to", [name for name in names if name not in ("none", None)])


def _set_root(account: ImportAccount, key: str, value: Any) -> None:
    account.set(key, "data.root", value)


def _set_paraphrases(account: ImportAccount, key: str, value: Any) -> None:
    if value is not True:
        account.set(key, "tasks.paraphrases", 0.0)
        return
    note = "it drew one of the translation and its k paraphrases: k / (k + 1), here for five; set it for yours"
    account.set(key, "tasks.paraphrases", 0.8333, note, "to decide")


def _tune_projectors(account: ImportAccount, key: str, value: Any) -> None:
    has_adapter = bool(account.training.get("lora_enable"))
    if value is True and not has_adapter:
        account.report(key, "no equivalent", "pretrain trains the projectors alone")
    elif value is True:
        note = "in its train.py this froze all but the projectors, the LoRA adapter too; finetune trains both"
        account.report(key, "to decide", note)
    else:
        what = "the adapter alone" if has_adapter else "the whole LLM too, unless freeze_backbone was true"
        note = f"it was {value}, which trained {what}; signllava trains the projectors, and with LoRA the adapter"
        account.report(key, "to decide", note)


def _set_sampling(account: ImportAccount, key: str, value: Any) -> None:
    """temperature, top_p, top_k."""
    if account.generating.get("do_sample"):
        account.set(key, f"generate.{key.rpartition('.')[2]}", value)
    else:
        account.report(key, "no equivalent", f"{value} had no effect: do_sample is false")


def _set_do_sample(account: ImportAccount, key: str, value: Any) -> None:
    if not value:
        account.report(key, "translated", "no generate.temperature: greedy or beam search")
    elif account.generating.get("num_beams", 1) == 1:
        account.report(key, "translated", "generate.temperature is set: sampling")
    else:
        note = "it sampled inside a beam search; generate samples where generate.temperature is set, else it searches"
        account.report(key, "to decide", note)


def _name_checkpoint(account: ImportAccount, key: str, value: Any) -> None:
    number = account.generating.get("checkpoint_num")
    source = account.generating.get("model_path")
    source = posixpath.join(str(source), f"checkpoint-{number}") if number is not None else source
    command = f"signllava checkpoint convert {source} --recipe NEW.yaml --out {CONVERTED}"
    note = f"first run `{command}`, then `signllava generate --checkpoint {CONVERTED}`"
    account.report(key, "to decide", note)


_SPECIAL: dict[str, Callable[[ImportAccount, str, Any], None]] = {
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
    "model_path": _name_checkpoint,
    "checkpoint_num": _name_checkpoint,
}
