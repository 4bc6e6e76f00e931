"""Set up a session from a recipe: data, model, optimizer, and the state of the checkpoint to resume, if any."""

import math
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from signllava_cli.console import info, print_table, warning
from signllava_cli.data.batches import training_collator
from signllava_cli.data.examples import ExampleBuilder
from signllava_cli.data.labeled_clips import LabeledClips
from signllava_cli.data.sentences import Sentences
from signllava_cli.data.split import Split
from signllava_cli.data.training_set import TrainingSet
from signllava_cli.errors import UserError, format_count
from signllava_cli.generation.context_source import read_prepared_context
from signllava_cli.generation.distributed import require_equal
from signllava_cli.model.checkpoint import CONFIG, PROGRESS, find_projector, load_weights, read_config
from signllava_cli.model.layouts import require_layouts
from signllava_cli.model.llm import require_same_llm
from signllava_cli.model.llm_memory import print_quantized_share
from signllava_cli.model.llm_parts import compile_layers, enable_activation_checkpointing
from signllava_cli.model.loading import ModelBundle, load_model_bundle
from signllava_cli.model.lora import print_adapter_coverage
from signllava_cli.model.partitioning import full_numel
from signllava_cli.prepare.indexing import open_split
from signllava_cli.recipe import Recipe, Stage, recipe_differences
from signllava_cli.training.accelerator import distributed_type_name
from signllava_cli.training.engine import Engine, open_engine
from signllava_cli.training.optimizer import make_optimizer, read_optimizer_state
from signllava_cli.training.run_folder import RunFolder
from signllava_cli.training.session import Session
from signllava_cli.training.snapshot import OPTIMIZER_FILE, RESUME_FOLDER
from signllava_cli.training.train_state import TrainState


def setup_session(
    recipe: Recipe,
    stage: Stage,
    accelerator: Accelerator,
    run_folder: RunFolder,
    resume: str,
    source: str | Path | None = None,
) -> Session:
    """Open data and model, and restore the checkpoint to resume.

    Args:
        resume: `auto`, `never` or a folder; see `RunFolder.checkpoint_to_resume`.
        source: the file or shipped name that the recipe was read from.

    Raises:
        UserError: recipe, data, LLM or checkpoint are incomplete or contradict each other.
    """
    checkpoint = choose_checkpoint(run_folder, resume, accelerator)
    changes = [] if checkpoint is None else run_folder.require_same_recipe(checkpoint, recipe)
    with accelerator.main_process_first():  # the main process builds a missing index, the others read it
        train_split = open_split(recipe.data, recipe.streams, recipe.data.train)
        dev_split = open_split(recipe.data, recipe.streams, recipe.data.dev)
    checkpoint_config = None if checkpoint is None else read_config(checkpoint)
    _require_same_layouts(recipe, train_split, dev_split)
    if checkpoint is not None and checkpoint_config is not None:
        require_layouts(checkpoint_config.layouts, train_split, str(checkpoint))
    hypotheses, data_fingerprint = _read_hypotheses(recipe, train_split)
    require_equal({train_split.name: data_fingerprint}, f"Copy the dataset {train_split.root} of machine 0.")
    bundle = load_model_bundle(recipe, accelerator.device, checkpoint_config)
    model = bundle.model
    builder = ExampleBuilder(
        bundle.prompts, recipe.streams, recipe.data.max_seq_len, recipe.data.min_frames, recipe.context.prelude
    )
    training_set = TrainingSet(recipe, train_split, builder, hypotheses)
    state, optimizer_state = TrainState(), {}
    if checkpoint is not None and checkpoint_config is not None:
        require_same_llm(checkpoint_config.llm, bundle.llm_identity, checkpoint)
        if checkpoint_config.data != data_fingerprint:
            raise UserError(
                f"{checkpoint} was trained on other data than split {train_split.name} of {train_split.root} (or "
                "context.source) holds now; restore the data, or set another run.output_dir to start a new run."
            )
        load_weights(model, checkpoint, with_adapter=recipe.lora.enabled)
        optimizer_state = read_optimizer_state(
            checkpoint / RESUME_FOLDER / OPTIMIZER_FILE, model.trainable_parameters()
        )
        state = TrainState.read(checkpoint / PROGRESS)
    optimizer, engine, has_prefix = prepare_training(recipe, accelerator, bundle)
    engine.set_optimizer_state(optimizer_state)
    session = Session(
        recipe=recipe,
        stage=stage,
        accelerator=accelerator,
        run_folder=run_folder,
        bundle=bundle,
        training_set=training_set,
        dev_set=LabeledClips(recipe, dev_split, builder, recipe.tasks.dev),
        collate=training_collator(recipe, bundle.pad_id, has_prefix),
        optimizer=optimizer,
        engine=engine,
        state=state,
        num_steps=total_steps(recipe, len(train_split.clips)),
        data_fingerprint=data_fingerprint,
    )
    _print_recipe(recipe, source)
    _print_run(session, has_prefix)
    if checkpoint is None:
        info(f"no checkpoint in {run_folder.path}: starting at step 0")
    else:
        info(f"resumed from {checkpoint} at step {state.step}")
        for change in changes:
            info(f"resumed with {change}")
        _warn_about_ranks(state.num_processes, accelerator.num_processes)
        if recipe.train.stop_at_step is not None and recipe.train.stop_at_step <= state.step:
            info(f"train.stop_at_step={recipe.train.stop_at_step} is ignored: the run has passed this step")
    return session


