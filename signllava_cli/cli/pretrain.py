"""`signllava pretrain`: train the projectors of a frozen LLM."""

from signllava_cli.cli.options import DryRunOption, RecipeOption, ResumeOption
from signllava_cli.cli.setting_options import LAUNCH_SETTINGS, setting_options


@setting_options(*LAUNCH_SETTINGS)
def pretrain(
    recipe: RecipeOption,
    overrides: list[str],
    resume: ResumeOption = "auto",
    dry_run: DryRunOption = False,
) -> None:
    """Train the projectors of a frozen LLM."""
    from signllava_cli.launch import run_stage
    from signllava_cli.recipe import read_recipe

    run_stage("pretrain", read_recipe(recipe, overrides), resume, dry_run, recipe)
