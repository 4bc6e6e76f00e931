"""`signllava pretrain`: train projectors into a frozen LLM."""

from signllava_cli.cli.options import (
    DryRunOption,
    LaunchOption,
    MachineRankOption,
    MachinesOption,
    MainAddressOption,
    ProcessesOption,
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
    num_processes: ProcessesOption = None,
    num_machines: MachinesOption = None,
    machine_rank: MachineRankOption = None,
    main_process_address: MainAddressOption = None,
    dry_run: DryRunOption = False,
) -> None:
    """Train projectors into a frozen LLM."""
    from signllava_cli.launch import run_stage
    from signllava_cli.recipe import read_recipe

    overrides = [
        *(set_ or []),
        *launch_overrides(launch, num_processes, num_machines, machine_rank, main_process_address),
    ]
    run_stage("pretrain", read_recipe(recipe, overrides), resume, dry_run, recipe)
