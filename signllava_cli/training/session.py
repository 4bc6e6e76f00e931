"""Everything a run holds between its first and its last step, opened from a recipe or from a checkpoint."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from accelerate import Accelerator

from signllava_cli.console import IS_MAIN_PROCESS, say, show_table, warn
from signllava_cli.data.batches import Batch, Collate, training_batches
from signllava_cli.data.examples import ExampleBuilder
from signllava_cli.data.labelled import LabelledClips
from signllava_cli.data.split import Split
from signllava_cli.data.training_set import TrainingSet, training_steps
from signllava_cli.errors import Stopped, UserError, first_names
from signllava_cli.generation.context_source import prepared_sentences, sentences_hash
from signllava_cli.model.assembly import Assembled, assemble
from signllava_cli.model.checkpoint import PROGRESS, CheckpointConfig, library_versions, load_weights, read_config
from signllava_cli.model.llm import compile_layers, require_same_llm
from signllava_cli.model.sharding import whole_size
from signllava_cli.recipe import Recipe, Stage
from signllava_cli.training.dev import ShouldStop, dev_bleu, dev_loss
from signllava_cli.training.engine import Engine, open_engine
from signllava_cli.training.launcher import launched_as
from signllava_cli.training.optimiser import make_optimiser, read_moments
from signllava_cli.training.progress import Progress
from signllava_cli.training.run_folder import RunFolder
from signllava_cli.training.snapshot import OPTIMISER, RESUME, Snapshot
from signllava_cli.training.spikes import is_spike
from signllava_cli.training.step import StepResult


@dataclass
class Session:
    """`steps` is the length of the run; `progress` says where it stands; `data` is the training data's hash."""

    recipe: Recipe
    stage: Stage
    accelerator: Accelerator
    run: RunFolder
    assembled: Assembled
    examples: TrainingSet
    dev: LabelledClips
    collate: Collate
    optimiser: torch.optim.AdamW
    engine: Engine
    progress: Progress
    steps: int
    data: str

    @property
    def ranks(self) -> int:
        """The number of processes."""
        return self.accelerator.num_processes

    @property
    def is_over(self) -> bool:
        """Whether every step was taken, or `train.patience` ended the run before."""
        patience = self.recipe.train.patience
        has_run_dry = patience is not None and self.progress.stale_evaluations >= patience
        return has_run_dry or self.progress.step >= self.steps

    def batches(self, last: int | None = None) -> Iterator[list[Batch]]:
        """For each step from here to `last` (else the end), the micro-batches of this rank."""
        first, last = self.progress.step, self.steps if last is None else last
        rank = self.accelerator.process_index
        return training_steps(self.recipe, self.examples, first, last, self.collate, rank, self.ranks)

    def count(self, result: StepResult) -> None:
        """Add a finished step to the progress, and watch over its loss.

        Raises:
            UserError: loss or gradients were not finite; the weights were not touched, and the clips are named.
        """
        state = self.progress
        clips = [self.examples.clip(state.clips + place).id for place in range(self.recipe.train.batch_size)]
        state.step += 1
        state.clips += self.recipe.train.batch_size
        state.targets += result.targets
        state.positions += result.positions
        state.padding += result.padding
        state.cut_frames += result.cuts.frames
        state.cut_sentences += result.cuts.sentences
        state.seconds += result.seconds
        state.ranks = self.ranks
        if not result.is_finite:
            self._leave_out(result, clips)
        elif is_spike(state, result.loss):
            warn(f"step {state.step}: the loss leapt to {result.loss:.4f}; its clips: {first_names(clips)}")
            self.run.record(step=state.step, spike=result.loss, clips=clips)

    def _leave_out(self, result: StepResult, clips: list[str]) -> None:
        state, allowed = self.progress, self.recipe.train.skip_nonfinite
        what = f"step {state.step}: loss {result.loss} and gradient norm {result.gradient_norm} are not finite"
        if state.skipped_steps >= allowed:
            raise UserError(
                f"{what}; the weights were not touched. Clips of this step: {', '.join(clips)}. Take them out, lower "
                f"train.learning_rate, or let train.skip_nonfinite leave out more than {allowed} such steps."
            )
        state.skipped_steps += 1
        warn(f"{what}; left out, {state.skipped_steps} of at most {allowed}. Its clips: {', '.join(clips)}")

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
        )

    def save(self) -> None:
        """Write a checkpoint of this moment."""
        snapshot = self.snapshot()
        if IS_MAIN_PROCESS:
            self.run.save(snapshot, self.progress, self.checkpoint_config(), self.recipe)
        self.accelerator.wait_for_everyone()

    def snapshot(self) -> Snapshot:
        """What was trained so far, gathered from all ranks."""
        return Snapshot(self.assembled.model, self.engine.weights(), self.engine.moments())

    def checkpoint_config(self) -> CheckpointConfig:
        """What a checkpoint of this moment says of itself."""
        return CheckpointConfig(
            stage=self.stage,
            step=self.progress.step,
            llm=self.assembled.llm,
            turns=self.assembled.prompts.turns,
            data=self.data,
            versions=library_versions(),
        )

    def stopped(self) -> Stopped:
        """What to raise when the run ends early."""
        return Stopped(
            f"{self.stage} stopped after step {self.progress.step} of {self.steps}; its state is saved in "
            f"{self.run.path}. Run the same command again to go on."
        )

    def dev_loss(self, should_stop: ShouldStop, batches: int | None = None) -> float | None:
        """`dev.dev_loss` of this moment."""
        return dev_loss(self.assembled, self.dev, self.recipe, self.accelerator, self.collate, should_stop, batches)

    def say_end(self) -> None:
        """Say how the finished run went."""
        state = self.progress
        if state.step < self.steps:
            say(f"{state.stale_evaluations} evaluations were no better than that of step {state.best_step}: enough.")
        say(f"{self.stage} is at its end after {state.step} steps and {state.seconds:.0f} s of steps.")
        if state.cut_frames or state.cut_sentences:
            say(f"data.max_positions cut {state.cut_frames} frames and {state.cut_sentences} context sentences.")
        if state.skipped_steps:
            warn(f"{state.skipped_steps} steps were left out because their loss or gradients were not finite.")
        what = self.recipe.train.best.replace("_", " ")
        say(f"best {what} {state.best_score:.4f} at step {state.best_step}: {self.run.path / 'best'}")

    def evaluate(self, should_stop: ShouldStop) -> None:
        """Score the dev split and point `best` where it belongs; left due when a stop came in between.

        Raises:
            UserError: the dev loss is not finite.
        """
        by_bleu, state = self.recipe.train.best == "dev_bleu", self.progress
        loss = self.dev_loss(should_stop)
        bleu = None
        if loss is not None and by_bleu:
            bleu = dev_bleu(self.assembled, self.dev, self.recipe, self.accelerator, should_stop)
        if loss is None or (by_bleu and bleu is None):
            return
        state.evaluation_due = False
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
            self.run.point_best(state)
        self.run.record(step=state.step, dev_loss=loss, **({} if bleu is None else {"dev_bleu": bleu}), best=is_best)
        scores = f"dev loss {loss:.4f}" + ("" if bleu is None else f", dev BLEU-4 {bleu:.2f}")
        say(f"step {state.step}: {scores}" + (", the best so far" if is_best else ""))


