"""A very small Llama with its own tokenizer and chat template, for tests and for a demo in a hurry.

It is trained for about a minute on the text of the toy corpus, in the very prompts of the recipe, with
words standing where streams will stand. So it knows the toy language, and that TOOL and POINT read what the
context says; how signs look it has to learn through a projector, like any other LLM.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from signllava_cli.console import progress
from signllava_cli.data.annotations import Clip, Recording, read_annotations
from signllava_cli.data.context import gold_context
from signllava_cli.data.prompts import PromptWriter
from signllava_cli.model.llm_folder import save_folder
from signllava_cli.recipe import Tasks

VOCABULARY, HIDDEN, LAYERS, HEADS, KEY_VALUE_HEADS, INTERMEDIATE = 512, 128, 4, 4, 2, 256
STEPS, BATCH, LEARNING_RATE = 500, 16, 3e-3
PAD, BEGIN, END = "<|pad|>", "<|begin|>", "<|end|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|begin|>' + message['role'] + '\n' + message['content'] + '<|end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|begin|>assistant\n' }}{% endif %}"
)
HIDDEN_SIGN = {"prelude": "tool", "window": "point"}  # what stands for a word that only the context gives


def save_tiny_llm(out: Path, corpus: Path, tasks: Tasks, seed: int = 0, steps: int = STEPS) -> None:
    """Train the tiny LLM on the train split of the toy corpus at `corpus`, and save it as the folder `out`."""
    from transformers import LlamaConfig, LlamaForCausalLM

    recordings = read_annotations(corpus, "train")
    tokenizer = _tokenizer(recordings, tasks)
    torch.manual_seed(seed)
    llm = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=HIDDEN,
            intermediate_size=INTERMEDIATE,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            num_key_value_heads=KEY_VALUE_HEADS,
            max_position_embeddings=4096,
            tie_word_embeddings=True,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
    _train(llm, PromptWriter(tokenizer, tasks), recordings, np.random.default_rng(seed), steps)
    save_folder(llm.eval(), tokenizer, out)


def _tokenizer(recordings: Sequence[Recording], tasks: Tasks) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    words = [clip.translation for recording in recordings for clip in recording.clips]
    words += [text.lower() for text in words] + [" tool point"] * len(words)
    words += ["system\n user\n assistant\n", *tasks.texts().values()] * len(recordings)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        words,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=[PAD, BEGIN, END],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[BEGIN],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def _train(
    llm: Any, prompts: PromptWriter, recordings: Sequence[Recording], draw: np.random.Generator, steps: int
) -> None:
    optimiser = torch.optim.AdamW(llm.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, total_steps=steps)
    clips = [(recording, clip) for recording in recordings for clip in recording.clips]
    with progress("tiny LLM", steps) as line:
        for _ in range(steps):
            rows = [_dialogue(prompts, *clips[draw.integers(len(clips))], draw) for _ in range(BATCH)]
            longest = max(len(ids) for ids, _ in rows)
            ids = torch.full((BATCH, longest), 0)
            labels = torch.full((BATCH, longest), -100)
            for row, (tokens, learnt) in enumerate(rows):
                ids[row, : len(tokens)] = torch.tensor(tokens)
                labels[row, learnt : len(tokens)] = torch.tensor(tokens[learnt:])
            logits = llm(ids).logits[:, :-1]
            loss = F.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(llm.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            line.advance(note=f"loss {loss.item():.3f}")


def _dialogue(
    prompts: PromptWriter, recording: Recording, clip: Clip, draw: np.random.Generator
) -> tuple[list[int], int]:
    """Token ids of one exchange with words for streams, and where the answer begins."""
    sees = int(draw.random() < 0.9) * 2
    prompt = prompts.prompt(gold_context(recording, clip.position, window=sees, prelude=sees))
    signed: list[int] = []
    for _ in range(int(draw.integers(1, 3))):  # one stand-in a stream
        for token in prompts.answer(_as_signed(clip))[:-1]:
            signed += [token] * int(draw.integers(1, 3))
    before = [*prompt.before, *signed, *prompt.after]
    return [*before, *prompts.answer(clip.translation)], len(before)


def _as_signed(clip: Clip) -> str:
    """The words of the sentence as its signs give them: what hangs on the context is hidden."""
    text = " " + clip.translation.rstrip(".").lower()
    if clip.context_bound is None:
        return text
    hidden = HIDDEN_SIGN[clip.context_bound.needs]
    return re.sub(rf"((my|our|the|a) )?\b{clip.context_bound.reading}\b", hidden, text)
