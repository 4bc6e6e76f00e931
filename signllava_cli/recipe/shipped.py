"""The recipes, variants of recipes and launch profiles that come with the package."""

import difflib
from pathlib import Path

from signllava_cli.errors import UserError

VARIANTS = "variants"  # the folder of the shipped variants, in that of the recipes
SEPARATOR = "+"


def find_recipe_files(name: str | Path) -> tuple[Path, ...]:
    """The file of the recipe, then those of its variants, of `RECIPE` or `RECIPE+VARIANT+...`.

    Raises:
        UserError: one of them is missing.
    """
    recipe, separator, variant = str(name).rpartition(SEPARATOR)
    if not separator or Path(name).expanduser().is_file():
        return (find_recipe(name),)
    return (*find_recipe_files(recipe), find_variant(variant))


def find_variant(name: str) -> Path:
    """The file `name`, or the shipped variant of that name (`pose`)."""
    path = Path(name).expanduser()
    shipped = shipped_folder("recipes") / VARIANTS / f"{name}.yaml"
    found = next((file for file in (path, shipped) if file.is_file()), None)
    if found is None:
        raise UserError(f"No variant at {name}.{_hint(name, shipped_variants())}")
    return found


def find_recipe(name: str | Path) -> Path:
    """The file `name`, or the shipped recipe of that name (`pretrain`, `toy/finetune`)."""
    path = Path(name).expanduser()
    if path.is_file():
        return path
    shipped = shipped_folder("recipes") / f"{str(name).removesuffix('.yaml').removeprefix('recipes/')}.yaml"
    if shipped.is_file():
        return shipped
    raise UserError(f"No recipe at {path}.{_hint(str(name), shipped_recipes())}")


def _hint(name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1)
    return f" Did you mean `{near[0]}`?" if near else " `signllava recipes list` lists the shipped ones."


def shipped_recipes() -> list[str]:
    """The names of the recipes that come with the package, such as `pretrain` and `toy/finetune`."""
    return [name for name in _shipped_names("recipes") if not name.startswith(f"{VARIANTS}/")]


def shipped_variants() -> list[str]:
    """The names of the variants that come with the package, such as `pose` and `llama-3.2-1b`."""
    folder = shipped_folder("recipes") / VARIANTS
    return sorted(path.name.removesuffix(".yaml") for path in folder.glob("*.yaml"))


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
