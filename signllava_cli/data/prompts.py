"""The words around the streams, as token ids.

The chat template of the LLM's own tokenizer is rendered once with a mark where the user's turn goes, and once
more where the answer goes. What the template gives is tokenized with its special tokens; what data gives
(context sentences, answers) is tokenized as plain text, so a sentence that spells a special token stays a
sentence. The pieces are joined as ids, and nothing is searched for afterwards: training and generation share
this file, and the target positions are right by construction.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from signllava_cli.errors import UserError
from signllava_cli.recipe import PLACEHOLDER, Tasks


@dataclass(frozen=True)
class Prompt:
    """Token ids before and after the streams; `after` ends where the assistant's answer begins."""

    before: tuple[int, ...]
    after: tuple[int, ...]


@dataclass(frozen=True)
class ChatTurns:
    """What the chat template says around the user's turn, as text, and the token that ends the assistant's.

    Kept in every checkpoint: a template may print the date, or be edited, and generation must still prompt as
    training did.
    """

    before: str
    after: str
    end_of_turn: int


class PromptBuilder:
    """Writes the prompts and answers of one tokenizer and one recipe.

    `before_streams` are the ids with which every prompt begins.

    Args:
        tokenizer: a Hugging Face tokenizer; it needs a chat template only when `turns` is not given.
        tasks: the recipe's words.
        turns: those of a checkpoint.

    Raises:
        UserError: the tokenizer has no chat template, or one without a system turn or an end of turn.
    """

    def __init__(self, tokenizer: Any, tasks: Tasks, turns: ChatTurns | None = None) -> None:
        self.tokenizer, self.tasks = tokenizer, tasks
        self.turns = turns or render_chat_turns(tokenizer, tasks.system)
        self.end_of_turn = self.turns.end_of_turn
        self.before_streams = self._with_special_tokens(self.turns.before) + self._plain(f"{tasks.streams}\n")
        self._tail = self._with_special_tokens(self.turns.after)

    def prompt(self, context: Sequence[str], question: str | None = None) -> Prompt:
        """The prompt of a clip that sees the sentences `context`; without any, the prompt that has no context.

        `question` is by default that for the translation.
        """
        lines = [self.tasks.context, *context] if context else []
        asked = "\n".join(["", *lines, question or self.tasks.translation])
        return Prompt(before=self.before_streams, after=self._plain(asked) + self._tail)

    def answer(self, text: str) -> tuple[int, ...]:
        """The target ids of `text`: its own tokens and the end of the turn."""
        return (*self._plain(text), self.end_of_turn)

    def text(self, ids: Sequence[int]) -> str:
        """The text of generated ids, cut at the end of the turn."""
        ids = list(ids)
        if self.end_of_turn in ids:
            ids = ids[: ids.index(self.end_of_turn)]
        return str(self.tokenizer.decode(ids, skip_special_tokens=True)).strip()

    def _plain(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids)

    def _with_special_tokens(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(text, add_special_tokens=False).input_ids)


def render_chat_turns(tokenizer: Any, system: str) -> ChatTurns:
    """The turns of the tokenizer's own chat template with this system text.

    Raises:
        UserError: it has no chat template, or one without a system turn or an end of turn.
    """
    name = tokenizer.name_or_path
    if not tokenizer.chat_template:
        raise UserError(f"The tokenizer of {name} has no chat template; use an instruct LLM.")
    turns = [{"role": "system", "content": system}, {"role": "user", "content": PLACEHOLDER}]
    answered = [*turns, {"role": "assistant", "content": PLACEHOLDER}]
    try:
        prompt = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        dialogue = tokenizer.apply_chat_template(answered, tokenize=False)
    except Exception as error:  # the template is a program of the LLM's makers: it may raise anything
        raise UserError(f"The chat template of {name} refuses: {error}") from None
    before, after = prompt.split(PLACEHOLDER)
    special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    for token in tokenizer(dialogue.split(PLACEHOLDER)[-1], add_special_tokens=False).input_ids:
        if token in special:
            return ChatTurns(before, after, int(token))
    raise UserError(
        f"The chat template of {name} ends no turn with a special token, so generation would not know where to stop."
    )
