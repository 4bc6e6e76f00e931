"""How long clips are: streams that disagree, and clips that do not fit into a sequence."""

import itertools
import statistics
from collections.abc import Mapping, Sequence

import numpy as np

from signllava_cli.data.annotations import Clip, Recording
from signllava_cli.data.context import gold_context
from signllava_cli.data.doctor.catalogue import RATIO_OFF
from signllava_cli.data.doctor.features import Arrays
from signllava_cli.data.doctor.findings import Findings
from signllava_cli.data.examples import BOUNDARIES
from signllava_cli.data.features import kept_frames
from signllava_cli.data.prompts import PromptWriter
from signllava_cli.recipe import Recipe, Tasks

CHARACTERS_OF_A_TOKEN = 4  # of English, where no tokenizer is at hand


def check_agreement(split: str, arrays: Mapping[str, Arrays], findings: Findings) -> None:
    """Clips whose ratio of lengths between two streams is far off the median. `arrays`: by stream."""
    for one, other in itertools.combinations(arrays, 2):
        ratios = {
            clip: facts.frames / arrays[other][clip].frames
            for clip, facts in arrays[one].items()
            if facts.frames and clip in arrays[other] and arrays[other][clip].frames
        }
        usual = statistics.median(ratios.values()) if ratios else 1.0
        off = {clip: ratio for clip, ratio in ratios.items() if not 1 / RATIO_OFF <= ratio / usual <= RATIO_OFF}
        for clip, ratio in off.items():
            detail = f"{clip}: {ratio:.2f} in place of {usual:.2f}"
            findings.add("lengths-disagree", [clip], split, f"{one}/{other}", detail)


def check_fit(
    split: str,
    recordings: Sequence[Recording],
    arrays: Mapping[str, Arrays],
    recipe: Recipe,
    prompts: PromptWriter | None,
    findings: Findings,
) -> None:
    """Clips that need more positions than the recipe gives; without `prompts` the length of texts is estimated."""
    settings = {name: recipe.streams[name] for name in arrays if name in recipe.streams}
    room = recipe.data.max_positions
    for recording in recordings:
        for clip in recording.clips:
            seen = gold_context(recording, clip.position, recipe.context.window, recipe.context.prelude)
            frames = [
                int(kept_frames(np.array(its[clip.id].frames), settings[name]))
                if name in settings
                else its[clip.id].frames
                for name, its in arrays.items()
                if clip.id in its
            ]
            needed = sum(frames) + BOUNDARIES * len(frames) + _text_positions(clip, seen, recipe.tasks, prompts)
            if needed > room:
                about = "" if prompts else "about "
                detail = f"{clip.id}: {about}{needed} positions, {sum(frames)} of them frames; the recipe has {room}"
                findings.add("too-long", [clip.id], split, detail=detail)


def _text_positions(clip: Clip, context: list[str], tasks: Tasks, prompts: PromptWriter | None) -> int:
    """The positions of prompt and answer, counted or estimated."""
    if prompts is None:
        texts = (tasks.system, tasks.streams, tasks.context, tasks.translation, clip.translation, *context)
        return sum(map(len, texts)) // CHARACTERS_OF_A_TOKEN
    prompt = prompts.prompt(context)
    return len(prompt.before) + len(prompt.after) + len(prompts.answer(clip.translation))
