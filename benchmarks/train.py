"""The training engine against a straightforward trainer, with the vocabulary of a small LLM and of Llama 3.

    python benchmarks/train.py

Both train the same projectors of the same frozen LLM on the same corpus, with the same number of clips per optimizer
step, each in a process of its own. The reference has batches in random order, padded to their longest clip, logits at
all positions, and Hugging Face's label smoother. Before the first step both compute the loss of the same 16 clips,
which must be equal. Peak memory is that of the process, without LLM, imports and corpus.
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
from transformers.modeling_outputs import CausalLMOutput
from transformers.trainer_pt_utils import LabelSmoother

from signllava_cli.data.annotations import read_annotations
from signllava_cli.data.batches import Batch, training_collator
from signllava_cli.data.examples import ExampleBuilder
from signllava_cli.data.tasks import translation_instruction
from signllava_cli.data.training_set import TrainingSet, training_steps
from signllava_cli.model.loading import ModelBundle, load_model_bundle
from signllava_cli.model.tiny_llm import save_tiny_llm
from signllava_cli.prepare.dataset_writer import write_stream
from signllava_cli.prepare.indexing import open_split
from signllava_cli.prepare.toy_corpus import write_toy_corpus
from signllava_cli.recipe import Recipe, build_recipe
from signllava_cli.training.engine import open_engine
from signllava_cli.training.optimizer import make_optimizer
from signllava_cli.training.step import optimizer_step

WIDTHS = {"sign2vec": 48, "mae": 64}
FRAMES, SPREAD = 36, 0.6  # frames of a clip: median, and standard deviation of the logarithm
CLIPS_PER_STEP, MAX_TOKENS, MICRO_BATCH, SMOOTHING = 16, 2048, 4, 0.1
LLAMA = {"hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 4, "num_attention_heads": 4}
SYSTEM = (
    "You are a skilled interpreter. You translate sign language into text. " * 6
)  # about 92 tokens, with the rest of the prompt
COMPARED_CLIPS, WARMUP_STEPS = 16, 1
TRAINERS = ("reference", "engine")


def write_corpus(root: Path, widths: dict[str, int] = WIDTHS, num_frames: int = FRAMES) -> None:
    """Write the sentences of the toy corpus, with features of log-normal length, `num_frames` in the median."""
    write_toy_corpus(root)
    rng = np.random.default_rng(0)
    for split in ("train", "dev"):
        recordings = read_annotations(root, split)
        for stream, width in widths.items():
            lengths = iter(lambda: int(np.clip(rng.lognormal(np.log(num_frames), SPREAD), 4, 400)), None)
            frames = {
                recording.name: {clip.name: rng.normal(size=(next(lengths), width)) for clip in recording.clips}
                for recording in recordings
            }
            write_stream(root, split, stream, frames, num_shards=2)


def write_llm(folder: Path, tokenizer: Any, vocabulary: int) -> None:
    """Write a Llama of random weights with a vocabulary of this size."""
    torch.manual_seed(0)
    config = LlamaConfig(**LLAMA, vocab_size=vocabulary, max_position_embeddings=4096, eos_token_id=2, pad_token_id=0)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def make_recipe(folder: Path, vocabulary: int, trainer: str) -> Recipe:
    """The recipe of one row of the table."""
    train = {"batch_size": CLIPS_PER_STEP, "micro_batch_size": MICRO_BATCH, "label_smoothing": SMOOTHING}
    if trainer == "engine":
        train["max_tokens_per_batch"] = MAX_TOKENS
    return build_recipe(
        {
            "llm": {"path": str(folder / f"llm{vocabulary}"), "bits": 32, "dtype": "float32"},
            "streams": {name: {"width": width} for name, width in WIDTHS.items()},
            "data": {"root": str(folder / "corpus")},
            "tasks": {"system": SYSTEM},
            "train": train,
        }
    )


class Benchmark:
    """A process of the benchmark: model, clips, and the time and memory of its steps."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.accelerator = Accelerator(cpu=True)
        self.bundle: ModelBundle = load_model_bundle(recipe, torch.device("cpu"))
        self.model = self.bundle.model.train()
        self.optimizer = make_optimizer(self.model, recipe)
        builder = ExampleBuilder(
            self.bundle.prompts,
            recipe.streams,
            recipe.data.max_seq_len,
            recipe.data.min_frames,
            recipe.context.prelude,
        )
        self.examples = TrainingSet(recipe, open_split(recipe.data, recipe.streams, "train"), builder)

    def initial_loss(self, loss_function: Callable[[Batch], tuple[Tensor, int]], omit_prefix: bool) -> float:
        """The mean loss per target of the first clips of the corpus, before training."""
        clips = [self.examples.split.clips[index] for index in range(COMPARED_CLIPS)]
        frames = self.examples.split.read_all(clips)
        tasks = self.recipe.tasks
        examples = [
            self.examples.builder.build(clip.id, clip_frames, translation_instruction(tasks, clip.translation), [])
            for clip, clip_frames in zip(clips, frames, strict=True)
        ]
        collate, loss, targets = training_collator(self.recipe, self.bundle.pad_id, omit_prefix), 0.0, 0
        with torch.no_grad():
            for start in range(0, COMPARED_CLIPS, MICRO_BATCH):
                batch_loss, batch_targets = loss_function(collate(examples[start : start + MICRO_BATCH]))
                loss, targets = loss + float(batch_loss), targets + batch_targets
        return loss / targets

    def measure(self, steps: int, take_step: Callable[[list[Batch]], None], omit_prefix: bool) -> dict[str, float]:
        """Speed and memory over `steps` optimizer steps, after the warm-up steps."""
        collate = training_collator(self.recipe, self.bundle.pad_id, omit_prefix)
        batches: Iterator[list[Batch]] = training_steps(
            self.recipe, self.examples, 0, WARMUP_STEPS + steps, collate, 0, 1
        )
        Path("/proc/self/clear_refs").write_text("5")  # reset the peak of the resident memory
        mb_before, num_tokens, num_padding, num_targets, start_time = resident_mb("VmRSS"), 0, 0, 0, 0.0
        for step, micro_batches in enumerate(batches):
            if step == WARMUP_STEPS:
                start_time = time.perf_counter()
            take_step(micro_batches)
            if step >= WARMUP_STEPS:
                num_tokens += sum(batch.num_tokens for batch in micro_batches)
                num_padding += sum(batch.num_padding for batch in micro_batches)
                num_targets += sum(len(batch.targets) for batch in micro_batches)
        seconds = time.perf_counter() - start_time
        return {
            "clips_s": steps * CLIPS_PER_STEP / seconds,
            "targets_s": num_targets / seconds,
            "tokens_per_clip": num_tokens / steps / CLIPS_PER_STEP,
            "memory": resident_mb("VmHWM") - mb_before,
            "padding": num_padding / (num_tokens + num_padding),
        }