def prepare_training(
    recipe: Recipe, accelerator: Accelerator, bundle: ModelBundle
) -> tuple[torch.optim.AdamW, Engine, bool]:
    """Prepare a loaded model for its first step: the optimizer, the engine, and whether the prefix is reused."""
    config, model = recipe.train, bundle.model
    if config.gradient_checkpointing:
        enable_activation_checkpointing(model.llm)
    model.train()
    optimizer = make_optimizer(model, recipe)
    engine = open_engine(accelerator, model, optimizer, config.max_grad_norm)
    prefix = bundle.prompts.before_streams
    has_prefix = config.reuse_prefix and model.reuse_prefix(prefix, recipe.data.max_seq_len)
    if config.torch_compile:  # after the probes of the prefix cache, which would be compiled too
        compile_layers(model.llm)
    return optimizer, engine, has_prefix


def choose_checkpoint(run_folder: RunFolder, resume: str, accelerator: Accelerator) -> Path | None:
    """The checkpoint to resume, as rank 0 sees the run folder: a network file system may show others an older state.

    Raises:
        UserError: as `RunFolder.checkpoint_to_resume`, on every rank.
    """
    choice: list[Any] = [None, None]  # checkpoint, error
    if accelerator.is_main_process:
        try:
            choice[0] = run_folder.checkpoint_to_resume(resume)
        except UserError as error:
            choice[1] = str(error)
    checkpoint, error_message = broadcast_object_list(choice)
    if error_message is not None:
        raise UserError(error_message)
    return Path(checkpoint) if checkpoint is not None else None


def _require_same_layouts(recipe: Recipe, train_split: Split, dev_split: Split) -> None:
    """Check that dev split and training split, and the one of `init.projector`, have the same keypoint layouts."""
    require_layouts(train_split.layouts, dev_split, f"split {train_split.name} of {train_split.root}")
    if recipe.init.projector:
        folder = find_projector(recipe.init.projector).parent
        if (folder / CONFIG).is_file():
            require_layouts(read_config(folder).layouts, train_split, str(folder))


def _read_hypotheses(recipe: Recipe, split: Split) -> tuple[Sentences | None, str]:
    """The hypotheses that training shows as context, if any, and the fingerprint of all training data."""
    fingerprint, file = split.fingerprint(), recipe.context.predictions
    if file is None:
        return None, fingerprint
    hypotheses, hypotheses_hash = read_prepared_context(file, split, f"context.source: {recipe.context.source}")
    return hypotheses, f"{fingerprint}+{hypotheses_hash}"


