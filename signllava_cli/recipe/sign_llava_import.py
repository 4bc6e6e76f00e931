"""Converts a configuration of Sign_LLaVA to a recipe, with a report of what became of each of its keys."""

import dataclasses
import posixpath
import re
import shlex
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
from signllava_cli.recipe.sign_llava_keys import CONVERTED, UNKNOWN, ImportState, KeyReport, translate_key
from signllava_cli.recipe.sign_llava_tables import SECTIONS, STREAMS, TRAINING_DEFAULTS, sections_in

PREPARED_CONTEXT, PREDICTED_CONTEXT = (
    "prepared_predicted_context",
    "on_the_fly_predicted_context",
)  # of its data section


@dataclasses.dataclass(frozen=True)
class ImportedRecipe:
    """The settings that differ from a recipe's defaults or were named in `source`, and the report about each key."""

    source: Path
    settings: dict[str, Any]
    reports: list[KeyReport]

    def to_yaml(self) -> str:
        """A recipe file, with the reports in comments."""
        lines = [
            f"# Made by `signllava recipes import` from {escape_unprintable(str(self.source))}, a configuration of",
            "# Sign_LLaVA.",
            "# What became of its keys:",
        ]
        lines += [
            f"#   {report.outcome}: {report.key}: {report.note}"
            for outcome in ("to decide", "translated", "no equivalent")
            for report in self.reports
            if report.outcome == outcome
        ]
        for section in (name for name in Recipe().to_dict() if name in self.settings):
            lines += ["", f"{section}:"]
            lines += [textwrap.indent(_as_yaml(key, value), "  ") for key, value in self.settings[section].items()]
        return "\n".join(lines) + "\n"


def import_recipe(file: Path, num_processes: int | None = None) -> ImportedRecipe:
    """Convert the configuration of Sign_LLaVA in `file` to a recipe that does the same.

    Args:
        num_processes: number of GPUs of the run. A configuration counts clips per GPU and does not hold this number.

    Raises:
        UserError: the file is missing, not YAML, or has none of the sections of such a configuration.
    """
    if not file.is_file():
        raise UserError(f"No file {file}.")
    config = read_yaml(file)
    if not sections_in(config):
        raise UserError(f"{file} has none of the sections of Sign_LLaVA's configurations: {', '.join(SECTIONS)}.")
    state = ImportState(config, num_processes)
    _convert(state)
    recipe = state.require_valid(file).to_dict()
    _report_enabled_streams(state)
    resolved: dict[str, Any] = {}
    for path in state.settings:
        target, values = resolved, recipe
        for name in path[:-1]:
            target, values = target.setdefault(name, {}), values[name]
        target[path[-1]] = values[path[-1]]
    return ImportedRecipe(file, resolved, list(state.reports.values()))


def _convert(state: ImportState) -> None:
    for section, content in state.config.items():
        for key, _ in _leaves(content, str(section)):
            state.report(key, "to decide", UNKNOWN)  # until a step below reports another outcome
    for section in (
        "ModelArguments",
        "TrainingArguments",
        "GenerateArguments",
        "LoraArguments",
        "SignDataArguments",
    ):
        for name, value in state.section(section).items():
            translate_key(state, f"{section}.{name}", str(name), value)
    if state.training:
        _apply_defaults(state)
    _convert_annotation_paths(state)
    if state.generating or (not state.training and {PREPARED_CONTEXT, PREDICTED_CONTEXT} & state.data.keys()):
        _convert_context_source(state)
    _convert_streams(state)
    _convert_task_weights(state, "SignMultiTaskArguments", "train")
    _convert_task_weights(state, "SignMultiTaskEvalArguments", "dev")


def _apply_defaults(state: ImportState) -> None:
    """The defaults of Sign_LLaVA for keys that are not in the file."""
    for name, value in TRAINING_DEFAULTS.items():
        if name not in state.training:
            key = f"TrainingArguments.{name}"
            translate_key(state, key, name, value)
            report = state.reports[key]
            state.report(key, report.outcome, f"{report.note}; not in the file, where it means {value}")
    if "label_smoothing_factor" not in state.training:
        note = "not in the file, where it means 0.1 or 0, by version: set train.label_smoothing"
        state.report("TrainingArguments.label_smoothing_factor", "to decide", note)
    if "report_to" not in state.training:
        note = "not in the file, where it means wandb: set track.report_to: [wandb]; metrics.jsonl is always written"
        state.report("TrainingArguments.report_to", "no equivalent", note)


