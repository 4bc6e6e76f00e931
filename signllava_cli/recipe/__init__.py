"""What a recipe is: one YAML file that says everything about a run, checked whole before anything is opened.

Every command accepts the same file and reads the sections it needs. A recipe is built from its defaults, the
file, and `--set key=value` overrides, in this order. Unknown keys, wrong types and settings that contradict
each other are reported together, each with its key.
"""

from signllava_cli.recipe.consistency import is_unicode, require_stage
from signllava_cli.recipe.differences import recipe_differences
from signllava_cli.recipe.reading import build_recipe, read_recipe
from signllava_cli.recipe.sections import (
    LLM,
    PLACEHOLDER,
    TASKS,
    Context,
    Data,
    Generate,
    Init,
    Launch,
    Lora,
    Recipe,
    Run,
    Stage,
    Stream,
    Task,
    Tasks,
    TaskWeights,
    Track,
    Train,
)
from signllava_cli.recipe.shipped import find_recipe, shipped_folder, shipped_recipes

__all__ = [
    "LLM",
    "PLACEHOLDER",
    "TASKS",
    "Context",
    "Data",
    "Generate",
    "Init",
    "Launch",
    "Lora",
    "Recipe",
    "Run",
    "Stage",
    "Stream",
    "Task",
    "TaskWeights",
    "Tasks",
    "Track",
    "Train",
    "build_recipe",
    "find_recipe",
    "is_unicode",
    "read_recipe",
    "recipe_differences",
    "require_stage",
    "shipped_folder",
    "shipped_recipes",
]
