"""The file system of the run folder: locks, atomic renames, free space, the speed of a save."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from signllava_cli.errors import UserError
from signllava_cli.files import atomic_folder, lock_folder, read_link, write_link
from signllava_cli.machine_checks.check_result import CheckResult, guarded
from signllava_cli.model.llm_memory import format_bytes

SAVED_BYTES = 2**25
MIN_FREE_BYTES, MIN_SPEED = 2**31, 5e6  # a checkpoint of QLoRA for 8B, with optimizer state, takes about 2 GiB
TRY_LOCK = "import sys, pathlib; from signllava_cli.files import lock_folder; lock_folder(pathlib.Path(sys.argv[1]))"


def check_run_folder(folder: Path) -> Iterator[CheckResult]:
    """Write into a temporary folder inside of `folder`; nothing of it is left, nor of parents that were missing."""
    new_folders: list[Path] = []
    try:
        new_folders = [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".signllava-", dir=folder, ignore_cleanup_errors=True) as name:
            trial = Path(name)
            yield guarded("locks", lambda: _try_lock(trial))
            yield guarded("writing", lambda: _try_save(trial))
    except OSError as error:
        yield CheckResult("run folder", "", f"{folder} cannot be written ({error.strerror}): choose another")
    finally:
        for path in new_folders:  # the innermost is the first
            with contextlib.suppress(OSError):
                path.rmdir()


def _try_lock(folder: Path) -> tuple[str, str]:
    """A second process must not get a lock that this one holds; without locks, `lock_folder` warns."""
    with lock_folder(folder):
        command = [sys.executable, "-c", TRY_LOCK, str(folder)]
        second = subprocess.run(command, capture_output=True, text=True, check=False)
    if "Another process is writing" in second.stderr:
        return "a second process is kept out", ""
    return "a second process is not kept out", "never start two commands that write to the same folder"


def _try_save(folder: Path) -> tuple[str, str]:
    """Save a folder twice, as checkpoints are: written, flushed, renamed, and linked."""
    content, saved, start_time = os.urandom(SAVED_BYTES), folder / "step", time.monotonic()
    for size in (SAVED_BYTES, SAVED_BYTES // 2):
        with atomic_folder(saved) as temporary:
            (temporary / "weights").write_bytes(content[:size])
    speed = 1.5 * SAVED_BYTES / (time.monotonic() - start_time)
    write_link(folder / "last", saved.name)
    if (saved / "weights").read_bytes() != content[: SAVED_BYTES // 2] or read_link(
        folder / "last"
    ) != saved.resolve():
        raise UserError(f"{folder.parent} does not show what was written last: choose another file system")
    free = shutil.disk_usage(folder).free
    problems = []
    if free < MIN_FREE_BYTES:
        problems.append("there is little space: free some, or lower train.save_total_limit")
    if speed < MIN_SPEED:
        problems.append("checkpoints are written slowly: raise train.save_steps, or choose another disk")
    return f"{folder.parent}: {speed / 1e6:.0f} MB/s, {format_bytes(free)} free, renamed atomically", "; ".join(
        problems
    )
