"""The experiment trackers of a run: accelerate's, each with an own run that goes on when ours is resumed."""

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
    """Check that what `track.report_to` names is installed.

    Raises:
        UserError: it is not; says how to install it.
    """
    available = {str(each) for each in get_available_trackers()}
    missing = [name for name in recipe.track.report_to if name not in available]
    if missing:
        raise UserError(
            f"track.report_to: not installed here: {', '.join(missing)}; run `pip install {' '.join(missing)}`, "
            "or take out what you do without."
        )


class Trackers:
    """The trackers of `track.report_to`, started; none but on the main process.

    A tracker that fails is left out with a warning until the run is started again: a network is no reason to lose a
    run, and metrics.jsonl has every figure. Their ids lie in `trackers.json`, so that a resumed run goes on in the
    same place; a run that starts at step 0 begins new ones.

    Args:
        folder: the run folder, with metrics.jsonl as a killed run left it: what stands there was sent, and is not
            sent a second time. (TensorBoard is told to forget what came after `step`, and gets it anew.)
        step: optimizer steps behind the run.
    """

    def __init__(self, recipe: Recipe, folder: Path, step: int) -> None:
        self._recipe, self._folder, self._step = recipe, folder, step
        self._started: dict[str, GeneralTracker] = {}
        self._ids: dict[str, str] = {}
        self._sent: dict[str, dict[str, int]] = {}
        if not (IS_MAIN_PROCESS and recipe.track.report_to):
            return
        if step and (folder / IDS).is_file():
            self._ids = read_json(folder / IDS)
        recorded = {name: max(curve) for name, curve in read_metrics(folder / METRICS).curves.items()}
        for name in dict.fromkeys(recipe.track.report_to):
            self._sent[name] = recorded if name in self._ids else {}
            with self._surviving(name):
                self._started[name] = self._start(name)
        write_json(folder / IDS, self._ids)

    def log(self, step: int, **figures: Any) -> None:
        """Send those of a step's figures that are numbers."""
        for name, tracker in list(self._started.items()):
            fresh = {
                key: value for key, value in numeric_values(figures).items() if step > self._sent[name].get(key, -1)
            }
            if not fresh:
                continue
            with self._surviving(name):
                if name == "wandb":  # drops figures of a step before its own newest one, so it gets the step as one
                    tracker.log({**fresh, "step": step})
                else:
                    tracker.log(fresh, step=step)

    def end(self) -> None:
        """Close all of them; a later start goes on with the same ids."""
        for name, tracker in list(self._started.items()):
            with self._surviving(name):
                tracker.finish()
        self._started.clear()

    def _start(self, name: str) -> GeneralTracker:
        track, run = self._recipe.track, self._folder.resolve().name
        if name == "tensorboard":
            tracker = TensorBoardTracker(TENSORBOARD, self._folder, purge_step=self._step + 1)
            tracker.start()
        elif name == "wandb":
            self._ids.setdefault(name, uuid.uuid4().hex[:8])
            tracker = WandBTracker(
                track.project,
                id=self._ids[name],
                resume="allow",
                name=run,
                dir=self._folder,
                config=self._recipe.to_dict(),
            )
            tracker.start()
            tracker.tracker.define_metric("*", step_metric="step")
        elif name == "trackio":
            self._ids.setdefault(name, f"{run}-{uuid.uuid4().hex[:8]}")  # trackio knows a run by its name
            tracker = TrackioTracker(
                track.project, name=self._ids[name], resume="allow", config=self._recipe.to_dict()
            )
            tracker.start()
        else:
            # MLflow's own patience, many minutes, is more than the other ranks have with this one
            os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
            os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
            tracker = MLflowTracker(track.project, run_id=self._ids.get(name), run_name=run)
            tracker.start()
            if name not in self._ids:  # MLflow gives the id, and takes its parameters but once
                self._ids[name] = tracker.tracker.info.run_id
                tracker.store_init_configuration(self._recipe.to_flat_dict())
        return tracker

    @contextlib.contextmanager
    def _surviving(self, name: str) -> Iterator[None]:
        """Leave the tracker out when the block fails, whatever its library raises."""
        try:
            yield
        except Exception as error:
            self._started.pop(name, None)
            warning(
                f"the tracker {name} failed and is left out; metrics.jsonl has everything: "
                f"{type(error).__name__}: {escape_unprintable(' '.join(str(error).split()))}"
            )
