"""Checks of settings against each other, and the messages for all errors of a recipe."""

import dataclasses
import difflib
import math
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from signllava_cli.errors import UserError
from signllava_cli.recipe.data_sections import PLACEHOLDER, TaskWeights
from signllava_cli.recipe.file_patterns import pattern_fields
from signllava_cli.recipe.lr_schedules import lr_scheduler_errors
from signllava_cli.recipe.model_sections import Conv, Stream
from signllava_cli.recipe.sections import Launch, Recipe
from signllava_cli.recipe.setting_types import Stage
from signllava_cli.redaction import has_secret


def require_stage(recipe: Recipe, stage: Stage) -> None:
    """Check that the recipe is one of this stage.

    Raises:
        UserError: pretrain with a LoRA adapter, finetune without one, no streams to train on, float16, or a dev BLEU
            of samples.
    """
    errors = []
    if not recipe.streams:
        errors.append("streams: none is given; add at least one, such as `mae: {width: 768}`")
    if stage == "pretrain" and recipe.lora.enabled:
        errors.append("lora.enabled: pretrain trains projectors only; set it to false, or run finetune")
    if stage == "finetune" and not recipe.lora.enabled:
        errors.append("lora.enabled: finetune trains an adapter; set it to true, or run pretrain")
    if recipe.llm.dtype == "float16":
        errors.append(
            "llm.dtype: float16 loses small gradients without loss scaling, which is not offered; "
            "train in bfloat16 or float32 (generation may use float16)"
        )
    if recipe.train.metric_for_best_model == "dev_bleu" and recipe.generate.temperature is not None:
        errors.append(
            "train.metric_for_best_model: dev_bleu is computed without sampling; remove generate.temperature "
            f"({recipe.generate.temperature:g}) here and pass --temperature to `signllava generate`"
        )
    if errors:
        raise error_report(f"{stage} recipe", errors)


