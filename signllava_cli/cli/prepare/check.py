"""`signllava prepare check`."""

from pathlib import Path
from typing import Annotated

import typer

from signllava_cli.cli.options import DatasetArgument, SetOption, SplitsOption
from signllava_cli.cli.prompts import load_prompts
from signllava_cli.errors import UserError

CONTEXT = {"window": 2, "prelude": 2}  # where no recipe says otherwise


def check(
    data: DatasetArgument,
    splits: SplitsOption = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe", "-r", help="Check for this recipe's streams, splits and context. Default: all there."
        ),
    ] = None,
    overrides: SetOption = None,
    window: Annotated[
        int | None, typer.Option(min=0, help="Context: the last sentences. Default: the recipe's, or 2.")
    ] = None,
    prelude: Annotated[
        int | None, typer.Option(min=0, help="Context: the first sentences. Default: the recipe's, or 2.")
    ] = None,
    fps: Annotated[
        float, typer.Option(min=1, help="Of the frames in names like ID.000123-000456, where a clip has no times.")
    ] = 25.0,
    report: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a report: `.html` or `.json`.")] = None,
    fix: Annotated[
        bool, typer.Option("--fix", help="Write a fixed annotation.SPLIT.fixed.json beside each.")
    ] = False,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes. Default: one a CPU core.")] = None,
    fast: Annotated[bool, typer.Option("--fast", help="Look at shapes alone: no frame is read.")] = False,
) -> None:
    """Look for what in a dataset would corrupt a training or a score, and say how to fix it.

    Reads every frame. Ends with exit code 2 if there is an error among the findings. docs/checking.md lists them all.
    """
    from signllava_cli.console import info
    from signllava_cli.prepare.validation.display import print_findings, summary
    from signllava_cli.prepare.validation.findings import counts_by_severity
    from signllava_cli.prepare.validation.fix import write_fixed
    from signllava_cli.prepare.validation.report import require_report_suffix, write_report
    from signllava_cli.prepare.validation.validate import ValidationRequest, validate
    from signllava_cli.recipe import build_recipe, read_recipe

    if report:
        require_report_suffix(report)
    config = list(overrides or ())
    config += [] if window is None else [f"context.window={window}", "context.min_window=null"]
    config += [] if prelude is None else [f"context.prelude={prelude}", "context.min_prelude=null"]
    read = read_recipe(recipe, config) if recipe else build_recipe({"context": CONTEXT}, config)
    prompts = load_prompts(read, "the positions of texts are estimated") if recipe else None
    examined = validate(ValidationRequest(data, read, tuple(splits or ()), prompts, fps, workers, fast))
    print_findings(examined.findings)
    for split in examined.splits if fix else ():
        write_fixed(data, split, examined.findings, fps)
    if report:
        arguments = {
            "splits": splits,
            "recipe": recipe,
            "set": overrides,
            "window": read.context.window,
            "prelude": read.context.prelude,
            "fps": fps,
            "fast": fast,
        }
        write_report(report, examined, arguments)
        info(f"report: {report}")
    fixable = sum(finding.fixable for finding in examined.findings)
    if fixable and not fix:
        info(f"{fixable} of these {len(examined.findings)} findings can be fixed with --fix.")
    info(summary(examined.findings, examined.seconds))
    if counts_by_severity(examined.findings)["error"]:
        raise typer.Exit(UserError.exit_code)
