"""What shorter sequences save in embeddings, and cost in BLEU: projectors of the tiny LLM on the toy corpus.

    python benchmarks/shortening.py --seeds 3

Each row is the shipped recipe toy/tiny_pretrain with other settings of its streams. For `join`, the numbers of mae
are split into two streams of equal rate, `left` and `right`. BLEU is that of greedy hypotheses of the test split with
gold context: the mean over the seeds, and the lowest and the highest. A sign of the toy corpus lasts 1 to 2 frames in
sign2vec and 2 to 4 in mae, so a stack of 4 covers several signs.
"""

import argparse
import platform
import tempfile
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from sacrebleu import corpus_bleu

from signllava_cli.generation.generate import generate
from signllava_cli.generation.predictions_folder import read_predictions
from signllava_cli.model.checkpoint import checkpoint_recipe, find_checkpoint
from signllava_cli.model.tiny_llm import save_tiny_llm
from signllava_cli.prepare.dataset_writer import write_stream
from signllava_cli.prepare.indexing import open_split
from signllava_cli.prepare.sequence_lengths import measure_embeddings
from signllava_cli.prepare.toy_corpus import write_toy_corpus
from signllava_cli.recipe import read_recipe
from signllava_cli.training.loop import train

RECIPE, SPLIT = "toy/tiny_pretrain", "test"


def both(setting: str) -> list[str]:
    return [f"streams.sign2vec.{setting}", f"streams.mae.{setting}"]


def halves(setting: str) -> list[str]:
    return [f"streams={{left: {{width: 32{setting}}}, right: {{width: 32{setting}}}}}"]


ROWS: dict[str, list[str]] = {
    "sign2vec, mae": [],
    "stack 2": both("stack=2"),
    "stack 4": both("stack=4"),
    "conv, kernel 3, stride 2": both("conv.stride=2"),
    "conv, the same, 2 layers": both("conv.layers=2"),
    "left, right": halves(""),
    "left, right, join": halves(", join: halves"),
    "left, right, join, stack 2": halves(", join: halves, stack: 2"),
    "mae": ["streams.sign2vec=null"],
}


def write_corpus(root: Path) -> None:
    """The toy corpus, with the streams `left` and `right`."""
    write_toy_corpus(root)
    recipe = read_recipe(RECIPE, [f"data.root={root}"])
    for split_name in ("train", "dev", "test"):
        split = open_split(recipe.data, recipe.streams, split_name)
        for name, columns in (("left", slice(0, 32)), ("right", slice(32, 64))):
            recordings: dict[str, dict[str, np.ndarray]] = {}
            for clip in split.clips:
                recordings.setdefault(clip.recording, {})[clip.name] = split.read(clip)["mae"][:, columns]
            write_stream(root, split_name, name, recordings, 2)


def measure(folder: Path, number: int, seed: int, overrides: list[str]) -> tuple[float, float, float]:
    """Frames and embeddings per clip, and BLEU, of a run with `overrides`."""
    run = folder / f"run{number}-{seed}"
    settings = [f"llm.path={folder / 'tiny'}", f"data.root={folder / 'toy'}", f"run.output_dir={run}"]
    train(read_recipe(RECIPE, [*settings, f"run.seed={seed}", *overrides]), "pretrain")
    checkpoint = find_checkpoint(run)
    recipe = checkpoint_recipe(checkpoint, [f"generate.split={SPLIT}"])
    [file] = generate(recipe, checkpoint, ["gold"], out=run / "predictions")
    rows = read_predictions(file)
    bleu = corpus_bleu([row.hypothesis for row in rows], [[row.reference for row in rows]]).score
    projectors = measure_embeddings(open_split(recipe.data, recipe.streams, SPLIT)).values()
    return sum(each.frames for each in projectors), sum(each.embeddings for each in projectors), bleu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="runs of each row")
    parser.add_argument("--folder", type=Path, help="keep corpus, LLM and runs here; a second call continues")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        if not (folder / "toy").exists():
            write_corpus(folder / "toy")
        if not (folder / "tiny").exists():
            save_tiny_llm(folder / "tiny", folder / "toy", read_recipe(RECIPE).tasks)
        results: dict[str, list[tuple[float, float, float]]] = {label: [] for label in ROWS}
        for seed in range(arguments.seeds):
            for number, (label, overrides) in enumerate(ROWS.items()):
                results[label].append(measure(folder, number, seed, overrides))
    table = Table(title=f"{RECIPE}, split {SPLIT}, {arguments.seeds} seeds", title_justify="left")
    for column in ("streams", "frames", "embeddings", "saved", "BLEU", "lowest - highest"):
        table.add_column(column, justify="left" if column == "streams" else "right")
    for label, measured in results.items():
        frames, embeddings, _ = measured[0]
        bleu = [score for *_, score in measured]
        saved = f"{1 - embeddings / frames:.0%}"
        spread = f"{min(bleu):.1f} - {max(bleu):.1f}"
        table.add_row(label, f"{frames:.1f}", f"{embeddings:.1f}", saved, f"{sum(bleu) / len(bleu):.1f}", spread)
    console = Console()
    console.print(table)
    console.print(f"torch {torch.__version__}, Python {platform.python_version()}, {torch.get_num_threads()} threads")


if __name__ == "__main__":
    main()
