"""The recipes and launch profiles that come with the package."""

import difflib
from pathlib import Path

from signllava_cli.errors import UserError


def find_recipe(name: str | Path) -> Path:
    """The file `name`, or the shipped recipe of that name (`pretrain`, `toy/finetune`)."""
    path = Path(name).expanduser()
    if path.is_file():
        return path
    shipped = shipped_folder("recipes") / f"{str(name).removesuffix('.yaml').removeprefix('recipes/')}.yaml"
    if shipped.is_file():
        return shipped
    near = difflib.get_close_matches(str(name), shipped_recipes(), n=1)
    hint = f" Did you mean `{near[0]}`?" if near else " `signllava recipes list` lists the shipped ones."
    raise UserError(f"No recipe at {path}.{hint}")


def shipped_recipes() -> list[str]:
    """The names of the recipes that come with the package, such as `pretrain` and `toy/finetune`."""
    return _shipped_names("recipes")


def shipped_profiles() -> list[str]:
    """The names of the launch profiles that come with the package, such as `multi_gpu`."""
    return _shipped_names("accelerate_configs")


def _shipped_names(name: str) -> list[str]:
    folder = shipped_folder(name)
    return sorted(str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.yaml"))


def shipped_folder(name: str) -> Path:
    """`recipes` or `accelerate_configs`: inside the package when installed, beside it in a checkout."""
    package = Path(__file__).parent.parent
    return package / name if (package / name).is_dir() else package.parent / name
