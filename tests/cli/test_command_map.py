"""`signllava` alone prints a map: every command, in the order of a study, one line each."""

import subprocess
import sys
from collections.abc import Callable

from conftest import Ended
from typer.main import get_command

from signllava_cli.cli.main import app

STUDY = ["prepare", "init", "pretrain", "finetune", "generate", "eval", "study", "serve"]


def commands_of(text: str) -> list[str]:
    return [line.split()[0] for line in text.splitlines() if line.startswith("  ")]


def test_signllava_alone_prints_every_command_once_in_the_order_of_a_study(signllava: Callable[..., Ended]) -> None:
    ended = signllava()
    assert (ended.code, ended.err) == (0, "")
    listed = commands_of(ended.out)
    assert listed[: len(STUDY)] == STUDY
    assert sorted(listed) == sorted(get_command(app).commands)  # type: ignore[attr-defined]
    assert "signllava COMMAND --help" in ended.out
    assert max(map(len, ended.out.splitlines())) <= 80


def test_the_map_needs_no_library() -> None:
    """Neither torch nor what reads data; `--help` and this are what a newcomer runs first."""
    script = "import sys; sys.argv = ['signllava']; from signllava_cli.cli.main import run\ntry: run()\nfinally: "
    script += "print(*{'torch', 'transformers', 'numpy', 'h5py'} & set(sys.modules), file=sys.stderr)"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)
    assert ended.stderr == "\n"
    assert "pretrain" in ended.stdout


def test_an_unknown_command_is_still_an_error(signllava: Callable[..., Ended]) -> None:
    ended = signllava("pretrian")
    assert ended.code == 2
    assert "pretrian" in ended.err
