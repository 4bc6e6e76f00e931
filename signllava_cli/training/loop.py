"""The training loop: both stages, any number of processes, any launcher.

One optimizer step is `train.batch_size` clips over all processes. Its loss is the sum over their target tokens,
divided by the number of these tokens, so it does not depend on how the clips are split into micro-batches and ranks.
"""

import contextlib
from pathlib import Path

import torch
from accelerate import Accelerator

from signllava_cli.console import log_to, progress
from signllava_cli.data.loader_workers import report_killed_workers
from signllava_cli.generation.distributed import require_equal, require_shared_folder
from signllava_cli.heartbeat import watch_machines
from signllava_cli.model.cuda_settings import deterministic_algorithms
from signllava_cli.preemption import StopRequest
from signllava_cli.recipe import Recipe, Stage, require_stage
from signllava_cli.training.accelerator import start_accelerator
from signllava_cli.training.manifest import record_start
from signllava_cli.training.optimizer import make_lr_schedule, set_learning_rate
from signllava_cli.training.preflight import dry_run as run_dry_run
from signllava_cli.training.preflight import preflight
from signllava_cli.training.run_folder import RunFolder
from signllava_cli.training.session import Session
from signllava_cli.training.session_setup import setup_session
from signllava_cli.training.step import optimizer_step, seed_step
from signllava_cli.training.trackers import require_trackers

# Settings that may differ between the machines of a launch.
OF_MACHINE = ("launch.", "run.output_dir", "data.root", "data.num_workers", "llm.path", "init.projector")


def train(
    recipe: Recipe,
    stage: Stage,
    resume: str = "auto",
    dry_run: bool = False,
    source: str | Path | None = None,
) -> None:
    """Train the projectors (and, in finetune, the adapter) of `recipe` to the end of the run.

    Args:
        resume: `auto` resumes from the newest complete checkpoint of the run folder, or starts at step 0; `never`
            starts at step 0; a folder resumes from that checkpoint.
        dry_run: run the preflight, time some steps, print the expected memory and hours, and leave no files.
        source: the file or shipped name that the recipe was read from.

    Raises:
        UserError: something that the user can fix.
        RunStopped: a signal, `train.max_hours` or `train.stop_at_step` ended the run early; its state is saved.
    """
    require_stage(recipe, stage)
    require_trackers(recipe)
    request = StopRequest(recipe.train.max_hours)
    with watch_machines(recipe.launch, lambda: start_accelerator(recipe)) as accelerator:
        _train(recipe, stage, accelerator, request, resume, dry_run, source)
        accelerator.wait_for_everyone()


def _train(
    recipe: Recipe,
    stage: Stage,
    accelerator: Accelerator,
    request: StopRequest,
    resume: str,
    dry_run: bool,
    source: str | Path | None,
) -> None:
    run_folder = RunFolder(recipe.run.output_dir)
    log = contextlib.nullcontext() if dry_run else log_to(run_folder.log)
    has_fixed_order = deterministic_algorithms(recipe.train.deterministic)
    with log, request.handle_signals(), contextlib.closing(run_folder), has_fixed_order:
        require_shared_folder(run_folder.path)
        settings = {key: value for key, value in recipe.to_flat_dict().items() if not key.startswith(OF_MACHINE)}
        require_equal(settings, "Start the command with the same recipe and options on all machines.")
        session = setup_session(recipe, stage, accelerator, run_folder, resume, source)
        with report_killed_workers():
            if dry_run and not session.is_finished:
                run_dry_run(session)
            if not dry_run:
                _run_steps(session, request)
        if session.is_finished:
            session.print_summary()


def _run_steps(session: Session, request: StopRequest) -> None:
    """Step -> log -> save in background -> evaluate -> stop test, from the step of the train state to the end."""
    recipe, accelerator, state = session.recipe, session.accelerator, session.state
    rank, smoothing = accelerator.process_index, recipe.train.label_smoothing

    def should_stop() -> bool:
        """Whether a stop was requested on any rank; all ranks get the same answer."""
        if session.num_processes == 1:
            return bool(request)
        flag = torch.tensor(int(bool(request)), device=accelerator.device)
        is_requested = bool(accelerator.reduce(flag, "sum"))
        if is_requested:
            request.stop_with_others()
        return is_requested

    if recipe.train.preflight and not session.is_finished:
        preflight(session)
    session.run_folder.start(recipe, state)
    record_start(session)
    if state.eval_pending:
        session.evaluate(should_stop)
        if state.eval_pending:
            raise session.stop_error()
    lr_factor = make_lr_schedule(recipe.train, session.num_steps)
    batches = session.batches()
    with progress(session.stage, session.num_steps, state.step) as bar:
        while not session.is_finished:
            micro_batches, wait_seconds = next(batches)
            seed_step(recipe.run.seed, state.step, rank)
            rates = set_learning_rate(session.optimizer, lr_factor(state.step))
            result = optimizer_step(session.engine, micro_batches, smoothing, accelerator, wait_seconds)
            session.update_state(result)
            bar.advance(note=f"loss {result.loss:.4f}  {result.num_tokens / result.seconds:.0f} tokens/s")

            is_last_step = state.step == session.num_steps
            is_stopping = not is_last_step and (should_stop() or state.step == recipe.train.stop_at_step)
            is_eval_step = is_last_step or state.step % recipe.train.eval_steps == 0
            is_save_step = is_eval_step or is_stopping or state.step % recipe.train.save_steps == 0
            is_log_step = is_save_step or state.step % recipe.track.logging_steps == 0

            session.run_folder.check_save(is_end_awaited=is_save_step)
            state.eval_pending = is_eval_step
            if is_log_step:
                session.log_step(result, rates)
            if is_save_step:
                session.save()
            if is_eval_step and not is_stopping:
                session.evaluate(should_stop)
                is_stopping = state.eval_pending or (should_stop() and not session.is_finished)
            if is_stopping:
                session.finish_save()
                raise session.stop_error()
    session.finish_save()
