"""Everything a run holds between its first and its last step."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from accelerate import Accelerator

from signllava_cli.console import IS_MAIN_PROCESS, info, warning
from signllava_cli.data.batches import Batch, Collate
from signllava_cli.data.labeled_clips import LabeledClips
from signllava_cli.data.training_set import TrainingSet, training_steps
from signllava_cli.errors import RunStopped, UserError, summarize_names
from signllava_cli.model.checkpoint import CheckpointConfig, library_versions
from signllava_cli.model.loading import ModelBundle
from signllava_cli.recipe import Recipe, Stage
from signllava_cli.training.dev_scores import ShouldStop, dev_bleu, dev_loss
from signllava_cli.training.engine import Engine
from signllava_cli.training.loss_spikes import is_spike
from signllava_cli.training.run_folder import RunFolder
from signllava_cli.training.snapshot import Snapshot
from signllava_cli.training.step import StepResult, timed
from signllava_cli.training.train_state import TrainState


@dataclass
class Session:
    """`steps` is the length of the run; `progress` says where it stands; `data` is the training data's hash."""

    recipe: Recipe
    stage: Stage
    accelerator: Accelerator
    run: RunFolder
    bundle: ModelBundle
    examples: TrainingSet
    dev: LabeledClips
    collate: Collate
    optimizer: torch.optim.AdamW
    engine: Engine
    progress: TrainState
    steps: int
    data: str

    @property
    def ranks(self) -> int:
        """The number of processes."""
        return self.accelerator.num_processes

    @property
    def is_finished(self) -> bool:
        """Whether every step was taken, or `train.early_stopping_patience` ended the run before."""
        patience = self.recipe.train.early_stopping_patience
        has_run_dry = patience is not None and self.progress.stale_evaluations >= patience
        return has_run_dry or self.progress.step >= self.steps

    def batches(self, last: int | None = None) -> Iterator[tuple[list[Batch], float]]:
        """For each step from here to `last` (else the end), the micro-batches of this rank and the seconds waited."""
        first, last = self.progress.step, self.steps if last is None else last
        rank = self.accelerator.process_index
        return timed(training_steps(self.recipe, self.examples, first, last, self.collate, rank, self.ranks))

    def count(self, result: StepResult) -> None:
        """Add a finished step to the progress, and watch over its loss.

        Raises:
            UserError: loss or gradients were not finite; the weights were not touched, and the clips are named.
        """
        state = self.progress
        state.step += 1
        state.clips += self.recipe.train.batch_size
        state.targets += result.targets
        state.positions += result.positions
        state.padding += result.padding
        state.truncated_frames += result.truncation.frames
        state.truncated_sentences += result.truncation.sentences
        state.seconds += result.seconds
        state.data_wait_seconds += result.data_wait_seconds
        state.ranks = self.ranks
        if not result.is_finite:
            self._leave_out(result)
        elif is_spike(state, result.loss):
            clips = self._clips_of_step()
            warning(f"step {state.step}: the loss leapt to {result.loss:.4f}; its clips: {summarize_names(clips)}")
            self.run.record(step=state.step, spike=result.loss, clips=clips)

    def _clips_of_step(self) -> list[str]:
        """The ids of all clips of the step just taken, over all ranks."""
        last, size = self.progress.clips, self.recipe.train.batch_size
        return [self.examples.clip(position).id for position in range(last - size, last)]

    def _leave_out(self, result: StepResult) -> None:
        state, allowed, clips = self.progress, self.recipe.train.skip_nonfinite, self._clips_of_step()
        what = f"step {state.step}: loss {result.loss} and gradient norm {result.gradient_norm} are not finite"
        if state.skipped_steps >= allowed:
            raise UserError(
                f"{what}; the weights were not touched. Clips of this step: {', '.join(clips)}. Take them out, lower "
                f"train.learning_rate, or let train.skip_nonfinite leave out more than {allowed} such steps."
            )
        state.skipped_steps += 1
        warning(f"{what}; left out, {state.skipped_steps} of at most {allowed}. Its clips: {', '.join(clips)}")

    def record(self, result: StepResult, rates: dict[str, float]) -> None:
        """Add a finished step to metrics.jsonl."""
        self.run.record(
            step=self.progress.step,
            loss=result.loss if result.is_finite else None,
            gradient_norm=result.gradient_norm if result.is_finite else None,
            **rates,
            targets=result.targets,
            padding=round(result.padding / (result.positions + result.padding), 4),
            tokens_per_second=round(result.positions / result.seconds, 1),
            data_wait_seconds=round(result.data_wait_seconds, 4),
        )

    def save(self) -> None:
        """Write a checkpoint of this moment."""
        snapshot = self.snapshot()
        if IS_MAIN_PROCESS:
            self.run.save(snapshot, self.progress, self.checkpoint_config(), self.recipe)
        self.accelerator.wait_for_everyone()

    def snapshot(self) -> Snapshot:
        """What was trained so far, gathered from all ranks."""
        return Snapshot(self.bundle.model, self.engine.weights(), self.engine.optimizer_state())

    def checkpoint_config(self) -> CheckpointConfig:
        """What a checkpoint of this moment says of itself."""
        return CheckpointConfig(
            stage=self.stage,
            step=self.progress.step,
            llm=self.bundle.llm_identity,
            turns=self.bundle.prompts.turns,
            data=self.data,
            versions=library_versions(),
            layouts=self.examples.split.layouts,
        )

    def stopped(self) -> RunStopped:
        """What to raise when the run ends early."""
        return RunStopped(
            f"{self.stage} stopped after step {self.progress.step} of {self.steps}; its state is saved in "
            f"{self.run.path}. Run the same command again to go on."
        )

    def dev_loss(self, should_stop: ShouldStop, batches: int | None = None) -> float | None:
        """`dev.dev_loss` of this moment."""
        return dev_loss(self.bundle, self.dev, self.recipe, self.accelerator, self.collate, should_stop, batches)

    def print_end(self) -> None:
        """Say how the finished run went."""
        state = self.progress
        if state.step < self.steps:
            info(
                f"train.early_stopping_patience={self.recipe.train.early_stopping_patience} ended the run at step {state.step} of {self.steps}: "
                f"no evaluation since step {state.best_step} was better."
            )
        info(
            f"{self.stage} is at its end after {state.step} steps and {state.seconds:.0f} s of steps, "
            f"{state.data_wait_seconds:.0f} s of them waiting for data."
        )
        if state.truncated_frames or state.truncated_sentences:
            info(
                f"data.max_seq_len cut {state.truncated_frames} frames and {state.truncated_sentences} context sentences."
            )
        if state.skipped_steps:
            warning(f"{state.skipped_steps} steps were left out because their loss or gradients were not finite.")
        best = (
            f"loss {state.best_score:.4f}"
            if self.recipe.train.metric_for_best_model == "dev_loss"
            else f"BLEU-4 {state.best_score:.2f}"
        )
        info(f"best dev {best} at step {state.best_step}: {self.run.path / 'best'}")

    def evaluate(self, should_stop: ShouldStop) -> None:
        """Score the dev split and point `best` where it belongs; left due when a stop came in between.

        Raises:
            UserError: the dev loss is not finite.
        """
        by_bleu, state = self.recipe.train.metric_for_best_model == "dev_bleu", self.progress
        loss = self.dev_loss(should_stop)
        bleu = None
        if loss is not None and by_bleu:
            bleu = dev_bleu(self.bundle, self.dev, self.recipe, self.accelerator, should_stop)
        if loss is None or (by_bleu and bleu is None):
            return
        state.eval_pending = False
        if not math.isfinite(loss):
            raise UserError(
                f"The dev loss at step {state.step} is {loss}: the weights have left all bounds. "
                f"Lower train.learning_rate, or go on from an earlier checkpoint in {self.run.path}."
            )
        score = loss if bleu is None else bleu
        is_best = state.best_score is None or (score < state.best_score if bleu is None else score > state.best_score)
        if is_best:
            state.best_score, state.best_step, state.stale_evaluations = score, state.step, 0
        else:
            state.stale_evaluations += 1
        if IS_MAIN_PROCESS:
            self.run.update_best_link(state)
        self.run.record(step=state.step, dev_loss=loss, **({} if bleu is None else {"dev_bleu": bleu}), best=is_best)
        scores = f"dev loss {loss:.4f}" + ("" if bleu is None else f", dev BLEU-4 {bleu:.2f}")
        info(f"step {state.step}: {scores}" + (", the best so far" if is_best else ""))
