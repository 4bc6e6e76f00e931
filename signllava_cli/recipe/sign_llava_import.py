"""A configuration of Sign_LLaVA becomes a recipe, with an account of what became of each of its keys."""

import dataclasses
import posixpath
import re
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from signllava_cli.errors import UserError, escape_unprintable
from signllava_cli.recipe.reading import read_yaml
from signllava_cli.recipe.reference import format_value
from signllava_cli.recipe.sections import Recipe
from signllava_cli.recipe.setting_types import TASKS
from signllava_cli.recipe.sign_llava_keys import CONVERTED, UNKNOWN, ImportAccount, KeyReport, translate_key
from signllava_cli.recipe.sign_llava_tables import SECTIONS, STREAMS, TRAINING_DEFAULTS, sections_in


@dataclasses.dataclass(frozen=True)
class ImportedRecipe:
    """The settings that differ from a recipe's defaults or were named in `source`, and the account of its keys."""

    source: Path
    settings: dict[str, Any]
    reports: list[KeyReport]

    def to_yaml(self) -> str:
        """A recipe file, with the account in comments."""
        lines = [
            f"# Made by `signllava recipes import` from {escape_unprintable(str(self.source))}, a configuration of",
            "# Sign_LLaVA.",
            "# What became of its keys:",
        ]
        lines += [
            f"#   {report.fate}: {report.key}: {report.note}"
            for fate in ("to decide", "translated", "no equivalent")
            for report in self.reports
            if report.fate == fate
        ]
        for section in (name for name in Recipe().to_dict() if name in self.settings):
            lines += ["", f"{section}:"]
            lines += [textwrap.indent(_as_yaml(key, value), "  ") for key, value in self.settings[section].items()]
        return "\n".join(lines) + "\n"


def import_recipe(file: Path, num_processes: int | None = None) -> ImportedRecipe:
    """The recipe that does what the configuration of Sign_LLaVA in `file` did.

    Args:
        num_processes: how many GPUs the run had, which its configuration does not say: it counts clips per GPU.

    Raises:
        UserError: the file is missing, not YAML, or has none of the sections of such a configuration.
    """
    if not file.is_file():
        raise UserError(f"No file {file}.")
    config = read_yaml(file)
    if not sections_in(config):
        raise UserError(f"{file} has none of the sections of Sign_LLaVA's configurations: {', '.join(SECTIONS)}.")
    account = ImportAccount(config, num_processes)
    _run(account)
    recipe = account.require_valid(file).to_dict()
    resolved: dict[str, Any] = {}
    for path in account.settings:
        here, values = resolved, recipe
        for name in path[:-1]:
            here, values = here.setdefault(name, {}), values[name]
        here[path[-1]] = values[path[-1]]
    return ImportedRecipe(file, resolved, list(account.reports.values()))


def _run(account: ImportAccount) -> None:
    for section, content in account.config.items():
        for key, _ in _leaves(content, str(section)):
            account.report(key, "to decide", UNKNOWN)  # until a step below says otherwise
    for section in (
        "ModelArguments",
        "TrainingArguments",
        "GenerateArguments",
        "LoraArguments",
        "SignDataArguments",
    ):
        for name, value in account.section(section).items():
            translate_key(account, f"{section}.{name}", str(name), value)
    if account.training:
        _defaults(account)
    _annotations(account)
    if account.generating:
        _context_source(account)
    _projectors(account)
    _tasks(account, "SignMultiTaskArguments", "train")
    _tasks(account, "SignMultiTaskEvalArguments", "dev")


