"""Options that several commands share."""

import json
from pathlib import Path
from typing import Annotated

import typer

RecipeOption = Annotated[
    str, typer.Option("--recipe", "-r", help="A recipe file, or the name of a shipped one (`recipes list`).")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a setting, e.g. train.learning_rate=1e-3. Repeatable."),
]
ResumeOption = Annotated[
    str,
    typer.Option(metavar="auto|never|DIR", help="Go on from the newest whole checkpoint, start anew, or DIR."),
]
CheckpointArgument = Annotated[
    Path, typer.Argument(help="A run (its best checkpoint), a step folder, or its link `best` or `last`.")
]
DryRunOption = Annotated[
    bool,
    typer.Option("--dry-run", help="Try the longest batch, the dev split and a checkpoint; print memory and hours."),
]
LaunchOption = Annotated[
    str | None,
    typer.Option("--launch", metavar="PROFILE", help="A profile of accelerate_configs/, by name or file."),
]
ProcessesOption = Annotated[
    int | None, typer.Option("--num-processes", min=1, help="Processes over all machines, if not the profile's.")
]
MachinesOption = Annotated[
    int | None, typer.Option("--num-machines", min=1, help="Machines, if not the profile's; launch on each.")
]
MachineRankOption = Annotated[int | None, typer.Option("--machine-rank", min=0, help="This machine's, from 0 on.")]
MainAddressOption = Annotated[
    str | None, typer.Option("--main-process-address", metavar="HOST:PORT", help="Machine 0, and a free port of it.")
]
DatasetArgument = Annotated[Path, typer.Argument(metavar="DATA", help="The dataset folder.", show_default=False)]
SplitsOption = Annotated[
    list[str] | None, typer.Option("--split", help="A split; repeatable. Default: every split that is there.")
]


def launch_overrides(
    profile: str | None,
    num_processes: int | None,
    num_machines: int | None,
    machine_rank: int | None,
    main_process_address: str | None,
) -> list[str]:
    """The recipe's `launch` settings that the command line gives, as `--set` takes them."""
    given = {
        "profile": profile,
        "num_processes": num_processes,
        "num_machines": num_machines,
        "machine_rank": machine_rank,
        "main_process_address": main_process_address,
    }
    return [f"launch.{key}={json.dumps(value)}" for key, value in given.items() if value is not None]
