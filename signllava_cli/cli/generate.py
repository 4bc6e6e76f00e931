"""`signllava generate`: translate a split."""

from pathlib import Path
from typing import Annotated

import typer

from signllava_cli.cli.estimate import (
    EstimateOption,
    GPUOption,
    print_decoding_estimate,
    require_estimate,
)
from signllava_cli.cli.setting_options import LAUNCH_SETTINGS, SettingOption, setting_help, setting_options
from signllava_cli.console import loading_packages

DECODING, CONTEXT, CONTROLS, LAUNCH = "Decoding", "Context", "Tasks and controls", "Many processes"


@setting_options(
    SettingOption("generate.split", "--split"),
    SettingOption("context.window", "--context", CONTEXT),
    SettingOption("context.prelude", "--prelude", CONTEXT),
    SettingOption("generate.context_from", "--context-from", CONTEXT, metavar="SPLIT,SPLIT...", separator=","),
    SettingOption("generate.missing_context", "--missing-context", CONTEXT),
    SettingOption("generate.num_beams", "--beams", DECODING),
    SettingOption("generate.temperature", "--temperature", DECODING),
    SettingOption("generate.num_return_sequences", "--num-return-sequences", DECODING),
    SettingOption("generate.mbr", "--mbr", DECODING),
    SettingOption("generate.abstain", "--abstain", DECODING),
    SettingOption("generate.max_new_tokens", "--max-new-tokens", DECODING),
    SettingOption("generate.seed", "--seed", DECODING),
    SettingOption("generate.batch_size", "--batch-size", DECODING),
    SettingOption("generate.task", "--task", CONTROLS),
    SettingOption("generate.task_prompt", "--task-prompt", CONTROLS, metavar="TEXT"),
    SettingOption("generate.ablate", "--ablate-stream", CONTROLS, metavar="NAME"),
    SettingOption("generate.features", "--features", CONTROLS),
    *LAUNCH_SETTINGS,
)
def generate(
    *,
    checkpoint: Annotated[
        Path, typer.Option("--checkpoint", "-c", help="A run (its best checkpoint) or a step folder.")
    ],
    out: Annotated[Path | None, typer.Option(help="Folder of the predictions. Default: below the run.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace predictions made with other settings.")] = False,
    keep_others: Annotated[
        bool,
        typer.Option(
            "--keep-others", help="Write beside predictions made with other settings, into a folder ending in `.2`."
        ),
    ] = False,
    context_source: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SOURCE",
            help=f"{setting_help('generate.context_source')} Repeatable.",
            rich_help_panel=CONTEXT,
        ),
    ] = None,
    overrides: list[str],
    shard: Annotated[
        str | None, typer.Option(metavar="I/N", help="This is job I of an array of N.", rich_help_panel=LAUNCH)
    ] = None,
    estimate: EstimateOption = False,
    gpu: GPUOption = None,
) -> None:
    """Translate a split, with no context, gold context, or the model's own predictions as context.

    Settings default to the recipe in the checkpoint. A killed run is resumed.
    """
    with loading_packages():
        from signllava_cli.model.checkpoint import GENERATION_OVERRIDES, checkpoint_recipe, find_checkpoint

    require_estimate(estimate, gpu)
    folder = find_checkpoint(checkpoint)
    recipe = checkpoint_recipe(folder, [*GENERATION_OVERRIDES, *overrides])
    if estimate:
        print_decoding_estimate(recipe, gpu)
        return

    from signllava_cli.launch import run_or_launch

    def translate() -> None:
        with loading_packages():
            from signllava_cli.generation.generate import generate

        sources = context_source or [recipe.generate.context_source]
        generate(recipe, folder, sources, out, overwrite, shard, keep_others)

    run_or_launch(recipe.launch, translate)
