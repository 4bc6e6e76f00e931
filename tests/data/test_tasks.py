"""The four tasks: right answers, right words, and samples that are functions of seed and position alone."""

import dataclasses
from collections import Counter
from typing import get_args, get_type_hints

import numpy as np
import pytest
import torch
from conftest import ALL_TASKS
from transformers import AutoTokenizer

from signllava_cli.data.annotations import Clip
from signllava_cli.data.batches import Batch, training_collator
from signllava_cli.data.examples import ExampleBuilder
from signllava_cli.data.prompts import PromptBuilder
from signllava_cli.data.tasks import Instruction, TaskSampler
from signllava_cli.data.training_set import TrainingSet, training_steps
from signllava_cli.data.words import contains_phrase, words
from signllava_cli.errors import UserError
from signllava_cli.prepare.indexing import open_split
from signllava_cli.recipe import TASKS, Generate, Recipe, Tasks, TaskWeights, build_recipe, read_recipe

CLIP = Clip(
    "r",
    "c",
    0,
    "Now Italian design is a kind of an art in New York.",
    paraphrases=("It is art.", "Art it is."),
    keywords=("italian", "Design", "New York", "artist"),
)
VOCABULARY = ["an", "art", "artist", "des", "design", "italian", "kind", "new york", "oven", "tal", "york city"]
NEGATIVES = {"des", "oven", "tal", "york city"}


def sample_instructions(
    weights: dict[str, float], clip: Clip = CLIP, vocabulary: list[str] = VOCABULARY
) -> list[Instruction]:
    task_weights = TaskWeights(**{"translation": 0.0, **weights})
    tasks = Tasks(one_word_present="{word}", multi_word_present="{words}")
    sampler = TaskSampler(tasks, task_weights, vocabulary, "train")
    return [sampler.sample(clip, np.random.default_rng([0, seed])) for seed in range(600)]


def count_words(clip: Clip = CLIP, vocabulary: list[str] = VOCABULARY) -> Counter[tuple[str, str]]:
    """How often `one_word_present` asks about each word, by (word, answer)."""
    instructions = sample_instructions({"one_word_present": 1}, clip, vocabulary)
    return Counter((instruction.text, instruction.answer) for instruction in instructions)


def test_a_word_is_present_if_it_is_a_word_of_the_sentence_in_any_case() -> None:
    counts = count_words()
    positives = {word for word, answer in counts if answer == "yes"}
    negatives = {word for word, answer in counts if answer == "no"}
    assert positives == {"italian", "design", "new york"}, "keywords of the sentence, in one spelling"
    assert negatives == NEGATIVES, "substrings are not words; keywords outside the sentence are not asked about"
    num_yes = sum(count for (_, answer), count in counts.items() if answer == "yes")
    assert 240 < num_yes < 360


def test_parts_of_compounds_and_possessives_are_not_negatives() -> None:
    clip = Clip("r", "c", 0, "The dog\u2019s acanthus-like ear.", keywords=("ear",))
    counts = count_words(clip, ["acanthus", "acanthus-like", "dog", "ear", "like", "oven"])
    assert counts.keys() == {("ear", "yes"), ("oven", "no")}


@pytest.mark.parametrize(
    ("sentence", "keyword"),
    [
        ("我今天烤面包", "面包"),
        ("今日はパンを焼く", "パン"),
        ("วันนี้ฉันอบขนมปัง", "ขนมปัง"),
        ("Im cafe\u0301 sitzen wir.", "caf\xe9"),
        ("Biz İstanbul gördük.", "İstanbul"),
        ("मैं आज रोटी बनाता हूँ", "रोटी"),
        ("Die Straße ist lang.", "STRASSE"),
    ],
)
def test_words_of_any_script_are_recognized(sentence: str, keyword: str) -> None:
    counts = count_words(Clip("r", "c", 0, sentence, keywords=(keyword,)), [keyword.casefold(), "oven"])
    assert counts.keys() == {(keyword.casefold(), "yes"), ("oven", "no")}


def test_several_words_are_in_alphabetical_order() -> None:
    word_counts, yes_counts = Counter[int](), Counter[int]()
    for instruction in sample_instructions({"multi_word_present": 1}):
        listed_words, answers = instruction.text.split(", "), instruction.answer.split(", ")
        assert listed_words == sorted(listed_words)
        assert len(set(listed_words)) == len(listed_words) == len(answers)
        for word, answer in zip(listed_words, answers, strict=True):
            assert (answer == "yes") == contains_phrase(words(CLIP.translation), words(word))
        word_counts[len(listed_words)] += 1
        yes_counts[answers.count("yes")] += 1
    assert set(word_counts) == {2, 3, 4, 5}
    assert set(yes_counts) == {0, 1, 2, 3}


def test_half_of_the_videos_are_reversed_and_the_answer_is_right() -> None:
    instructions = sample_instructions({"is_reversed": 1})
    assert all((instruction.answer == "yes") == instruction.is_reversed for instruction in instructions)
    assert 240 < sum(instruction.is_reversed for instruction in instructions) < 360


def test_tasks_are_sampled_by_their_weights() -> None:
    instructions = sample_instructions({"translation": 2, "one_word_present": 1, "is_reversed": 1})
    counts = Counter(instruction.task for instruction in instructions)
    assert counts.keys() == {"translation", "one_word_present", "is_reversed"}
    assert 250 < counts["translation"] < 350


