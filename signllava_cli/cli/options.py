"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from signllava_cli.cli.completion import complete_override, complete_recipe

RecipeOption = Annotated[
    str,
    typer.Option(
        "--recipe",
        "-r",
        autocompletion=complete_recipe,
        help="A recipe file, or a shipped one (`recipes list`); RECIPE+VARIANT too.",
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        autocompletion=complete_override,
        help="Override a key of the recipe, e.g. train.learning_rate=1e-3. Repeatable.",
    ),
]
ResumeOption = Annotated[
    str,
    typer.Option(
        metavar="auto|never|DIR",
        help="Resume from the newest complete checkpoint (or start), start from step 0, or resume from DIR.",
    ),
]
CheckpointArgument = Annotated[
    Path, typer.Argument(help="A run folder (its best checkpoint), a step folder, or the link `best` or `last`.")
]
DryRunOption = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Run the preflight (longest batch, dev batch, checkpoint) and print the expected memory and hours.",
    ),
]
DatasetArgument = Annotated[Path, typer.Argument(metavar="DATA", help="The dataset folder.", show_default=False)]
SplitsOption = Annotated[
    list[str] | None, typer.Option("--split", help="A split. Repeatable. Default: all splits of the dataset.")
]
RepoArgument = Annotated[str, typer.Argument(metavar="OWNER/NAME", help="The repository on the Hugging Face hub.")]
RevisionOption = Annotated[
    str | None, typer.Option(help="A branch, tag or commit of the repository. Default: `main`.", show_default=False)
]
PrivateOption = Annotated[bool, typer.Option("--private", help="Make a new repository private.")]
