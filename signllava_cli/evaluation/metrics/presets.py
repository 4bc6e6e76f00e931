"""How a dataset's texts are tokenized for scoring, as its papers do."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from signllava_cli.errors import UserError


@dataclass(frozen=True)
class Preset:
    """`tokenize` and `lowercase` are sacreBLEU's. `rouge`: the key of the ROUGE-L that tables show."""

    name: str = "how2sign"
    tokenize: str = "13a"
    lowercase: bool = False
    language: str = "en"
    rouge: str = "rougeL"

    @property
    def english(self) -> bool:
        """Whether rouge_score's own words, a-z and 0-9, will do."""
        return self.language == "en"

    @property
    def asian(self) -> bool:
        """Whether words are characters."""
        return self.tokenize in ("zh", "char", "ja-mecab", "ko-mecab")

    @cached_property
    def _tokenizer(self) -> Callable[[str], str]:
        from sacrebleu.metrics import BLEU

        tokenizer: Callable[[str], str] = BLEU(tokenize=self.tokenize).tokenizer
        return tokenizer

    def words(self, text: str) -> list[str]:
        """The words of `text`, as BLEU reads them."""
        return self._tokenizer(self.cased(text).rstrip()).split()

    def cased(self, text: str) -> str:
        """`text` with the case that counts."""
        return text.lower() if self.lowercase else text

    @property
    def case(self) -> str:
        """How `cased` treats it, in the words of sacreBLEU's signatures."""
        return "lc" if self.lowercase else "mixed"

    @property
    def words_signature(self) -> str:
        """How `words` tells them."""
        return f"case:{self.case}|tok:{self.tokenize}"


PRESETS = {
    preset.name: preset
    for preset in (
        Preset(),
        # texts come tokenized and lowercased
        Preset("phoenix14t", "none", lowercase=True, language="de", rouge="rougeL_mscoco"),
        Preset("csl-daily", "zh", language="zh", rouge="rougeL_mscoco"),
    )
}


def find_preset(name: str) -> Preset:
    """The preset of this name.

    Raises:
        UserError: there is none.
    """
    if name not in PRESETS:
        raise UserError(f"--preset {name}: known are {', '.join(PRESETS)}.")
    return PRESETS[name]


def read_stop_list(file: Path) -> tuple[frozenset[str], str]:
    """The words of `file`, one a line, case-folded; and its name with the hash of the words.

    Raises:
        UserError: it cannot be read, or holds no word.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--stop-list {file}: {getattr(error, 'strerror', None) or error}.") from None
    words = frozenset(word.casefold() for line in lines if (word := line.strip()) and not word.startswith("#"))
    if not words:
        raise UserError(f"--stop-list {file} holds no words; expected one a line.")
    return words, f"{file.name}-{hashlib.sha256(chr(10).join(sorted(words)).encode()).hexdigest()[:8]}"
