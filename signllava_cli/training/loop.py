"""The one training loop: both stages, any number of processes.

One optimiser step is `train.batch_size` clips over all processes; its loss is the sum over their target tokens,
divided by the number of these tokens in the whole step. So 8x1 = 4x2 = 1x8 = two ranks.
"""

import torch

from signllava_cli.console import log_to, progress, say
from signllava_cli.data.training_set import training_steps
from signllava_cli.preemption import StopRequest
from signllava_cli.recipe import Recipe, Stage, require_stage
from signllava_cli.training.optimiser import schedule_factor, set_learning_rate
from signllava_cli.training.run_folder import RunFolder
from signllava_cli.training.session import Session, open_session, start_accelerator
from signllava_cli.training.step import optimiser_step, seed_step


def train(recipe: Recipe, stage: Stage, resume: str = "auto") -> None:
    """Train the projectors (and, in finetune, the adapter) of `recipe` to the end of the run.

    Args:
        resume: `auto` goes on from the newest whole checkpoint of the run folder, or starts; `never` starts;
            a folder goes on from that checkpoint.

    Raises:
        UserError: anything that the person at the terminal can mend.
        Stopped: a signal or `train.stop_at_step` ended the run early; its state is saved.
    """
    require_stage(recipe, stage)
    accelerator = start_accelerator(recipe)
    run = RunFolder(recipe.run.folder)
    with log_to(run.log), StopRequest().listening() as request:
        session = open_session(recipe, stage, accelerator, run, resume)
        _run_steps(session, request)
        state = session.progress
        say(f"{stage} is at its end after {state.step} steps and {state.seconds:.0f} s of steps.")
        if state.cut_frames or state.cut_sentences:
            say(f"data.max_positions cut {state.cut_frames} frames and {state.cut_sentences} context sentences.")
        say(f"best dev loss {state.best_dev_loss:.4f} at step {state.best_step}: {run.path / 'best'}")
    accelerator.end_training()


def _run_steps(session: Session, request: StopRequest) -> None:
    """step -> log -> save -> evaluate -> stop test, from where the progress stands to the end."""
    recipe, accelerator, state = session.recipe, session.accelerator, session.progress
    model = accelerator.prepare(session.assembled.model)
    trained = list(session.assembled.model.trained_parameters().values())
    rank, ranks = accelerator.process_index, accelerator.num_processes

    def should_stop() -> bool:
        """Whether some rank was asked to stop; the same answer on all."""
        if ranks == 1:
            return bool(request)
        flag = torch.tensor(int(bool(request)), device=accelerator.device)
        return bool(accelerator.reduce(flag, "sum"))

    if state.evaluation_due:
        session.evaluate(should_stop)
        if state.evaluation_due:
            raise session.stopped()
    pad_id = session.assembled.pad_id
    batches = training_steps(recipe, session.examples, state.step, session.steps, pad_id, rank, ranks)
    with progress(session.stage, session.steps, state.step) as line:
        for micro_batches in batches:
            seed_step(recipe.run.seed, state.step, rank)
            factor = schedule_factor(state.step, session.steps, recipe.train)
            learning_rate = set_learning_rate(session.optimiser, factor)
            result = optimiser_step(model, trained, session.optimiser, micro_batches, recipe, accelerator)
            session.count(result)
            line.advance(note=f"loss {result.loss:.4f}  {result.positions / result.seconds:.0f} tokens/s")

            is_last_step = state.step == session.steps
            is_stopping = not is_last_step and (should_stop() or state.step == recipe.train.stop_at_step)
            is_eval_step = is_last_step or state.step % recipe.train.eval_every == 0
            is_save_step = is_eval_step or is_stopping or state.step % recipe.train.save_every == 0
            is_log_step = is_save_step or state.step % recipe.track.every == 0

            state.evaluation_due = is_eval_step
            if is_log_step:
                session.record(result, learning_rate)
            if is_save_step:
                session.save()
            if is_eval_step and not is_stopping:
                session.evaluate(should_stop)
                is_stopping = state.evaluation_due or (should_stop() and not is_last_step)
            if is_stopping:
                raise session.stopped()
