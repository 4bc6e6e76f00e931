"""The text around the streams, as token ids.

The text of a prompt is cut where the streams stand, and between the prompt and the answer. Each part has the ids that
the tokenizer gives it in the whole dialogue, and data is encoded as text, so a sentence that spells a special token
remains a sentence. The positions of the targets are known without searching for them. Training and generation share
this file.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from signllava_cli.data.chat_turns import ChatTurns, render_chat_turns
from signllava_cli.data.text_encoder import TextEncoder
from signllava_cli.recipe import Tasks

# Beginnings of answers. What a tokenizer makes of the text before all of them is the end of the prompt; a space that
# it joins with the word behind it is part of the answer.
ANSWER_STARTS = ("A", "a", "1", "日")


@dataclass(frozen=True)
class Prompt:
    """Token ids before and after the streams; the assistant's answer follows `after`."""

    before: tuple[int, ...]
    after: tuple[int, ...]


class PromptBuilder:
    """Builds prompts and answers for one tokenizer and one recipe.

    `before_streams`: the token ids with which every prompt begins.

    Args:
        tokenizer: a Hugging Face tokenizer; it needs a chat template unless `turns` is given.
        tasks: the section `tasks` of the recipe.
        turns: of a checkpoint.

    Raises:
        UserError: the tokenizer has no chat template, or one that is refused (`render_chat_turns`).
    """

    def __init__(self, tokenizer: Any, tasks: Tasks, turns: ChatTurns | None = None) -> None:
        self.tokenizer, self.tasks = tokenizer, tasks
        self.turns = turns or render_chat_turns(tokenizer, tasks)
        self.end_of_turn = self.turns.end_of_turn
        self._encoder = TextEncoder(tokenizer)
        *before, last = self._encoder.split(self.turns.before)
        self.before_streams = self._join([*before, f"{last}{tasks.streams}\n"], is_start=True)
        self._after_user, *after = self._encoder.split(self.turns.after)
        self._last_text = str(after.pop() if after else self._after_user)
        starts = [self._encoder.encode(self._last_text + start) for start in ANSWER_STARTS]
        self._last_ids = _common_prefix(starts)
        self._start_len = len(starts[0]) - len(self._last_ids)
        self._assistant = (*self._join(after), *self._last_ids) if after else ()

    def prompt(self, context: Sequence[str], question: str | None = None) -> Prompt:
        """The prompt with the sentences `context`; if there are none, without the heading of the context.

        Args:
            question: the last line of the user's turn; by default the one that asks for the translation.
        """
        lines = [self.tasks.context, *context] if context else []
        text = "\n".join(["", *lines, question or self.tasks.translation])
        text += str(self._after_user)
        if self._assistant:
            after = self._encoder.encode(text) + self._assistant
        else:  # no control token between the user's words and the answer
            after = self._encoder.encode(text + ANSWER_STARTS[0])[: -self._start_len]
        return Prompt(before=self.before_streams, after=after)

    def answer(self, text: str) -> tuple[int, ...]:
        """The target ids of `text`: its tokens and the end-of-turn token."""
        text += self.turns.before_end
        ids, num_last = self._encoder.encode(self._last_text + text), len(self._last_ids)
        is_continued = ids[:num_last] == self._last_ids
        return (*(ids[num_last:] if is_continued else self._encoder.encode(text)), self.end_of_turn)

    def text(self, ids: Sequence[int]) -> str:
        """The text of generated ids up to the end-of-turn token."""
        ids = list(ids)
        if self.end_of_turn in ids:
            ids = ids[: ids.index(self.end_of_turn)]
        return str(self.tokenizer.decode(ids, skip_special_tokens=True)).strip()

    def _join(self, parts: Sequence[str | int], is_start: bool = False) -> tuple[int, ...]:
        """The ids of texts and control tokens, at the start of a sequence or behind a stream."""
        ids: tuple[int, ...] = ()
        for part in parts:
            if isinstance(part, int):
                ids += (part,)
            else:
                ids += self._encoder.encode_start(part) if is_start and not ids else self._encoder.encode(part)
        return ids


def _common_prefix(sequences: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """The ids with which all sequences begin."""
    length = 0
    while len({sequence[: length + 1] for sequence in sequences}) == 1:
        length += 1
    return sequences[0][:length]
