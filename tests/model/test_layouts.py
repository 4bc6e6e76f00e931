"""A checkpoint stores the layout of each stream that it was trained on, and refuses features of another layout."""

import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from conftest import Ended, sets
from test_convert import convert, deepspeed_states, save_states, sequential, tensors_of

from signllava_cli import SignLlava
from signllava_cli.data.annotations import read_annotations
from signllava_cli.errors import UserError
from signllava_cli.model.checkpoint import read_config
from signllava_cli.prepare.dataset_writer import write_stream
from signllava_cli.serving.startup import open_served_model
from signllava_cli.serving.uploads import read_uploads

Command = Callable[..., Ended]


def set_layout(root: Path, stream: str, layout: str | None) -> None:
    for file in (root / stream).glob("*.h5"):
        with h5py.File(file, "a") as handle:
            handle.attrs.pop("layout", None)
            if layout is not None:
                handle.attrs["layout"] = layout


@pytest.fixture
def data(corpus: Path, tmp_path: Path) -> Path:
    """A copy of the toy corpus whose mae features are of layout `layout-a`."""
    root = Path(shutil.copytree(corpus, tmp_path / "data", ignore=shutil.ignore_patterns("index.*")))
    set_layout(root, "mae", "layout-a")
    return root


@pytest.fixture
def trained(signllava: Command, settings: list[str], data: Path) -> Path:
    """A run of one step on `data`."""
    quick = [*settings, f"data.root={data}", "train.max_steps=1"]
    ended = signllava("pretrain", "--recipe", "toy/tiny_pretrain", *sets(quick))
    assert ended.code == 0, ended.err
    assert "layout" not in ended.err
    return Path(next(option for option in quick if option.startswith("run.output_dir=")).partition("=")[2])


def assert_refused(ended: Ended, *messages: str) -> None:
    assert ended.code == 2, ended.out + ended.err
    assert len(ended.err.strip().splitlines()) == 1, ended.err
    for message in messages:
        assert message in ended.err


def test_a_checkpoint_refuses_features_of_another_layout(
    signllava: Command, settings: list[str], data: Path, trained: Path
) -> None:
    assert read_config(trained / "step-000001").layouts == {"mae": "layout-a"}
    assert SignLlava.from_pretrained(trained).layouts == {"mae": "layout-a"}
    assert "mae (64, mlp2x_gelu, layout layout-a)" in signllava("checkpoint", "inspect", trained).out
    command = ("generate", "-c", trained, "--split", "dev", "--context-source", "none")
    ended = signllava(*command)
    assert ended.code == 0, ended.err
    assert "layout" not in ended.out
    set_layout(data, "mae", "layout-b")
    messages = ("Stream mae", "layout layout-a", "layout layout-b", "streams.mae.layout=layout-a")
    assert_refused(signllava(*command), *messages)
    more = [
        *settings,
        f"data.root={data}",
        "run.output_dir=" + str(trained.parent / "more"),
        f"init.projector={trained}",
    ]
    assert_refused(signllava("pretrain", "-r", "toy/tiny_pretrain", *sets(more)), *messages)
    with pytest.raises(UserError, match="layout layout-b"):
        open_served_model(str(trained), str(data), "dev", 1, None, (), {})
    ended = signllava(*command, "--set", "streams.mae.layout=layout-a", "--overwrite")
    assert ended.code == 0, ended.err
    set_layout(data, "mae", None)
    ended = signllava(*command, "--overwrite")
    assert ended.code == 0, ended.err
    (line,) = [line for line in ended.out.splitlines() if "layout" in line]
    assert line.startswith("warning: Stream mae")


def test_a_resumed_run_refuses_features_of_another_layout(
    signllava: Command, settings: list[str], data: Path, trained: Path
) -> None:
    command = ["pretrain", "-r", "toy/tiny_pretrain", *sets([*settings, f"data.root={data}", "train.max_steps=1"])]
    changed = signllava(*command, "--set", "train.save_steps=3", "--set", "streams.mae.layout=layout-b")
    assert_refused(changed, "Stream mae", "layout layout-a", "layout layout-b", "streams.mae.layout=layout-a")
    assert "resumed with" not in (trained / "log.txt").read_text()  # nothing was resumed
    same = signllava(*command, "--set", "train.save_steps=3", "--set", "streams.mae.layout=layout-a")
    assert same.code == 0, same.err
    assert "resumed with streams.mae.layout: None -> layout-a" in same.out
    set_layout(data, "mae", "layout-b")
    assert_refused(signllava(*command), "Stream mae", "layout layout-a", "layout layout-b")