def is_unicode(text: str) -> bool:
    """Whether UTF-8 can encode `text`. Escapes in JSON and YAML can write half a surrogate pair, which it cannot."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def error_report(source: str, errors: list[str]) -> UserError:
    """One error that lists all `errors` of `source`."""
    if len(errors) == 1:
        return UserError(f"{source}: {errors[0]}")
    return UserError(f"{source} has {len(errors)} errors:", *(f"  {error}" for error in errors))


def format_error(error: Any) -> str:
    """One error of pydantic as `KEY: MESSAGE`."""
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] == "unexpected_keyword_argument":
        known = _sibling_keys(error["loc"])
        near = difflib.get_close_matches(str(error["loc"][-1]), known, n=1)
        return f"{key}: unknown key; " + (f"did you mean `{near[0]}`?" if near else f"known here: {', '.join(known)}")
    if error["type"] == "missing":
        return f"{key}: missing"
    if key == "train.num_train_epochs" and error["input"] is None:
        return f"{key}: must be a number, not null; for a number of steps, remove it and set train.max_steps"
    if error["type"] == "dataclass_type":
        return f"{key or 'recipe'}: expected a section with keys, got {error['input']!r}"
    message = error["msg"].removeprefix("Value error, ")
    return f"{key}: {message[0].lower()}{message[1:]}, got {error['input']!r}"


def _sibling_keys(location: tuple[Any, ...]) -> list[str]:
    """The keys that are allowed beside the last one of `location`."""
    owner: Any = Recipe
    if len(location) == 2:
        owner = next(field.type for field in dataclasses.fields(owner) if field.name == location[0])
    elif len(location) > 2:
        inner = {"tasks": TaskWeights, "streams": Stream if len(location) == 3 else Conv}
        owner = inner[location[0]]
    return list(owner.__pydantic_fields__)


def find_contradictions(recipe: Recipe) -> list[str]:
    """The errors of settings that are valid alone, each as `KEY: MESSAGE`."""
    errors = [
        f"streams.{name}: a stream's name may hold letters, digits, `_` and `-`"
        for name in recipe.streams
        if not re.fullmatch(r"[A-Za-z0-9_-]+", name)
    ]
    errors += _pattern_errors(recipe.streams)
    values = {key: str(value) for key, value in recipe.to_flat_dict().items()}
    if has_secret("\n".join(values.values())):  # one search, because few recipes have a secret
        errors += [
            f"{key}: contains a token, key or password, and recipes are stored in checkpoints; remove it, and set an "
            "environment variable such as HF_TOKEN or WANDB_API_KEY instead"
            for key, value in values.items()
            if has_secret(value)
        ]
    errors += _shortening_errors(recipe.streams)
    variables = {f"chat_template_kwargs.{key}": str(it) for key, it in recipe.tasks.chat_template_kwargs.items()}
    for key, text in {**recipe.tasks.texts(), **variables}.items():
        if not is_unicode(text) or PLACEHOLDER in text:
            errors.append(
                f"tasks.{key}: contains half a surrogate pair or {PLACEHOLDER!r}, which a prompt must not contain"
            )
    for key, placeholder in (("one_word_present", "{word}"), ("multi_word_present", "{words}")):
        if placeholder not in getattr(recipe.tasks, key):
            errors.append(f"tasks.{key}: must contain {placeholder}, which the words of the question replace")
    for split, weights in (("train", recipe.tasks.train), ("dev", recipe.tasks.dev)):
        if not sum(vars(weights).values()):
            errors.append(f"tasks.{split}: no task has a weight above 0")
    context = recipe.context
    for key in ("window", "prelude"):
        minimum, maximum = getattr(context, f"min_{key}"), getattr(context, key)
        if minimum is not None and minimum > maximum:
            errors.append(f"context.min_{key}: {minimum} is more than context.{key}, {maximum}")
    if context.source != "gold" and not re.fullmatch(r"(predicted|mixed):.+", context.source):
        errors.append(f"context.source: expected gold, predicted:FILE or mixed:FILE, got {context.source!r}")
    llm, train = recipe.llm, recipe.train
    if (llm.bits == 32) != (llm.dtype == "float32") and llm.bits >= 16:
        advice = "llm.dtype=float32" if llm.bits == 32 else "llm.bits=32, or llm.dtype=bfloat16"
        errors.append(f"llm.dtype: {llm.dtype} is not a data type of llm.bits={llm.bits}; set {advice}")
    if train.max_tokens_per_batch is None and train.batch_size % train.micro_batch_size:
        errors.append(
            f"train.batch_size: {train.batch_size} is not a multiple of "
            f"train.micro_batch_size ({train.micro_batch_size})"
        )
    if recipe.lora.target_parameters and recipe.lora.lora_dropout:
        errors.append(
            f"lora.lora_dropout: {recipe.lora.lora_dropout:g} is not possible with lora.target_parameters, whose "
            "adapter PEFT adds to the parameter; set lora.lora_dropout=0"
        )
    errors += lr_scheduler_errors(train.lr_scheduler_type, train.lr_scheduler_kwargs)
    errors += _launch_errors(recipe.launch)
    return [*errors, *_generate_errors(recipe)]


def _pattern_errors(streams: Mapping[str, Stream]) -> list[str]:
    """The errors of `metadata` and `shards`."""
    errors = []
    for name, stream in streams.items():
        for key, allowed in (("metadata", ("split",)), ("shards", ("split", "shard"))):
            try:
                is_valid = pattern_fields(getattr(stream, key) or "") <= {*allowed}
            except ValueError:
                is_valid = False
            if not is_valid:
                fields = " and ".join(f"{{{field}}}" for field in allowed)
                errors.append(f"streams.{name}.{key}: may contain {fields} and no other {{...}}")
    return errors


def _shortening_errors(streams: Mapping[str, Stream]) -> list[str]:
    """The errors of `stack`, `conv` and `join`."""
    errors = []
    first_of_join: dict[str, str] = {}
    for name, stream in streams.items():
        if stream.conv and stream.stack > 1:
            errors.append(f"streams.{name}.stack: cannot be combined with streams.{name}.conv; remove one of them")
        if stream.conv and stream.conv.kernel < stream.conv.stride:
            errors.append(
                f"streams.{name}.conv.kernel: {stream.conv.kernel} is less than streams.{name}.conv.stride "
                f"({stream.conv.stride}), so frames would be skipped; raise it"
            )
        if stream.join is None:
            continue
        if stream.join in streams:
            errors.append(f"streams.{name}.join: {stream.join} is the name of a stream; choose another name")
        first = first_of_join.setdefault(stream.join, name)
        for key in ("projector", "normalize_output", "stack", "conv", "max_frames"):
            if getattr(stream, key) != getattr(streams[first], key):
                errors.append(
                    f"streams.{name}.{key}: must be that of streams.{first}.{key}, because join={stream.join} gives "
                    "both one projector"
                )
    members = Counter(stream.join for stream in streams.values() if stream.join is not None)
    errors += [
        f"streams.{first}.join: no other stream has join={join}; correct the name, or remove it"
        for join, first in first_of_join.items()
        if members[join] == 1
    ]
    return errors


def _launch_errors(config: Launch) -> list[str]:
    errors = []
    if (config.machine_rank or 0) >= (config.num_machines or math.inf):
        errors.append(
            f"launch.machine_rank: {config.machine_rank} is not one of {config.num_machines} machines "
            "(they are counted from 0)"
        )
    if (config.main_process_ip is None) != (config.main_process_port is None):
        missing = "main_process_ip" if config.main_process_ip is None else "main_process_port"
        errors.append(f"launch.{missing}: missing; set main_process_ip and main_process_port together")
    return errors


def _generate_errors(recipe: Recipe) -> list[str]:
    config, errors = recipe.generate, []
    source = config.context_source
    if source not in ("none", "gold", "predicted") and not source.startswith("prepared:"):
        errors.append(f"generate.context_source: expected none, gold, predicted or prepared:FILE, got {source!r}")
    if config.temperature is None and config.num_return_sequences > config.num_beams:
        errors.append(
            f"generate.num_return_sequences: {config.num_return_sequences} is more than generate.num_beams "
            f"({config.num_beams}); raise num_beams, or sample with generate.temperature"
        )
    if config.mbr and config.num_return_sequences == 1:
        errors.append("generate.mbr: chooses between several hypotheses; set generate.num_return_sequences above 1")
    if config.min_new_tokens > config.max_new_tokens:
        errors.append(
            f"generate.min_new_tokens: {config.min_new_tokens} is more than generate.max_new_tokens "
            f"({config.max_new_tokens})"
        )
    if config.task_prompt and config.task != "translation":
        errors.append(
            f"generate.task_prompt: cannot be combined with generate.task={config.task}; remove one of them"
        )
    if unknown := [name for name in config.ablate if name not in recipe.streams]:
        errors.append(f"generate.ablate: {', '.join(unknown)} is none of the streams {', '.join(recipe.streams)}")
    if config.ablate and set(recipe.streams) <= set(config.ablate):
        errors.append("generate.ablate: removes every stream; use generate.features=zero instead")
    return errors
