"""The prompts of a recipe, where its tokenizer is within reach: for commands that count positions."""

from typing import TYPE_CHECKING

from signllava_cli.errors import UserError

if TYPE_CHECKING:
    from signllava_cli.data.prompts import PromptBuilder
    from signllava_cli.recipe import Recipe


def load_prompts(recipe: "Recipe", otherwise: str) -> "PromptBuilder | None":
    """The recipe's prompts, or None, with a warning that ends in `otherwise`."""
    from signllava_cli.console import warning
    from signllava_cli.data.prompts import PromptBuilder
    from signllava_cli.model.llm import load_tokenizer

    try:
        return PromptBuilder(load_tokenizer(recipe.llm), recipe.tasks)
    except UserError as error:
        warning(f"{error} (so {otherwise})")
        return None
