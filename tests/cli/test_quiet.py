"""What libraries print of themselves, and is no news to the person at the terminal, does not come through."""

import subprocess
import sys
from pathlib import Path

import pytest

LOGGED = (
    "import logging, inspect\n"
    "from signllava_cli.console import quiet_libraries\n"
    "quiet_libraries()\n"
    "from bitsandbytes.backends.cpu import ops\n"
    "lines = inspect.getsource(ops).splitlines()\n"
    "(message,) = [line.strip().strip('\",') for line in lines if 'Failed to load CPU gemm_4bit_forward' in line]\n"
    "ops.logger.warning(message, 'no kernels')\n"
    "ops.logger.warning('something else')\n"
)


def test_a_missing_kernel_of_bitsandbytes_is_not_news_and_its_other_warnings_are() -> None:
    """On a CPU with AVX-512-BF16 it looks for a faster kernel, and says that it has none, with its own text."""
    ended = subprocess.run([sys.executable, "-c", LOGGED], capture_output=True, text=True, check=True)
    assert ended.stderr.splitlines() == ["something else"]


@pytest.mark.drill
def test_the_llm_of_the_wheel_is_made_without_a_bar_of_another_program(tmp_path: Path) -> None:
    out = tmp_path / "llm"
    ended = subprocess.run(
        [sys.executable, "-m", "signllava_cli", "prepare", "llm", "smollm2", "--out", str(out)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == f"LLM smollm2 in {out}\n"
