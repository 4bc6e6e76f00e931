"""A very small Llama with its own tokenizer and chat template, for tests and for a fast demo.

It is trained for a minute or two on the text of the toy corpus, with the prompts of the recipe and with words in
place of the streams. The numbers of clips, of tokens per dialogue and of tokens per step are limited, so another
corpus takes no longer. The LLM then knows the toy language, and that the meaning of TOOL and POINT depends on the
context; what signs look like must be learned by a projector, as with any other LLM.
"""

import re
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from signllava_cli.console import info, progress
from signllava_cli.data.annotations import Clip, Recording, annotation_file, read_annotations
from signllava_cli.data.context import gold_context
from signllava_cli.data.prompts import PromptBuilder
from signllava_cli.errors import UserError
from signllava_cli.model.llm_folder import save_llm_folder
from signllava_cli.recipe import Tasks

VOCABULARY, HIDDEN, LAYERS, HEADS, KEY_VALUE_HEADS, INTERMEDIATE = 512, 128, 4, 4, 2, 256
STEPS, BATCH, LEARNING_RATE, SEED = 500, 16, 3e-3, 0
MAX_CLIPS, MAX_TOKENS, MAX_TOKENS_OF_STEP = (
    10_000,
    512,
    2048,
)  # padding included; the toy corpus is below these limits
PAD, BEGIN, END = "<|pad|>", "<|begin|>", "<|end|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|begin|>' + message['role'] + '\n' + message['content'] + '<|end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|begin|>assistant\n' }}{% endif %}"
)
HIDDEN_SIGN = {"prelude": "tool", "window": "point"}  # the sign of a word whose meaning depends on the context


def save_tiny_llm(out: Path, corpus: Path, tasks: Tasks, steps: int = STEPS) -> None:
    """Train the tiny LLM on the train split of the dataset at `corpus`, and save it to the folder `out`.

    Raises:
        UserError: there is no such split, or its sentences are too long.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    start_time = time.monotonic()
    if not annotation_file(corpus, "train").is_file():
        raise UserError(
            f"--corpus {corpus}: annotation.train.json is missing; name a dataset folder, or create the toy corpus "
            f"with `signllava prepare toy --out {shlex.quote(str(corpus))}`."
        )
    recordings = _limit_clips(read_annotations(corpus, "train"))
    tokenizer = train_tokenizer(_tokenizer_texts(recordings, tasks))
    torch.manual_seed(SEED)
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
    _train(llm, PromptBuilder(tokenizer, tasks), recordings, np.random.default_rng(SEED), steps)
    save_llm_folder(llm.eval(), tokenizer, out)
    info(f"tiny LLM: {steps} steps in {time.monotonic() - start_time:.0f} s")


def _limit_clips(recordings: Sequence[Recording]) -> list[Recording]:
    """Random recordings with `MAX_CLIPS` clips in total, in their order; the last one sampled is truncated."""
    count = sum(len(recording.clips) for recording in recordings)
    if count <= MAX_CLIPS:
        return list(recordings)
    info(f"tiny LLM: trained on {MAX_CLIPS:,} of {count:,} clips, sampled by recording")
    selected, remaining = {}, MAX_CLIPS
    for index in np.random.default_rng(SEED).permutation(len(recordings)):
        recording = recordings[int(index)]
        selected[int(index)] = Recording(recording.name, recording.clips[:remaining])
        remaining -= len(selected[int(index)].clips)
        if not remaining:
            break
    return [selected[index] for index in sorted(selected)]


def _tokenizer_texts(recordings: Sequence[Recording], tasks: Tasks) -> list[str]:
    texts = [clip.translation for recording in recordings for clip in recording.clips]
    texts += [text.lower() for text in texts] + [" tool point"] * len(texts)
    return [*texts, *["system\n user\n assistant\n", *tasks.texts().values()] * len(recordings)]


def train_tokenizer(texts: Sequence[str]) -> Any:
    """A byte-level tokenizer of at most `VOCABULARY` tokens with a chat template; ids 0, 1 and 2 are special."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        texts,
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
    llm: Any, prompts: PromptBuilder, recordings: Sequence[Recording], rng: np.random.Generator, steps: int
) -> None:
    optimizer = torch.optim.AdamW(llm.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    clips = [(recording, clip) for recording in recordings for clip in recording.clips]
    too_long = 0
    with progress("tiny LLM", steps) as line:
        for _ in range(steps):
            rows, skipped = _sample_rows(prompts, clips, rng)
            too_long += skipped
            max_len = max(len(ids) for ids, _ in rows)
            ids = torch.full((len(rows), max_len), 0)  # (B, L)
            labels = torch.full((len(rows), max_len), -100)  # (B, L)
            for row, (tokens, answer_start) in enumerate(rows):
                ids[row, : len(tokens)] = torch.tensor(tokens)
                labels[row, answer_start : len(tokens)] = torch.tensor(tokens[answer_start:])
            logits = llm(ids).logits[:, :-1]  # (B, L - 1, vocabulary)
            loss = F.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(llm.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            line.advance(note=f"loss {loss.item():.3f}")
    if too_long:
        info(f"tiny LLM: skipped {too_long:,} dialogues longer than {MAX_TOKENS} tokens even without context")


def _sample_rows(
    prompts: PromptBuilder, clips: Sequence[tuple[Recording, Clip]], rng: np.random.Generator
) -> tuple[list[tuple[list[int], int]], int]:
    """The dialogues of one step (as many of `BATCH` sampled ones as fit), and how many were skipped as too long."""
    rows: list[tuple[list[int], int]] = []
    skipped = 0
    for _ in range(BATCH):
        row = _sample_dialogue(prompts, *clips[int(rng.integers(len(clips)))], rng)
        max_len = max(len(ids) for ids, _ in [*rows, row])
        if len(row[0]) > MAX_TOKENS:
            skipped += 1
        elif (len(rows) + 1) * max_len <= MAX_TOKENS_OF_STEP:
            rows.append(row)
    if not rows:
        raise UserError(
            f"--corpus: the sentences are too long for the tiny LLM: all of {BATCH} random ones have more than "
            f"{MAX_TOKENS} tokens with their prompt; name a corpus of shorter sentences, or use another LLM."
        )
    return rows, skipped


def _sample_dialogue(
    prompts: PromptBuilder, recording: Recording, clip: Clip, rng: np.random.Generator
) -> tuple[list[int], int]:
    """The token ids of one dialogue, and the start of its answer. Words stand for the streams."""
    num_context = int(rng.random() < 0.9) * 2
    prompt = prompts.prompt(gold_context(recording, clip.position, window=num_context, prelude=num_context))
    stream_ids: list[int] = []
    for _ in range(int(rng.integers(1, 3))):  # each copy stands for one stream
        for token in prompts.answer(_gloss_text(clip))[:-1]:
            stream_ids += [token] * int(rng.integers(1, 3))
    answer = prompts.answer(clip.translation)
    if len(prompt.before) + len(stream_ids) + len(prompt.after) + len(answer) > MAX_TOKENS:
        prompt = prompts.prompt([])
    ids = [*prompt.before, *stream_ids, *prompt.after]
    return [*ids, *answer], len(ids)


def _gloss_text(clip: Clip) -> str:
    """The words of the sentence as they are signed: the word that depends on the context is replaced by its sign."""
    text = " " + clip.translation.rstrip(".").lower()
    if clip.context_bound is None:
        return text
    sign = HIDDEN_SIGN[clip.context_bound.needs]
    return re.sub(rf"((my|our|the|a) )?\b{clip.context_bound.reading}\b", sign, text)
