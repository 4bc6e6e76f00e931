"""The one training loop: both stages, any number of processes, any launcher.

One optimizer step is `train.batch_size` clips over all processes; its loss is the sum over their target tokens,
divided by the number of these tokens in the whole step. So 8x1 = 4x2 = 1x8 = two ranks.
"""

import contextlib
from pathlib import Path

import torch

from signllava_cli.console import log_to, progress
from signllava_cli.preemption import StopRequest
from signllava_cli.recipe import Recipe, Stage, require_stage
from signllava_cli.training.accelerator import start_accelerator
from signllava_cli.training.optimizer import make_lr_schedule, set_learning_rate
from signllava_cli.training.preflight import dry_run as run_dry_run
from signllava_cli.training.preflight import preflight
from signllava_cli.training.run_folder import RunFolder
from signllava_cli.training.session import Session
from signllava_cli.training.session_setup import setup_session
from signllava_cli.training.step import optimizer_step, seed_step
from signllava_cli.training.trackers import require_trackers


def train(
    recipe: Recipe,
    stage: Stage,
    resume: str = "auto",
    dry_run: bool = False,
    source: str | Path | None = None,
) -> None:
    """Train the projectors (and, in finetune, the adapter) of `recipe` to the end of the run.

    Args:
        resume: `auto` goes on from the newest whole checkpoint of the run folder, or starts; `never` starts;
            a folder goes on from that checkpoint.
        rehearse_only: try what the run will need, say what it would take, and leave no trace of it.
        source: the file or name that the recipe was read from.

    Raises:
        UserError: anything that the person at the terminal can fix.
        Stopped: a signal, `train.max_hours` or `train.stop_at_step` ended the run early; its state is saved.
    """
    require_stage(recipe, stage)
    require_trackers(recipe)
    request = StopRequest(recipe.train.max_hours)
    accelerator = start_accelerator(recipe)
    run = RunFolder(recipe.run.output_dir)
    log = contextlib.nullcontext() if dry_run else log_to(run.log)
    with log, request.handle_signals(), contextlib.closing(run):
        session = setup_session(recipe, stage, accelerator, run, resume, source)
        if dry_run and not session.is_finished:
            run_dry_run(session)
        if not dry_run:
            _run_steps(session, request)
        if session.is_finished:
            session.print_end()
    accelerator.wait_for_everyone()


def _run_steps(session: Session, request: StopRequest) -> None:
    """step -> log -> save -> evaluate -> stop test, from where the progress stands to the end."""
    recipe, accelerator, state = session.recipe, session.accelerator, session.progress
    rank, smoothing = accelerator.process_index, recipe.train.label_smoothing

    def should_stop() -> bool:
        """Whether some rank was asked to stop; the same answer on all."""
        if session.ranks == 1:
            return bool(request)
        flag = torch.tensor(int(bool(request)), device=accelerator.device)
        return bool(accelerator.reduce(flag, "sum"))

    if recipe.train.preflight and not session.is_finished:
        preflight(session)
    session.run.begin(recipe, state)
    if state.eval_pending:
        session.evaluate(should_stop)
        if state.eval_pending:
            raise session.stopped()
    share_of_rate = make_lr_schedule(recipe.train, session.steps)
    batches = session.batches()
    with progress(session.stage, session.steps, state.step) as line:
        while not session.is_finished:
            micro_batches, waited = next(batches)
            seed_step(recipe.run.seed, state.step, rank)
            rates = set_learning_rate(session.optimizer, share_of_rate(state.step))
            result = optimizer_step(session.engine, micro_batches, smoothing, accelerator, waited)
            session.count(result)
            line.advance(note=f"loss {result.loss:.4f}  {result.positions / result.seconds:.0f} tokens/s")

            is_last_step = state.step == session.steps
            is_stopping = not is_last_step and (should_stop() or state.step == recipe.train.stop_at_step)
            is_eval_step = is_last_step or state.step % recipe.train.eval_steps == 0
            is_save_step = is_eval_step or is_stopping or state.step % recipe.train.save_steps == 0
            is_log_step = is_save_step or state.step % recipe.track.logging_steps == 0

            state.eval_pending = is_eval_step
            if is_log_step:
                session.record(result, rates)
            if is_save_step:
                session.save()
            if is_eval_step and not is_stopping:
                session.evaluate(should_stop)
                is_stopping = state.eval_pending or (should_stop() and not session.is_finished)
            if is_stopping:
                raise session.stopped()