def total_steps(recipe: Recipe, num_clips: int) -> int:
    """Optimizer steps of the run: `max_steps`, or `num_train_epochs` over `num_clips`, rounded up."""
    return recipe.train.max_steps or math.ceil(recipe.train.num_train_epochs * num_clips / recipe.train.batch_size)


def _warn_about_ranks(num_before: int, num_now: int) -> None:
    if num_before != num_now:
        warning(
            f"the checkpoint was saved on another number of ranks ({num_before}, now {num_now}). Weights, optimizer, "
            "schedule and the order of the clips are restored, but the rounding of sums and the dropout of the "
            "adapter differ, so the losses are not bit for bit those of an uninterrupted run."
        )


def _print_recipe(recipe: Recipe, source: str | Path | None) -> None:
    """Print the settings that differ from the shipped recipe; recipe.yaml in the run folder holds all of them."""
    shipped, differences = recipe_differences(recipe, source)
    info(f"recipe: {shipped}" + (f" except for {format_count(len(differences), 'setting')}:" if differences else ""))
    for line in differences:
        info(f"  {line}")


def _print_run(session: Session, has_prefix: bool) -> None:
    """Print stage, launcher, data, steps and the number of parameters."""
    recipe, config, ranks = session.recipe, session.recipe.train, session.num_processes
    num_clips, num_dev_clips = len(session.training_set.split.clips), len(session.dev_set.split.clips)
    info(
        f"{session.stage} in {session.run_folder.path}: distributed type "
        f"{distributed_type_name(session.accelerator)}, ranks {ranks}, {recipe.llm.bits} bits, {recipe.llm.dtype}"
    )
    info(f"clips: train {num_clips}, dev {num_dev_clips}; streams {', '.join(recipe.streams)}")
    if config.max_tokens_per_batch is None:
        accumulation = config.batch_size // (config.micro_batch_size * ranks)
        division = f"micro-batches of {config.micro_batch_size} clips x {accumulation} x {ranks} ranks"
    else:
        division = f"micro-batches of at most {config.max_tokens_per_batch} tokens on {ranks} ranks"
    tokens_per_step = session.training_set.lengths.mean() * config.batch_size
    info(
        f"{session.num_steps} steps of {config.batch_size} clips ({division}), about {tokens_per_step:,.0f} tokens "
        f"per step, {session.num_steps * config.batch_size / num_clips:.2f} epochs"
    )
    if has_prefix:
        prefix_len = len(session.bundle.prompts.before_streams)
        info(f"prefix cache: the {prefix_len} tokens of text before the streams are computed once")
    print_quantized_share(session.bundle.model.llm, recipe.llm.bits)
    if recipe.lora.enabled:
        print_adapter_coverage(session.bundle.model.llm, recipe.lora)
    print_table("Parameters", ["part", "trained", "frozen, as stored"], _parameter_rows(session))


def _parameter_rows(session: Session) -> list[list[str]]:
    """One row for each trained part, and one for the frozen parameters of each dtype."""
    model = session.bundle.model
    llm_parameters = list(model.llm.parameters())
    parts = [(f"projector {name}", list(projector.parameters())) for name, projector in model.projectors.items()]
    parts.append(("adapter", [parameter for parameter in llm_parameters if parameter.requires_grad]))
    rows = [[name, f"{_count_parameters(parameters):,}", ""] for name, parameters in parts if parameters]
    frozen = [parameter for parameter in llm_parameters if not parameter.requires_grad]
    for dtype in sorted({parameter.dtype for parameter in frozen}, key=str):
        count = _count_parameters([parameter for parameter in frozen if parameter.dtype == dtype])
        rows.append([f"LLM {session.recipe.llm.path}, {str(dtype).removeprefix('torch.')}", "", f"{count:,}"])
    return rows


def _count_parameters(parameters: list[torch.nn.Parameter]) -> int:
    return sum(full_numel(parameter) for parameter in parameters)
