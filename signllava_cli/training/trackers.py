"""Experiment trackers: accelerate's, each with a run of its own that continues when our run is resumed."""

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from accelerate.tracking import (
    GeneralTracker,
    MLflowTracker,
    TensorBoardTracker,
    TrackioTracker,
    WandBTracker,
    get_available_trackers,
)

from signllava_cli.console import IS_MAIN_PROCESS, warning
from signllava_cli.errors import UserError, escape_unprintable
from signllava_cli.files import read_json, write_json
from signllava_cli.recipe import Recipe
from signllava_cli.training.metrics_log import METRICS, numeric_values, read_metrics

IDS, TENSORBOARD = "trackers.json", "tensorboard"


def require_trackers(recipe: Recipe) -> None:
    """Check that the trackers of `track.report_to` are installed.

    Raises:
        UserError: a tracker is not installed; the message gives the pip command.
    """
    available = {str(name) for name in get_available_trackers()}
    missing = [name for name in recipe.track.report_to if name not in available]
    if missing:
        raise UserError(
            f"track.report_to: not installed: {', '.join(missing)}; run `pip install {' '.join(missing)}`, "
            "or remove the name."
        )


class Trackers:
    """The started trackers of `track.report_to`; only the main process starts any.

    A tracker that fails is disabled with a warning until the next start: a network error must not stop a run, and
    metrics.jsonl holds all metrics. The ids of the trackers' runs are in `trackers.json`, so that a resumed run
    continues them; a run that starts at step 0 starts new ones.

    Args:
        folder: the run folder, with metrics.jsonl as a killed run left it: its metrics were sent already, and are not
            sent again. (TensorBoard instead purges steps after `step`, and gets them again.)
        step: the optimizer steps already taken.
    """

    def __init__(self, recipe: Recipe, folder: Path, step: int) -> None:
        self._recipe, self._folder, self._step = recipe, folder, step
        self._started: dict[str, GeneralTracker] = {}
        self._ids: dict[str, str] = {}
        self._last_sent: dict[str, dict[str, int]] = {}  # tracker -> metric -> last step sent before this start
        if not (IS_MAIN_PROCESS and recipe.track.report_to):
            return
        if step and (folder / IDS).is_file():
            self._ids = read_json(folder / IDS)
        last_steps = {metric: max(curve) for metric, curve in read_metrics(folder / METRICS).curves.items()}
        for name in dict.fromkeys(recipe.track.report_to):
            self._last_sent[name] = last_steps if name in self._ids else {}
            with self._disable_on_error(name):
                self._started[name] = self._start(name)
        write_json(folder / IDS, self._ids)

    def log(self, step: int, **metrics: Any) -> None:
        """Send the numbers among the metrics of a step."""
        for name, tracker in list(self._started.items()):
            last_sent = self._last_sent[name]
            new_values = {
                key: value for key, value in numeric_values(metrics).items() if step > last_sent.get(key, -1)
            }
            if not new_values:
                continue
            with self._disable_on_error(name):
                if name == "wandb":  # ignores steps before its newest one, so the step is sent as a metric
                    tracker.log({**new_values, "step": step})
                else:
                    tracker.log(new_values, step=step)

    def end(self) -> None:
        """End all trackers; a later start continues with the same ids."""
        for name, tracker in list(self._started.items()):
            with self._disable_on_error(name):
                tracker.finish()
        self._started.clear()

    def _start(self, name: str) -> GeneralTracker:
        config, run_name = self._recipe.track, self._folder.resolve().name
        if name == "tensorboard":
            tracker = TensorBoardTracker(TENSORBOARD, self._folder, purge_step=self._step + 1)
            tracker.start()
        elif name == "wandb":
            self._ids.setdefault(name, uuid.uuid4().hex[:8])
            tracker = WandBTracker(
                config.project,
                id=self._ids[name],
                resume="allow",
                name=run_name,
                dir=self._folder,
                config=self._recipe.to_dict(),
            )
            tracker.start()
            tracker.tracker.define_metric("*", step_metric="step")
        elif name == "trackio":
            self._ids.setdefault(name, f"{run_name}-{uuid.uuid4().hex[:8]}")  # trackio identifies a run by its name
            tracker = TrackioTracker(
                config.project, name=self._ids[name], resume="allow", config=self._recipe.to_dict()
            )
            tracker.start()
        else:
            # MLflow's default of many minutes is longer than the other ranks wait for this one
            os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
            os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
            tracker = MLflowTracker(config.project, run_id=self._ids.get(name), run_name=run_name)
            tracker.start()
            if name not in self._ids:  # MLflow assigns the id, and accepts parameters only once
                self._ids[name] = tracker.tracker.info.run_id
                tracker.store_init_configuration(self._recipe.to_flat_dict())
        return tracker

    @contextlib.contextmanager
    def _disable_on_error(self, name: str) -> Iterator[None]:
        """Disable the tracker when the block raises; its library may raise anything."""
        try:
            yield
        except Exception as error:
            self._started.pop(name, None)
            warning(
                f"the tracker {name} failed and is disabled until the next start; metrics.jsonl holds all metrics: "
                f"{type(error).__name__}: {escape_unprintable(' '.join(str(error).split()))}"
            )
