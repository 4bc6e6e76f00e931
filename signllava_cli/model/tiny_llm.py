"""A very small Llama with its own tokenizer and chat template, for tests and for a demo in a hurry.

It is trained for a minute or two on the text of the toy corpus, in the very prompts of the recipe, with
words standing where streams will stand; other text takes no longer, since clips, tokens of a dialogue and tokens of a
step are bounded. So it knows the toy language, and that TOOL and POINT read what the
context says; how signs look it has to learn through a projector, like any other LLM.
"""

import re
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
STEPS, BATCH, LEARNING_RATE = 500, 16, 3e-3
MAX_CLIPS, MAX_TOKENS, MAX_TOKENS_OF_STEP = 10_000, 512, 2048  # padding included; the toy corpus reaches none of them
PAD, BEGIN, END = "<|pad|>", "<|begin|>", "<|end|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|begin|>' + message['role'] + '\n' + message['content'] + '<|end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|begin|>assistant\n' }}{% endif %}"
)
HIDDEN_SIGN = {"prelude": "tool", "window": "point"}  # what stands for a word that only the context gives


def save_tiny_llm(out: Path, corpus: Path, tasks: Tasks, seed: int = 0, steps: int = STEPS) -> None:
    """Train the tiny LLM on the train split of the dataset at `corpus`, and save it as the folder `out`.

    Raises:
        UserError: there is no such split, or hardly a sentence of it is short enough.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    start_time = time.monotonic()
    if not annotation_file(corpus, "train").is_file():
        raise UserError(
            f"--corpus {corpus}: no annotation.train.json there; name a dataset folder, or make the toy corpus with "
            f"`signllava prepare toy --out {corpus}`."
        )
    recordings = _bounded(read_annotations(corpus, "train"), seed)
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
    _train(llm, PromptBuilder(tokenizer, tasks), recordings, np.random.default_rng(seed), steps)
    save_llm_folder(llm.eval(), tokenizer, out)
    info(f"tiny LLM: {steps} steps in {time.monotonic() - start_time:.0f} s")


def _bounded(recordings: Sequence[Recording], seed: int) -> list[Recording]:
    """Recordings drawn at random up to `MAX_CLIPS`, in their order; of the last, its first clips."""
    count = sum(len(recording.clips) for recording in recordings)
    if count <= MAX_CLIPS:
        return list(recordings)
    info(f"tiny LLM: {MAX_CLIPS:,} of {count:,} clips are enough, drawn by whole recordings")
    kept, left = {}, MAX_CLIPS
    for index in np.random.default_rng(seed).permutation(len(recordings)):
        recording = recordings[int(index)]
        kept[int(index)] = Recording(recording.name, recording.clips[:left])
        left -= len(kept[int(index)].clips)
        if not left:
            break
    return [kept[index] for index in sorted(kept)]


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
    llm: Any, prompts: PromptBuilder, recordings: Sequence[Recording], rng: np.random.Generator, steps: int
) -> None:
    optimizer = torch.optim.AdamW(llm.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    clips = [(recording, clip) for recording in recordings for clip in recording.clips]
    too_long = 0
    with progress("tiny LLM", steps) as line:
        for _ in range(steps):
            rows, skipped = _rows(prompts, clips, rng)
            too_long += skipped
            longest = max(len(ids) for ids, _ in rows)
            ids = torch.full((len(rows), longest), 0)
            labels = torch.full((len(rows), longest), -100)
            for row, (tokens, learnt) in enumerate(rows):
                ids[row, : len(tokens)] = torch.tensor(tokens)
                labels[row, learnt : len(tokens)] = torch.tensor(tokens[learnt:])
            logits = llm(ids).logits[:, :-1]
            loss = F.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(llm.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            line.advance(note=f"loss {loss.item():.3f}")
    if too_long:
        info(
            f"tiny LLM: {too_long:,} dialogues were longer than {MAX_TOKENS} tokens without context too, and skipped"
        )


def _rows(
    prompts: PromptBuilder, clips: Sequence[tuple[Recording, Clip]], rng: np.random.Generator
) -> tuple[list[tuple[list[int], int]], int]:
    """The dialogues of one step, as many of `BATCH` drawn as fit; and how many were too long by themselves."""
    rows: list[tuple[list[int], int]] = []
    skipped = 0
    for _ in range(BATCH):
        row = _dialogue(prompts, *clips[int(rng.integers(len(clips)))], rng)
        longest = max(len(ids) for ids, _ in [*rows, row])
        if len(row[0]) > MAX_TOKENS:
            skipped += 1
        elif (len(rows) + 1) * longest <= MAX_TOKENS_OF_STEP:
            rows.append(row)
    if not rows:
        raise UserError(
            f"--corpus: its sentences are too long for the tiny LLM, {BATCH} of {BATCH} drawn at random made more "
            f"than {MAX_TOKENS} tokens with their prompt; name a corpus of shorter ones, or another LLM."
        )
    return rows, skipped


def _dialogue(
    prompts: PromptBuilder, recording: Recording, clip: Clip, rng: np.random.Generator
) -> tuple[list[int], int]:
    """Token ids of one exchange with words for streams, and where the answer begins. A long one has no context."""
    sees = int(rng.random() < 0.9) * 2
    prompt = prompts.prompt(gold_context(recording, clip.position, window=sees, prelude=sees))
    signed: list[int] = []
    for _ in range(int(rng.integers(1, 3))):  # one stand-in a stream
        for token in prompts.answer(_gloss_text(clip))[:-1]:
            signed += [token] * int(rng.integers(1, 3))
    answer = prompts.answer(clip.translation)
    if len(prompt.before) + len(signed) + len(prompt.after) + len(answer) > MAX_TOKENS:
        prompt = prompts.prompt([])
    before = [*prompt.before, *signed, *prompt.after]
    return [*before, *answer], len(before)


def _gloss_text(clip: Clip) -> str:
    """The words of the sentence as its signs give them: what hangs on the context is hidden."""
    text = " " + clip.translation.rstrip(".").lower()
    if clip.context_bound is None:
        return text
    hidden = HIDDEN_SIGN[clip.context_bound.needs]
    return re.sub(rf"((my|our|the|a) )?\b{clip.context_bound.reading}\b", hidden, text)
