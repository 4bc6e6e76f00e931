"""From a recipe, and the checkpoint to resume if there is one, to a session that can take its next step."""

import math
from pathlib import Path

import torch
from accelerate import Accelerator

from signllava_cli.console import info, print_table, warning
from signllava_cli.data.batches import training_collator
from signllava_cli.data.examples import ExampleBuilder
from signllava_cli.data.labeled_clips import LabeledClips
from signllava_cli.data.split import Split
from signllava_cli.data.training_set import TrainingSet
from signllava_cli.errors import UserError
from signllava_cli.generation.context_source import hash_sentences, read_prepared_context
from signllava_cli.model.checkpoint import CONFIG, PROGRESS, find_projector, load_weights, read_config
from signllava_cli.model.layouts import require_layouts
from signllava_cli.model.llm import compile_layers, require_same_llm
from signllava_cli.model.loading import load_model_bundle
from signllava_cli.model.partitioning import full_numel
from signllava_cli.prepare.indexing import open_split
from signllava_cli.recipe import Recipe, Stage, recipe_differences
from signllava_cli.training.accelerator import distributed_type_name
from signllava_cli.training.engine import open_engine
from signllava_cli.training.optimizer import make_optimizer, read_optimizer_state
from signllava_cli.training.run_folder import RunFolder
from signllava_cli.training.session import Session
from signllava_cli.training.snapshot import OPTIMIZER_FILE, RESUME_FOLDER
from signllava_cli.training.train_state import TrainState


