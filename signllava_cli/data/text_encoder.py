"""Text as token ids: the control tokens of a template are recognized, those that data happens to spell are not.

A control token is an added token of the tokenizer that marks structure: every special token, and others such as
Qwen3's `<think>`. Added tokens that are whitespace or words (Gemma's line breaks, an extended vocabulary) are text.
"""

import re
import unicodedata
from typing import Any


class TextEncoder:
    """Encodes the text of templates and of data with one tokenizer.

    `control`: matches the text of every control token.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        added = tokenizer.added_tokens_decoder
        self._control_tokens = {token.content: (int(id), token) for id, token in added.items() if _is_control(token)}
        longest_first = sorted(self._control_tokens, key=len, reverse=True)
        self.control = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
        self._control_ids = {id for id, _ in self._control_tokens.values()}
        self._anchor = self._find_anchor()

    def control_id(self, content: str) -> int:
        """The id of the control token `content`."""
        return self._control_tokens[content][0]

    def split(self, text: str) -> list[str | int]:
        """A template's text as text, control token, text, ..., text; texts may be empty."""
        parts: list[str | int] = []
        start = 0
        for match in self.control.finditer(text):
            id, token = self._control_tokens[match[0]]
            parts += [text[start : match.start()], id]
            start = match.end()
            while token.rstrip and text[start : start + 1].isspace():
                start += 1
        return [*parts, text[start:]]

    def encode(self, text: str) -> tuple[int, ...]:
        """The ids of a text behind a control token or a stream; it has no control tokens, whatever it spells."""
        match = self.control.search(text)
        if match is None:
            # SentencePiece marks the start of a sequence with a space, which is absent after a control token
            return self.encode_start(self._anchor + text)[1 if self._anchor else 0 :]
        ids = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids
        if self._control_ids.isdisjoint(ids):
            return tuple(ids)
        # `split_special_tokens` is about special tokens only: the others are cut behind their first character
        cut = match.start() + 1
        line_break, rest = self.encode("\n"), self.encode("\n" + text[cut:])
        is_continued = rest[: len(line_break)] == line_break
        return self.encode(text[:cut]) + (rest[len(line_break) :] if is_continued else self.encode(text[cut:]))

    def encode_start(self, text: str) -> tuple[int, ...]:
        """The ids of a text at the start of a sequence, with the tokenizer's own treatment of added tokens."""
        return tuple(self.tokenizer(text, add_special_tokens=False).input_ids)

    def _find_anchor(self) -> str:
        """A control token to encode texts after, or an empty text if none leaves what follows as it is."""
        for content, (id, token) in self._control_tokens.items():
            if token.special and not token.rstrip and self.encode_start(content) == (id,):
                return content
        return ""


def _is_control(token: Any) -> bool:
    """Whether an added token marks structure."""
    text = token.content.replace("▁", " ")
    is_words = all(unicodedata.category(character)[0] in "LMNZC" or character in "'’-" for character in text)
    return len(token.content) > 1 and (token.special or not is_words)
