"""How long clips are: streams that disagree, and clips that do not fit into a sequence."""

import itertools
import statistics
from collections.abc import Mapping, Sequence

import numpy as np

from signllava_cli.data.annotations import Clip, Recording
from signllava_cli.data.context import gold_context
from signllava_cli.data.examples import BOUNDARY_VECTORS
from signllava_cli.data.feature_stream import count_kept_frames
from signllava_cli.data.prompts import PromptBuilder
from signllava_cli.prepare.validation.array_checks import ClipArrays
from signllava_cli.prepare.validation.checks import MAX_LENGTH_RATIO
from signllava_cli.prepare.validation.findings import Findings
from signllava_cli.recipe import Recipe, Tasks

CHARS_PER_TOKEN = 4  # of English, where no tokenizer is at hand


def check_agreement(split: str, arrays: Mapping[str, ClipArrays], findings: Findings) -> None:
    """Clips whose ratio of lengths between two streams is far off the median. `arrays`: by stream."""
    for one, other in itertools.combinations(arrays, 2):
        ratios = {
            clip: facts.frames / arrays[other][clip].frames
            for clip, facts in arrays[one].items()
            if facts.frames and clip in arrays[other] and arrays[other][clip].frames
        }
        usual = statistics.median(ratios.values()) if ratios else 1.0
        off = {
            clip: ratio
            for clip, ratio in ratios.items()
            if not 1 / MAX_LENGTH_RATIO <= ratio / usual <= MAX_LENGTH_RATIO
        }
        for clip, ratio in off.items():
            detail = f"{clip}: {ratio:.2f} in place of {usual:.2f}"
            findings.add("lengths-disagree", [clip], split, f"{one}/{other}", detail)


def check_fit(
    split: str,
    recordings: Sequence[Recording],
    arrays: Mapping[str, ClipArrays],
    recipe: Recipe,
    prompts: PromptBuilder | None,
    findings: Findings,
) -> None:
    """Clips that need more positions than there are; without `prompts` the length of texts is estimated.

    As training cuts them: frames go first, then context; a clip that still does not fit is an error.
    """
    config = {name: recipe.streams[name] for name in arrays if name in recipe.streams}
    room, context = recipe.data.max_seq_len, recipe.context
    limit = f"the recipe has {room}" if recipe.streams else f"a recipe has {room} by default"
    about = "" if prompts else "about "
    for recording in recordings:
        for clip in recording.clips:
            frames = [
                int(count_kept_frames(np.array(its[clip.id].frames), config[name]))
                if name in config
                else its[clip.id].frames
                for name, its in arrays.items()
                if clip.id in its
            ]
            seen = gold_context(recording, clip.position, context.window, context.prelude)
            text = _count_text_tokens(clip, seen, recipe.tasks, prompts) + BOUNDARY_VECTORS * len(frames)
            if text + sum(frames) <= room:
                continue
            fewest = sum(min(count, recipe.data.min_frames) for count in frames)
            if text + fewest <= room:
                name = "too-long"
            elif (
                _count_text_tokens(clip, [], recipe.tasks, prompts) + BOUNDARY_VECTORS * len(frames) + fewest <= room
            ):
                name = "context-too-long"
            else:
                name = "text-too-long"
            detail = f"{clip.id}: {about}{text} positions of text, {sum(frames)} frames; {limit}"
            findings.add(name, [clip.id], split, detail=detail)


def _count_text_tokens(clip: Clip, context: Sequence[str], tasks: Tasks, prompts: PromptBuilder | None) -> int:
    """The positions of prompt and answer, counted or estimated."""
    if prompts is None:
        texts = (tasks.system, tasks.streams, tasks.context, tasks.translation, clip.translation, *context)
        return sum(map(len, texts)) // CHARS_PER_TOKEN
    prompt = prompts.prompt(context)
    return len(prompt.before) + len(prompt.after) + len(prompts.answer(clip.translation))