def _defaults(account: ImportAccount) -> None:
    """What held where the file is silent."""
    for name, value in TRAINING_DEFAULTS.items():
        if name not in account.training:
            key = f"TrainingArguments.{name}"
            translate_key(account, key, name, value)
            report = account.reports[key]
            account.report(key, report.fate, f"{report.note}; not in the file, where it means {value}")
    if "label_smoothing_factor" not in account.training:
        note = "not in the file, where it means 0.1 or 0, by version: set train.label_smoothing"
        account.report("TrainingArguments.label_smoothing_factor", "to decide", note)
    if "report_to" not in account.training:
        note = "not in the file, where it means wandb: set track.report_to: [wandb]; metrics.jsonl is always written"
        account.report("TrainingArguments.report_to", "no equivalent", note)


def _annotations(account: ImportAccount) -> None:
    """The annotation file of each split, of a fixed name under data.root."""
    paths, key = account.data.get("annotation_path"), "SignDataArguments.annotation_path"
    roles = {f"{key}.{role}": (role, path) for role, path in paths.items()} if isinstance(paths, dict) else {}
    if isinstance(paths, str):
        roles = {key: ("test" if account.generating else "train", paths)}
    for each, (role, path) in roles.items():
        setting = {"train": "data.train", "dev": "data.dev", "test": "generate.split"}.get(role)
        if setting is None or not isinstance(path, str):
            continue
        if account.data.get("prepared_predicted_context"):
            account.report(each, "translated", "the FILE of generate.context_source; references are read from DATA")
            continue
        split, relative = _split_of(path), account.below_root(path)
        if split is None:
            account.report(
                each, "to decide", f"{path} names no split: make DATA/annotation.SPLIT.json of it, set {setting}"
            )
            continue
        account.splits[role] = split
        wanted = f"annotation.{split}.json"
        if relative == wanted:
            account.set(each, setting, split)
        else:
            note = f"signllava reads data.root/{wanted}: link or copy {path} there"
            account.set(each, setting, split, note, "to decide")


def _context_source(account: ImportAccount) -> None:
    """Where the context sentences come from in generation."""
    prepared, predicted = "prepared_predicted_context", "on_the_fly_predicted_context"
    source = "gold"
    if not account.data.get("context_window_size") and not account.data.get("prelude_window_size"):
        source = "none"
    elif account.data.get(prepared):
        source = f"prepared:{posixpath.join(account.root, str(account.data.get('annotation_path')))}"
    elif account.data.get(predicted):
        source = "predicted"
    for name in (prepared, predicted):
        account.set(f"SignDataArguments.{name}", "generate.context_source", source)
        if name not in account.data:
            del account.reports[f"SignDataArguments.{name}"]


def _projectors(account: ImportAccount) -> None:
    """The enabled streams, in the order in which its code joins them."""
    features, projectors = (
        account.data.get("visual_features"),
        account.section("SignModelArguments").get("projectors"),
    )
    features = features if isinstance(features, dict) else {}
    projectors = projectors if isinstance(projectors, dict) else {}
    known = [name for name in STREAMS if name in features]
    for stream in [*known, *(name for name in features if name not in known)]:
        files = features[stream]
        projector = projectors.get(stream, {})
        if not isinstance(files, dict) or not isinstance(projector, dict):
            continue
        keys = f"SignDataArguments.visual_features.{stream}", f"SignModelArguments.projectors.{stream}"
        if not files.get("enable_input"):
            for key, _ in [*_leaves(files, keys[0]), *_leaves(projector, keys[1])]:
                account.report(key, "no equivalent", f"stream {stream} is left out: enable_input is false")
            continue
        account.report(f"{keys[0]}.enable_input", "translated", f"stream {stream} is in the recipe")
        _projector(account, keys[1], str(stream), projector)
        _files(account, keys[0], str(stream), {role: path for role, path in files.items() if role != "enable_input"})
    for key, value in _leaves(projectors, "SignModelArguments.projectors"):
        if key.endswith("pretrained_projector_ckpt"):
            _pretrained(account, key, value)