def setup_session(
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
        train_split, dev_split = (
            open_split(recipe.data, recipe.streams, recipe.data.train),
            open_split(recipe.data, recipe.streams, recipe.data.dev),
        )
    config = None if checkpoint is None else read_config(checkpoint)
    _require_same_layouts(recipe, train_split, dev_split)
    hypotheses, fingerprint = _predicted_context(recipe, train_split)
    bundle = load_model_bundle(recipe, accelerator.device, config)
    model = bundle.model
    builder = ExampleBuilder(bundle.prompts, recipe.data.max_seq_len, recipe.data.min_frames, recipe.context.prelude)
    examples = TrainingSet(recipe, train_split, builder, hypotheses)
    progress, optimizer_state = TrainState(), {}
    if checkpoint is not None and config is not None:
        require_same_llm(config.llm, bundle.llm_identity, checkpoint)
        if config.data != fingerprint:
            raise UserError(
                f"{checkpoint} was trained on other data than split {train_split.name} of {train_split.root} (or "
                "context.source) now holds; bring the data back, or name another run.output_dir to start anew."
            )
        load_weights(model, checkpoint, with_adapter=recipe.lora.enabled)
        optimizer_state = read_optimizer_state(
            checkpoint / RESUME_FOLDER / OPTIMIZER_FILE, model.trainable_parameters()
        )
        progress = TrainState.read(checkpoint / PROGRESS)
    if recipe.train.gradient_checkpointing:
        model.llm.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if recipe.train.torch_compile:
        compile_layers(model.llm)
    model.train()  # the frozen LLM too: in eval mode its gradient checkpointing would be off
    optimizer = make_optimizer(model, recipe)
    engine = open_engine(accelerator, model, optimizer, recipe.train.max_grad_norm)
    engine.set_optimizer_state(optimizer_state)
    has_prefix = recipe.train.reuse_prefix and model.reuse_prefix(bundle.prompts.before_streams)
    session = Session(
        recipe=recipe,
        stage=stage,
        accelerator=accelerator,
        run=run,
        bundle=bundle,
        examples=examples,
        dev=LabeledClips(recipe, dev_split, builder, recipe.tasks.dev),
        collate=training_collator(recipe, bundle.pad_id, has_prefix),
        optimizer=optimizer,
        engine=engine,
        progress=progress,
        steps=total_steps(recipe, len(train_split.clips)),
        data=fingerprint,
    )
    _print_recipe(recipe, source)
    _print_run(session, has_prefix)
    if checkpoint is None:
        info(f"no checkpoint in {run.path}: starting at step 0")
    else:
        info(f"resumed from {checkpoint} at step {progress.step}")
        _warn_about_ranks(progress.ranks, accelerator.num_processes)
        if recipe.train.stop_at_step is not None and recipe.train.stop_at_step <= progress.step:
            info(f"train.stop_at_step={recipe.train.stop_at_step} is behind this run and stops it no more")
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
    hypotheses = read_prepared_context(file, split, f"context.source: {recipe.context.source}")
    return hypotheses, f"{fingerprint}+{hash_sentences(hypotheses)}"


def total_steps(recipe: Recipe, clips: int) -> int:
    """Optimizer steps of the run: `max_steps`, or `epochs` over `clips`, rounded up to whole steps."""
    return recipe.train.max_steps or math.ceil(recipe.train.num_train_epochs * clips / recipe.train.batch_size)


def _warn_about_ranks(saved_on: int, ranks: int) -> None:
    if saved_on != ranks:
        warning(
            f"the checkpoint was saved on another number of ranks ({saved_on}, now {ranks}). Weights, optimizer, "
            "schedule and the order of the clips are restored; sums are rounded in another order, and the dropout of "
            "an adapter is drawn anew, so the run goes on as well, but not bit for bit."
        )


def _print_recipe(recipe: Recipe, source: str | Path | None) -> None:
    """Print the settings that are not those of the shipped recipe; the run folder has them all."""
    shipped, differences = recipe_differences(recipe, source)
    info(f"recipe: {shipped}" + (f" except for {len(differences)} settings:" if differences else ""))
    for line in differences:
        info(f"  {line}")


def _print_run(session: Session, has_prefix: bool) -> None:
    """Say what is about to be trained, on what and how."""
    recipe, train, ranks = session.recipe, session.recipe.train, session.ranks
    clips, dev_clips = len(session.examples.split.clips), len(session.dev.split.clips)
    info(
        f"{session.stage} in {session.run.path}: distributed type {distributed_type_name(session.accelerator)}, "
        f"ranks {ranks}, {recipe.llm.bits} bits, {recipe.llm.dtype}"
    )
    info(f"train {clips} clips, dev {dev_clips} clips, streams {', '.join(recipe.streams)}")
    if train.max_tokens_per_batch is None:
        accumulation = train.batch_size // (train.micro_batch_size * ranks)
        division = f"{train.micro_batch_size} at a time x {accumulation} micro-batches x {ranks} ranks"
    else:
        division = f"at most {train.max_tokens_per_batch} positions at a time x {ranks} ranks"
    tokens = session.examples.lengths.mean() * train.batch_size
    info(
        f"{session.steps} steps of {train.batch_size} clips ({division}), about {tokens:,.0f} tokens a step, "
        f"{session.steps * train.batch_size / clips:.2f} epochs"
    )
    before = len(session.bundle.prompts.before_streams)
    if has_prefix:
        info(f"the {before} positions of text before the streams are computed once")
    model = session.bundle.model
    llm = list(model.llm.parameters())
    parts = [(f"projector {name}", list(each.parameters())) for name, each in model.projectors.items()]
    parts.append(("adapter", [parameter for parameter in llm if parameter.requires_grad]))
    rows = [[name, f"{_count_parameters(its):,}", ""] for name, its in parts if its]
    for dtype in sorted({parameter.dtype for parameter in llm if not parameter.requires_grad}, key=str):
        frozen = [parameter for parameter in llm if not parameter.requires_grad and parameter.dtype == dtype]
        rows.append(
            [f"LLM {recipe.llm.path}, {str(dtype).removeprefix('torch.')}", "", f"{_count_parameters(frozen):,}"]
        )
    print_table("Parameters", ["part", "trained", "frozen, as stored"], rows)


def _count_parameters(parameters: list[torch.nn.Parameter]) -> int:
    return sum(full_numel(parameter) for parameter in parameters)
