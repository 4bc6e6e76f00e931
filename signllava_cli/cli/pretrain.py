"""`signllava pretrain`: train the projectors of a frozen LLM."""

from signllava_cli.cli.estimate import (
    EstimateOption,
    GPUOption,
    print_training_estimate,
    require_estimate,
)
from signllava_cli.cli.options import DryRunOption, RecipeOption, ResumeOption
from signllava_cli.cli.setting_options import LAUNCH_SETTINGS, setting_options


@setting_options(*LAUNCH_SETTINGS)
def pretrain(
    recipe: RecipeOption,
    overrides: list[str],
    resume: ResumeOption = "auto",
    dry_run: DryRunOption = False,
    estimate: EstimateOption = False,
    gpu: GPUOption = None,
) -> None:
    """Train the projectors of a frozen LLM."""
    from signllava_cli.recipe import read_recipe

    require_estimate(estimate, gpu)
    if estimate:
        print_training_estimate(read_recipe(recipe, overrides), "pretrain", gpu)
        return
    from signllava_cli.launch import run_stage

    run_stage("pretrain", read_recipe(recipe, overrides), resume, dry_run, recipe)
