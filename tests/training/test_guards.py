"""Guards of a run: preflight, steps that are not finite, loss spikes, early stopping, time limit."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Ended, sets
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from signllava_cli.data.annotations import read_annotations
from signllava_cli.evaluation.metrics.all_metrics import METRICS
from signllava_cli.generation import decoding
from signllava_cli.training import session
from signllava_cli.training.loss_spikes import is_spike
from signllava_cli.training.train_state import TrainState

Command = Callable[..., Ended]
# Projectors of three layers without output norm, with a learning rate at which the weights diverge.
EXPLODING = [
    *(f"streams.{name}.projector=mlp3x_gelu" for name in ("mae", "sign2vec")),
    *(f"streams.{name}.normalize_output=false" for name in ("mae", "sign2vec")),
    *("train.learning_rate=1e6", "train.lr_scheduler_type=constant", "train.warmup_ratio=0", "train.eval_steps=100"),
]


def read_weights(run: Path, step: str) -> dict[str, torch.Tensor]:
    return load_file(run / step / "projector.safetensors")


def read_metrics(run: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_the_preflight_does_not_change_the_run(signllava: Command, settings: list[str], tmp_path: Path) -> None:
    runs = {}
    for has_preflight in ("true", "false"):
        runs[has_preflight] = tmp_path / has_preflight
        more = [
            f"run.output_dir={runs[has_preflight]}",
            f"train.preflight={has_preflight}",
            "lora.lora_dropout=0.2",
            "init.projector=null",
        ]
        ended = signllava("finetune", "-r", "toy/tiny_finetune", *sets([*settings, *more]))
        assert ended.code == 0, ended.err
        assert ("preflight: longest batch 4 clips" in ended.out) == (has_preflight == "true")
        assert not list(runs[has_preflight].glob("preflight*"))
    for file in ("projector.safetensors", "adapter/adapter_model.safetensors", "resume/optimizer.safetensors"):
        tensors, expected = (load_file(run / "last" / file) for run in runs.values())
        assert all(torch.equal(tensors[name], expected[name]) for name in tensors)


def test_a_dry_run_prints_memory_and_hours_and_leaves_no_files(
    signllava: Command, settings: list[str], tmp_path: Path
) -> None:
    ended = signllava("pretrain", "-r", "toy/tiny_pretrain", "--dry-run", *sets(settings))
    assert ended.code == 0, ended.err
    for label in (
        "weights of the LLM",
        "peak memory of rank 0",
        "tokens per step, expected",
        "training",
        "dev losses",
        "checkpoint",
    ):
        assert label in ended.out
    assert not (tmp_path / "run").exists()


def test_a_broken_llm_is_refused_before_the_first_step(
    signllava: Command, settings: list[str], tmp_path: Path, tiny_llm: Path
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(tiny_llm, broken)
    tensors = load_file(broken / "model.safetensors")
    tensors["model.norm.weight"][0] = float("nan")
    save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
    ended = signllava("pretrain", "-r", "toy/tiny_pretrain", *sets([*settings, f"llm.path={broken}"]))
    assert ended.code == 2
    assert "the logits of LlamaForCausalLM are not finite" in ended.err


def test_a_broken_projector_is_refused_before_the_first_step(
    signllava: Command, settings: list[str], tmp_path: Path, run: Path
) -> None:
    broken = tmp_path / "broken.safetensors"
    tensors = load_file(run / "last" / "projector.safetensors")
    tensors["mae.boundary"][0, 0] = float("nan")
    with safe_open(run / "last" / "projector.safetensors", "pt") as file:
        save_file(tensors, broken, metadata=file.metadata())
    ended = signllava("pretrain", "-r", "toy/tiny_pretrain", *sets([*settings, f"init.projector={broken}"]))
    assert ended.code == 2
    assert "of the longest batch are not finite before the first step" in ended.err


def test_a_step_that_is_not_finite_stops_the_run_before_the_weights_change(
    signllava: Command, settings: list[str], tmp_path: Path, corpus: Path
) -> None:
    more = [*EXPLODING, "train.save_steps=1", "train.max_steps=40", "train.save_total_limit=50"]
    ended = signllava("pretrain", "-r", "toy/tiny_pretrain", *sets([*settings, *more]))
    assert ended.code == 2
    assert "are not finite; the weights were not updated. Clips of this step:" in ended.err
    clips = ended.err.partition("Clips of this step: ")[2].partition(". Remove")[0].split(", ")
    all_clips = {clip.id for recording in read_annotations(corpus, "train") for clip in recording.clips}
    assert len(clips) == 4
    assert set(clips) <= all_clips
    assert all(torch.isfinite(tensor).all() for tensor in read_weights(tmp_path / "run", "last").values())


def test_steps_that_are_not_finite_are_skipped_and_counted_up_to_a_limit(
    signllava: Command, settings: list[str], tmp_path: Path
) -> None:
    more = [
        *EXPLODING,
        "train.save_steps=1",
        "train.max_steps=40",
        "train.skip_nonfinite=3",
        "train.save_total_limit=50",
    ]
    ended = signllava("pretrain", "-r", "toy/tiny_pretrain", *sets([*settings, *more]))
    assert ended.code == 2
    assert "skipped, 3 of at most 3. Clips of this step: " in ended.out
    assert "raise train.skip_nonfinite (3)" in ended.err
    run = tmp_path / "run"
    steps: list[Any] = [line["step"] for line in read_metrics(run) if line.get("loss", 0) is None]
    assert len(steps) == 3
    before, after = (read_weights(run, f"step-{step:06d}") for step in (steps[0] - 1, steps[0]))
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert json.loads((run / "last" / "progress.json").read_text())["skipped_steps"] == 3


def test_a_loss_far_above_the_recent_ones_is_a_spike() -> None:
    state = TrainState()
    for step in range(1, 60):
        state.step = step
        assert not is_spike(state, 3.0 / step + 0.05 * (step % 3))
    state.step = 60
    assert is_spike(state, 2.0)
    state.step = 61
    assert not is_spike(state, 0.1)


def test_a_spike_is_reported_with_the_clips_of_its_step(
    signllava: Command, settings: list[str], tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "is_spike", lambda state, loss: state.step == 3)
    more = ["train.max_steps=4", "train.batch_size=1", "train.micro_batch_size=1"]
    ended = signllava("pretrain", "-r", "toy/tiny_pretrain", *sets([*settings, *more]))
    assert ended.code == 0, ended.err
    lines: list[Any] = [line for line in read_metrics(tmp_path / "run") if "spike" in line]
    assert [line["step"] for line in lines] == [3]
    [clip], loss = lines[0]["clips"], lines[0]["spike"]
    assert f"step 3: the loss {loss:.4f} is far above its recent mean; clips of this step: {clip}" in ended.out
    assert clip in {clip.id for recording in read_annotations(corpus, "train") for clip in recording.clips}


def test_a_dev_loss_that_is_not_finite_ends_the_run(signllava: Command, settings: list[str]) -> None:
    more = [*EXPLODING, "train.eval_steps=1", "train.max_steps=40", "train.skip_nonfinite=40"]
    ended = signllava("pretrain", "-r", "toy/tiny_pretrain", *sets([*settings, *more]))
    assert ended.code == 2
    assert "the weights have diverged. Lower train.learning_rate, or resume from an earlier checkpoint" in ended.err


def test_best_by_bleu_decodes_a_fixed_subset_and_patience_ends_the_run(
    signllava: Command, settings: list[str], tmp_path: Path
) -> None:
    """With a tiny learning rate no evaluation is better than the first: the run ends early, and does not resume."""
    more = [
        "train.metric_for_best_model=dev_bleu",
        "train.dev_clips=5",
        "train.early_stopping_patience=2",
        "train.eval_steps=1",
    ]
    more += ["train.max_steps=30", "train.learning_rate=1e-9", "generate.max_new_tokens=6"]
    ended = signllava("pretrain", "-r", "toy/tiny_pretrain", *sets([*settings, *more]))
    assert ended.code == 0, ended.err
    assert (
        "train.early_stopping_patience=2 ended the run at step 3 of 30: no evaluation since step 1 was better."
        in ended.out
    )
    assert "dev BLEU-4" in ended.out
    run = tmp_path / "run"
    assert [line["step"] for line in read_metrics(run) if "dev_bleu" in line] == [1, 2, 3]
    assert (run / "best").resolve().name == "step-000001"
    again = signllava("pretrain", "-r", "toy/tiny_pretrain", *sets([*settings, *more]))
    assert again.code == 0
    assert (run / "last").resolve().name == "step-000003"


def test_dev_bleu_is_the_bleu_of_generate(
    signllava: Command, settings: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And is computed by our decoder: transformers' generate would keep the logits of all steps in memory."""

    def refuse(*args: object) -> None:
        raise AssertionError("dev BLEU was decoded by transformers' generate")

    monkeypatch.setattr(decoding, "generate_batch", refuse)
    more = ["train.metric_for_best_model=dev_bleu", "train.max_steps=2", "generate.max_new_tokens=6"]
    ended = signllava("pretrain", "-r", "toy/tiny_pretrain", *sets([*settings, *more]))
    assert ended.code == 0, ended.err
    (bleu,) = [line["dev_bleu"] for line in read_metrics(tmp_path / "run") if "dev_bleu" in line]
    out = tmp_path / "predictions"
    ended = signllava("generate", "-c", tmp_path / "run", "--split", "dev", "--context-source", "gold", "--out", out)
    assert ended.code == 0, ended.err
    rows = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    texts = {key: [row[key] for row in rows] for key in ("hypothesis", "reference")}
    scores = METRICS["bleu"].metric().compute(predictions=texts["hypothesis"], references=texts["reference"])
    assert bleu == pytest.approx(scores["bleu4"])
    assert scores["bleu4"] > 0
    assert json.loads((out / "predictions.meta.json").read_text())["decoder"] == "KV cache"


def test_max_hours_stops_a_run_with_its_state_saved(signllava: Command, settings: list[str], tmp_path: Path) -> None:
    more = ["train.max_hours=0.000001", "train.save_steps=100"]
    ended = signllava("pretrain", "-r", "toy/tiny_pretrain", *sets([*settings, *more]))
    assert ended.code == 75, ended.err
    assert "train.max_hours=1e-06 reached" in ended.out + ended.err
    assert (tmp_path / "run" / "step-000001" / "resume").is_dir()


@pytest.mark.drill
def test_compiled_layers_train_the_same_run(signllava: Command, settings: list[str], tmp_path: Path) -> None:
    losses = []
    for compiled in ("false", "true"):
        run = tmp_path / compiled
        ended = signllava(
            "pretrain",
            "-r",
            "toy/tiny_pretrain",
            *sets([*settings, f"train.torch_compile={compiled}", f"run.output_dir={run}"]),
        )
        assert ended.code == 0, ended.err
        losses.append([line["loss"] for line in read_metrics(run) if "loss" in line])
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
