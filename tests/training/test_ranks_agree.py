"""What ranks agree on before they train, in two processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

AGREE = """
import sys
from pathlib import Path
from torch.distributed import distributed_c10d, get_rank
from signllava_cli.errors import UserError
from signllava_cli.recipe import read_recipe
from signllava_cli.training.accelerator import start_accelerator
from signllava_cli.training.run_folder import RunFolder
from signllava_cli.training.session_setup import choose_checkpoint

class Folder(RunFolder):
    def checkpoint_to_resume(self, resume):
        if resume == "never":
            raise UserError(f"refused on rank {get_rank()}")
        return Path(f"step-{get_rank()}")  # ranks see different states of a network file system

accelerator, folder = start_accelerator(read_recipe("toy/tiny_pretrain")), Folder(sys.argv[1])
group = distributed_c10d._get_default_group()._get_backend(accelerator.device)
sys.stdout.write(f"timeout {group.options._timeout}\\n")  # one write: the lines of ranks do not mix
sys.stdout.write(f"chosen {choose_checkpoint(folder, 'auto', accelerator)}\\n")
try:
    choose_checkpoint(folder, "never", accelerator)
except UserError as error:
    sys.stdout.write(f"{error}\\n")
"""


@pytest.mark.drill
def test_ranks_resume_what_rank_0_sees_and_wait_two_hours_for_each_other(tmp_path: Path) -> None:
    script = tmp_path / "agree.py"
    script.write_text(AGREE)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", str(script), str(tmp_path)]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true"}
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)
    assert ended.returncode == 0, ended.stderr
    lines = ended.stdout.splitlines()
    assert lines.count("timeout 2:00:00") == lines.count("chosen step-0") == lines.count("refused on rank 0") == 2
