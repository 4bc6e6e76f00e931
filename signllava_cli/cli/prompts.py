"""The prompts of a recipe, for commands that count tokens and can do without."""

from typing import TYPE_CHECKING

from signllava_cli.errors import UserError

if TYPE_CHECKING:
    from signllava_cli.data.prompts import PromptBuilder
    from signllava_cli.recipe import Recipe


def load_prompts(recipe: "Recipe", consequence: str) -> "PromptBuilder | None":
    """The prompts of `recipe`; None, with a warning that ends in `consequence`, if its tokenizer cannot be loaded."""
    from signllava_cli.console import loading_packages, warning

    with loading_packages():
        from signllava_cli.data.prompts import PromptBuilder
        from signllava_cli.model.llm import load_tokenizer

    try:
        return PromptBuilder(load_tokenizer(recipe.llm), recipe.tasks)
    except UserError as error:
        *lines, last = error.lines
        warning(*lines, f"{last} (so {consequence})")
        return None
