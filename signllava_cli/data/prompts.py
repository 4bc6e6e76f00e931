"""The text around the streams, as token ids.

The chat template of the LLM's tokenizer is rendered with a placeholder for the user's turn, and again with one for
the answer. Text of the template is tokenized with special tokens; text of the data (context sentences, answers) is
tokenized as plain text, so a sentence that spells a special token remains a sentence. The pieces are concatenated as
ids, so the positions of the targets are known without searching for them. Training and generation share this file.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from signllava_cli.errors import UserError
from signllava_cli.recipe import PLACEHOLDER, Tasks


@dataclass(frozen=True)
class Prompt:
    """Token ids before and after the streams; the assistant's answer follows `after`."""

    before: tuple[int, ...]
    after: tuple[int, ...]


@dataclass(frozen=True)
class ChatTurns:
    """The chat template's text before and after the user's turn, and the token that ends the assistant's turn.

    Stored in every checkpoint: a template may print the date, or be edited, but generation must use the prompt of
    training.
    """

    before: str
    after: str
    end_of_turn: int


class PromptBuilder:
    """Builds prompts and answers for one tokenizer and one recipe.

    `before_streams`: the token ids with which every prompt begins.

    Args:
        tokenizer: a Hugging Face tokenizer; it needs a chat template unless `turns` is given.
        tasks: the section `tasks` of the recipe.
        turns: of a checkpoint.

    Raises:
        UserError: the tokenizer has no chat template, or one without a system turn or an end of turn.
    """

    def __init__(self, tokenizer: Any, tasks: Tasks, turns: ChatTurns | None = None) -> None:
        self.tokenizer, self.tasks = tokenizer, tasks
        self.turns = turns or render_chat_turns(tokenizer, tasks.system)
        self.end_of_turn = self.turns.end_of_turn
        self.before_streams = self._with_special_tokens(self.turns.before) + self._plain(f"{tasks.streams}\n")
        self._after_user = self._with_special_tokens(self.turns.after)

    def prompt(self, context: Sequence[str], question: str | None = None) -> Prompt:
        """The prompt with the sentences `context`; if there are none, without the heading of the context.

        Args:
            question: the last line of the user's turn; by default the one that asks for the translation.
        """
        lines = [self.tasks.context, *context] if context else []
        text = "\n".join(["", *lines, question or self.tasks.translation])
        return Prompt(before=self.before_streams, after=self._plain(text) + self._after_user)

    def answer(self, text: str) -> tuple[int, ...]:
        """The target ids of `text`: its tokens and the end-of-turn token."""
        return (*self._plain(text), self.end_of_turn)

    def text(self, ids: Sequence[int]) -> str:
        """The text of generated ids up to the end-of-turn token."""
        ids = list(ids)
        if self.end_of_turn in ids:
            ids = ids[: ids.index(self.end_of_turn)]
        return str(self.tokenizer.decode(ids, skip_special_tokens=True)).strip()

    def _plain(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids)

    def _with_special_tokens(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(text, add_special_tokens=False).input_ids)


def render_chat_turns(tokenizer: Any, system: str) -> ChatTurns:
    """The turns of the tokenizer's chat template with this system text.

    Raises:
        UserError: it has no chat template, or one without a system turn or an end of turn.
    """
    name = tokenizer.name_or_path
    if not tokenizer.chat_template:
        raise UserError(f"The tokenizer of {name} has no chat template; set llm.path to an instruct LLM.")
    turns = [{"role": "system", "content": system}, {"role": "user", "content": PLACEHOLDER}]
    turns_with_answer = [*turns, {"role": "assistant", "content": PLACEHOLDER}]
    try:
        prompt = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        dialogue = tokenizer.apply_chat_template(turns_with_answer, tokenize=False)
    except Exception as error:  # a template is a program that may raise anything
        raise UserError(
            f"The chat template of {name} fails: {error}; set llm.path to an LLM whose template has a system turn."
        ) from None
    before, after = prompt.split(PLACEHOLDER)
    special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    for token in tokenizer(dialogue.split(PLACEHOLDER)[-1], add_special_tokens=False).input_ids:
        if token in special:
            return ChatTurns(before, after, int(token))
    raise UserError(
        f"The chat template of {name} does not end the assistant's turn with a special token, so generation could "
        "not stop; set llm.path to another instruct LLM."
    )
