"""What the index and direct reading give: start-up and clips/s beside plain h5py, on a generated corpus.

    python benchmarks/data.py                                # 100,000 clips in 50 shards, about 1 GB
    python benchmarks/data.py --clips 1000000 --shards 500 --width 4 --frames 2

All rows of a run read the same files, one after the other, on a machine whose page cache holds them.
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np
from rich.console import Console
from rich.table import Table
from torch.utils.data import DataLoader, Dataset

from signllava_cli.data.split import Split
from signllava_cli.prepare.indexing import open_index, open_split
from signllava_cli.recipe import Recipe, build_recipe

CLIPS_A_RECORDING, BATCH = 25, 16

# Run by a bare interpreter: what opening costs is measured from its first line on.
OPEN = """
import json, sys, time
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 1e6
bare = resident()
began = time.perf_counter()
from signllava_cli.data.split import Split
from signllava_cli.recipe import build_recipe
imported, imports = time.perf_counter() - began, resident()
began = time.perf_counter()
recipe = build_recipe(json.loads(sys.argv[1]))
split = open_split(recipe.data, recipe.streams, "train")
opened = time.perf_counter() - began
memory = {"import MB": imports - bare, "open MB": resident() - imports}
print(json.dumps({"import s": imported, "open s": opened, **memory}))
"""


class RandomFrames(Dataset[int]):
    """The number of frames read of each clip, in an order that is random."""

    def __init__(self, split: Split) -> None:
        self.split, self.order = split, np.random.default_rng(0).permutation(len(split.clips))

    def __getitems__(self, positions: Sequence[int]) -> list[int]:
        clips = [self.split.clips[self.order[position]] for position in positions]
        return [len(frames["mae"]) for frames in self.split.read_all(clips)]

    def __len__(self) -> int:
        return len(self.order)


def write_corpus(root: Path, clips: int, shards: int, width: int, frames: int) -> None:
    """`clips` clips of `frames` to 3 * `frames` frames, in recordings of 25, spread over the shards."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(3 * frames + 1, width)).astype(np.float16)
    recordings = [f"recording{number:06d}" for number in range(clips // CLIPS_A_RECORDING)]
    names = [f"clip{number:02d}" for number in range(CLIPS_A_RECORDING)]
    annotation = {
        recording: {
            "clip_order": names,
            **{
                n: {"translation": f"Sentence {n} of {recording}.", "paraphrases": [], "keywords": [n]} for n in names
            },
        }
        for recording in recordings
    }
    (root / "mae").mkdir(parents=True)
    (root / "annotation.train.json").write_text(json.dumps(annotation))
    shard_of = {recording: number * shards // len(recordings) for number, recording in enumerate(recordings)}
    (root / "mae" / "metadata_mae.train.json").write_text(json.dumps(shard_of))
    for shard in range(shards):
        with h5py.File(root / "mae" / f"mae.train.{shard}.h5", "w", libver="v110") as file:
            for recording in (each for each, its in shard_of.items() if its == shard):
                group = file.create_group(recording)
                for name in names:
                    group.create_dataset(name, data=noise[: int(rng.integers(frames, 3 * frames + 1))])


def sequential(root: Path) -> Iterator[int]:
    """Plain h5py: shard after shard, clip after clip, as they lie there."""
    for shard in sorted((root / "mae").glob("*.h5")):
        with h5py.File(shard, "r") as file:
            for recording in file.values():
                for clip in recording.values():
                    yield len(clip[()])


def scan(root: Path) -> int:
    """What start-up costs without an index: every key of every shard, and its length, against the annotation."""
    annotation = json.loads((root / "annotation.train.json").read_text())
    found = 0
    for shard in sorted((root / "mae").glob("*.h5")):
        with h5py.File(shard, "r") as file:
            for name, recording in file.items():
                found += sum(recording[clip].shape[0] > 0 for clip in recording if clip in annotation[name])
    return found


def rate(lengths: Iterator[int] | DataLoader[int], clips: int) -> float:
    """Clips per second over the first `clips`."""
    start_time, read = time.perf_counter(), 0
    for batch in lengths:
        read += len(batch) if isinstance(batch, list) else 1
        if read >= clips:
            break
    return read / (time.perf_counter() - start_time)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in (("clips", 100_000), ("shards", 50), ("width", 128), ("frames", 20), ("read", 20_000)):
        arguments.add_argument(f"--{name}", type=int, default=value)
    asked = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "corpus"
        write_corpus(root, asked.clips, asked.shards, asked.width, asked.frames)
        config = {"data": {"root": str(root)}, "streams": {"mae": {"width": asked.width}}}
        recipe: Recipe = build_recipe(config)
        start_time = time.perf_counter()
        open_index(root, "train", recipe.streams)
        indexed = time.perf_counter() - start_time
        opened = json.loads(
            subprocess.run(
                [sys.executable, "-c", OPEN, json.dumps(config)], capture_output=True, check=True, text=True
            ).stdout
        )
        start_time = time.perf_counter()
        scan(root)
        scanned = time.perf_counter() - start_time
        plain = rate(sequential(root), asked.read)
        split = open_split(recipe.data, recipe.streams, "train")
        loaders = {
            workers: DataLoader(RandomFrames(split), BATCH, collate_fn=list, num_workers=workers)  # type: ignore[arg-type]
            for workers in (0, 2)
        }
        rates = {workers: rate(loader, asked.read) for workers, loader in loaders.items()}
    machine = f"{platform.machine()}, h5py {h5py.__version__}"
    table = Table(title=f"{asked.clips:,} clips, {asked.shards} shards, width {asked.width}; {machine}")
    for column in ("what", "figure", "ratio"):
        table.add_column(column, justify="left" if column == "what" else "right")
    table.add_row("prepare index, once", f"{indexed:.1f} s", "")
    table.add_row("start-up: scan of all keys", f"{scanned:.2f} s", "1")
    table.add_row("start-up: index", f"{opened['open s']:.3f} s", f"{scanned / opened['open s']:.0f} x faster")
    table.add_row("memory: imports", f"{opened['import MB']:.0f} MB", "")
    table.add_row("memory: opening", f"{opened['open MB']:.0f} MB", "")
    table.add_row("reading: plain h5py, in order", f"{plain:,.0f} clips/s", "1")
    for workers, clips in rates.items():
        table.add_row(f"reading: random order, {workers} workers", f"{clips:,.0f} clips/s", f"{clips / plain:.1f}")
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
