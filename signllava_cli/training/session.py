"""The objects of a running training session, and what the loop does with them at each step."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from accelerate import Accelerator

from signllava_cli.console import IS_MAIN_PROCESS, info, print_line, warning
from signllava_cli.data.batches import Batch, Collate
from signllava_cli.data.labeled_clips import LabeledClips
from signllava_cli.data.training_set import TrainingSet, training_steps
from signllava_cli.errors import RunStopped, UserError, format_count, summarize_names
from signllava_cli.generation.trial import NUM_TOKENS
from signllava_cli.model.checkpoint import CheckpointConfig, library_versions
from signllava_cli.model.loading import ModelBundle
from signllava_cli.recipe import Recipe, Stage
from signllava_cli.training.dev_scores import ShouldStop, dev_bleu, dev_loss
from signllava_cli.training.engine import Engine
from signllava_cli.training.loss_spikes import is_spike
from signllava_cli.training.run_folder import RunFolder
from signllava_cli.training.snapshot import Snapshot
from signllava_cli.training.step import StepResult, with_wait_seconds
from signllava_cli.training.train_state import TrainState


@dataclass
class Session:
    """Everything that the training loop uses.

    `num_steps`: optimizer steps of the whole run. `data_fingerprint`: of the training split and the hypotheses that
    training shows as context.
    """

    recipe: Recipe
    stage: Stage
    accelerator: Accelerator
    run_folder: RunFolder
    bundle: ModelBundle
    training_set: TrainingSet
    dev_set: LabeledClips
    collate: Collate
    optimizer: torch.optim.AdamW
    engine: Engine
    state: TrainState
    num_steps: int
    data_fingerprint: str

    @property
    def num_processes(self) -> int:
        """The number of processes (ranks)."""
        return self.accelerator.num_processes

    @property
    def is_finished(self) -> bool:
        """Whether all steps were taken, or `train.early_stopping_patience` ended the run before."""
        patience = self.recipe.train.early_stopping_patience
        has_stopped_early = patience is not None and self.state.stale_evaluations >= patience
        return has_stopped_early or self.state.step >= self.num_steps

    def batches(self, last_step: int | None = None) -> Iterator[tuple[list[Batch], float]]:
        """The micro-batches of this rank and the wait in seconds, for each step up to `last_step` or the end."""
        first, last = self.state.step, self.num_steps if last_step is None else last_step
        rank = self.accelerator.process_index
        return with_wait_seconds(
            training_steps(self.recipe, self.training_set, first, last, self.collate, rank, self.num_processes)
        )

    def update_state(self, result: StepResult) -> None:
        """Count a finished step in the train state, and check that its loss is finite and not a spike.

        Raises:
            UserError: loss or gradients are not finite (the weights were not updated), and `train.skip_nonfinite`
                does not allow another such step; the message names the clips.
        """
        state = self.state
        state.step += 1
        state.clips += self.recipe.train.batch_size
        state.targets += result.num_targets
        state.tokens += result.num_tokens
        state.padding += result.num_padding
        state.truncated_frames += result.truncation.frames
        state.truncated_sentences += result.truncation.sentences
        state.seconds += result.seconds
        state.data_wait_seconds += result.data_wait_seconds
        state.num_processes = self.num_processes
        if not result.is_finite:
            self._skip_step(result)
        elif is_spike(state, result.loss):
            clips = self._step_clips()
            warning(
                f"step {state.step}: the loss {result.loss:.4f} is far above its recent mean; clips of this step: "
                f"{summarize_names(clips)}"
            )
            self.run_folder.log_metrics(step=state.step, spike=result.loss, clips=clips)

    def _step_clips(self) -> list[str]:
        """The ids of the clips of the last step, over all ranks."""
        end, batch_size = self.state.clips, self.recipe.train.batch_size
        return [self.training_set.clip(position).id for position in range(end - batch_size, end)]

    def _skip_step(self, result: StepResult) -> None:
        state, max_skipped, clips = self.state, self.recipe.train.skip_nonfinite, ", ".join(self._step_clips())
        problem = f"step {state.step}: loss {result.loss} and gradient norm {result.gradient_norm} are not finite"
        if state.skipped_steps >= max_skipped:
            raise UserError(
                f"{problem}; the weights were not updated. Clips of this step: {clips}. Remove bad clips, lower "
                f"train.learning_rate, or raise train.skip_nonfinite ({max_skipped}) to skip more such steps."
            )
        state.skipped_steps += 1
        warning(f"{problem}; skipped, {state.skipped_steps} of at most {max_skipped}. Clips of this step: {clips}")

    def log_step(self, result: StepResult, rates: dict[str, float]) -> None:
        """Add a finished step to metrics.jsonl."""
        self.run_folder.log_metrics(
            step=self.state.step,
            loss=result.loss if result.is_finite else None,
            gradient_norm=result.gradient_norm if result.is_finite else None,
            **rates,
            targets=result.num_targets,
            padding=round(result.num_padding / (result.num_tokens + result.num_padding), 4),
            tokens_per_second=round(result.num_tokens / result.seconds, 1),
            data_wait_seconds=round(result.data_wait_seconds, 4),
        )

    def save(self) -> None:
        """Write a checkpoint of the current step, in the background and on the main process."""
        snapshot = self.snapshot()
        if snapshot is not None:
            self.run_folder.save(snapshot, self.state, self.checkpoint_config(), self.recipe)

    def finish_save(self) -> None:
        """Wait on all ranks until the last save is complete: the first rank that exits ends the others."""
        self.run_folder.check_save(is_end_awaited=True)
        self.accelerator.wait_for_everyone()

    def snapshot(self) -> Snapshot | None:
        """A copy of the trained weights and the optimizer state, gathered from all ranks; None on the other ranks."""
        if not IS_MAIN_PROCESS and not self.engine.is_partitioned:
            return None
        weights, optimizer_state = self.engine.weights(), self.engine.optimizer_state()
        return Snapshot(self.bundle.model, weights, optimizer_state) if IS_MAIN_PROCESS else None

    def checkpoint_config(self) -> CheckpointConfig:
        """The config.json of a checkpoint of the current step."""
        return CheckpointConfig(
            stage=self.stage,
            step=self.state.step,
            llm=self.bundle.llm_identity,
            turns=self.bundle.prompts.turns,
            data=self.data_fingerprint,
            versions=library_versions(),
            layouts=self.training_set.split.layouts,
        )

    def stop_error(self) -> RunStopped:
        """The exception to raise when the run ends early with its state saved."""
        return RunStopped(
            f"{self.stage} stopped after step {self.state.step} of {self.num_steps}; its state is saved in "
            f"{self.run_folder.path}. Run the same command again to resume."
        )

    def dev_loss(self, should_stop: ShouldStop, num_batches: int | None = None) -> float | None:
        """The dev loss of the current weights; see `dev_scores.dev_loss`."""
        return dev_loss(
            self.bundle, self.dev_set, self.recipe, self.accelerator, self.collate, should_stop, num_batches
        )

    def dev_bleu(self, should_stop: ShouldStop) -> float | None:
        """The BLEU of the dev split with the current weights; see `dev_scores.dev_bleu`."""
        return dev_bleu(self.bundle, self.dev_set, self.recipe, self.accelerator, should_stop)

    def try_dev_decoding(self) -> None:
        """Decode some tokens of the longest batch of the dev split, if BLEU is computed on it."""
        if self.recipe.train.metric_for_best_model == "dev_bleu":
            short = replace(self.recipe.generate, max_new_tokens=NUM_TOKENS, min_new_tokens=0)
            recipe = replace(self.recipe, generate=short)
            dev_bleu(self.bundle, self.dev_set, recipe, self.accelerator, lambda: False, num_batches=1)

    def evaluate(self, should_stop: ShouldStop) -> None:
        """Score the dev split, log the scores and update the link `best`.

        When `should_stop` returns true before the end, nothing is logged and `state.eval_pending` stays true.

        Raises:
            UserError: the dev loss is not finite.
        """
        has_bleu, state = self.recipe.train.metric_for_best_model == "dev_bleu", self.state
        loss = self.dev_loss(should_stop)
        bleu = None
        if loss is not None and has_bleu:
            bleu = self.dev_bleu(should_stop)
        if loss is None or (has_bleu and bleu is None):
            return
        state.eval_pending = False
        if not math.isfinite(loss):
            raise UserError(
                f"The dev loss at step {state.step} is {loss}: the weights have diverged. Lower train.learning_rate, "
                f"or resume from an earlier checkpoint in {self.run_folder.path}."
            )
        score = loss if bleu is None else bleu
        is_best = state.best_score is None or (score < state.best_score if bleu is None else score > state.best_score)
        if is_best:
            state.best_score, state.best_step, state.stale_evaluations = score, state.step, 0
        else:
            state.stale_evaluations += 1
        bleu_metric = {} if bleu is None else {"dev_bleu": bleu}
        # before the state is written: a kill in between repeats the evaluation, and a resume removes this line
        self.run_folder.log_metrics(step=state.step, dev_loss=loss, **bleu_metric, best=is_best)
        if IS_MAIN_PROCESS:
            self.run_folder.update_best_link(state)
        scores = f"dev loss {loss:.4f}" + ("" if bleu is None else f", dev BLEU-4 {bleu:.2f}")
        info(f"step {state.step}: {scores}" + (", the best so far" if is_best else ""))

    def print_summary(self) -> None:
        """Print the summary of a finished run."""
        state, config = self.state, self.recipe.train
        if state.step < self.num_steps:
            info(
                f"train.early_stopping_patience={config.early_stopping_patience} ended the run at step {state.step} "
                f"of {self.num_steps}: no evaluation since step {state.best_step} was better."
            )
        info(
            f"{self.stage} finished after {format_count(state.step, 'step')} and {state.seconds:.0f} s of steps, "
            f"{state.data_wait_seconds:.0f} s of them waiting for data."
        )
        if state.truncated_frames or state.truncated_sentences:
            info(
                f"truncated to data.max_seq_len: {format_count(state.truncated_frames, 'frame')} and "
                f"{format_count(state.truncated_sentences, 'context sentence')} removed."
            )
        if state.skipped_steps:
            count = format_count(state.skipped_steps, "step was", "steps were")
            warning(f"{count} skipped because loss or gradients were not finite.")
        has_bleu = config.metric_for_best_model == "dev_bleu"
        score = f"BLEU-4 {state.best_score:.2f}" if has_bleu else f"loss {state.best_score:.4f}"
        print_line(f"best dev {score} at step {state.best_step}: {self.run_folder.path / 'best'}")
