"""Cutting to the budget: frames first, then context, never the question or the answer."""

from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from signllava_cli.data.annotations import Clip
from signllava_cli.data.examples import ExampleBuilder, Truncation
from signllava_cli.data.prompts import PromptBuilder
from signllava_cli.errors import UserError
from signllava_cli.recipe import build_recipe

CLIP = Clip("r", "a", 9, "Today my sister buys a coat.")
CONTEXT = ["First.", "Second.", "Third.", "Fourth."]  # prelude 2, window 2
STREAMS = {"mae": np.arange(40, dtype=np.float16)[:, None], "pose": np.arange(20, dtype=np.float16)[:, None]}


@pytest.fixture
def prompts(tiny_llm: Path) -> PromptBuilder:
    return PromptBuilder(AutoTokenizer.from_pretrained(tiny_llm), build_recipe({}).tasks)


def builder(prompts: PromptBuilder, max_seq_len: int) -> ExampleBuilder:
    recipe = build_recipe(
        {
            "data": {"max_seq_len": max_seq_len, "min_frames": 8},
            "context": {"window": 2, "prelude": 2},
            "streams": {name: {"width": 1} for name in STREAMS},
        }
    )
    return ExampleBuilder(prompts, recipe.data.max_seq_len, recipe.data.min_frames, recipe.context.prelude)


def test_everything_fits_where_there_is_room(prompts: PromptBuilder) -> None:
    example = builder(prompts, 1000).build(CLIP, STREAMS, CONTEXT, CLIP.translation)
    assert not example.truncation
    assert example.context == tuple(CONTEXT)
    assert example.positions == (
        len(example.prompt.before) + 2 + 40 + 2 + 20 + len(example.prompt.after) + len(example.answer)
    )


@pytest.mark.parametrize("over", [1, 10, 44])
def test_frames_go_first_evenly_from_every_stream(prompts: PromptBuilder, over: int) -> None:
    full = builder(prompts, 1000).build(CLIP, STREAMS, CONTEXT, CLIP.translation)
    example = builder(prompts, full.positions - over).build(CLIP, STREAMS, CONTEXT, CLIP.translation)
    assert full.positions - over - 2 < example.positions <= full.positions - over
    assert example.truncation == Truncation(frames=full.positions - example.positions, sentences=0)
    for name, frames in example.streams.items():
        assert len(frames) >= 8
        assert (frames[0], frames[-1]) == (STREAMS[name][0], STREAMS[name][-1])


def test_then_context_goes_the_oldest_window_sentence_first(prompts: PromptBuilder) -> None:
    full = builder(prompts, 1000).build(CLIP, STREAMS, CONTEXT, CLIP.translation)
    thinnest = {name: frames[:8] for name, frames in STREAMS.items()}
    shortest = builder(prompts, 1000).build(CLIP, thinnest, [], CLIP.translation).positions
    seen: list[tuple[str, ...]] = []
    for budget in range(full.positions, 0, -1):
        if budget < shortest:
            with pytest.raises(UserError, match="Clip r/a"):
                builder(prompts, budget).build(CLIP, STREAMS, CONTEXT, CLIP.translation)
            break
        example = builder(prompts, budget).build(CLIP, STREAMS, CONTEXT, CLIP.translation)
        assert example.positions <= budget
        assert example.answer == full.answer
        assert example.truncation.sentences == len(CONTEXT) - len(example.context)
        if not seen or seen[-1] != example.context:
            seen.append(example.context)
    assert seen == [
        ("First.", "Second.", "Third.", "Fourth."),
        ("First.", "Second.", "Fourth."),
        ("First.", "Second."),
        ("First.",),
        (),
    ]


def test_generation_keeps_room_for_what_it_adds(prompts: PromptBuilder) -> None:
    full = builder(prompts, 1000).build(CLIP, STREAMS, CONTEXT, None)
    example = builder(prompts, full.positions).build(CLIP, STREAMS, CONTEXT, None, room=16)
    assert example.positions + 16 <= full.positions


def test_a_clip_of_thousands_of_frames_keeps_its_answer(prompts: PromptBuilder) -> None:
    streams = {"mae": np.zeros((5000, 1), np.float16), "pose": np.zeros((5000, 1), np.float16)}
    example = builder(prompts, 256).build(CLIP, streams, CONTEXT, CLIP.translation)
    assert example.positions <= 256
    assert example.answer == prompts.answer(CLIP.translation)
    assert example.truncation.frames == 10_000 - sum(len(frames) for frames in example.streams.values())
