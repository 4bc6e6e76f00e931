"""`signllava pretrain`: train projectors into a frozen LLM."""

from signllava_cli.cli.options import LaunchOption, ProcessesOption, RecipeOption, ResumeOption, SetOption


def pretrain(
    recipe: RecipeOption,
    set_: SetOption = None,
    resume: ResumeOption = "auto",
    launch: LaunchOption = None,
    num_processes: ProcessesOption = None,
) -> None:
    """Train projectors into a frozen LLM."""
    from signllava_cli.launch import run_stage
    from signllava_cli.recipe import read_recipe

    run_stage("pretrain", read_recipe(recipe, set_ or []), resume, launch, num_processes)
