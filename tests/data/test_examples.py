"""Truncation to the token budget: frames first, then context, never the instruction or the answer."""

from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from signllava_cli.data.examples import Example, ExampleBuilder, Truncation
from signllava_cli.data.prompts import PromptBuilder
from signllava_cli.data.tasks import Instruction
from signllava_cli.errors import UserError
from signllava_cli.recipe import Stream, build_recipe

INSTRUCTION = Instruction("translation", "What is signed?", "Today my sister buys a coat.")
CONTEXT = ["First.", "Second.", "Third.", "Fourth."]  # prelude 2, window 2
STREAMS = {"mae": np.arange(40, dtype=np.float16)[:, None], "pose": np.arange(20, dtype=np.float16)[:, None]}
MIN_FRAMES, PRELUDE = 8, 2
RECIPE_STREAMS = {name: Stream(width=1) for name in STREAMS}


@pytest.fixture
def prompts(tiny_llm: Path) -> PromptBuilder:
    return PromptBuilder(AutoTokenizer.from_pretrained(tiny_llm), build_recipe({}).tasks)


def build(
    prompts: PromptBuilder,
    max_seq_len: int,
    streams: dict[str, np.ndarray] = STREAMS,
    instruction: Instruction = INSTRUCTION,
    context: list[str] = CONTEXT,
    reserve: int = 0,
    with_answer: bool = True,
) -> Example:
    builder = ExampleBuilder(prompts, RECIPE_STREAMS, max_seq_len, MIN_FRAMES, PRELUDE)
    return builder.build("r/a", streams, instruction, context, reserve=reserve, with_answer=with_answer)


def test_an_example_below_the_budget_is_not_truncated(prompts: PromptBuilder) -> None:
    example = build(prompts, 1000)
    assert not example.truncation
    assert example.context == tuple(CONTEXT)
    assert example.seq_len == (
        len(example.prompt.before) + 2 + 40 + 2 + 20 + len(example.prompt.after) + len(example.answer)
    )


@pytest.mark.parametrize("excess", [1, 10, 44])
def test_frames_are_removed_first_evenly_from_every_stream(prompts: PromptBuilder, excess: int) -> None:
    full = build(prompts, 1000)
    example = build(prompts, full.seq_len - excess)
    assert full.seq_len - excess - 2 < example.seq_len <= full.seq_len - excess
    assert example.truncation == Truncation(frames=full.seq_len - example.seq_len, sentences=0)
    for name, frames in example.streams.items():
        assert len(frames) >= MIN_FRAMES
        assert (frames[0], frames[-1]) == (STREAMS[name][0], STREAMS[name][-1])


def test_context_is_removed_next_the_oldest_window_sentence_first(prompts: PromptBuilder) -> None:
    full = build(prompts, 1000)
    min_streams = {name: frames[:MIN_FRAMES] for name, frames in STREAMS.items()}
    min_seq_len = build(prompts, 1000, streams=min_streams, context=[]).seq_len
    contexts: list[tuple[str, ...]] = []
    for budget in range(full.seq_len, 0, -1):
        if budget < min_seq_len:
            with pytest.raises(UserError, match="Clip r/a"):
                build(prompts, budget)
            break
        example = build(prompts, budget)
        assert example.seq_len <= budget
        assert example.answer == full.answer
        assert example.truncation.sentences == len(CONTEXT) - len(example.context)
        if not contexts or contexts[-1] != example.context:
            contexts.append(example.context)
    assert contexts == [
        ("First.", "Second.", "Third.", "Fourth."),
        ("First.", "Second.", "Fourth."),
        ("First.", "Second."),
        ("First.",),
        (),
    ]


def test_generation_reserves_tokens_for_the_hypothesis(prompts: PromptBuilder) -> None:
    full = build(prompts, 1000, with_answer=False)
    example = build(prompts, full.seq_len, reserve=16, with_answer=False)
    assert full.answer == example.answer == ()
    assert example.seq_len + 16 <= full.seq_len


def test_a_reversed_instruction_shows_the_frames_in_reverse(prompts: PromptBuilder) -> None:
    instruction = Instruction("is_reversed", "Is the video played backwards?", "yes", is_reversed=True)
    for name, frames in build(prompts, 1000, instruction=instruction).streams.items():
        np.testing.assert_array_equal(frames, STREAMS[name][::-1])


def test_a_clip_of_thousands_of_frames_keeps_its_answer(prompts: PromptBuilder) -> None:
    streams = {"mae": np.zeros((5000, 1), np.float16), "pose": np.zeros((5000, 1), np.float16)}
    example = build(prompts, 256, streams=streams)
    assert example.seq_len <= 256
    assert example.answer == prompts.answer(INSTRUCTION.answer)
    assert example.truncation.frames == 10_000 - sum(len(frames) for frames in example.streams.values())
