"""`signllava pretrain`: train the projectors of a frozen LLM."""

from signllava_cli.cli.options import (
    DryRunOption,
    LaunchOption,
    MachineRankOption,
    MainProcessIPOption,
    MainProcessPortOption,
    NumMachinesOption,
    NumProcessesOption,
    RecipeOption,
    ResumeOption,
    SetOption,
    launch_overrides,
)


def pretrain(
    recipe: RecipeOption,
    set_: SetOption = None,
    resume: ResumeOption = "auto",
    launch: LaunchOption = None,
    num_processes: NumProcessesOption = None,
    num_machines: NumMachinesOption = None,
    machine_rank: MachineRankOption = None,
    main_process_ip: MainProcessIPOption = None,
    main_process_port: MainProcessPortOption = None,
    dry_run: DryRunOption = False,
) -> None:
    """Train the projectors of a frozen LLM."""
    from signllava_cli.launch import run_stage
    from signllava_cli.recipe import read_recipe

    overrides = [
        *(set_ or []),
        *launch_overrides(launch, num_processes, num_machines, machine_rank, main_process_ip, main_process_port),
    ]
    run_stage("pretrain", read_recipe(recipe, overrides), resume, dry_run, recipe)
