"""From a recipe, and the checkpoint to resume if there is one, to a session that can take its next step."""

import math
from pathlib import Path

import torch
from accelerate import Accelerator

from signllava_cli.console import say, show_table, warn
from signllava_cli.data.batches import training_batches
from signllava_cli.data.examples import ExampleBuilder
from signllava_cli.data.labelled import LabelledClips
from signllava_cli.data.split import Split
from signllava_cli.data.training_set import TrainingSet
from signllava_cli.errors import UserError
from signllava_cli.generation.context_source import prepared_sentences, sentences_hash
from signllava_cli.model.assembly import assemble
from signllava_cli.model.checkpoint import CONFIG, PROGRESS, find_projector, load_weights, read_config
from signllava_cli.model.layouts import require_layouts
from signllava_cli.model.llm import compile_layers, require_same_llm
from signllava_cli.model.sharding import whole_size
from signllava_cli.recipe import Recipe, Stage, recipe_differences
from signllava_cli.training.engine import open_engine
from signllava_cli.training.launcher import launched_as
from signllava_cli.training.optimiser import make_optimiser, read_moments
from signllava_cli.training.progress import Progress
from signllava_cli.training.run_folder import RunFolder
from signllava_cli.training.session import Session
from signllava_cli.training.snapshot import OPTIMISER, RESUME


def open_session(
    recipe: Recipe,
    stage: Stage,
    accelerator: Accelerator,
    run: RunFolder,
    resume: str,
    source: str | Path | None = None,
) -> Session:
    """Open data and model, and restore what the checkpoint to resume holds.

    Args:
        source: the file or name that the recipe was read from.

    Raises:
        UserError: anything that recipe, data, LLM or checkpoint lack, or where they contradict each other.
    """
    checkpoint = run.checkpoint_to_resume(resume)
    if checkpoint is not None:
        run.require_same_recipe(checkpoint, recipe)
    with accelerator.main_process_first():  # an index that is not there yet is made once
        train_split, dev_split = Split(recipe, recipe.data.train), Split(recipe, recipe.data.dev)
    config = None if checkpoint is None else read_config(checkpoint)
    _require_same_layouts(recipe, train_split, dev_split)
    hypotheses, fingerprint = _predicted_context(recipe, train_split)
    assembled = assemble(recipe, accelerator.device, config)
    model = assembled.model
    builder = ExampleBuilder(recipe, assembled.prompts)
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
    _print_recipe(recipe, source)
    _describe(session, has_prefix)
    if checkpoint is None:
        say(f"no checkpoint in {run.path}: starting at step 0")
    else:
        say(f"resumed from {checkpoint} at step {progress.step}")
        _say_what_differs(progress.ranks, accelerator.num_processes)
        if recipe.train.stop_at_step is not None and recipe.train.stop_at_step <= progress.step:
            say(f"train.stop_at_step={recipe.train.stop_at_step} is behind this run and stops it no more")
    return session


def _require_same_layouts(recipe: Recipe, train_split: Split, dev_split: Split) -> None:
    """Check that the dev split and the checkpoint to start from have the layouts of the training split."""
    require_layouts(train_split.layouts, dev_split, f"split {train_split.name} of {train_split.root}")
    if recipe.init.projector:
        start = find_projector(recipe.init.projector).parent
        if (start / CONFIG).is_file():
            require_layouts(read_config(start).layouts, train_split, str(start))


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
            f"the checkpoint was saved on another number of ranks ({saved_on}, now {ranks}). Weights, optimiser, "
            "schedule and the order of the clips are restored; sums are rounded in another order, and the dropout of "
            "an adapter is drawn anew, so the run goes on as well, but not bit for bit."
        )


def _print_recipe(recipe: Recipe, source: str | Path | None) -> None:
    """Print the settings that are not those of the shipped recipe; the run folder has them all."""
    shipped, differences = recipe_differences(recipe, source)
    say(f"recipe: {shipped}" + (f" except for {len(differences)} settings:" if differences else ""))
    for line in differences:
        say(f"  {line}")


def _describe(session: Session, has_prefix: bool) -> None:
    """Say what is about to be trained, on what and how."""
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