def resident_mb(key: str) -> float:
    """The resident memory of this process in MB: now (`VmRSS`), or its peak (`VmHWM`)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) / 1024


def run_engine(recipe: Recipe, steps: int) -> dict[str, float]:
    """Train with the engine of this package."""
    run = Benchmark(recipe)
    engine = open_engine(run.accelerator, run.model, run.optimizer, recipe.train.max_grad_norm)
    assert run.model.reuse_prefix(run.bundle.prompts.before_streams, run.recipe.data.max_seq_len)
    loss = run.initial_loss(lambda batch: run.model(batch, SMOOTHING), omit_prefix=True)

    def take_step(micro_batches: list[Batch]) -> None:
        assert optimizer_step(engine, micro_batches, SMOOTHING, run.accelerator).is_finite

    return {"loss": loss, **run.measure(steps, take_step, omit_prefix=True)}


def run_reference(recipe: Recipe, steps: int) -> dict[str, float]:
    """Train with the straightforward trainer."""
    run = Benchmark(recipe)
    smoother, trained = LabelSmoother(epsilon=SMOOTHING), list(run.model.trainable_parameters().values())

    def loss_function(batch: Batch) -> tuple[Tensor, int]:
        logits = run.model.llm(inputs_embeds=run.model.embed(batch), attention_mask=batch.attention_mask).logits
        rows, length = batch.input_ids.shape
        labels = torch.full((rows, length + 1), -100)  # the last target is no input token
        labels[batch.logit_indices // length, batch.logit_indices % length + 1] = batch.targets
        padded = nn.functional.pad(logits, (0, 0, 0, 1))  # (B, L + 1, vocabulary)
        loss = smoother(CausalLMOutput(logits=padded), labels, shift_labels=True)
        return loss * len(batch.targets), len(batch.targets)

    def take_step(micro_batches: list[Batch]) -> None:
        count = sum(len(batch.targets) for batch in micro_batches)
        for batch in micro_batches:
            (loss_function(batch)[0] / count).backward()
        nn.utils.clip_grad_norm_(trained, recipe.train.max_grad_norm or 1.0)
        run.optimizer.step()
        run.optimizer.zero_grad()

    loss = run.initial_loss(loss_function, omit_prefix=False)
    return {"loss": loss, **run.measure(steps, take_step, omit_prefix=False)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vocabularies", type=int, nargs="+", default=[1_024, 128_256])
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--child", nargs=3, metavar=("TRAINER", "VOCABULARY", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        trainer, vocabulary, folder = options.child
        recipe = make_recipe(Path(folder), int(vocabulary), trainer)
        print(json.dumps((run_engine if trainer == "engine" else run_reference)(recipe, options.steps)))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_corpus(folder / "corpus")
        tasks = replace(build_recipe({}).tasks, system=SYSTEM)
        save_tiny_llm(folder / "tiny", folder / "corpus", tasks, steps=1)
        tokenizer = AutoTokenizer.from_pretrained(folder / "tiny")
        table = Table(title=f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
        columns = (
            "vocabulary",
            "trainer",
            "clips/s",
            "target tokens/s",
            "peak memory MB",
            "padding",
            "loss of 16 clips",
        )
        for column in (*columns, "clips/s, ratio", "memory, ratio"):
            table.add_column(column, justify="right")
        for vocabulary in options.vocabularies:
            write_llm(folder / f"llm{vocabulary}", tokenizer, vocabulary)
            results = {trainer: run_child(trainer, vocabulary, folder, options.steps) for trainer in TRAINERS}
            baseline = results["reference"]
            assert abs(results["engine"]["loss"] / baseline["loss"] - 1) < 1e-5
            for trainer, result in results.items():
                cells = [f"{vocabulary:,}", trainer, f"{result['clips_s']:.2f}", f"{result['targets_s']:.1f}"]
                cells += [f"{result['memory']:.0f}", f"{result['padding']:.0%}", f"{result['loss']:.6f}"]
                cells += [f"{result[key] / baseline[key]:.2f}" for key in ("clips_s", "memory")]
                table.add_row(*cells)
            print(f"{results['engine']['tokens_per_clip']:.0f} tokens per clip", flush=True)
        Console(width=160).print(table)


def run_child(trainer: str, vocabulary: int, folder: Path, steps: int) -> dict[str, float]:
    """The results of one row, measured in a process of its own."""
    command = [sys.executable, __file__, "--child", trainer, str(vocabulary), str(folder), "--steps", str(steps)]
    output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    return dict(json.loads(output.splitlines()[-1]))


if __name__ == "__main__":
    main()
