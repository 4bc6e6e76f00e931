"""Checks the lengths of clips: streams that disagree, and clips that do not fit into a sequence."""

import itertools
import statistics
from collections.abc import Mapping, Sequence

import numpy as np

from signllava_cli.data.annotations import Clip, Recording
from signllava_cli.data.context import gold_context
from signllava_cli.data.examples import BOUNDARY_VECTORS
from signllava_cli.data.feature_stream import count_kept_frames
from signllava_cli.data.projector_inputs import MAX_CUT, projector_inputs
from signllava_cli.data.prompts import PromptBuilder
from signllava_cli.prepare.validation.array_checks import ClipArrays
from signllava_cli.prepare.validation.checks import MAX_LENGTH_RATIO
from signllava_cli.prepare.validation.findings import Findings
from signllava_cli.recipe import Recipe, Tasks

CHARS_PER_TOKEN = 4  # in English; used without a tokenizer


def check_agreement(split: str, arrays: Mapping[str, ClipArrays], findings: Findings) -> None:
    """Add findings for clips whose ratio of lengths in two streams is far from the median. `arrays`: by stream."""
    for first, second in itertools.combinations(arrays, 2):
        ratios = {
            clip: facts.frames / arrays[second][clip].frames
            for clip, facts in arrays[first].items()
            if facts.frames and clip in arrays[second] and arrays[second][clip].frames
        }
        median = statistics.median(ratios.values()) if ratios else 1.0
        outliers = {
            clip: ratio
            for clip, ratio in ratios.items()
            if not 1 / MAX_LENGTH_RATIO <= ratio / median <= MAX_LENGTH_RATIO
        }
        for clip, ratio in outliers.items():
            detail = f"{clip}: {ratio:.2f} instead of {median:.2f}"
            findings.add("lengths-disagree", [clip], split, f"{first}/{second}", detail)


def check_joined(split: str, arrays: Mapping[str, ClipArrays], recipe: Recipe, findings: Findings) -> None:
    """Add findings for clips in which joined streams differ in length by too many frames. `arrays`: by stream."""
    for projector_input in projector_inputs(recipe.streams).values():
        streams = {name: stream for name, stream in projector_input.streams.items() if name in arrays}
        for clip in set.intersection(*(set(arrays[name]) for name in streams)) if len(streams) > 1 else ():
            lengths = {name: -(-arrays[name][clip].frames // stream.stride) for name, stream in streams.items()}
            if min(lengths.values()) and max(lengths.values()) - min(lengths.values()) > MAX_CUT:
                detail = f"{clip}: {', '.join(f'{name} {length}' for name, length in lengths.items())}"
                findings.add("lengths-joined", [clip], split, "/".join(streams), detail)


def check_fit(
    split: str,
    recordings: Sequence[Recording],
    arrays: Mapping[str, ClipArrays],
    recipe: Recipe,
    prompts: PromptBuilder | None,
    findings: Findings,
) -> None:
    """Add findings for clips longer than data.max_seq_len tokens; without `prompts` the length of texts is estimated.

    Training removes frames first, then context; a clip that still does not fit is an error.
    """
    max_seq_len, context = recipe.data.max_seq_len, recipe.context
    limit = f"the recipe has {max_seq_len}" if recipe.streams else f"a recipe has {max_seq_len} by default"
    prefix = "" if prompts else "about "
    for recording in recordings:
        for clip in recording.clips:
            frames = {
                name: stream_arrays[clip.id].frames
                for name, stream_arrays in arrays.items()
                if clip.id in stream_arrays
            }
            num_embeddings, min_embeddings, num_boundary_vectors = _count_stream_tokens(frames, recipe)
            sentences = gold_context(recording, clip.position, context.window, context.prelude)
            num_text_tokens = _count_text_tokens(clip, sentences, recipe.tasks, prompts) + num_boundary_vectors
            if num_text_tokens + num_embeddings <= max_seq_len:
                continue
            num_question_tokens = _count_text_tokens(clip, [], recipe.tasks, prompts) + num_boundary_vectors
            if num_text_tokens + min_embeddings <= max_seq_len:
                name = "too-long"
            elif num_question_tokens + min_embeddings <= max_seq_len:
                name = "context-too-long"
            else:
                name = "text-too-long"
            detail = f"{clip.id}: {prefix}{num_text_tokens} tokens of text, {num_embeddings} of frames; {limit}"
            findings.add(name, [clip.id], split, detail=detail)


def _count_stream_tokens(frames: Mapping[str, int], recipe: Recipe) -> tuple[int, int, int]:
    """The tokens of a clip's frames in a sequence: embeddings, the fewest that are kept, and boundary vectors.

    Args:
        frames: stream -> their number in the files.
    """
    if not recipe.streams:  # every stream of the dataset, as by default
        fewest = sum(min(count, recipe.data.min_frames) for count in frames.values())
        return sum(frames.values()), fewest, BOUNDARY_VECTORS * len(frames)
    most, fewest, num_inputs = 0, 0, 0
    for projector_input in projector_inputs(recipe.streams).values():
        kept = [
            int(count_kept_frames(np.array(frames[name]), stream))
            for name, stream in projector_input.streams.items()
            if name in frames
        ]
        if kept:
            most += projector_input.count_embeddings(min(kept))
            fewest += projector_input.count_embeddings(min(*kept, recipe.data.min_frames))
            num_inputs += 1
    return most, fewest, BOUNDARY_VECTORS * num_inputs


def _count_text_tokens(clip: Clip, context: Sequence[str], tasks: Tasks, prompts: PromptBuilder | None) -> int:
    """The number of tokens of prompt and answer, counted or estimated."""
    if prompts is None:
        texts = (tasks.system, tasks.streams, tasks.context, tasks.translation, clip.translation, *context)
        return sum(map(len, texts)) // CHARS_PER_TOKEN
    prompt = prompts.prompt(context)
    return len(prompt.before) + len(prompt.after) + len(prompts.answer(clip.translation))
