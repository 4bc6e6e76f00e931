"""The four tasks: right answers, right words, and samples that are functions of seed and position alone."""

import dataclasses
from collections import Counter
from typing import get_type_hints

import numpy as np
import pytest
import torch
from conftest import ALL_TASKS
from transformers import AutoTokenizer

from signllava_cli.cli.generate import generate
from signllava_cli.data.annotations import Clip
from signllava_cli.data.batches import Batch, training_collator
from signllava_cli.data.examples import ExampleBuilder
from signllava_cli.data.prompts import PromptBuilder
from signllava_cli.data.tasks import Instruction, TaskSampler
from signllava_cli.data.training_set import TrainingSet, training_steps
from signllava_cli.data.words import contains_phrase, words
from signllava_cli.errors import UserError
from signllava_cli.prepare.indexing import open_split
from signllava_cli.recipe import TASKS, Recipe, Tasks, TaskWeights, build_recipe, read_recipe

CLIP = Clip(
    "r",
    "c",
    0,
    "Now Italian design is a kind of an art in New York.",
    paraphrases=("It is art.", "Art it is."),
    keywords=("italian", "Design", "New York", "artist"),
)
VOCABULARY = ["an", "art", "artist", "des", "design", "italian", "kind", "new york", "oven", "tal", "york city"]
NOT_THERE = {"des", "oven", "tal", "york city"}


def sample_instructions(
    weights: dict[str, float], clip: Clip = CLIP, vocabulary: list[str] = VOCABULARY
) -> list[Instruction]:
    task_weights = TaskWeights(**{"translation": 0.0, **weights})
    tasks = Tasks(one_word_present="{word}", multi_word_present="{words}")
    sampler = TaskSampler(tasks, task_weights, vocabulary, "train")
    return [sampler.sample(clip, np.random.default_rng([0, seed])) for seed in range(600)]


def test_a_word_is_present_when_it_is_a_word_of_the_sentence_whatever_its_case() -> None:
    seen = Counter((each.text, each.answer) for each in sample_instructions({"one_word_present": 1}))
    positives = {word for word, answer in seen if answer == "yes"}
    negatives = {word for word, answer in seen if answer == "no"}
    assert positives == {"italian", "design", "new york"}, "keywords of the sentence, in one spelling"
    assert negatives == NOT_THERE, "substrings are no words; a keyword that is no word of the sentence is not asked"
    yes = sum(count for (_, answer), count in seen.items() if answer == "yes")
    assert 240 < yes < 360


def test_a_part_of_a_compound_or_a_possessive_is_not_denied() -> None:
    clip = Clip("r", "c", 0, "The dog\u2019s acanthus-like ear.", keywords=("ear",))
    asked = sample_instructions(
        {"one_word_present": 1}, clip, ["acanthus", "acanthus-like", "dog", "ear", "like", "oven"]
    )
    assert {(each.text, each.answer) for each in asked} == {("ear", "yes"), ("oven", "no")}


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
def test_words_of_any_script_are_found(sentence: str, keyword: str) -> None:
    clip = Clip("r", "c", 0, sentence, keywords=(keyword,))
    asked = {
        (each.text, each.answer)
        for each in sample_instructions({"one_word_present": 1}, clip, [keyword.casefold(), "oven"])
    }
    assert asked == {(keyword.casefold(), "yes"), ("oven", "no")}


def test_several_words_are_asked_in_alphabetical_order() -> None:
    sizes, present = Counter[int](), Counter[int]()
    for each in sample_instructions({"multi_word_present": 1}):
        asked, answers = each.text.split(", "), each.answer.split(", ")
        assert asked == sorted(asked)
        assert len(set(asked)) == len(asked) == len(answers)
        for word, answer in zip(asked, answers, strict=True):
            assert (answer == "yes") == contains_phrase(words(CLIP.translation), words(word))
        sizes[len(asked)] += 1
        present[answers.count("yes")] += 1
    assert set(sizes) == {2, 3, 4, 5}
    assert set(present) == {0, 1, 2, 3}


def test_the_video_is_reversed_as_often_as_not_and_the_answer_says_so() -> None:
    drawn = sample_instructions({"is_reversed": 1})
    assert all((each.answer == "yes") == each.is_reversed for each in drawn)
    assert 240 < sum(each.is_reversed for each in drawn) < 360


