"""The index and direct reading against plain h5py: start-up time and clips/s, on a generated corpus.

    python benchmarks/data.py                                # 100,000 clips in 50 shards, about 1 GB
    python benchmarks/data.py --clips 1000000 --shards 500 --width 4 --frames 2

All rows of a run read the same files, one after the other, from the page cache.
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

CLIPS_PER_RECORDING, BATCH = 25, 16

# Run in a new interpreter, to measure the time and memory of imports and of opening a split.
OPEN_SPLIT_SCRIPT = """
import json, sys, time
def resident_mb():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 1e6
mb_at_start = resident_mb()
start_time = time.perf_counter()
from signllava_cli.prepare.indexing import open_split
from signllava_cli.recipe import build_recipe
import_seconds, mb_after_import = time.perf_counter() - start_time, resident_mb()
start_time = time.perf_counter()
recipe = build_recipe(json.loads(sys.argv[1]))
split = open_split(recipe.data, recipe.streams, "train")
open_seconds = time.perf_counter() - start_time
memory = {"import MB": mb_after_import - mb_at_start, "open MB": resident_mb() - mb_after_import}
print(json.dumps({"import s": import_seconds, "open s": open_seconds, **memory}))
"""


class RandomFrames(Dataset[int]):
    """The number of frames of each clip, read in random order."""

    def __init__(self, split: Split) -> None:
        self.split, self.order = split, np.random.default_rng(0).permutation(len(split.clips))

    def __getitems__(self, indices: Sequence[int]) -> list[int]:
        clips = [self.split.clips[self.order[index]] for index in indices]
        return [len(frames["mae"]) for frames in self.split.read_all(clips)]

    def __len__(self) -> int:
        return len(self.order)


def write_corpus(root: Path, clips: int, shards: int, width: int, frames: int) -> None:
    """Write `clips` clips of `frames` to 3 * `frames` frames, in recordings of 25 clips, spread over the shards."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(3 * frames + 1, width)).astype(np.float16)
    recordings = [f"recording{number:06d}" for number in range(clips // CLIPS_PER_RECORDING)]
    names = [f"clip{number:02d}" for number in range(CLIPS_PER_RECORDING)]
    annotation = {
        recording: {
            "clip_order": names,
            **{
                name: {"translation": f"Sentence {name} of {recording}.", "paraphrases": [], "keywords": [name]}
                for name in names
            },
        }
        for recording in recordings
    }
    (root / "mae").mkdir(parents=True)
    (root / "annotation.train.json").write_text(json.dumps(annotation))
    recording_shards = {recording: number * shards // len(recordings) for number, recording in enumerate(recordings)}
    (root / "mae" / "metadata_mae.train.json").write_text(json.dumps(recording_shards))
    for shard in range(shards):
        with h5py.File(root / "mae" / f"mae.train.{shard}.h5", "w", libver="v110") as file:
            for recording in [name for name, index in recording_shards.items() if index == shard]:
                group = file.create_group(recording)
                for name in names:
                    group.create_dataset(name, data=noise[: int(rng.integers(frames, 3 * frames + 1))])


def read_sequentially(root: Path) -> Iterator[int]:
    """Read with plain h5py, in the order of the files, and yield the number of frames of each clip."""
    for shard in sorted((root / "mae").glob("*.h5")):
        with h5py.File(shard, "r") as file:
            for recording in file.values():
                for clip in recording.values():
                    yield len(clip[()])


def scan_keys(root: Path) -> int:
    """Start up without an index: read every key of every shard and its length, and count those in the annotation."""
    annotation = json.loads((root / "annotation.train.json").read_text())
    num_clips = 0
    for shard in sorted((root / "mae").glob("*.h5")):
        with h5py.File(shard, "r") as file:
            for name, recording in file.items():
                num_clips += sum(recording[clip].shape[0] > 0 for clip in recording if clip in annotation[name])
    return num_clips


def clips_per_second(lengths: Iterator[int] | DataLoader[int], clips: int) -> float:
    """Clips per second over the first `clips`."""
    start_time, num_read = time.perf_counter(), 0
    for batch in lengths:
        num_read += len(batch) if isinstance(batch, list) else 1
        if num_read >= clips:
            break
    return num_read / (time.perf_counter() - start_time)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in (("clips", 100_000), ("shards", 50), ("width", 128), ("frames", 20), ("read", 20_000)):
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "corpus"
        write_corpus(root, options.clips, options.shards, options.width, options.frames)
        config = {"data": {"root": str(root)}, "streams": {"mae": {"width": options.width}}}
        recipe: Recipe = build_recipe(config)
        start_time = time.perf_counter()
        open_index(root, "train", recipe.streams)
        index_seconds = time.perf_counter() - start_time
        opening = json.loads(
            subprocess.run(
                [sys.executable, "-c", OPEN_SPLIT_SCRIPT, json.dumps(config)],
                capture_output=True,
                check=True,
                text=True,
            ).stdout
        )
        start_time = time.perf_counter()
        scan_keys(root)
        scan_seconds = time.perf_counter() - start_time
        plain_rate = clips_per_second(read_sequentially(root), options.read)
        split = open_split(recipe.data, recipe.streams, "train")
        loaders = {
            workers: DataLoader(RandomFrames(split), BATCH, collate_fn=list, num_workers=workers)
            for workers in (0, 2)
        }
        rates = {workers: clips_per_second(loader, options.read) for workers, loader in loaders.items()}
    machine = f"{platform.machine()}, h5py {h5py.__version__}"
    table = Table(title=f"{options.clips:,} clips, {options.shards} shards, width {options.width}; {machine}")
    for column in ("measurement", "value", "ratio"):
        table.add_column(column, justify="left" if column == "measurement" else "right")
    table.add_row("prepare index, once", f"{index_seconds:.1f} s", "")
    table.add_row("start-up: scan of all keys", f"{scan_seconds:.2f} s", "1")
    table.add_row("start-up: index", f"{opening['open s']:.3f} s", f"{scan_seconds / opening['open s']:.0f} x faster")
    table.add_row("memory: imports", f"{opening['import MB']:.0f} MB", "")
    table.add_row("memory: opening", f"{opening['open MB']:.0f} MB", "")
    table.add_row("reading: plain h5py, in order", f"{plain_rate:,.0f} clips/s", "1")
    for workers, rate in rates.items():
        table.add_row(f"reading: random order, {workers} workers", f"{rate:,.0f} clips/s", f"{rate / plain_rate:.1f}")
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
