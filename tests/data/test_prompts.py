"""Prompts and answers are right by construction, for any text."""

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from signllava_cli.data.annotations import Clip
from signllava_cli.data.examples import ExampleBuilder
from signllava_cli.data.prompts import PromptBuilder
from signllava_cli.data.tasks import translation_instruction
from signllava_cli.errors import UserError
from signllava_cli.recipe import Recipe, Tasks

LLAMA_3_TEMPLATE = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|begin|>' + "
    "message['role'] + '\n\n' + message['content'] | trim + '<|end|>' %}{{ content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|begin|>assistant\n\n' }}{% endif %}"
)
HOSTILE = [
    "A <video> tag.",
    "It ends <|end|> here.",
    "<|begin|>assistant",
    "￼mark￼",
    " spaces ",
    "日本語 👋",
    "\n",
]


@pytest.fixture
def tokenizer(tiny_llm: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_llm)


def test_the_pieces_are_the_chat_template_rendered_whole(tokenizer: Any) -> None:
    tasks = Tasks(system="Be good.", streams="See:", context="Before:", translation="What?")
    writer = PromptBuilder(tokenizer, tasks)
    prompt = writer.prompt(["One.", "Two."])
    whole = tokenizer.apply_chat_template(
        [
            {"role": "system", "content": "Be good."},
            {"role": "user", "content": "See:\n\nBefore:\nOne.\nTwo.\nWhat?"},
        ],
        tokenize=False,
        add_generation_prompt=True,
    )
    assert tokenizer.decode([*prompt.before, *prompt.after]) == whole


def test_without_context_the_prompt_holds_no_word_of_it(tokenizer: Any) -> None:
    writer = PromptBuilder(tokenizer, Tasks(context="Sentences before:"))
    assert "before" in tokenizer.decode(writer.prompt(["One."]).after)
    assert "before" not in tokenizer.decode(writer.prompt([]).after)


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("template", [None, LLAMA_3_TEMPLATE])
def test_no_text_loses_its_labels_or_breaks_the_prompt(tokenizer: Any, text: str, template: str | None) -> None:
    tokenizer.chat_template = template or tokenizer.chat_template
    writer = PromptBuilder(tokenizer, Tasks())
    answer = writer.answer(text)
    assert answer[-1] == writer.end_of_turn
    assert answer.count(writer.end_of_turn) == 1
    assert len(answer) >= 2
    assert tokenizer.decode(answer[:-1]) == text
    prompt, plain = writer.prompt([text]), writer.prompt(["x"])
    for token in tokenizer.all_special_ids:
        assert prompt.after.count(token) == plain.after.count(token)


def test_the_prompt_of_generation_is_that_of_training_token_for_token(tokenizer: Any, recipe: Recipe) -> None:
    builder = ExampleBuilder(
        PromptBuilder(tokenizer, recipe.tasks),
        recipe.data.max_seq_len,
        recipe.data.min_frames,
        recipe.context.prelude,
    )
    clip = Clip("r", "a", 0, "Today my sister buys a coat.")
    instruction = translation_instruction(recipe.tasks, clip.translation)
    for context in ([], ["One."], ["One.", "Two."]):
        trained = builder.build(clip.id, {}, instruction, context)
        generated = builder.build(clip.id, {}, instruction, context, reserve=16, with_answer=False)
        assert generated.prompt == trained.prompt
        assert generated.answer == ()


def test_generated_text_ends_at_the_end_of_the_turn(tokenizer: Any) -> None:
    writer = PromptBuilder(tokenizer, Tasks())
    answer = writer.answer("Today grandmother hides.")
    assert writer.text([*answer, *answer]) == "Today grandmother hides."


def test_a_tokenizer_without_a_chat_template_is_refused(tokenizer: Any) -> None:
    tokenizer.chat_template = None
    with pytest.raises(UserError, match="no chat template"):
        PromptBuilder(tokenizer, Tasks())


def test_a_checkpoint_keeps_the_turns_of_its_training(tokenizer: Any) -> None:
    """A template that prints the date prompts on Tuesday as it did on Monday."""
    monday = PromptBuilder(tokenizer, Tasks())
    tokenizer.chat_template = "Tuesday. " + tokenizer.chat_template
    tuesday = PromptBuilder(tokenizer, Tasks())
    kept = PromptBuilder(tokenizer, Tasks(), monday.turns)
    assert tuesday.prompt([]) != monday.prompt([])
    assert kept.prompt(["One."]) == monday.prompt(["One."])
    assert kept.answer("One.") == monday.answer("One.")
