"""`python -m signllava_cli`: the module that `accelerate launch -m` starts."""

import os
import sys
import traceback
from typing import NoReturn

from signllava_cli.cli.main import run
from signllava_cli.console import flush
from signllava_cli.preemption import is_launched


def run_as_rank() -> NoReturn:
    """Run the command line, and exit without Python's finalization, in which a rank can hang or abort.

    A thread of torch's gloo needs the GIL to release the tensors of its last collective, while Python holds the GIL
    and waits for the thread: https://github.com/pytorch/pytorch/issues/56297
    """
    code = 1
    try:
        run()
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
    if code == 0:
        _destroy_nccl_group()
    flush()
    os._exit(code)


def _destroy_nccl_group() -> None:
    """End NCCL's communicators, which otherwise warns; after an error this could wait for ranks that are gone."""
    distributed = sys.modules.get("torch.distributed")
    if distributed and distributed.is_initialized() and distributed.get_backend() == "nccl":
        distributed.destroy_process_group()


if __name__ == "__main__":
    run_as_rank() if is_launched() else run()
