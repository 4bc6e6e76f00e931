"""The prompts of a recipe, where its tokenizer is within reach: for commands that count positions."""

from typing import TYPE_CHECKING

from signllava_cli.errors import UserError

if TYPE_CHECKING:
    from signllava_cli.data.prompts import PromptWriter
    from signllava_cli.recipe import Recipe


def prompts_of(recipe: "Recipe", otherwise: str) -> "PromptWriter | None":
    """The recipe's prompts, or None, with a warning that ends in `otherwise`."""
    from signllava_cli.console import warn
    from signllava_cli.data.prompts import PromptWriter
    from signllava_cli.model.llm import load_tokenizer

    try:
        return PromptWriter(load_tokenizer(recipe.llm), recipe.tasks)
    except UserError as fault:
        warn(f"{fault} (so {otherwise})")
        return None
