"""The runs of the drills on data: a short pretraining on the toy corpus, and its weights when nothing goes wrong."""

import shutil
from pathlib import Path

import h5py
import pytest
from conftest import MadeOnce, open_recipe_split

from signllava_cli.recipe import Recipe, read_recipe

PRETRAIN = ("pretrain", "-r", "toy/tiny_pretrain")
STEPS = 12
SETTINGS = [f"train.max_steps={STEPS}", "train.save_steps=2", "train.eval_steps=6", "train.save_total_limit=20"]


@pytest.fixture(scope="session")
def compressed_corpus(made_once: MadeOnce, corpus: Path) -> Path:
    """The toy corpus in compressed shards, which only the HDF5 library can read. Tests must not write to it."""

    def make(folder: Path) -> None:
        shutil.copytree(corpus, folder, ignore=shutil.ignore_patterns("index.*"))
        for shard in folder.rglob("*.h5"):
            with h5py.File(shard) as file:
                frames = {f"{group}/{clip}": file[group][clip][...] for group in file for clip in file[group]}
            with h5py.File(shard, "w") as file:
                for name, array in frames.items():
                    file.create_dataset(name, data=array, compression="gzip")

    return made_once("compressed", make)


@pytest.fixture(scope="session")
def expected_run(made_once: MadeOnce, corpus: Path, tiny_llm: Path) -> Path:
    """A run whose data do not change."""

    def make(folder: Path) -> None:
        from signllava_cli.training import loop

        loop.train(loop_recipe(corpus, tiny_llm, folder), "pretrain")

    return made_once("expected_run", make)


def loop_recipe(corpus: Path, llm: Path, run: Path) -> Recipe:
    base = [f"llm.path={llm}", f"data.root={corpus}", f"run.output_dir={run}"]
    base += ["train.batch_size=4", "train.micro_batch_size=4", "track.logging_steps=1"]
    return read_recipe("toy/tiny_pretrain", [*base, *SETTINGS])


def indexed(corpus: Path, llm: Path) -> Path:
    """`corpus`, with the indices of its splits."""
    for split in ("train", "dev"):
        open_recipe_split(loop_recipe(corpus, llm, corpus / "unused"), split)
    return corpus


def assert_same_end(expected: Path, run: Path) -> None:
    for file in ("projector.safetensors", "resume/optimizer.safetensors"):
        assert (expected / "last" / file).read_bytes() == (run / "last" / file).read_bytes(), file
    assert (expected / "last").resolve().name == (run / "last").resolve().name
