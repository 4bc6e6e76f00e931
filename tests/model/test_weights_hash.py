"""The hash of an LLM's weights changes with every tensor, and not with their names or files."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from signllava_cli.model.weights_hash import hash_weights


def tensors() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(40, 30, generator=generator) for name in "abc"}


def write(folder: Path, *parts: dict[str, Tensor]) -> Path:
    """A folder with one file, or with several and their index."""
    folder.mkdir()
    names = (
        ["model.safetensors"] if len(parts) == 1 else [f"model-{number}.safetensors" for number in range(len(parts))]
    )
    for name, part in zip(names, parts, strict=True):
        save_file(part, folder / name)
    if len(parts) > 1:
        weight_map = {key: name for name, part in zip(names, parts, strict=True) for key in part}
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


def test_names_files_and_tied_tensors_do_not_matter(tmp_path: Path) -> None:
    first, second, third = tensors().values()
    expected = hash_weights(write(tmp_path / "one", tensors()))
    assert expected["weights_dtypes"] == ["F32"]
    assert hash_weights(write(tmp_path / "parts", {"x": third, "y": first}, {"z": second})) == expected
    assert hash_weights(write(tmp_path / "tied", {**tensors(), "head": first.clone()})) == expected


@pytest.mark.parametrize("name", ["a", "b", "c"])
def test_each_tensor_matters(tmp_path: Path, name: str) -> None:
    expected = hash_weights(write(tmp_path / "one", tensors()))
    changed = tensors()
    changed[name] *= 1.001
    other = hash_weights(write(tmp_path / "other", changed))
    assert other["weights_hash"] != expected["weights_hash"]
    assert other["weights_dtypes"] == expected["weights_dtypes"]
    halves = {key: value.half() for key, value in tensors().items()}
    assert hash_weights(write(tmp_path / "halves", halves))["weights_dtypes"] == ["F16"]


def test_without_safetensors_there_is_no_hash(tmp_path: Path) -> None:
    assert hash_weights(tmp_path) == {}
