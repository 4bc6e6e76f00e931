"""What a recipe may not say, although each of its settings alone is right; and how faults are told."""

import dataclasses
import difflib
import math
import re
from typing import Any

from signllava_cli.errors import UserError
from signllava_cli.recipe.schedules import schedule_faults
from signllava_cli.recipe.sections import PLACEHOLDER, Recipe, Stage, Stream, TaskWeights


def require_stage(recipe: Recipe, stage: Stage) -> None:
    """Check that the recipe is one of this stage.

    Raises:
        UserError: pretrain with a LoRA adapter, finetune without one, no streams to train on, float16, or a dev BLEU
            of samples.
    """
    faults = []
    if not recipe.streams:
        faults.append("streams: none is named; add at least one, such as `mae: {width: 768}`")
    if stage == "pretrain" and recipe.lora.enabled:
        faults.append("lora.enabled: pretrain trains projectors only; set it to false, or run finetune")
    if stage == "finetune" and not recipe.lora.enabled:
        faults.append("lora.enabled: finetune trains an adapter; set it to true, or run pretrain")
    if recipe.llm.dtype == "float16":
        faults.append(
            "llm.dtype: float16 loses small gradients without loss scaling, which is not offered; "
            "train in bfloat16 or float32 (generation may use float16)"
        )
    if recipe.train.best == "dev_bleu" and recipe.generate.temperature is not None:
        faults.append(
            "train.best: dev_bleu is computed without sampling; remove generate.temperature "
            f"({recipe.generate.temperature:g}) here and pass --temperature to `signllava generate`"
        )
    if faults:
        raise fault_report(f"{stage} recipe", faults)


def is_unicode(text: str) -> bool:
    """Whether `text` can be written: JSON and YAML escapes can spell half a surrogate pair, which UTF-8 has not."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def fault_report(source: str, faults: list[str]) -> UserError:
    if len(faults) == 1:
        return UserError(f"{source}: {faults[0]}")
    return UserError(f"{source} has {len(faults)} faults:\n" + "\n".join(f"  {fault}" for fault in faults))


def fault_line(fault: Any) -> str:
    key = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "unexpected_keyword_argument":
        known = _keys_beside(fault["loc"])
        near = difflib.get_close_matches(str(fault["loc"][-1]), known, n=1)
        return f"{key}: unknown key; " + (f"did you mean `{near[0]}`?" if near else f"known here: {', '.join(known)}")
    if fault["type"] == "missing":
        return f"{key}: missing"
    if key == "train.epochs" and fault["input"] is None:
        return f"{key}: must be a number, not null; for a number of steps, leave it out and set train.max_steps"
    if fault["type"] == "dataclass_type":
        return f"{key or 'recipe'}: expected a section with keys, got {fault['input']!r}"
    return f"{key}: {fault['msg'][0].lower()}{fault['msg'][1:]}, got {fault['input']!r}"


def _keys_beside(location: tuple[Any, ...]) -> list[str]:
    owner: Any = Recipe
    if len(location) == 2:
        owner = next(field.type for field in dataclasses.fields(owner) if field.name == location[0])
    elif len(location) > 2:
        owner = TaskWeights if location[0] == "tasks" else Stream
    return [field.alias or name for name, field in owner.__pydantic_fields__.items()]


def contradictions(recipe: Recipe) -> list[str]:
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
    for key, text in recipe.tasks.texts().items():
        if not is_unicode(text) or PLACEHOLDER in text:
            faults.append(f"tasks.{key}: holds half a surrogate pair or {PLACEHOLDER!r}, which no prompt may hold")
    for key, mark in (("one_word_present", "{word}"), ("multi_word_present", "{words}")):
        if mark not in getattr(recipe.tasks, key):
            faults.append(f"tasks.{key}: the question must hold {mark}, where the words go")
    for split, weights in (("train", recipe.tasks.train), ("dev", recipe.tasks.dev)):
        if not sum(vars(weights).values()):
            faults.append(f"tasks.{split}: no task has a weight")
    context = recipe.context
    for key in ("window", "prelude"):
        least, most = getattr(context, f"least_{key}"), getattr(context, key)
        if least is not None and least > most:
            faults.append(f"context.least_{key}: {least} is more than context.{key}, {most}")
    if context.source != "gold" and not re.fullmatch(r"(predicted|mixed):.+", context.source):
        faults.append(f"context.source: expected gold, predicted:FILE or mixed:FILE, got {context.source!r}")
    llm, train = recipe.llm, recipe.train
    if (llm.bits == 32) != (llm.dtype == "float32") and llm.bits >= 16:
        faults.append(f"llm.dtype: {llm.dtype} weights do not have llm.bits={llm.bits}")
    if train.tokens_per_batch is None and train.batch_size % train.micro_batch_size:
        faults.append(
            f"train.batch_size: {train.batch_size} is not a multiple of "
            f"train.micro_batch_size ({train.micro_batch_size})"
        )
    faults += schedule_faults(train.schedule, train.schedule_options)
    if recipe.launch.machine_rank >= (recipe.launch.num_machines or math.inf):
        faults.append(
            f"launch.machine_rank: {recipe.launch.machine_rank} is not one of {recipe.launch.num_machines} machines "
            "(they are counted from 0)"
        )
    return [*faults, *_generate_faults(recipe)]


def _generate_faults(recipe: Recipe) -> list[str]:
    settings, faults = recipe.generate, []
    source = settings.context_source
    if source not in ("none", "gold", "predicted") and not source.startswith("prepared:"):
        faults.append(f"generate.context_source: expected none, gold, predicted or prepared:FILE, got {source!r}")
    if settings.temperature is None and settings.num_return > settings.beams:
        faults.append(
            f"generate.num_return: {settings.num_return} hypotheses cannot come of generate.beams={settings.beams}; "
            "raise it, or sample with generate.temperature"
        )
    if settings.mbr and settings.num_return == 1:
        faults.append("generate.mbr: chooses between several hypotheses; ask for them with generate.num_return")
    if settings.min_new_tokens > settings.max_new_tokens:
        faults.append(
            f"generate.min_new_tokens: {settings.min_new_tokens} is more than generate.max_new_tokens, "
            f"{settings.max_new_tokens}"
        )
    if settings.task_prompt and settings.task != "translation":
        faults.append(f"generate.task_prompt: is a question of its own, beside generate.task={settings.task}")
    if unknown := [name for name in settings.ablate if name not in recipe.streams]:
        faults.append(f"generate.ablate: {', '.join(unknown)} is none of the streams {', '.join(recipe.streams)}")
    if settings.ablate and set(recipe.streams) <= set(settings.ablate):
        faults.append("generate.ablate: leaves no stream; use generate.features=zero to show nothing")
    return faults
