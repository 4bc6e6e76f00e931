"""Damaged and hostile feature files and shards: a clip is unusable for a reason, or its numbers are read."""

import random
from collections.abc import Callable
from pathlib import Path

import fuzzing
import pytest
from binary_mutations import binary_inputs, lie_in_npy, lie_in_safetensors, lie_in_zip
from binary_readers import check_shard, read_feature_file, read_hdf5_clips
from binary_seeds import hdf5_seeds, keypoint_seeds, npy_seeds, npz_seeds, pose_seeds, safetensors_seeds
from fuzzing import Reader, fuzz_reader, replay, scaled

from signllava_cli import processes

PROMISE = pytest.mark.reliability(
    "Bad input", "damaged feature files are refused: no crash, hang or large allocation"
)
Seeds = Callable[[], tuple[bytes, ...]]
Lie = Callable[[bytes, random.Random], bytes]
FORMATS: dict[str, tuple[Callable[[Path], object], Seeds, Lie | None, int]] = {
    "npy": (read_feature_file("npy"), npy_seeds, lie_in_npy, 12000),
    "npz": (read_feature_file("npz"), npz_seeds, lie_in_zip, 8000),
    "safetensors": (read_feature_file("safetensors"), safetensors_seeds, lie_in_safetensors, 9000),
    "pose": (read_feature_file("pose"), pose_seeds, None, 5000),
    "keypoints": (read_feature_file("mediapipe"), keypoint_seeds, None, 6000),
    "hdf5": (read_hdf5_clips, hdf5_seeds, None, 500),
    "shard": (check_shard, hdf5_seeds, None, 500),
}


@pytest.fixture(autouse=True)
def short_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file from which HDF5 never returns costs one second."""
    monkeypatch.setattr(processes, "MAX_CPU_SECONDS", 0.5)
    monkeypatch.setattr(fuzzing, "WALL_SECONDS", 60.0)


def fuzz(name: str, number: int, folder: Path, record_property: Callable[[str, object], None]) -> None:
    read, seeds, lie, _ = FORMATS[name]
    reader = Reader(name, read, seeds(), f"input.{name}")
    number = replay(reader, folder) + fuzz_reader(reader, binary_inputs(reader.seeds, lie), number, folder)
    record_property("inputs", number)


@PROMISE
@pytest.mark.parametrize("name", FORMATS)
def test_damaged_features_are_refused(
    name: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    fuzz(name, FORMATS[name][-1] // 100, tmp_path, record_property)


@PROMISE
@pytest.mark.drill
@pytest.mark.parametrize("name", FORMATS)
def test_many_damaged_features_are_refused(
    name: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    fuzz(name, scaled(FORMATS[name][-1]), tmp_path, record_property)
