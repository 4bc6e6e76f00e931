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
    llm: Annotated[
        DemoLLM | None,
        typer.Option(
            help="SmolLM2-135M from its wheel (default), or a tiny LLM that the demo trains (default of --video).",
            show_default=False,
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for all output.")] = Path("runs/demo"),
    video: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Instead of the toy corpus: a folder of CLIP.mp4 or RECORDING.mp4, with one table of the sentences "
            "(columns uid, translation; if need be recording, start, end, split).",
        ),
    ] = None,
    pose_model: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Landmark model for --video. Default: in the user's cache.")
    ] = None,
) -> None:
    """Run all steps on the toy corpus: prepare, pretrain, finetune, generate, eval; or on videos of yours.

    An interrupted demo resumes where it stopped.
    """
    from signllava_cli.demo import run_demo, run_video_demo
    from signllava_cli.processes import forward_signals

    with forward_signals():
        if video is not None:
            run_video_demo(video, (llm or DemoLLM.tiny).value, out, pose_model)
        else:
            run_demo((llm or DemoLLM.smollm2).value, out)
