"""Everything a run holds between its first and its last step, opened from a recipe or from a checkpoint."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType

from signllava_cli.console import IS_MAIN_PROCESS, say, show_table
from signllava_cli.data.examples import ExampleBuilder
from signllava_cli.data.labelled import LabelledClips
from signllava_cli.data.split import Split
from signllava_cli.data.training_set import TrainingSet
from signllava_cli.errors import Stopped, UserError
from signllava_cli.model.assembly import Assembled, assemble
from signllava_cli.model.checkpoint import PROGRESS, CheckpointConfig, library_versions, load_weights, read_config
from signllava_cli.model.llm import require_same_llm
from signllava_cli.recipe import Recipe, Stage
from signllava_cli.training.dev import dev_loss
from signllava_cli.training.optimiser import load_optimiser, make_optimiser
from signllava_cli.training.progress import Progress
from signllava_cli.training.run_folder import OPTIMISER, RESUME, RunFolder
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
    optimiser: torch.optim.AdamW
    progress: Progress
    steps: int
    data: str

    def count(self, result: StepResult) -> None:
        """Add a finished step to the progress."""
        self.progress.step += 1
        self.progress.clips += self.recipe.train.batch_size
        self.progress.targets += result.targets
        self.progress.positions += result.positions
        self.progress.cut_frames += result.cuts.frames
        self.progress.cut_sentences += result.cuts.sentences
        self.progress.seconds += result.seconds

    def record(self, result: StepResult, learning_rate: float) -> None:
        """Add a finished step to metrics.jsonl."""
        self.run.record(
            step=self.progress.step,
            loss=result.loss,
            gradient_norm=result.gradient_norm,
            learning_rate=learning_rate,
            targets=result.targets,
            tokens_per_second=round(result.positions / result.seconds, 1),
        )

    def save(self) -> None:
        """Write a checkpoint of this moment."""
        if IS_MAIN_PROCESS:
            config = CheckpointConfig(
                stage=self.stage,
                step=self.progress.step,
                llm=self.assembled.llm,
                turns=self.assembled.prompts.turns,
                data=self.data,
                versions=library_versions(),
            )
            self.run.save(self.assembled.model, self.optimiser, self.progress, config, self.recipe)
        self.accelerator.wait_for_everyone()

    def stopped(self) -> Stopped:
        """What to raise when the run ends early."""
        return Stopped(
            f"{self.stage} stopped after step {self.progress.step} of {self.steps}; its state is saved in "
            f"{self.run.path}. Run the same command again to go on."
        )

    def evaluate(self, should_stop: Callable[[], bool]) -> None:
        """Score the dev split and point `best` where it belongs; left due when a stop came in between."""
        loss = dev_loss(self.assembled, self.dev, self.recipe, self.accelerator, should_stop)
        if loss is None:
            return
        progress = self.progress
        progress.evaluation_due = False
        if not math.isfinite(loss):
            raise UserError(
                f"The dev loss at step {progress.step} is {loss}: the weights have left all bounds. "
                f"Lower train.learning_rate, or go on from an earlier checkpoint in {self.run.path}."
            )
        is_best = progress.best_dev_loss is None or loss < progress.best_dev_loss
        if is_best:
            progress.best_dev_loss, progress.best_step = loss, progress.step
        if IS_MAIN_PROCESS:
            self.run.point_best(progress)
        self.run.record(step=progress.step, dev_loss=loss, best=is_best)
        say(f"step {progress.step}: dev loss {loss:.4f}" + (", the best so far" if is_best else ""))


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
    if recipe.train.gradient_checkpointing:
        model.llm.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.train()  # the frozen LLM too: in eval mode its gradient checkpointing would be off
    optimiser, progress = make_optimiser(model, recipe), Progress()
    fingerprint = train_split.fingerprint()
    if checkpoint is not None and config is not None:
        require_same_llm(config.llm, assembled.llm, checkpoint)
        if config.data != fingerprint:
            raise UserError(
                f"{checkpoint} was trained on other data than split {train_split.name} of {train_split.root} now "
                "holds; bring the data back, or name another run.folder to start anew."
            )
        load_weights(model, checkpoint, with_adapter=recipe.lora.enabled)
        load_optimiser(optimiser, model, checkpoint / RESUME / OPTIMISER)
        progress = Progress.read(checkpoint / PROGRESS)
    builder = ExampleBuilder(recipe, assembled.prompts)
    session = Session(
        recipe=recipe,
        stage=stage,
        accelerator=accelerator,
        run=run,
        assembled=assembled,
        examples=TrainingSet(recipe, train_split, builder),
        dev=LabelledClips(recipe, dev_split, builder, recipe.tasks.dev),
        optimiser=optimiser,
        progress=progress,
        steps=total_steps(recipe, len(train_split.clips)),
        data=fingerprint,
    )
    _describe(session)
    if checkpoint is None:
        say(f"no checkpoint in {run.path}: starting at step 0")
    else:
        say(f"resumed from {checkpoint} at step {progress.step}")
    run.begin(recipe, progress)
    return session


def total_steps(recipe: Recipe, clips: int) -> int:
    """Optimiser steps of the run: `max_steps`, or `epochs` over `clips`, rounded up to whole steps."""
    return recipe.train.max_steps or math.ceil(recipe.train.epochs * clips / recipe.train.batch_size)


def start_accelerator(recipe: Recipe) -> Accelerator:
    """Join the processes that the launcher started.

    Raises:
        UserError: a launcher that this version does not train under, or a batch that the ranks cannot share.
    """
    # cpu: without it, ranks that find no GPU would each take themselves to be alone.
    # mixed_precision: precision is the model's own affair.
    accelerator = Accelerator(cpu=not torch.cuda.is_available(), mixed_precision="no")
    if accelerator.distributed_type not in (
        DistributedType.NO,
        DistributedType.MULTI_CPU,
        DistributedType.MULTI_GPU,
    ):
        raise UserError(
            f"The launcher's distributed type {accelerator.distributed_type.value} is not supported yet; "
            "use the profile single or multi_gpu of accelerate_configs/."
        )
    at_once = recipe.train.micro_batch_size * accelerator.num_processes
    if recipe.train.batch_size % at_once:
        raise UserError(
            f"train.batch_size: {recipe.train.batch_size} is not a multiple of train.micro_batch_size "
            f"({recipe.train.micro_batch_size}) x {accelerator.num_processes} processes."
        )
    return accelerator


def _describe(session: Session) -> None:
    """Say what is about to be trained, and on what."""
    say(session.recipe.to_yaml())
    recipe, train, ranks = session.recipe, session.recipe.train, session.accelerator.num_processes
    clips, dev_clips = len(session.examples.split.clips), len(session.dev.split.clips)
    say(
        f"{session.stage} in {session.run.path}: distributed type {session.accelerator.distributed_type.value}, "
        f"ranks {ranks}, {recipe.llm.bits} bits, {recipe.llm.dtype}"
    )
    say(f"train {clips} clips, dev {dev_clips} clips, streams {', '.join(recipe.streams)}")
    accumulation = train.batch_size // (train.micro_batch_size * ranks)
    say(
        f"{session.steps} steps of {train.batch_size} clips ({train.micro_batch_size} at a time x {accumulation} "
        f"micro-batches x {ranks} ranks), {session.steps * train.batch_size / clips:.2f} epochs"
    )
    model = session.assembled.model
    llm = list(model.llm.parameters())
    parts = [(f"projector {name}", list(each.parameters())) for name, each in model.projectors.items()]
    parts.append(("adapter", [parameter for parameter in llm if parameter.requires_grad]))
    rows = [[name, f"{_size(its):,}", ""] for name, its in parts if its]
    frozen = [parameter for parameter in llm if not parameter.requires_grad]
    rows.append([f"LLM {recipe.llm.path}", "", f"{_size(frozen):,}"])
    show_table("Parameters", ["part", "trained", "frozen, as stored"], rows)


def _size(parameters: list[torch.nn.Parameter]) -> int:
    return sum(parameter.numel() for parameter in parameters)
