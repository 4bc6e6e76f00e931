"""Messages of libraries that do not concern the user are not printed."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = (
    "import logging, inspect\n"
    "from signllava_cli.console import quiet_libraries\n"
    "quiet_libraries()\n"
    "from bitsandbytes.backends.cpu import ops\n"
    "lines = inspect.getsource(ops).splitlines()\n"
    "(message,) = [line.strip().strip('\",') for line in lines if 'Failed to load CPU gemm_4bit_forward' in line]\n"
    "ops.logger.warning(message, 'no kernels')\n"
    "ops.logger.warning('something else')\n"
)


@pytest.mark.drill
def test_the_missing_kernel_of_bitsandbytes_is_not_printed_but_its_other_warnings_are() -> None:
    """On a CPU with AVX-512-BF16 bitsandbytes warns that it found no faster kernel, with the text in its source."""
    ended = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert ended.stderr.splitlines() == ["something else"]


@pytest.mark.drill
def test_prepare_llm_prints_no_progress_bar_of_another_program(tmp_path: Path) -> None:
    out = tmp_path / "llm"
    ended = subprocess.run(
        [sys.executable, "-m", "signllava_cli", "prepare", "llm", "smollm2", "--out", str(out)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == f"LLM smollm2 in {out}\n"
