"""What the training engine saves beside a straightforward trainer, at the vocabulary of a small LLM and of Llama 3.

    python benchmarks/train.py

Both train the same projectors into the same frozen LLM on the same corpus, with as many clips an optimizer step, each
in a process of its own. The reference is what one would write down first: batches in random order, padded to their
longest clip, logits at all positions, Hugging Face's label smoother. Before the first step both say the loss of the
same 16 clips, which must agree. Peak memory is what a process holds above its LLM, its imports and its corpus.
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
FRAMES, SPREAD = 36, 0.6  # of a stream: median, and the standard deviation of its logarithm
CLIPS_A_STEP, TOKENS, MICRO_BATCH, SMOOTHING = 16, 2048, 4, 0.1
LLAMA = {"hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 4, "num_attention_heads": 4}
SYSTEM = "You are a skilled interpreter. You translate sign language into text. " * 6  # about 92 tokens with the rest
AGREED_CLIPS, WARM_UP = 16, 1
WAYS = ("reference", "engine")


def write_corpus(root: Path) -> None:
    """The sentences of the toy corpus under features of log-normal length."""
    write_toy_corpus(root)
    rng = np.random.default_rng(0)
    for split in ("train", "dev"):
        recordings = read_annotations(root, split)
        for stream, width in WIDTHS.items():
            lengths = iter(lambda: int(np.clip(rng.lognormal(np.log(FRAMES), SPREAD), 4, 400)), None)
            frames = {
                recording.name: {clip.name: rng.normal(size=(next(lengths), width)) for clip in recording.clips}
                for recording in recordings
            }
            write_stream(root, split, stream, frames, shards=2)


def write_llm(folder: Path, tokenizer: Any, vocabulary: int) -> None:
    """A Llama of random weights with that many rows."""
    torch.manual_seed(0)
    config = LlamaConfig(**LLAMA, vocab_size=vocabulary, max_position_embeddings=4096, eos_token_id=2, pad_token_id=0)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def recipe_of(folder: Path, vocabulary: int, way: str) -> Recipe:
    """The recipe of one row of the table."""
    train = {"batch_size": CLIPS_A_STEP, "micro_batch_size": MICRO_BATCH, "label_smoothing": SMOOTHING}
    if way == "engine":
        train["max_tokens_per_batch"] = TOKENS
    return build_recipe(
        {
            "llm": {"path": str(folder / f"llm{vocabulary}"), "bits": 32, "dtype": "float32"},
            "streams": {name: {"width": width} for name, width in WIDTHS.items()},
            "data": {"root": str(folder / "corpus")},
            "tasks": {"system": SYSTEM},
            "train": train,
        }
    )


class Measured:
    """A process of the benchmark: the model and the clips, and what its steps cost."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.accelerator = Accelerator(cpu=True)
        self.bundle: ModelBundle = load_model_bundle(recipe, torch.device("cpu"))
        self.model = self.bundle.model.train()
        self.optimizer = make_optimizer(self.model, recipe)
        builder = ExampleBuilder(
            self.bundle.prompts, recipe.data.max_seq_len, recipe.data.min_frames, recipe.context.prelude
        )
        self.examples = TrainingSet(recipe, open_split(recipe.data, recipe.streams, "train"), builder)
        self.before = len(self.bundle.prompts.before_streams)

    def agreed(self, loss_of: Callable[[Batch], tuple[Tensor, int]], omit_prefix: bool) -> float:
        """The mean loss per target of the first clips of the corpus."""
        clips = [self.examples.split.clips[index] for index in range(AGREED_CLIPS)]
        frames = self.examples.split.read_all(clips)
        tasks = self.recipe.tasks
        made = [
            self.examples.builder.build(clip.id, streams, translation_instruction(tasks, clip.translation), [])
            for clip, streams in zip(clips, frames, strict=True)
        ]
        collate, loss, targets = training_collator(self.recipe, self.bundle.pad_id, prefix_len), 0.0, 0
        with torch.no_grad():
            for start in range(0, AGREED_CLIPS, MICRO_BATCH):
                its_loss, its_targets = loss_of(collate(made[start : start + MICRO_BATCH]))
                loss, targets = loss + float(its_loss), targets + its_targets
        return loss / targets

    def timed(self, steps: int, take: Callable[[list[Batch]], None], omit_prefix: bool) -> dict[str, float]:
        """Figures over `steps` optimizer steps, after a few to warm up."""
        collate = training_collator(self.recipe, self.bundle.pad_id, omit_prefix)
        batches: Iterator[list[Batch]] = training_steps(self.recipe, self.examples, 0, WARM_UP + steps, collate, 0, 1)
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak of loading
        loaded, positions, padding, targets, start_time = resident("VmRSS"), 0, 0, 0, 0.0
        for step, micro_batches in enumerate(batches):
            if step == WARM_UP:
                start_time = time.perf_counter()
            take(micro_batches)
            if step >= WARM_UP:
                positions += sum(batch.num_tokens for batch in micro_batches)
                padding += sum(batch.num_padding for batch in micro_batches)
                targets += sum(len(batch.targets) for batch in micro_batches)
        seconds = time.perf_counter() - start_time
        return {
            "clips_s": steps * CLIPS_A_STEP / seconds,
            "targets_s": targets / seconds,
            "positions_a_clip": positions / steps / CLIPS_A_STEP,
            "memory": resident("VmHWM") - loaded,
            "padding": padding / (positions + padding),
        }


