"""How the texts of a dataset are split into words for scoring, as in the papers on it."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from signllava_cli.data.words import read_word_lines
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
    def is_english(self) -> bool:
        """Whether the tokenizer of rouge_score, which keeps a-z and 0-9 only, fits the language."""
        return self.language == "en"

    @property
    def has_character_words(self) -> bool:
        """Whether TER and exact match split characters."""
        return self.tokenize in ("zh", "char", "ja-mecab", "ko-mecab")

    @cached_property
    def _tokenizer(self) -> Callable[[str], str]:
        from sacrebleu.metrics import BLEU

        tokenizer: Callable[[str], str] = BLEU(tokenize=self.tokenize).tokenizer
        return tokenizer

    def split_words(self, text: str) -> list[str]:
        """The words of `text`, as in BLEU."""
        return self._tokenizer(self.apply_case(text).rstrip()).split()

    def apply_case(self, text: str) -> str:
        """`text`, lowercased if the preset ignores case."""
        return text.lower() if self.lowercase else text

    @property
    def case_signature(self) -> str:
        """The case, as in sacreBLEU's signatures."""
        return "lc" if self.lowercase else "mixed"

    @property
    def words_signature(self) -> str:
        """Case and tokenizer, as in sacreBLEU's signatures."""
        return f"case:{self.case_signature}|tok:{self.tokenize}"


PRESETS = {
    preset.name: preset
    for preset in (
        Preset(),
        # the texts of the dataset are tokenized and lowercased
        Preset("phoenix14t", "none", lowercase=True, language="de", rouge="rougeL_mscoco"),
        Preset("csl-daily", "zh", language="zh", rouge="rougeL_mscoco"),
    )
}


def find_preset(name: str) -> Preset:
    """The preset of this name.

    Raises:
        UserError: the name is unknown.
    """
    if name not in PRESETS:
        raise UserError(f"--preset {name}: unknown preset; expected one of {', '.join(PRESETS)}.")
    return PRESETS[name]


def read_stop_list(file: Path) -> tuple[frozenset[str], str]:
    """The words of `file`, one per line, case-folded; and the name of the file with a hash of the words.

    `#` begins a comment.

    Raises:
        UserError: the file cannot be read, or has no words.
    """
    words = frozenset(line.casefold() for line in read_word_lines(file))
    if not words:
        raise UserError(f"--stop-list {file} has no words; expected one per line.")
    return words, f"{file.name}-{hashlib.sha256(chr(10).join(sorted(words)).encode()).hexdigest()[:8]}"
