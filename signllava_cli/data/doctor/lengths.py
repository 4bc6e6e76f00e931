"""How long clips are: streams that disagree, and clips that do not fit into a sequence."""

import itertools
import statistics
from collections.abc import Mapping, Sequence

from signllava_cli.data.annotations import Recording
from signllava_cli.data.context import gold_context
from signllava_cli.data.doctor.catalogue import RATIO_OFF
from signllava_cli.data.doctor.features import Arrays
from signllava_cli.data.doctor.findings import Findings
from signllava_cli.recipe import Recipe, Stream

CHARACTERS_OF_A_TOKEN = 4  # of English; the tokeniser is not loaded here
BOUNDARIES = 2  # positions around each stream


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
    split: str, recordings: Sequence[Recording], arrays: Mapping[str, Arrays], recipe: Recipe, findings: Findings
) -> None:
    """Clips that need more positions than the recipe gives; the length of texts is estimated."""
    settings = {name: recipe.streams[name] for name in arrays if name in recipe.streams}
    prompt = sum(
        map(len, (recipe.tasks.system, recipe.tasks.streams, recipe.tasks.context, recipe.tasks.translation))
    )
    for recording in recordings:
        for clip in recording.clips:
            seen = gold_context(recording, clip.position, recipe.context.window, recipe.context.prelude)
            text = prompt + sum(map(len, (clip.translation, *seen)))
            frames = [
                _kept(its[clip.id].frames, settings.get(name)) for name, its in arrays.items() if clip.id in its
            ]
            needed = sum(frames) + BOUNDARIES * len(frames) + text // CHARACTERS_OF_A_TOKEN
            if needed > recipe.data.max_positions:
                detail = f"{clip.id}: {sum(frames)} frames, data.max_positions {recipe.data.max_positions}"
                findings.add("too-long", [clip.id], split, detail=detail)


def _kept(frames: int, settings: Stream | None) -> int:
    """What `stride` and `max_frames` leave."""
    if settings is None:
        return frames
    strided = -(-frames // settings.stride)
    return strided if settings.max_frames is None else min(strided, settings.max_frames)
