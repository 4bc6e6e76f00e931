"""`signllava prepare check`."""

from pathlib import Path
from typing import Annotated

import typer

from signllava_cli.cli.completion import complete_recipe
from signllava_cli.cli.options import DatasetArgument, SetOption, SplitsOption
from signllava_cli.cli.prompts import load_prompts
from signllava_cli.errors import UserError

CONTEXT = {"window": 2, "prelude": 2}  # without a recipe


def check(
    data: DatasetArgument,
    splits: SplitsOption = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe",
            "-r",
            autocompletion=complete_recipe,
            help="Check for this recipe's streams, splits and context. Default: all in the folder.",
        ),
    ] = None,
    overrides: SetOption = None,
    window: Annotated[
        int | None, typer.Option(min=0, help="Context: number of last sentences. Default: the recipe's, or 2.")
    ] = None,
    prelude: Annotated[
        int | None, typer.Option(min=0, help="Context: number of first sentences. Default: the recipe's, or 2.")
    ] = None,
    fps: Annotated[
        float, typer.Option(min=1, help="Frames per second of names like ID.000123-000456, for clips without times.")
    ] = 25.0,
    report: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a report: `.html` or `.json`.")] = None,
    fix: Annotated[
        bool, typer.Option("--fix", help="Write a fixed copy of each annotation: annotation.SPLIT.fixed.json.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Number of processes. Default: the number of CPU cores.")
    ] = None,
    fast: Annotated[
        bool, typer.Option("--fast", help="Check only the shapes of arrays; frames are not read.")
    ] = False,
) -> None:
    """Check a dataset for errors that would corrupt a training or a score, and print how to fix them.

    Reads every frame. The exit code is 2 if a finding is an error. docs/checking.md lists all checks.
    """
    from signllava_cli.console import info, print_line
    from signllava_cli.prepare.validation.display import print_findings, summary
    from signllava_cli.prepare.validation.findings import counts_by_severity
    from signllava_cli.prepare.validation.fix import write_fixed
    from signllava_cli.prepare.validation.report import require_report_suffix, write_report
    from signllava_cli.prepare.validation.validate import ValidationRequest, validate
    from signllava_cli.recipe import build_recipe, read_recipe

    if report:
        require_report_suffix(report)
    all_overrides = list(overrides or ())
    all_overrides += [] if window is None else [f"context.window={window}", "context.min_window=null"]
    all_overrides += [] if prelude is None else [f"context.prelude={prelude}", "context.min_prelude=null"]
    config = read_recipe(recipe, all_overrides) if recipe else build_recipe({"context": CONTEXT}, all_overrides)
    prompts = load_prompts(config, "the tokens of texts are estimated") if recipe else None
    result = validate(ValidationRequest(data, config, tuple(splits or ()), prompts, fps, workers, fast))
    print_findings(result.findings)
    for split in result.splits if fix else ():
        write_fixed(data, split, result.findings, fps)
    if report:
        arguments = {
            "splits": splits,
            "recipe": recipe,
            "set": overrides,
            "window": config.context.window,
            "prelude": config.context.prelude,
            "fps": fps,
            "fast": fast,
        }
        write_report(report, result, arguments)
        info(f"report: {report}")
    num_fixable = sum(finding.fixable for finding in result.findings)
    if num_fixable and not fix:
        print_line(f"{num_fixable} of these {len(result.findings)} findings can be fixed with --fix.")
    print_line(summary(result.findings, result.seconds))
    if counts_by_severity(result.findings)["error"]:
        raise typer.Exit(UserError.exit_code)
