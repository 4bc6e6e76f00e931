"""Trackers continue with the same id after a resume, hold each step once, and never stop a run."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from accelerate import Accelerator
from accelerate.tracking import get_available_trackers
from conftest import Ended, sets
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from signllava_cli.errors import UserError
from signllava_cli.recipe import Recipe, build_recipe
from signllava_cli.training.trackers import Trackers, require_trackers

Command = Callable[..., Ended]
NAMES = {"tensorboard", "wandb", "mlflow", "trackio"}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder."""
    Accelerator(cpu=True)  # accelerate's trackers read the rank from its state
    folder = tmp_path / "run"
    folder.mkdir()
    return folder


def tracked_by(*names: str) -> Recipe:
    return build_recipe({"track": {"report_to": list(names)}})


def train(recipe: Recipe, run: Path, first: int, last: int, loss: float) -> Trackers:
    """Log the steps from `first` to `last` as the training loop does, with an evaluation every fifth step."""
    file = run / "metrics.jsonl"
    trackers = Trackers(recipe, run, first - 1)
    old_lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    lines = [line for line in old_lines if line["step"] < first]
    for step in range(first, last + 1):
        metrics_of_step: list[dict[str, object]] = [{"loss": loss + step, "clips": ["a"]}]
        if step % 5 == 0:
            metrics_of_step.append({"dev_loss": loss - step, "best": True})
        for metrics in metrics_of_step:
            trackers.log(step, **metrics)
            lines.append({"step": step, **metrics})
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return trackers


def scalars(run: Path) -> dict[str, dict[int, float]]:
    """The scalars in the TensorBoard files of a run: metric -> step -> value; no step may be there twice."""
    events = EventAccumulator(str(run / "tensorboard")).Reload()
    values = {}
    for name in events.Tags()["scalars"]:
        steps = [event.step for event in events.Scalars(name)]
        assert len(set(steps)) == len(steps), name
        values[name] = {event.step: event.value for event in events.Scalars(name)}
    return values


def test_tensorboard_holds_each_step_once_after_a_kill(run: Path) -> None:
    recipe = tracked_by("tensorboard")
    train(recipe, run, 1, 12, loss=100)  # killed: the trackers are not ended
    train(recipe, run, 8, 15, loss=200).end()
    assert scalars(run) == {
        "loss": {step: (100 if step < 8 else 200) + step for step in range(1, 16)},
        "dev_loss": {5: 95, 10: 190, 15: 185},
    }


def test_a_run_that_starts_at_step_0_shows_nothing_of_the_previous_run(run: Path) -> None:
    recipe = tracked_by("tensorboard")
    train(recipe, run, 1, 4, loss=100)
    train(recipe, run, 1, 2, loss=200).end()
    assert scalars(run) == {"loss": {1: 201, 2: 202}}


def test_a_tracker_that_cannot_start_is_disabled(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "tensorboard").write_text("a file, not a folder")
    train(tracked_by("tensorboard"), run, 1, 3, loss=1).end()
    assert capsys.readouterr().out.count("warning: the tracker tensorboard failed and is disabled") == 1


def test_a_tracker_that_fails_later_is_disabled(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trackers = train(tracked_by("tensorboard"), run, 1, 2, loss=1)
    for step in (3, 4):
        trackers.log(step, **{"half a \ud800": 1.0})  # not a valid string of a protocol buffer
    trackers.end()
    assert capsys.readouterr().out.count("warning: the tracker tensorboard failed and is disabled") == 1
    assert scalars(run) == {"loss": {1: 2, 2: 3}}


def test_a_tracker_that_is_not_installed_is_an_error_with_its_fix() -> None:
    missing = sorted(NAMES - {str(name) for name in get_available_trackers()})
    if not missing:
        pytest.skip("all trackers are installed")
    with pytest.raises(UserError, match=rf"track\.report_to: .* {missing[0]}; run `pip install {missing[0]}`"):
        require_trackers(tracked_by("tensorboard", missing[0]))


def test_mlflow_run_survives_resume(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file://{run.parent / 'mlruns'}")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    recipe = tracked_by("mlflow")
    train(recipe, run, 1, 12, loss=100).end()
    ids = (run / "trackers.json").read_text()
    train(recipe, run, 8, 15, loss=100).end()
    assert (run / "trackers.json").read_text() == ids
    client = mlflow.MlflowClient()
    for name, steps in (("loss", range(1, 16)), ("dev_loss", (5, 10, 15))):
        history = client.get_metric_history(json.loads(ids)["mlflow"], name)
        assert [point.step for point in history] == list(steps)
    assert client.get_run(json.loads(ids)["mlflow"]).data.params["train.learning_rate"] == "0.002"


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_run_name_survives_resume(run: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    pytest.importorskip(name)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("TRACKIO_DIR", str(run.parent / "trackio"))
    train(tracked_by(name), run, 1, 12, loss=100).end()
    first = json.loads((run / "trackers.json").read_text())[name]
    train(tracked_by(name), run, 8, 15, loss=100).end()
    assert json.loads((run / "trackers.json").read_text())[name] == first
    if name == "wandb":
        assert len(list((run / "wandb").glob(f"offline-run-*-{first}"))) == 2
    train(tracked_by(name), run, 1, 2, loss=100).end()
    assert json.loads((run / "trackers.json").read_text())[name] != first


def test_a_resumed_run_is_complete_in_tensorboard(signllava: Command, settings: list[str], tmp_path: Path) -> None:
    command = ["pretrain", "--recipe", "toy/tiny_pretrain", *sets([*settings, "track.report_to=[tensorboard]"])]
    assert signllava(*command, "--set", "train.stop_at_step=3").code == 75
    ended = signllava(*command)
    assert ended.code == 0, ended.err
    recorded: dict[str, dict[int, float]] = {}
    for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines():
        metrics = json.loads(line)
        step = metrics.pop("step")
        for name, value in metrics.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                recorded.setdefault(name, {})[step] = pytest.approx(value, rel=1e-6)
    assert set(recorded["loss"]) == {1, 2, 3, 4, 5, 6}
    assert scalars(tmp_path / "run") == recorded