def open_session(recipe: Recipe, stage: Stage, accelerator: Accelerator, run: RunFolder, resume: str) -> Session:
    """Open data and model, and restore what the checkpoint to resume holds.

    Raises:
        UserError: anything that recipe, data, LLM or checkpoint lack, or where they contradict each other.
    """
    checkpoint = run.checkpoint_to_resume(resume)
    if checkpoint is not None:
        run.require_same_recipe(checkpoint, recipe)
    with accelerator.main_process_first():  # an index that is not there yet is made once
        train_split, dev_split = Split(recipe, recipe.data.train), Split(recipe, recipe.data.dev)
    config = None if checkpoint is None else read_config(checkpoint)
    assembled = assemble(recipe, accelerator.device, config)
    model = assembled.model
    builder = ExampleBuilder(recipe, assembled.prompts)
    hypotheses, fingerprint = _predicted_context(recipe, train_split)
    examples = TrainingSet(recipe, train_split, builder, hypotheses)
    progress, moments = Progress(), {}
    if checkpoint is not None and config is not None:
        require_same_llm(config.llm, assembled.llm, checkpoint)
        if config.data != fingerprint:
            raise UserError(
                f"{checkpoint} was trained on other data than split {train_split.name} of {train_split.root} (or "
                "context.source) now holds; bring the data back, or name another run.folder to start anew."
            )
        load_weights(model, checkpoint, with_adapter=recipe.lora.enabled)
        moments = read_moments(checkpoint / RESUME / OPTIMISER, model.trained_parameters())
        progress = Progress.read(checkpoint / PROGRESS)
    if recipe.train.gradient_checkpointing:
        model.llm.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if recipe.train.compile:
        compile_layers(model.llm)
    model.train()  # the frozen LLM too: in eval mode its gradient checkpointing would be off
    optimiser = make_optimiser(model, recipe)
    engine = open_engine(accelerator, model, optimiser, recipe.train.max_grad_norm)
    engine.set_moments(moments)
    has_prefix = recipe.train.reuse_prefix and model.reuse_prefix(assembled.prompts.before_streams)
    session = Session(
        recipe=recipe,
        stage=stage,
        accelerator=accelerator,
        run=run,
        assembled=assembled,
        examples=examples,
        dev=LabelledClips(recipe, dev_split, builder, recipe.tasks.dev),
        collate=training_batches(recipe, assembled.pad_id, has_prefix),
        optimiser=optimiser,
        engine=engine,
        progress=progress,
        steps=total_steps(recipe, len(train_split.clips)),
        data=fingerprint,
    )
    _describe(session, has_prefix)
    if checkpoint is None:
        say(f"no checkpoint in {run.path}: starting at step 0")
    else:
        say(f"resumed from {checkpoint} at step {progress.step}")
        _say_what_differs(progress.ranks, accelerator.num_processes)
    return session