@pytest.mark.parametrize("task", ["one_word_present", "multi_word_present"])
@pytest.mark.parametrize(
    ("clip", "vocabulary"),
    [
        (Clip("r", "c", 0, "Oven.", keywords=("oven",)), ["oven"]),
        (Clip("r", "c", 0, "Oven.", keywords=()), ["oven"]),
        (Clip("r", "c", 0, "Pan.", keywords=()), ["oven"]),
        (Clip("r", "c", 0, "Pan, oven.", keywords=("pan", "Pan", "OVEN", "...")), ["...", "oven", "pan"]),
    ],
)
def test_small_vocabularies_give_fewer_words_and_never_a_wrong_answer(
    task: str, clip: Clip, vocabulary: list[str]
) -> None:
    for instruction in sample_instructions({task: 1}, clip, vocabulary):
        if instruction.task == "translation":
            assert instruction.answer == clip.translation
            continue
        for word, answer in zip(instruction.text.split(", "), instruction.answer.split(", "), strict=True):
            assert (answer == "yes") == contains_phrase(words(clip.translation), words(word))


def test_word_tasks_without_keywords_are_an_error() -> None:
    with pytest.raises(UserError, match="signllava prepare keywords"):
        sample_instructions({"one_word_present": 1}, vocabulary=[])


def test_the_recipes_share_of_translations_are_paraphrases() -> None:
    sampler = TaskSampler(Tasks(paraphrases=0.4), TaskWeights(), VOCABULARY, "train")
    counts = Counter(sampler.sample(CLIP, np.random.default_rng(seed)).answer for seed in range(1000))
    assert 550 < counts[CLIP.translation] < 650
    assert counts.keys() == {CLIP.translation, *CLIP.paraphrases}


@pytest.fixture
def all_tasks(settings: list[str]) -> Recipe:
    return read_recipe("toy/tiny_pretrain", [*settings, *ALL_TASKS, "train.micro_batch_size=2"])


def steps(
    recipe: Recipe, first: int, last: int, workers: int = 0, rank: int = 0, ranks: int = 1
) -> list[list[Batch]]:
    recipe = build_recipe({**recipe.to_dict(), "data": {**recipe.to_dict()["data"], "num_workers": workers}})
    prompts = PromptBuilder(AutoTokenizer.from_pretrained(recipe.llm.path), recipe.tasks)
    examples = TrainingSet(
        recipe,
        open_split(recipe.data, recipe.streams, "dev"),
        ExampleBuilder(
            prompts, recipe.streams, recipe.data.max_seq_len, recipe.data.min_frames, recipe.context.prelude
        ),
    )
    return list(training_steps(recipe, examples, first, last, training_collator(recipe, 0), rank, ranks))


def assert_same(one: list[Batch], other: list[Batch]) -> None:
    for batch, expected in zip(one, other, strict=True):
        assert batch.clips == expected.clips
        for name in ("input_ids", "targets", "logit_indices"):
            assert torch.equal(getattr(batch, name), getattr(expected, name))
        for name, stream in batch.streams.items():
            assert torch.equal(stream.frames, expected.streams[name].frames)


def test_samples_are_the_same_for_any_workers_and_ranks_and_after_a_resume(all_tasks: Recipe) -> None:
    """Two and a half epochs of 45 clips, 4 clips per step in micro-batches of 2."""
    expected = steps(all_tasks, 0, 28)
    for one, other in zip(expected, steps(all_tasks, 0, 28, workers=3), strict=True):
        assert_same(one, other)
    for one, other in zip(expected[17:], steps(all_tasks, 17, 28, workers=1), strict=True):
        assert_same(one, other)
    shares = [steps(all_tasks, 0, 28, rank=rank, ranks=2) for rank in (0, 1)]
    for one, first, second in zip(expected, *shares, strict=True):
        assert_same(one, [*first, *second])


def test_a_reversed_clip_shows_its_frames_in_reverse(all_tasks: Recipe) -> None:
    recipe = build_recipe(
        {**all_tasks.to_dict(), "tasks": {"train": {"translation": 0, "is_reversed": 1}, "yes": "yes", "no": "no"}}
    )
    prompts = PromptBuilder(AutoTokenizer.from_pretrained(recipe.llm.path), recipe.tasks)
    split = open_split(recipe.data, recipe.streams, "dev")
    examples = TrainingSet(
        recipe,
        split,
        ExampleBuilder(
            prompts, recipe.streams, recipe.data.max_seq_len, recipe.data.min_frames, recipe.context.prelude
        ),
    )
    reversals = set()
    for position in range(12):
        example = examples[position]
        is_reversed = prompts.text(example.answer) == "yes"
        for name, frames in split.read(examples.clip(position)).items():
            np.testing.assert_array_equal(example.streams[name], frames[::-1] if is_reversed else frames)
        reversals.add(is_reversed)
    assert reversals == {True, False}


def test_tasks_are_listed_once() -> None:
    """The weights have a field for each task, and the recipe accepts each."""
    assert [field.name for field in dataclasses.fields(TaskWeights)] == list(TASKS)
    assert get_args(get_type_hints(Generate)["task"]) == TASKS