def resident(key: str) -> float:
    """MB that this process holds (`VmRSS`), or held at most (`VmHWM`)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) / 1024


def engine(recipe: Recipe, steps: int) -> dict[str, float]:
    """This package's engine."""
    run = Measured(recipe)
    launched = open_engine(run.accelerator, run.model, run.optimizer, recipe.train.max_grad_norm)
    assert run.model.reuse_prefix(run.bundle.prompts.before_streams)
    agreed = run.agreed(lambda batch: run.model(batch, SMOOTHING), omit_prefix=True)

    def take(micro_batches: list[Batch]) -> None:
        assert optimizer_step(launched, micro_batches, SMOOTHING, run.accelerator).is_finite

    return {"loss": agreed, **run.timed(steps, take, omit_prefix=True)}


def reference(recipe: Recipe, steps: int) -> dict[str, float]:
    """What one would write down first."""
    run = Measured(recipe)
    smoother, trained = LabelSmoother(epsilon=SMOOTHING), list(run.model.trainable_parameters().values())

    def loss_of(batch: Batch) -> tuple[Tensor, int]:
        logits = run.model.llm(inputs_embeds=run.model.embed(batch), attention_mask=batch.attention_mask).logits
        rows, length = batch.input_ids.shape
        labels = torch.full((rows, length + 1), -100)  # the last target takes no position
        labels[batch.logit_indices // length, batch.logit_indices % length + 1] = batch.targets
        padded = nn.functional.pad(logits, (0, 0, 0, 1))
        loss = smoother(CausalLMOutput(logits=padded), labels, shift_labels=True)
        return loss * len(batch.targets), len(batch.targets)

    def take(micro_batches: list[Batch]) -> None:
        count = sum(len(batch.targets) for batch in micro_batches)
        for batch in micro_batches:
            (loss_of(batch)[0] / count).backward()
        nn.utils.clip_grad_norm_(trained, recipe.train.max_grad_norm or 1.0)
        run.optimizer.step()
        run.optimizer.zero_grad()

    agreed = run.agreed(loss_of, omit_prefix=False)
    return {"loss": agreed, **run.timed(steps, take, omit_prefix=False)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vocabularies", type=int, nargs="+", default=[1_024, 128_256])
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--child", nargs=3, metavar=("WAY", "VOCABULARY", "FOLDER"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        way, vocabulary, folder = asked.child
        recipe = recipe_of(Path(folder), int(vocabulary), way)
        print(json.dumps((engine if way == "engine" else reference)(recipe, asked.steps)))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_corpus(folder / "corpus")
        tasks = replace(build_recipe({}).tasks, system=SYSTEM)
        save_tiny_llm(folder / "tiny", folder / "corpus", tasks, steps=1)
        tokenizer = AutoTokenizer.from_pretrained(folder / "tiny")
        table = Table(title=f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
        columns = ("vocabulary", "way", "clips/s", "target tokens/s", "peak memory MB", "padding", "loss of 16 clips")
        for column in (*columns, "clips/s, ratio", "memory, ratio"):
            table.add_column(column, justify="right")
        for vocabulary in asked.vocabularies:
            write_llm(folder / f"llm{vocabulary}", tokenizer, vocabulary)
            figures = {way: child(way, vocabulary, folder, asked.steps) for way in WAYS}
            slow = figures["reference"]
            assert abs(figures["engine"]["loss"] / slow["loss"] - 1) < 1e-5
            for way, its in figures.items():
                cells = [f"{vocabulary:,}", way, f"{its['clips_s']:.2f}", f"{its['targets_s']:.1f}"]
                cells += [f"{its['memory']:.0f}", f"{its['padding']:.0%}", f"{its['loss']:.6f}"]
                cells += [f"{its[key] / slow[key]:.2f}" for key in ("clips_s", "memory")]
                table.add_row(*cells)
            print(f"{figures['engine']['positions_a_clip']:.0f} positions a clip", flush=True)
        Console(width=160).print(table)


def child(way: str, vocabulary: int, folder: Path, steps: int) -> dict[str, float]:
    """The figures of one row, measured in a process of its own."""
    command = [sys.executable, __file__, "--child", way, str(vocabulary), str(folder), "--steps", str(steps)]
    said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    return dict(json.loads(said.splitlines()[-1]))


if __name__ == "__main__":
    main()
