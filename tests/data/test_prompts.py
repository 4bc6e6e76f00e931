"""Prompts and answers: right for any text, the same in training and generation."""

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


def test_the_prompt_equals_the_rendered_chat_template(tokenizer: Any) -> None:
    tasks = Tasks(system="Be good.", streams="See:", context="Before:", translation="What?")
    prompts = PromptBuilder(tokenizer, tasks)
    prompt = prompts.prompt(["One.", "Two."])
    expected = tokenizer.apply_chat_template(
        [
            {"role": "system", "content": "Be good."},
            {"role": "user", "content": "See:\n\nBefore:\nOne.\nTwo.\nWhat?"},
        ],
        tokenize=False,
        add_generation_prompt=True,
    )
    assert tokenizer.decode([*prompt.before, *prompt.after]) == expected


def test_without_context_the_prompt_has_no_context_heading(tokenizer: Any) -> None:
    prompts = PromptBuilder(tokenizer, Tasks(context="Sentences before:"))
    assert "before" in tokenizer.decode(prompts.prompt(["One."]).after)
    assert "before" not in tokenizer.decode(prompts.prompt([]).after)


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("template", [None, LLAMA_3_TEMPLATE])
def test_text_that_spells_special_tokens_stays_text(tokenizer: Any, text: str, template: str | None) -> None:
    tokenizer.chat_template = template or tokenizer.chat_template
    prompts = PromptBuilder(tokenizer, Tasks())
    answer = prompts.answer(text)
    assert answer[-1] == prompts.end_of_turn
    assert answer.count(prompts.end_of_turn) == 1
    assert len(answer) >= 2
    assert tokenizer.decode(answer[:-1]) == text
    prompt, plain = prompts.prompt([text]), prompts.prompt(["x"])
    for token in tokenizer.all_special_ids:
        assert prompt.after.count(token) == plain.after.count(token)


def test_prompts_of_generation_and_training_have_the_same_tokens(tokenizer: Any, recipe: Recipe) -> None:
    builder = ExampleBuilder(
        PromptBuilder(tokenizer, recipe.tasks),
        recipe.streams,
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


def test_generated_text_is_truncated_at_the_end_of_turn(tokenizer: Any) -> None:
    prompts = PromptBuilder(tokenizer, Tasks())
    answer = prompts.answer("Today grandmother hides.")
    assert prompts.text([*answer, *answer]) == "Today grandmother hides."


def test_a_tokenizer_without_a_chat_template_is_refused(tokenizer: Any) -> None:
    tokenizer.chat_template = None
    with pytest.raises(UserError, match="no chat template"):
        PromptBuilder(tokenizer, Tasks())


def test_a_checkpoint_uses_the_turns_of_its_training(tokenizer: Any) -> None:
    """Also if the chat template changes, for example because it prints the date."""
    trained = PromptBuilder(tokenizer, Tasks())
    tokenizer.chat_template = "Tuesday. " + tokenizer.chat_template
    changed = PromptBuilder(tokenizer, Tasks())
    loaded = PromptBuilder(tokenizer, Tasks(), trained.turns)
    assert changed.prompt([]) != trained.prompt([])
    assert loaded.prompt(["One."]) == trained.prompt(["One."])
    assert loaded.answer("One.") == trained.answer("One.")