def _predicted_context(recipe: Recipe, split: Split) -> tuple[dict[str, str], str]:
    """The hypotheses that training shows as context, if any, and the fingerprint of all that it is trained on."""
    fingerprint, file = split.fingerprint(), recipe.context.predictions
    if file is None:
        return {}, fingerprint
    hypotheses = prepared_sentences(file, split, f"context.source: {recipe.context.source}")
    return hypotheses, f"{fingerprint}+{sentences_hash(hypotheses)}"


def total_steps(recipe: Recipe, clips: int) -> int:
    """Optimiser steps of the run: `max_steps`, or `epochs` over `clips`, rounded up to whole steps."""
    return recipe.train.max_steps or math.ceil(recipe.train.epochs * clips / recipe.train.batch_size)


def _say_what_differs(saved_on: int, ranks: int) -> None:
    if saved_on != ranks:
        warn(
            f"the checkpoint was saved on {saved_on} ranks, and these are {ranks}. Weights, optimiser, schedule and "
            "the order of the clips are restored; dropout is drawn anew and sums are rounded in another order, so "
            "the run goes on as well, but not bit for bit."
        )


def _describe(session: Session, has_prefix: bool) -> None:
    """Say what is about to be trained, on what and how."""
    say(session.recipe.to_yaml())
    recipe, train, ranks = session.recipe, session.recipe.train, session.ranks
    clips, dev_clips = len(session.examples.split.clips), len(session.dev.split.clips)
    say(
        f"{session.stage} in {session.run.path}: distributed type {launched_as(session.accelerator)}, "
        f"ranks {ranks}, {recipe.llm.bits} bits, {recipe.llm.dtype}"
    )
    say(f"train {clips} clips, dev {dev_clips} clips, streams {', '.join(recipe.streams)}")
    if train.tokens_per_batch is None:
        accumulation = train.batch_size // (train.micro_batch_size * ranks)
        division = f"{train.micro_batch_size} at a time x {accumulation} micro-batches x {ranks} ranks"
    else:
        division = f"at most {train.tokens_per_batch} positions at a time x {ranks} ranks"
    tokens = session.examples.lengths.mean() * train.batch_size
    say(
        f"{session.steps} steps of {train.batch_size} clips ({division}), about {tokens:,.0f} tokens a step, "
        f"{session.steps * train.batch_size / clips:.2f} epochs"
    )
    before = len(session.assembled.prompts.before_streams)
    if has_prefix:
        say(f"the {before} positions of text before the streams are computed once")
    model = session.assembled.model
    llm = list(model.llm.parameters())
    parts = [(f"projector {name}", list(each.parameters())) for name, each in model.projectors.items()]
    parts.append(("adapter", [parameter for parameter in llm if parameter.requires_grad]))
    rows = [[name, f"{_size(its):,}", ""] for name, its in parts if its]
    for dtype in sorted({parameter.dtype for parameter in llm if not parameter.requires_grad}, key=str):
        frozen = [parameter for parameter in llm if not parameter.requires_grad and parameter.dtype == dtype]
        rows.append([f"LLM {recipe.llm.path}, {str(dtype).removeprefix('torch.')}", "", f"{_size(frozen):,}"])
    show_table("Parameters", ["part", "trained", "frozen, as stored"], rows)


def _size(parameters: list[torch.nn.Parameter]) -> int:
    return sum(whole_size(parameter) for parameter in parameters)
