"""The decoder against decoding one clip at a time: without context, with gold context, with predicted context.

    python benchmarks/generate.py

A Llama of random weights translates the same clips by 5 beams, 20 new tokens each. The reference is transformers'
generate with one clip at a time, as Sign_LLaVA decodes: the prompt is computed for each beam. The hypotheses must be
equal. `--recordings` is the number of recordings, which limits the batch size with predicted context.
"""

import argparse
import platform
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from train import SYSTEM, WIDTHS, write_corpus, write_llm
from transformers import AutoTokenizer

from signllava_cli.data.annotations import Clip
from signllava_cli.data.examples import ExampleBuilder
from signllava_cli.data.sentences import Sentences
from signllava_cli.data.split import Split
from signllava_cli.data.tasks import translation_instruction
from signllava_cli.generation.context_source import ContextSource
from signllava_cli.generation.decoding import generate_batch
from signllava_cli.generation.scheduling import DecodingJob, DecodingQueue
from signllava_cli.model.loading import ModelBundle, load_model_bundle
from signllava_cli.model.tiny_llm import save_tiny_llm
from signllava_cli.prepare.indexing import open_split
from signllava_cli.recipe import Recipe, build_recipe

SOURCES, BATCH_SIZES = ("none", "gold", "predicted"), (1, 4, 16, 32)
BEAMS, NEW_TOKENS, CLIPS_PER_RECORDING = 5, 20, 4


def make_recipe(folder: Path, vocabulary: int) -> Recipe:
    return build_recipe(
        {
            "llm": {"path": str(folder / f"llm{vocabulary}"), "bits": 32, "dtype": "float32"},
            "streams": {name: {"width": width} for name, width in WIDTHS.items()},
            "data": {"root": str(folder / "corpus")},
            "tasks": {"system": SYSTEM},
            "context": {"window": 2, "prelude": 2},
            "generate": {"num_beams": BEAMS, "max_new_tokens": NEW_TOKENS},
        }
    )


def decode_one_at_a_time(
    recipe: Recipe, bundle: ModelBundle, split: Split, source: ContextSource, clips: list[Clip]
) -> Sentences:
    """Decode with transformers' generate, in signing order."""
    builder = ExampleBuilder(
        bundle.prompts, recipe.streams, recipe.data.max_seq_len, recipe.data.min_frames, recipe.context.prelude
    )
    instruction, texts = translation_instruction(recipe.tasks), Sentences(len(split.index))
    for clip in clips:
        context = source.sentences(clip, split, texts)
        example = builder.build(
            clip.id, split.read(clip), instruction, context, reserve=NEW_TOKENS, with_answer=False
        )
        texts[clip.row] = generate_batch(bundle, [example], recipe)[0].text
    return texts


def decode_in_batches(job: DecodingJob, source: ContextSource, clips: list[Clip]) -> Sentences:
    """Decode with our decoder, as the command `generate` does."""
    rows, num_decoded = np.array([clip.row for clip in clips]), 0
    queue = DecodingQueue(job, source, rows, Sentences(len(job.split.index)))
    while num_decoded < len(clips):
        num_decoded += len(queue.step())
    return queue.hypotheses


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recordings", type=int, default=16)
    parser.add_argument("--vocabulary", type=int, default=1024)
    options = parser.parse_args()
    title = f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    table = Table(title=f"{title}; {options.recordings} recordings, vocabulary {options.vocabulary:,}, {BEAMS} beams")
    for column in ("context", "clips at a time", "clips/s", "ratio", "different hypotheses"):
        table.add_column(column, justify="right")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_corpus(folder / "corpus")
        recipe = make_recipe(folder, options.vocabulary)
        save_tiny_llm(folder / "tiny", folder / "corpus", recipe.tasks, steps=1)
        write_llm(
            folder / f"llm{options.vocabulary}", AutoTokenizer.from_pretrained(folder / "tiny"), options.vocabulary
        )
        measure(recipe, options.recordings, table)
    Console(width=100).print(table)


def measure(recipe: Recipe, recordings: int, table: Table) -> None:
    """Add the rows of all context sources and batch sizes to `table`."""
    bundle = load_model_bundle(recipe, torch.device("cpu"))
    bundle.model.eval()
    split = open_split(recipe.data, recipe.streams, "train")
    names = list(dict.fromkeys(clip.recording for clip in split.clips))[:recordings]
    clips = [clip for clip in split.clips if clip.recording in names and clip.position < CLIPS_PER_RECORDING]
    for name in SOURCES:
        source = ContextSource.open(name, recipe.context.window, recipe.context.prelude, split)
        start_time = time.perf_counter()
        expected = decode_one_at_a_time(recipe, bundle, split, source, clips)
        reference_rate = len(clips) / (time.perf_counter() - start_time)
        table.add_row(name, "1, transformers", f"{reference_rate:.2f}", "1", "")
        for size in BATCH_SIZES:
            sized_recipe = replace(recipe, generate=replace(recipe.generate, batch_size=size))
            job = DecodingJob.open(sized_recipe, split, bundle)
            start_time = time.perf_counter()
            texts = decode_in_batches(job, source, clips)
            rate = len(clips) / (time.perf_counter() - start_time)
            num_different = sum(texts[clip.row] != expected[clip.row] for clip in clips)
            table.add_row(
                name, str(size), f"{rate:.2f}", f"{rate / reference_rate:.2f}", f"{num_different} of {len(clips)}"
            )


if __name__ == "__main__":
    main()
