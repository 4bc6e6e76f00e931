"""Options that several commands share."""

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
    typer.Option(
        metavar="auto|never|DIR",
        help="Resume from the newest complete checkpoint (or start), start from step 0, or resume from DIR.",
    ),
]
CheckpointArgument = Annotated[
    Path, typer.Argument(help="A run (its best checkpoint), a step folder, or its link `best` or `last`.")
]
DryRunOption = Annotated[
    bool,
    typer.Option("--dry-run", help="Try the longest batch, the dev split and a checkpoint; print memory and hours."),
]
DatasetArgument = Annotated[Path, typer.Argument(metavar="DATA", help="The dataset folder.", show_default=False)]
SplitsOption = Annotated[
    list[str] | None, typer.Option("--split", help="A split; repeatable. Default: every split that is there.")
]
