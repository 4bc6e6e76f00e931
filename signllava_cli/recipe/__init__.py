"""A recipe is one YAML file with all settings of a run. It is checked before a model or data file is opened.

Every command accepts the same file and reads the sections it needs. A recipe is built from its defaults, the
file, and `--set key=value` overrides, in this order. Unknown keys, wrong types and settings that contradict
each other are reported together, each with its key. Each setting is described below its field; `recipes explain`,
docs/recipe.md, copied recipes and the help of options are made from these descriptions.
"""

from signllava_cli.recipe.commented_copy import comment_recipe, write_sections
from signllava_cli.recipe.consistency import is_unicode, require_stage
from signllava_cli.recipe.data_sections import PLACEHOLDER, Context, Data, Tasks, TaskWeights
from signllava_cli.recipe.differences import recipe_differences
from signllava_cli.recipe.file_patterns import pattern_fields
from signllava_cli.recipe.generate_section import Generate
from signllava_cli.recipe.model_sections import LLM, Conv, Init, Lora, Stream
from signllava_cli.recipe.reading import YAML_ERRORS, build_recipe, format_override, read_recipe, read_sections
from signllava_cli.recipe.reference import SCHEMA_FILE, explain, recipe_schema, reference_page
from signllava_cli.recipe.sections import Launch, Recipe, flatten
from signllava_cli.recipe.setting_types import ALL_LINEAR, TASKS, Stage, Task
from signllava_cli.recipe.shipped import (
    find_recipe,
    find_recipe_files,
    shipped_folder,
    shipped_profiles,
    shipped_recipes,
    shipped_variants,
)
from signllava_cli.recipe.training_sections import Run, Track, Train

__all__ = [
    "ALL_LINEAR",
    "LLM",
    "PLACEHOLDER",
    "SCHEMA_FILE",
    "TASKS",
    "YAML_ERRORS",
    "Context",
    "Conv",
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
    "comment_recipe",
    "explain",
    "find_recipe",
    "find_recipe_files",
    "flatten",
    "format_override",
    "is_unicode",
    "pattern_fields",
    "read_recipe",
    "read_sections",
    "recipe_differences",
    "recipe_schema",
    "reference_page",
    "require_stage",
    "shipped_folder",
    "shipped_profiles",
    "shipped_recipes",
    "shipped_variants",
    "write_sections",
]
