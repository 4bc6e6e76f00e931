"""Small real tokenizers with the control tokens of a family of LLMs, and its real chat template."""

import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

TEMPLATES = Path(__file__).parent / "chat_templates"
CONTROL = re.compile(r"<\|?/?[a-z_]+\|?>|<\|[^<>|]+\|>|<｜[^<>｜]+｜>|\[/?[A-Z_]+\]")
REASONING = {"<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"}
LLAMA_3 = Regex(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
KINDS = ("llama-3", "gpt-2", "sentencepiece")
TEXTS = [
    "Today my sister buys a coat.\n\nYou are a skilled interpreter who translates sign language into text.\n",
    'The signing of one sentence:\nSentences signed before it:\nWhat is signed? 123 "quoted"  it\'s system user',
    "assistant\n\nassistant\nmodel\n26 Jul 2024\n\nNow\n\n",
] * 8


@dataclass(frozen=True)
class Family:
    """A chat template and what is expected of it.

    `answer_prefix`: the end of the text before an answer. `end`: the token of the end of turn. `is_folded`: whether
    the system text begins the user's turn. `in_prompt`: whether it is the prompt that shows the text before an
    answer, and not the dialogue. `has_control`: whether the template's markers are tokens. `rstrip`: whether these
    tokens contain the spaces and line breaks behind them, as some revisions of Phi-3 have them.
    """

    template: str
    answer_prefix: str
    end: str
    bos: str = "<s>"
    eos: str = "</s>"
    is_folded: bool = False
    in_prompt: bool = False
    has_control: bool = True
    rstrip: bool = False

    def tokenizer(self, kind: str = KINDS[0]) -> Any:
        """A tokenizer that splits text as the LLMs named in `KINDS` do, with the family's tokens and template."""
        template = (TEMPLATES / f"{self.template}.jinja").read_text()
        found = sorted(set(CONTROL.findall(template))) if self.has_control else []
        special = [
            AddedToken(token, rstrip=self.rstrip, normalized=False, special=True)
            for token in (self.end, *found)
            if token not in REASONING
        ]
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer.from_str(trained_tokenizer(kind)),
            bos_token=self.bos,
            eos_token=self.eos,
            additional_special_tokens=["<streams>", *special],
            chat_template=template,
            clean_up_tokenization_spaces=False,
        )
        reasoning = [AddedToken(token, normalized=False, special=False) for token in found if token in REASONING]
        tokenizer.add_tokens(reasoning)
        return tokenizer


@cache
def trained_tokenizer(kind: str) -> str:
    """A BPE tokenizer of some hundred tokens, as JSON."""
    if kind == "sentencepiece":  # as Llama 2 is converted: a space before every text, and unknown characters as bytes
        tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
        tokenizer.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )
        first_tokens = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    else:
        tokenizer = Tokenizer(models.BPE())
        split = [pre_tokenizers.Split(LLAMA_3, "isolated")] if kind == "llama-3" else []
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [*split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=kind == "gpt-2")]
        )
        tokenizer.decoder = decoders.ByteLevel()
        first_tokens = []
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=first_tokens,
        initial_alphabet=[] if first_tokens else pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    spec = json.loads(tokenizer.to_str())
    if kind == "sentencepiece":  # a text is one piece, and the byte tokens are no control tokens
        spec["added_tokens"], spec["pre_tokenizer"] = spec["added_tokens"][:1], None
    return json.dumps(spec)