def test_dev_and_train_must_have_the_same_layout(signllava: Command, settings: list[str], data: Path) -> None:
    for file in (data / "mae").glob("mae.dev.*.h5"):
        with h5py.File(file, "a") as handle:
            handle.attrs["layout"] = "layout-b"
    ended = signllava("pretrain", "--recipe", "toy/tiny_pretrain", *sets([*settings, f"data.root={data}"]))
    assert_refused(ended, "Stream mae", "split train", "layout layout-a", "layout layout-b", "split dev")


def test_the_recipe_gives_the_layout_of_features_without_one(
    signllava: Command, settings: list[str], corpus: Path
) -> None:
    quick = [*settings, "streams.mae.layout=layout-a", "train.max_steps=1"]
    assert signllava("pretrain", "--recipe", "toy/tiny_pretrain", *sets(quick)).code == 0
    run = Path(next(option for option in quick if option.startswith("run.output_dir=")).partition("=")[2])
    assert read_config(run / "step-000001").layouts == {"mae": "layout-a"}
    ended = signllava("generate", "-c", run, "--split", "dev", "--context-source", "none")
    assert "warning: Stream mae" in ended.out  # the layout of the training data does not apply to other data


@pytest.fixture
def keypoints(data: Path) -> Path:
    """The dev split with a stream `pose` as written by `prepare pack`."""
    rng = np.random.default_rng(0)
    frames = {
        recording.name: {clip.name: rng.normal(size=(4, 208)) for clip in recording.clips}
        for recording in read_annotations(data, "dev")
    }
    shutil.rmtree(data / "pose", ignore_errors=True)
    write_stream(data, "dev", "pose", frames, 1)
    set_layout(data, "pose", "mediapipe-104-shoulders")
    return data


def test_a_converted_pose_projector_refuses_features_of_pack(
    signllava: Command, settings: list[str], keypoints: Path, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    source = save_states(tmp_path, deepspeed_states(tensors_of({"pose": sequential(208), "mae": sequential(64)})))
    settings = [*settings, f"data.root={keypoints}"]
    out = tmp_path / "converted"
    ended = convert(signllava, settings, source, out)
    assert ended.code == 0, ended.err
    output = " ".join(ended.out.split())
    assert "pose: 208 numbers: assumed to have Sign_LLaVA's pose normalization" in output
    assert read_config(out).layouts == {"pose": "sign-llava"}
    command = ("generate", "-c", out, "--split", "dev", "--context-source", "none", "--set", f"data.root={keypoints}")
    assert_refused(signllava(*command), "Stream pose", "layout sign-llava", "mediapipe-104-shoulders")
    ended = signllava(*command, "--set", "streams.pose.layout=sign-llava")
    assert ended.code == 0, ended.err
    packed = tmp_path / "packed"
    overrides = [*settings, "streams.pose.width=208", "streams.pose.layout=mediapipe-104-shoulders"]
    ended = convert(signllava, overrides, source, packed)
    assert "Sign_LLaVA's pose normalization" not in ended.out
    assert read_config(packed).layouts == {"pose": "mediapipe-104-shoulders"}
    command = ("generate", "-c", packed, *command[3:])
    ended = signllava(*command)
    assert ended.code == 0, ended.err


def test_uploads_of_another_layout_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.h5"
    with h5py.File(file, "w") as handle:
        handle["clip"], handle.attrs["layout"] = np.ones((2, 4), np.float16), "layout-b"
    for layouts in ({}, {"mae": "layout-b"}):
        assert len(read_uploads([("mae.h5", file)], {"mae": 4}, 2**20, layouts)) == 1
    with pytest.raises(UserError, match=r"mae\.h5: layout layout-b, but the model was trained on layout layout-a"):
        read_uploads([("mae.h5", file)], {"mae": 4}, 2**20, {"mae": "layout-a"})
