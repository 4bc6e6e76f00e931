"""`signllava study`: several recipes with several seeds, in one table."""

from pathlib import Path
from typing import Annotated

import typer

from signllava_cli.cli.completion import complete_recipe
from signllava_cli.cli.setting_options import LAUNCH_SETTINGS, setting_options


@setting_options(*LAUNCH_SETTINGS)
def study(
    *,
    recipes: Annotated[
        list[str],
        typer.Argument(
            metavar="[NAME=]RECIPE...",
            autocompletion=complete_recipe,
            help="Recipe files, or shipped ones; with variants too.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder of all runs and results.")] = Path("runs/study"),
    seeds: Annotated[
        str | None, typer.Option(metavar="S,S,...", help="Train each recipe with these seeds. Default: its own.")
    ] = None,
    context_sources: Annotated[
        str, typer.Option(metavar="A,B,...", help="Translate under each of these context sources.")
    ] = "none,gold,predicted",
    split: Annotated[str | None, typer.Option(help="The split that is translated. Default: the recipe's.")] = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The system that the others are compared with, `RECIPE SOURCE`. Default: the first without context.",
        ),
    ] = None,
    preset: Annotated[
        str | None, typer.Option(metavar="NAME", help="Tokenization of `signllava eval`, such as phoenix14t.")
    ] = None,
    overrides: list[str],
    shard: Annotated[
        str | None,
        typer.Option(metavar="I/N", help="This is job I of an array of N; the last to end scores all runs."),
    ] = None,
    show_plan: Annotated[
        bool, typer.Option("--plan", help="Print the runs and which of their steps are done, and run nothing.")
    ] = False,
) -> None:
    """Train several recipes with several seeds, translate under all context sources, compare them in one table.

    A finetune recipe whose `init.projector` is the output folder of another of the recipes starts from the run of
    that recipe with the same seed. The table has means and standard deviations over the seeds, and paired tests. An
    interrupted study continues where it stopped.
    """
    from signllava_cli.errors import UserError
    from signllava_cli.processes import forward_signals
    from signllava_cli.study import Study, StudyConfig, print_plan, run_study

    try:
        numbers = [int(seed) for seed in seeds.split(",")] if seeds else []
    except ValueError:
        raise UserError(f"--seeds {seeds}: expected whole numbers, such as 1,2,3.") from None
    if len(set(numbers)) < len(numbers):
        raise UserError(f"--seeds {seeds}: each seed may be named once.")
    sources = [source.strip() for source in context_sources.split(",")]
    config = StudyConfig(recipes, out, numbers, sources, split, baseline, preset, overrides)
    if show_plan:
        print_plan(Study(config), shard)
        return
    with forward_signals():
        run_study(config, shard)