def _convert_annotation_paths(state: ImportState) -> None:
    """The annotation file of each split. In a dataset folder its name is fixed: annotation.SPLIT.json."""
    paths, key = state.data.get("annotation_path"), "SignDataArguments.annotation_path"
    roles = {f"{key}.{role}": (role, path) for role, path in paths.items()} if isinstance(paths, dict) else {}
    if isinstance(paths, str):
        roles = {key: ("test" if state.generating else "train", paths)}
    for path_key, (role, path) in roles.items():
        setting = {"train": "data.train", "dev": "data.dev", "test": "generate.split"}.get(role)
        if setting is None or not isinstance(path, str):
            continue
        if state.data.get(PREPARED_CONTEXT):
            state.report(path_key, "translated", "the FILE of generate.context_source; references are read from DATA")
            continue
        split, relative = _split_in_name(path), state.below_root(path)
        if split is None:
            state.report(
                path_key,
                "to decide",
                f"no split in the name {path}: copy it to DATA/annotation.SPLIT.json and set {setting}",
            )
            continue
        state.splits[role] = split
        file_name = f"annotation.{split}.json"
        if state.generating and posixpath.normpath(path) == posixpath.normpath(posixpath.join(state.root, file_name)):
            relative = file_name  # its generation opens this path as it is
        if relative == file_name:
            state.set(path_key, setting, split)
        else:
            note = f"signllava reads data.root/{file_name}: link or copy {path} there"
            state.set(path_key, setting, split, note, "to decide")


def _convert_context_source(state: ImportState) -> None:
    """Where the context sentences come from in generation."""
    source = "gold"
    if not state.data.get("context_window_size") and not state.data.get("prelude_window_size"):
        source = "none"
    elif state.data.get(PREPARED_CONTEXT):
        source = f"prepared:{posixpath.join(state.root, str(state.data.get('annotation_path')))}"
    elif state.data.get(PREDICTED_CONTEXT):
        source = "predicted"
    for name in (PREPARED_CONTEXT, PREDICTED_CONTEXT):
        state.set(f"SignDataArguments.{name}", "generate.context_source", source)
        if name not in state.data:
            del state.reports[f"SignDataArguments.{name}"]


