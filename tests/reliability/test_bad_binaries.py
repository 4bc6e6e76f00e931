"""Damaged and hostile indexes, checkpoints, videos, uploads and files of a broken extraction: an error, or values."""

import random
from collections.abc import Callable
from pathlib import Path

import fuzzing
import pytest
from binary_mutations import binary_inputs, lie_in_boxes, lie_in_safetensors, lie_in_zip
from binary_readers import (
    read_checkpoint,
    read_extracted,
    read_index,
    read_states,
    read_upload,
    read_video,
)
from binary_seeds import checkpoint_seeds, hdf5_seeds, index_seeds, npz_seeds, states_seeds, video_seeds
from fuzzing import Reader, fuzz_reader, replay, scaled

from signllava_cli import processes

PROMISE = pytest.mark.reliability(
    "Bad input", "damaged indexes, checkpoints, videos and uploads are refused: no crash, hang or large allocation"
)
Lie = Callable[[bytes, random.Random], bytes]
Record = Callable[[str, object], None]
NUMBERS = {"index": 9000, "checkpoint": 2500, "states": 6000, "video": 3000, "upload": 1000, "extracted": 500}
MEGABYTE = 2**20


@pytest.fixture(autouse=True)
def short_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file from which HDF5 never returns costs one second."""
    monkeypatch.setattr(processes, "MAX_CPU_SECONDS", 0.5)
    monkeypatch.setattr(fuzzing, "WALL_SECONDS", 60.0)


def make_reader(name: str, folder: Path) -> tuple[Reader, Lie | None]:
    match name:
        case "index":
            seeds = index_seeds(folder / "data")
            return Reader(name, read_index(folder / "data"), seeds), None
        case "checkpoint":
            seeds = checkpoint_seeds(folder / "checkpoint")
            return Reader(name, read_checkpoint(folder / "checkpoint"), seeds, "p.safetensors"), lie_in_safetensors
        case "states":
            return Reader(name, read_states, states_seeds(), "states.pt"), lie_in_zip
        case "video":  # a frame of twice 8K, decoded and converted to RGB
            return Reader(name, read_video, video_seeds(), memory=1024 * MEGABYTE), lie_in_boxes
        case "upload":
            return Reader(name, read_upload("a.npz"), npz_seeds()), lie_in_zip
        case "upload-hdf5":
            return Reader(name, read_upload("a.h5"), hdf5_seeds()[:3]), None
        case _:
            return Reader(name, read_extracted, hdf5_seeds()), None


def fuzz(name: str, number: int, folder: Path, record_property: Record) -> None:
    reader, lie = make_reader(name, folder)
    number = replay(reader, folder / "in") + fuzz_reader(
        reader, binary_inputs(reader.seeds, lie), number, folder / "in"
    )
    record_property("inputs", number)


@PROMISE
@pytest.mark.parametrize("name", NUMBERS)
def test_damaged_files_are_refused(name: str, tmp_path: Path, record_property: Record) -> None:
    fuzz(name, NUMBERS[name] // 100, tmp_path, record_property)


@PROMISE
@pytest.mark.drill
@pytest.mark.parametrize("name", [*NUMBERS, "upload-hdf5"])
def test_many_damaged_files_are_refused(name: str, tmp_path: Path, record_property: Record) -> None:
    fuzz(name, scaled(NUMBERS.get(name, 500)), tmp_path, record_property)