def _projector(account: ImportAccount, key: str, stream: str, projector: Mapping[str, Any]) -> None:
    if "dim" in projector:
        account.set(f"{key}.dim", ("streams", stream, "width"), projector["dim"])
        for norm in ("normalize_input", "normalize_output"):
            account.settings["streams", stream, norm] = False
    if "projector_type" in projector:
        note = "without layer norms, as there; to train anew, normalize_input and normalize_output may be true"
        account.set(f"{key}.projector_type", ("streams", stream, "projector"), projector["projector_type"], note)


def _files(account: ImportAccount, key: str, stream: str, paths: Mapping[str, Any]) -> None:
    """The metadata files of a stream, which are one pattern for all splits in a recipe."""
    folder = pattern = None
    for role, path in paths.items():
        split = _split_of(path) if isinstance(path, str) else None
        if split is None:
            account.report(f"{key}.{role}", "to decide", f"{path} names no split: set streams.{stream}.metadata")
            continue
        where, name = posixpath.split(account.below_root(path))
        own = name.removesuffix(f".{split}.json").replace("{", "{{").replace("}", "}}") + ".{split}.json"
        if folder is None:
            folder, pattern = where, own
        if (where, own) != (folder, pattern) or account.splits.setdefault(role, split) != split:
            note = (
                f"{path} is not {folder}/{pattern} with split {account.splits.get(role, split)}: rename it, or set "
            )
            account.report(f"{key}.{role}", "to decide", f"{note}streams.{stream}.metadata")
            continue
        is_default = (folder, pattern) == (stream, f"metadata_{stream}.{{split}}.json")
        account.report(f"{key}.{role}", "translated", f"{'the default, ' if is_default else ''}{folder}/{pattern}")
        if account.generating and role == "test":
            account.settings.setdefault(("generate", "split"), split)
    if folder is not None and folder != stream:
        account.settings["streams", stream, "folder"] = posixpath.join(account.root, folder)
    if pattern is not None and pattern != f"metadata_{stream}.{{split}}.json":
        account.settings["streams", stream, "metadata"] = pattern


def _pretrained(account: ImportAccount, key: str, value: Any) -> None:
    if value in (None, "", "None"):
        account.report(key, "no equivalent", "it names no file")
        return
    command = f"signllava checkpoint convert {value} --recipe NEW.yaml --set lora.enabled=false --out {CONVERTED}"
    account.set(key, "init.projector", CONVERTED, f"first run `{command}`", "to decide")


def _tasks(account: ImportAccount, section: str, split: str) -> None:
    tasks = account.section(section)
    has_weights = any(isinstance(each, dict) and "sample_weight" in each for each in tasks.values())
    for task in TASKS if has_weights else ():
        content = tasks[task] if isinstance(tasks.get(task), dict) else {}
        is_enabled = content.get("enable", True)
        weight = content.get("sample_weight", 0) if is_enabled else 0
        path = ("tasks", split, task)
        account.settings[path] = weight
        for name in ("enable", "sample_weight"):
            if name in content:
                account.set(f"{section}.{task}.{name}", path, weight, "" if is_enabled else "enable is false")
    for name, content in tasks.items():
        if name in TASKS and isinstance(content, dict) and "max_num_words" in content:
            account.set(f"{section}.{name}.max_num_words", "tasks.max_words", content["max_num_words"])


def _leaves(content: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """The whole key of each value; an empty section is a value."""
    if not isinstance(content, dict) or not content:
        yield prefix, content
        return
    for key, value in content.items():
        yield from _leaves(value, f"{prefix}.{key}")


def _split_of(path: str) -> str | None:
    """`dev` of `a/annotation.dev.json`."""
    found = re.search(r"\.([A-Za-z0-9_-]+)\.json$", path)
    return found[1] if found else None


def _as_yaml(key: str, value: Any) -> str:
    """One line: `key: value`, a section inside the section in braces."""
    if isinstance(value, dict | list):
        return f"{key}: {format_value(value)}"
    return yaml.safe_dump({key: value}, default_flow_style=False, allow_unicode=True, width=10**6).strip()
