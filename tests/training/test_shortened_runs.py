"""Runs with shorter sequences: what holds for every run holds for them, through the real commands."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from conftest import ALL_TASKS, SHORTENINGS, Ended, MadeOnce, open_recipe_split, sets
from safetensors.torch import load_file

from signllava_cli import SignLlava
from signllava_cli.api.inputs import InvalidInput
from signllava_cli.errors import UserError
from signllava_cli.generation.predictions_folder import Prediction, read_predictions
from signllava_cli.prepare.indexing import open_split
from signllava_cli.recipe import Recipe, read_recipe
from signllava_cli.serving.clip_lines import translate_dataset_clips
from signllava_cli.serving.recent_clips import RecentClips
from signllava_cli.serving.startup import open_served_model
from signllava_cli.serving.videos import Videos

Command = Callable[..., Ended]
JOIN = [*SHORTENINGS["join"], "streams.sign2vec.stride=2"]
DECODING: dict[str, Any] = {"num_beams": 2, "max_new_tokens": 8}
QUICK = ["--split", "dev", "--beams", 2, "--max-new-tokens", 8, "--context-source", "none"]


def shortenings(quick: str) -> pytest.MarkDecorator:
    """Each of SHORTENINGS; those other than `quick` are drills."""
    marks = {name: [] if name == quick else [pytest.mark.drill] for name in SHORTENINGS}
    return pytest.mark.parametrize(
        "shortening", [pytest.param(settings, id=name, marks=marks[name]) for name, settings in SHORTENINGS.items()]
    )


@pytest.fixture
def pretrain(
    signllava: Command, settings: list[str], halved_corpus: Path, tmp_path: Path
) -> Callable[..., tuple[Path, Ended]]:
    """`pretrain(name, *overrides)`: the run folder and the end of a short run."""

    def run(name: str, *overrides: str) -> tuple[Path, Ended]:
        more = [f"data.root={halved_corpus}", f"run.output_dir={tmp_path / name}", *overrides]
        return tmp_path / name, signllava("pretrain", "-r", "toy/tiny_pretrain", *sets([*settings, *more]))

    return run


@pytest.fixture(scope="session")
def joined_run(made_once: MadeOnce, halved_corpus: Path, tiny_llm: Path) -> Path:
    """A short pretraining with joined streams and a stack. Tests must not write to it."""

    def make(folder: Path) -> None:
        from signllava_cli.training.loop import train

        settings = [f"llm.path={tiny_llm}", f"data.root={halved_corpus}", f"run.output_dir={folder}"]
        train(read_recipe("toy/tiny_pretrain", [*settings, *JOIN, "train.max_steps=40"]), "pretrain")

    return made_once("joined_run", make)


@pytest.fixture
def joined(joined_run: Path) -> Recipe:
    return read_recipe(joined_run / "recipe.yaml")


def metrics(run: Path) -> list[float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [value for line in lines for key, value in line.items() if key in ("loss", "gradient_norm", "dev_loss")]


@shortenings(quick="join")
def test_losses_do_not_depend_on_the_micro_batch_size(
    pretrain: Callable[..., tuple[Path, Ended]], shortening: list[str]
) -> None:
    common = [*shortening, *ALL_TASKS, "train.batch_size=8", "train.max_steps=3", "train.eval_steps=3"]
    losses = []
    for size in (8, 2):
        run, ended = pretrain(f"micro{size}", *common, f"train.micro_batch_size={size}")
        assert ended.code == 0, ended.err
        losses.append(metrics(run))
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


@shortenings(quick="conv")
def test_a_resumed_run_ends_with_the_same_weights(
    pretrain: Callable[..., tuple[Path, Ended]], shortening: list[str]
) -> None:
    common = [*shortening, *ALL_TASKS, "train.max_steps=5"]
    whole, ended = pretrain("whole", *common)
    assert ended.code == 0, ended.err
    stopped, ended = pretrain("stopped", *common, "train.stop_at_step=3")
    assert ended.code == 75, ended.err
    stopped, ended = pretrain("stopped", *common)
    assert "resumed from" in ended.out
    assert (stopped / "last/projector.safetensors").read_bytes() == (
        whole / "last/projector.safetensors"
    ).read_bytes()
    assert metrics(stopped) == metrics(whole)


@pytest.mark.drill
@pytest.mark.parametrize("launcher", ["multi_cpu", "zero2_cpu", "zero3_cpu"])
@pytest.mark.parametrize("shortening", ["conv", "join"])
def test_every_launcher_gives_the_same_losses(
    pretrain: Callable[..., tuple[Path, Ended]], shortening: str, launcher: str
) -> None:
    common = [*SHORTENINGS[shortening], "train.batch_size=4", "train.micro_batch_size=2", "train.max_steps=3"]
    single, ended = pretrain("single", *common)
    assert ended.code == 0, ended.err
    several, ended = pretrain("several", *common, f"launch.profile={launcher}", "launch.num_processes=2")
    assert ended.code == 0, ended.err
    assert json.loads((several / "last" / "progress.json").read_text())["num_processes"] == 2
    assert metrics(several) == pytest.approx(metrics(single), rel=1e-4)
    weights = load_file(several / "last" / "projector.safetensors")
    for name, tensor in load_file(single / "last" / "projector.safetensors").items():
        torch.testing.assert_close(weights[name], tensor, rtol=1e-3, atol=1e-4)


def predictions(signllava: Command, run: Path, out: Path, *options: object) -> list[Prediction]:
    ended = signllava("generate", "-c", run, *QUICK, "--out", out, *options)
    assert ended.code == 0, ended.err
    return read_predictions(out / "predictions.jsonl")


def test_the_api_the_command_and_the_web_app_read_joined_streams_alike(
    signllava: Command, joined_run: Path, joined: Recipe, tmp_path: Path
) -> None:
    rows = predictions(signllava, joined_run, tmp_path / "all", "--batch-size", 5)
    served = open_served_model(str(joined_run), None, "dev", 10**6, None, (), DECODING)
    assert served.split is not None
    clips = [clip for clip in served.split.clips if clip.recording == "dev00"]
    features = [served.split.read(clip) for clip in clips]
    assert len(features[0]["left"]) == len(features[0]["right"]) + 1
    lines = list(
        translate_dataset_clips(served.model, RecentClips(), served.split, Videos(None, []), clips, 0, 0, "none")
    )
    translations = [served.model.translate(each) for each in features]
    expected = [(row.hypothesis, row.score) for row in rows if row.recording == "dev00"]
    assert len({text for text, _ in expected}) > 2
    for line, translation, (text, score) in zip(lines, translations, expected, strict=True):
        assert line.text == translation.text == text
        assert translation.score == pytest.approx(score, abs=1e-4)
    embeddings = translations[0].stream_embeddings
    num_frames = len(features[0]["right"])
    assert {name: len(each) for name, each in embeddings.items()} == {
        "halves": -(-num_frames // 2),
        "sign2vec": -(-len(features[0]["sign2vec"]) // 2),
    }


def test_a_missing_stream_of_a_join_is_zeros_and_all_of_them_missing_is_no_input(
    signllava: Command, joined_run: Path, joined: Recipe, tmp_path: Path
) -> None:
    model = SignLlava.from_pretrained(joined_run, **DECODING)
    clip = open_recipe_split(joined, "dev").clips[0]
    served = open_served_model(str(joined_run), None, "dev", 10**6, None, (), DECODING)
    assert served.split is not None
    features = served.split.read(clip)
    without_right = {name: frames for name, frames in features.items() if name != "right"}
    with_zeros = {**features, "right": np.zeros_like(features["right"]), "left": features["left"][:-1]}
    few, many = model.translate(without_right), model.translate(with_zeros)
    np.testing.assert_allclose(
        few.stream_embeddings["halves"][:2], many.stream_embeddings["halves"][:2], rtol=1e-4, atol=1e-5
    )
    rows = predictions(signllava, joined_run, tmp_path / "ablated", "--ablate-stream", "right")
    assert rows[0].score == pytest.approx(many.score, abs=1e-4)
    assert set(model.translate({"sign2vec": features["sign2vec"]}).stream_embeddings) == {"sign2vec"}
    both = ["--ablate-stream", "right", "--ablate-stream", "left"]
    rows = predictions(signllava, joined_run, tmp_path / "without", *both)
    expected = model.translate({"sign2vec": features["sign2vec"]})
    assert (rows[0].hypothesis, rows[0].score) == (expected.text, pytest.approx(expected.score, abs=1e-4))
    assert len(model.nearest_tokens("left", features["left"])) == -(-len(features["left"]) // 2)
    with pytest.raises(InvalidInput, match=r"joined streams need .* left 9, right 3\."):
        model.translate({"left": np.ones((9, 32)), "right": np.ones((3, 32))})


def test_joined_streams_of_slightly_different_length_are_cut_and_counted(
    signllava: Command, joined: Recipe, capsys: pytest.CaptureFixture[str]
) -> None:
    split = open_recipe_split(joined, "dev")
    num_cut = len(range(0, len(split.clips), 5))
    out = capsys.readouterr().out
    assert f"split dev: join halves cuts {num_cut} of {len(split.clips)} clips to the shortest of left, right" in out
    assert "by at most 1 frame " in out
    for clip in split.clips[:6]:
        frames = split.read(clip)
        assert len(frames["left"]) == len(frames["right"]) == int(split.streams[0].kept_frame_counts()[clip.row])


def test_joined_streams_of_another_rate_are_refused_with_clip_and_lengths(
    joined: Recipe, halved_corpus: Path, tmp_path: Path
) -> None:
    root = tmp_path / "data"
    shutil.copytree(halved_corpus, root, ignore=shutil.ignore_patterns("index.*"))
    with h5py.File(root / "right" / "right.dev.0.h5", "r+") as shard:
        recording = next(iter(shard))
        clip = next(iter(shard[recording]))
        frames = shard[recording][clip][:]
        del shard[recording][clip]
        shard[recording][clip] = np.concatenate([frames] * 2)
    data = read_recipe("toy/tiny_pretrain", [f"data.root={root}"]).data
    with pytest.raises(UserError, match=rf"clip {recording}/{clip}: joined .* left \d+, right {2 * len(frames)}\."):
        open_split(data, joined.streams, "dev")


def test_what_the_settings_save_is_shown(
    signllava: Command,
    pretrain: Callable[..., tuple[Path, Ended]],
    joined: Recipe,
    halved_corpus: Path,
    tmp_path: Path,
) -> None:
    split = open_recipe_split(joined, "dev")
    frames = sum(stream.kept_frame_counts().mean() for stream in split.streams)
    embeddings = sum(counts.mean() for counts in split.count_embeddings().values())
    arguments = ["-r", "toy/tiny_pretrain", *sets([f"data.root={halved_corpus}", *JOIN])]
    ended = signllava(
        "prepare", "describe", halved_corpus, "--split", "dev", "--report", tmp_path / "d.json", *arguments
    )
    assert ended.code == 0, ended.err
    line = next(line for line in ended.out.splitlines() if "all, dev" in line)
    cells = [cell.strip() for cell in line.strip("│").split("│")]
    assert cells[2:] == [f"{frames:.1f}", f"{embeddings:.1f}", f"{1 - embeddings / frames:.1%}"]
    assert "mlp2x_gelu, stack 2, joined in halves" in ended.out
    described = json.loads((tmp_path / "d.json").read_text())["splits"]["dev"]["with_recipe"]["embeddings"]
    assert described["halves"]["embeddings"] == pytest.approx(split.count_embeddings()["halves"].mean())
    ended = signllava(
        "pretrain", "--dry-run", *arguments, *sets([f"llm.path={joined.llm.path}", f"run.output_dir={tmp_path}/r"])
    )
    assert ended.code == 0, ended.err
    [line] = [line for line in ended.out.splitlines() if "embeddings per clip" in line]
    train = open_recipe_split(joined, "train")
    frames = sum(stream.kept_frame_counts().mean() for stream in train.streams)
    embeddings = sum(counts.mean() for counts in train.count_embeddings().values())
    assert f"{embeddings:.1f} of {frames:.1f} frames, {1 - embeddings / frames:.0%} saved" in line


def test_a_checkpoint_shows_keeps_and_requires_its_settings(
    signllava: Command, joined_run: Path, joined: Recipe, tmp_path: Path
) -> None:
    ended = signllava("checkpoint", "inspect", joined_run, "--tensors")
    assert "left (32, mlp2x_gelu, stack 2, joined in halves)" in ended.out
    assert "projector halves" in ended.out
    assert "halves.norm_in.left.weight" in ended.out
    saved = SignLlava.from_pretrained(joined_run).save_pretrained(tmp_path / "saved")
    assert "| `right` | 32 | mlp2x_gelu, stack 2, joined in halves |" in (saved / "README.md").read_text()
    assert SignLlava.from_pretrained(saved).streams == {"left": 32, "sign2vec": 48, "right": 32}
    overrides = [f"data.root={joined.data.root}", "streams.left.stack=4", "streams.right.stack=4"]
    ended = signllava("generate", "-c", saved, *QUICK, *sets(overrides))
    assert ended.code == 2
    assert len(ended.err.strip().splitlines()) == 1
    assert (
        "the projector of halves was trained with stack=2, join=['left', 'right'], but this recipe has stack=4"
        in ended.err
    )
    overrides = [f"data.root={joined.data.root}", "streams.left.join=null", "streams.right.join=null"]
    ended = signllava("generate", "-c", saved, *QUICK, *sets(overrides))
    assert ended.code == 2
    assert "but this recipe has no such projector" in ended.err


@pytest.mark.drill
def test_finetune_and_merge_keep_the_settings(
    signllava: Command, joined_run: Path, settings: list[str], halved_corpus: Path, tmp_path: Path
) -> None:
    more = [f"data.root={halved_corpus}", *JOIN, f"run.output_dir={tmp_path / 'fine'}", "lora.lora_dropout=0"]
    arguments = ["--projector", joined_run, *sets([*settings, *more])]
    ended = signllava("finetune", "-r", "toy/tiny_finetune", *arguments)
    assert ended.code == 0, ended.err
    merged = signllava("checkpoint", "merge", tmp_path / "fine", "--out", tmp_path / "merged", "--dtype", "float32")
    assert merged.code == 0, merged.err
    one = predictions(signllava, tmp_path / "fine", tmp_path / "one", *sets(["llm.bits=32", "llm.dtype=float32"]))
    other = predictions(signllava, tmp_path / "merged", tmp_path / "other")
    assert [row.score for row in one] == pytest.approx([row.score for row in other], abs=1e-3)