def test_weights_say_how_often_a_task_is_drawn() -> None:
    drawn = Counter(
        each.task for each in sample_instructions({"translation": 2, "one_word_present": 1, "is_reversed": 1})
    )
    assert drawn.keys() == {"translation", "one_word_present", "is_reversed"}
    assert 250 < drawn["translation"] < 350


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
    for each in sample_instructions({task: 1}, clip, vocabulary):
        if each.task == "translation":
            assert each.answer == clip.translation
            continue
        for word, answer in zip(each.text.split(", "), each.answer.split(", "), strict=True):
            assert (answer == "yes") == contains_phrase(words(clip.translation), words(word))


def test_word_tasks_without_keywords_are_refused() -> None:
    with pytest.raises(UserError, match="signllava prepare keywords"):
        sample_instructions({"one_word_present": 1}, vocabulary=[])


def test_translations_are_worded_as_a_paraphrase_as_often_as_asked() -> None:
    sampler = TaskSampler(Tasks(paraphrases=0.4), TaskWeights(), VOCABULARY, "train")
    drawn = Counter(sampler.sample(CLIP, np.random.default_rng(seed)).answer for seed in range(1000))
    assert 550 < drawn[CLIP.translation] < 650
    assert drawn.keys() == {CLIP.translation, *CLIP.paraphrases}


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
        ExampleBuilder(prompts, recipe.data.max_seq_len, recipe.data.min_frames, recipe.context.prelude),
    )
    return list(training_steps(recipe, examples, first, last, training_collator(recipe, 0), rank, ranks))


def assert_same(one: list[Batch], other: list[Batch]) -> None:
    for ours, theirs in zip(one, other, strict=True):
        assert ours.clips == theirs.clips
        for name in ("input_ids", "targets", "logit_indices"):
            assert torch.equal(getattr(ours, name), getattr(theirs, name))
        for stream, batch in ours.streams.items():
            assert torch.equal(batch.frames, theirs.streams[stream].frames)


def test_draws_are_the_same_for_any_workers_and_ranks_and_after_a_resume(all_tasks: Recipe) -> None:
    """Two epochs and a half of 45 clips, 4 a step in micro-batches of 2."""
    alone = steps(all_tasks, 0, 28)
    for one, other in zip(alone, steps(all_tasks, 0, 28, workers=3), strict=True):
        assert_same(one, other)
    for one, other in zip(alone[17:], steps(all_tasks, 17, 28, workers=1), strict=True):
        assert_same(one, other)
    shares = [steps(all_tasks, 0, 28, rank=rank, ranks=2) for rank in (0, 1)]
    for one, first, second in zip(alone, *shares, strict=True):
        assert_same(one, [*first, *second])


def test_a_reversed_clip_is_read_backwards(all_tasks: Recipe) -> None:
    recipe = build_recipe(
        {**all_tasks.to_dict(), "tasks": {"train": {"translation": 0, "is_reversed": 1}, "yes": "yes", "no": "no"}}
    )
    prompts = PromptBuilder(AutoTokenizer.from_pretrained(recipe.llm.path), recipe.tasks)
    split = open_split(recipe.data, recipe.streams, "dev")
    examples = TrainingSet(
        recipe,
        split,
        ExampleBuilder(prompts, recipe.data.max_seq_len, recipe.data.min_frames, recipe.context.prelude),
    )
    seen = set()
    for position in range(12):
        example = examples[position]
        is_reversed = prompts.text(example.answer) == "yes"
        for name, frames in split.read(examples.clip(position)).items():
            np.testing.assert_array_equal(example.streams[name], frames[::-1] if is_reversed else frames)
        seen.add(is_reversed)
    assert seen == {True, False}


def test_tasks_are_listed_once() -> None:
    """The weights have a field for each task, and the help of `generate --task` names them all."""
    assert [field.name for field in dataclasses.fields(TaskWeights)] == list(TASKS)
    option = get_type_hints(generate, include_extras=True)["task"].__metadata__[0]
    assert option.help == f"{', '.join(TASKS[:-1])} or {TASKS[-1]}."
