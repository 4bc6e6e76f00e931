"""`signllava env`: the machine and the versions, for a bug report; whether it is ready for a run."""

import platform
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import typer

from signllava_cli.cli.completion import complete_recipe
from signllava_cli.cli.options import SetOption

PACKAGES = (
    "torch",
    "transformers",
    "accelerate",
    "peft",
    "bitsandbytes",
    "deepspeed",
    "evaluate",
    "sacrebleu",
    "h5py",
    "safetensors",
)


class Part(StrEnum):
    """What `--gpu-check` checks."""

    gpus = "gpus"
    llm = "llm"
    ranks = "ranks"
    run_folder = "run-folder"


def env(
    gpu_check: Annotated[
        bool,
        typer.Option(
            "--gpu-check",
            help="Check GPUs, attention, 4 bits, two ranks, and the LLM and the run folder if they are named. Exit "
            "code 2: something would make a run wrong or slow.",
        ),
    ] = False,
    llm: Annotated[str | None, typer.Option(help="The LLM to check, with the recipe `pretrain` or --recipe.")] = None,
    recipe: Annotated[
        str | None,
        typer.Option("--recipe", "-r", autocompletion=complete_recipe, help="Check the LLM as this recipe uses it."),
    ] = None,
    set_: SetOption = None,
    run_folder: Annotated[Path | None, typer.Option(help="Check locks, space and speed of this folder.")] = None,
    only: Annotated[list[Part] | None, typer.Option(help="Check only this part. Repeatable. Default: all.")] = None,
) -> None:
    """Print the machine, the devices and the versions, for a bug report; check whether it is ready for a run."""
    from signllava_cli.console import is_json, print_document, print_line
    from signllava_cli.errors import UserError

    if not gpu_check and any((llm, recipe, set_, run_folder, only)):
        raise UserError("--llm, --recipe, --set, --run-folder and --only need --gpu-check.")
    chosen = _read_recipe(llm, recipe, set_ or [])
    machine = _describe_machine()
    if not is_json():
        _print_machine(machine)
    if gpu_check:
        from signllava_cli.machine_checks.check_machine import check_machine

        results = []
        for result in check_machine(chosen, run_folder, [part.value for part in only or Part]):
            results.append(result)
            if not is_json():
                print_line(str(result), style="yellow" if result.problem else None)
        machine["checks"] = [result.to_dict() for result in results]
    if is_json():
        print_document(machine)
    if gpu_check and (problems := [result.name for result in results if result.problem]):
        raise UserError(
            f"{len(problems)} of {len(results)} checks saw what would make a run wrong or slow, and name the fix: "
            f"{', '.join(problems)}."
        )


def _read_recipe(llm: str | None, recipe: str | None, overrides: list[str]) -> Any:
    from signllava_cli.recipe import format_override, read_recipe

    if llm is None and recipe is None:
        return None
    path = [] if llm is None else [format_override("llm.path", llm)]
    return read_recipe(recipe or "pretrain", [*overrides, *path, "init.projector=null"])


def _describe_machine() -> dict[str, Any]:
    from signllava_cli._version import __version__
    from signllava_cli.console import loading_packages

    with loading_packages():
        import torch

    packages: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            packages[package] = version(package)
        except PackageNotFoundError:
            packages[package] = None
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    cpu = f"{torch.get_num_threads()} CPU threads, {torch.backends.cpu.get_cpu_capability()}"
    python, system = platform.python_version(), platform.platform()
    return {
        "signllava": __version__,
        "python": python,
        "platform": system,
        "gpus": gpus,
        "cpu": cpu,
        "packages": packages,
    }


def _print_machine(machine: dict[str, Any]) -> None:
    from signllava_cli.console import print_line

    print_line(f"signllava {machine['signllava']}, Python {machine['python']}, {machine['platform']}")
    for index, name in enumerate(machine["gpus"]):
        print_line(f"GPU {index}: {name}")
    if not machine["gpus"]:
        print_line(f"no GPU; {machine['cpu']}")
    for package, number in machine["packages"].items():
        print_line(f"{package} {number or 'is not installed'}")