def _convert_streams(state: ImportState) -> None:
    """The enabled streams, in the order in which Sign_LLaVA joins them."""
    features, projectors = (
        state.data.get("visual_features"),
        state.section("SignModelArguments").get("projectors"),
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
                state.report(key, "no equivalent", f"stream {stream} is not in the recipe: enable_input is false")
            continue
        _convert_projector(state, keys[1], str(stream), projector)
        _convert_stream_files(
            state, keys[0], str(stream), {role: path for role, path in files.items() if role != "enable_input"}
        )
    for key, value in _leaves(projectors, "SignModelArguments.projectors"):
        if key.endswith("pretrained_projector_ckpt"):
            _convert_pretrained(state, key, value)


def _report_enabled_streams(state: ImportState) -> None:
    """Report of each enabled stream whether the recipe has valid settings for it."""
    features = state.data.get("visual_features")
    converted = {path[1] for path in state.settings if path[0] == "streams"}
    for stream, files in features.items() if isinstance(features, dict) else ():
        if not isinstance(files, dict) or not files.get("enable_input"):
            continue
        key = f"SignDataArguments.visual_features.{stream}.enable_input"
        if str(stream) in converted:
            state.report(key, "translated", f"stream {stream} is in the recipe")
        else:
            note = f"the recipe has no stream {stream}: set streams.{stream}.width and streams.{stream}.projector"
            state.report(key, "to decide", note)


def _convert_projector(state: ImportState, key: str, stream: str, projector: Mapping[str, Any]) -> None:
    if "dim" in projector:
        state.set(f"{key}.dim", ("streams", stream, "width"), projector["dim"])
        for norm in ("normalize_input", "normalize_output"):
            state.settings["streams", stream, norm] = False
    if "projector_type" in projector:
        note = "without layer norms, as in Sign_LLaVA; new projectors may have normalize_input and normalize_output"
        state.set(f"{key}.projector_type", ("streams", stream, "projector"), projector["projector_type"], note)


def _convert_stream_files(state: ImportState, key: str, stream: str, paths: Mapping[str, Any]) -> None:
    """The metadata files of a stream. A recipe has one pattern for all splits."""
    folder = pattern = None
    for role, path in paths.items():
        if role not in ("train", "dev", "test"):
            continue
        split = _split_in_name(path) if isinstance(path, str) else None
        if split is None:
            state.report(f"{key}.{role}", "to decide", f"no split in the name {path}: set streams.{stream}.metadata")
            continue
        file_folder, name = posixpath.split(state.below_root(path))
        file_pattern = name.removesuffix(f".{split}.json").replace("{", "{{").replace("}", "}}") + ".{split}.json"
        if folder is None:
            folder, pattern = file_folder, file_pattern
        location = posixpath.join(folder, str(pattern))
        if (file_folder, file_pattern) != (folder, pattern) or state.splits.setdefault(role, split) != split:
            note = f"{path} is not {location} with split {state.splits.get(role, split)}: rename it, or set "
            state.report(f"{key}.{role}", "to decide", f"{note}streams.{stream}.metadata")
            continue
        is_default = (folder, pattern) == (stream, f"metadata_{stream}.{{split}}.json")
        state.report(f"{key}.{role}", "translated", f"{'the default, ' if is_default else ''}{location}")
        if state.generating and role == "test":
            state.settings.setdefault(("generate", "split"), split)
    if folder is not None and folder != stream:
        state.settings["streams", stream, "folder"] = posixpath.normpath(posixpath.join(state.root, folder))
    if pattern is not None and pattern != f"metadata_{stream}.{{split}}.json":
        state.settings["streams", stream, "metadata"] = pattern


def _convert_pretrained(state: ImportState, key: str, value: Any) -> None:
    if value in (None, "", "None"):
        state.report(key, "no equivalent", "no file is named")
        return
    source = shlex.quote(str(value))
    command = f"signllava checkpoint convert {source} --recipe NEW.yaml --set lora.enabled=false --out {CONVERTED}"
    state.set(key, "init.projector", CONVERTED, f"first run `{command}`", "to decide")


def _convert_task_weights(state: ImportState, section: str, split: str) -> None:
    tasks = state.section(section)
    has_weights = any(isinstance(task, dict) and "sample_weight" in task for task in tasks.values())
    for task in TASKS if has_weights else ():
        content = tasks[task] if isinstance(tasks.get(task), dict) else {}
        is_enabled = content.get("enable", True)
        weight = content.get("sample_weight", 0) if is_enabled else 0
        path = ("tasks", split, task)
        state.settings[path] = weight
        for name in ("enable", "sample_weight"):
            if name in content:
                state.set(f"{section}.{task}.{name}", path, weight, "" if is_enabled else "enable is false")
    for task in TASKS:
        content = tasks.get(task)
        if isinstance(content, dict) and "max_num_words" in content:
            state.set(f"{section}.{task}.max_num_words", "tasks.max_words", content["max_num_words"])


def _leaves(content: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """The whole key of each value; an empty section is a value."""
    if not isinstance(content, dict) or not content:
        yield prefix, content
        return
    for key, value in content.items():
        yield from _leaves(value, f"{prefix}.{key}")


def _split_in_name(path: str) -> str | None:
    """`dev` of `a/annotation.dev.json`."""
    match = re.search(r"\.([A-Za-z0-9_-]+)\.json$", path)
    return match[1] if match else None


def _as_yaml(key: str, value: Any) -> str:
    """One line: `key: value`, a section inside the section in braces."""
    if isinstance(value, dict | list):
        return f"{key}: {format_value(value)}"
    return yaml.safe_dump({key: value}, default_flow_style=False, allow_unicode=True, width=10**6).strip()
