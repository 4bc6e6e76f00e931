"""`checkpoint inspect` prints the contents of a checkpoint, with --json for programs."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Ended, sets
from safetensors.torch import load_file

from signllava_cli.model.checkpoint import find_checkpoint, weights_hash

Command = Callable[..., Ended]


@pytest.fixture
def run(signllava: Command, settings: list[str], tmp_path: Path) -> Path:
    assert signllava("pretrain", "-r", "toy/tiny_pretrain", *sets(settings)).code == 0
    return tmp_path / "run"


def test_inspect_prints_the_contents_of_a_checkpoint(signllava: Command, run: Path, tiny_llm: Path) -> None:
    checkpoint = find_checkpoint(run / "last")
    ended = signllava("checkpoint", "inspect", run / "last")
    assert ended.code == 0, ended.err
    weights = load_file(checkpoint / "projector.safetensors")
    for text in (
        "pretrain, step 6",
        "last of its run",
        str(tiny_llm),
        "sign2vec (48, mlp2x_gelu), mae (64, mlp2x_gelu)",
        "window 2, prelude 2, source gold, predicted_share 0.5, dropout 0.1",
        "dev loss",
        "optimizer.safetensors",
        weights_hash(checkpoint),
        f"{sum(tensor.numel() for tensor in weights.values()):,}",
    ):
        assert text in ended.out
    assert "sign2vec.boundary" not in ended.out
    ended = signllava("checkpoint", "inspect", run / "last", "--tensors")
    assert all(name in ended.out for name in weights)
    shutil.rmtree(checkpoint / "resume")
    assert "no resume/" in signllava("checkpoint", "inspect", run / "last").out


def test_inspect_prints_the_same_as_json(signllava: Command, run: Path) -> None:
    checkpoint = find_checkpoint(run / "last")
    inspection = json.loads(signllava("checkpoint", "inspect", run / "last", "--json").out)
    weights = load_file(checkpoint / "projector.safetensors")
    assert inspection["config"]["step"] == inspection["progress"]["step"] == 6
    assert inspection["recipe"]["streams"]["mae"]["width"] == 64
    assert {tensor["name"]: tuple(tensor["shape"]) for tensor in inspection["tensors"]} == {
        name: tuple(tensor.shape) for name, tensor in weights.items()
    }
    assert sum(part["size"] for part in inspection["parts"]) == sum(tensor.nbytes for tensor in weights.values())
    assert [part["name"] for part in inspection["parts"]] == ["projector mae", "projector sign2vec"]
    assert inspection["scores"]["dev_loss"] > 0
    assert inspection["resume"][0]["tensors"] > 0
    assert "last" in inspection["links"]
