"""All checks of `signllava env --gpu-check`; what computes on a GPU runs in a process of its own."""

from collections.abc import Collection, Iterator
from pathlib import Path

from signllava_cli.machine_checks.check_gpus import check_gpus
from signllava_cli.machine_checks.check_llm import check_llm
from signllava_cli.machine_checks.check_ranks import check_ranks
from signllava_cli.machine_checks.check_result import CheckResult, run_in_process
from signllava_cli.machine_checks.check_run_folder import check_run_folder
from signllava_cli.recipe import Recipe


def check_machine(recipe: Recipe | None, run_folder: Path | None, parts: Collection[str]) -> Iterator[CheckResult]:
    """The results of `parts` (gpus, llm, ranks, run-folder), each as its check ends."""
    if "gpus" in parts:
        yield from run_in_process("GPUs", check_gpus, recipe.llm if recipe else None)
    if "llm" in parts and recipe:
        yield from run_in_process("LLM", check_llm, recipe)
    elif "llm" in parts:
        yield CheckResult("LLM", "not checked; name it with --llm or --recipe", is_skipped=True)
    if "ranks" in parts:
        yield from check_ranks()
    if "run-folder" in parts and run_folder:
        yield from check_run_folder(run_folder)
    elif "run-folder" in parts:
        yield CheckResult("run folder", "not checked; name it with --run-folder", is_skipped=True)
