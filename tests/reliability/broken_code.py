"""Does each test of a promise fail when its promise is broken?

    python tests/reliability/broken_code.py [WORD ...]

For each change of broken_code.yaml (or those whose promise or test contains a WORD), changes a clone of the
repository and runs the test of the promise there. The test must fail. Prints one line for each change, with the first
line of the failed assertion. The exit code is 1 if a test has passed, or could not run.
"""

import contextlib
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import yaml

ROOT = Path(__file__).parents[2]
FILE = Path(__file__).with_suffix(".yaml")
SECONDS = 900  # for a test
FAILED = 1  # pytest's exit code


@dataclass(frozen=True)
class Change:
    """A change of one place of the code: `before` occurs once in `file`. `test`: fails with it."""

    promise: str
    file: str
    before: str
    after: str
    test: str

    def applied_to(self, code: str) -> str:
        """`code` with the change.

        Raises:
            ValueError: `before` does not occur exactly once.
        """
        if (count := code.count(self.before)) != 1:
            raise ValueError(f"{self.file} has {self.before!r} {count} times; update {FILE.name}")
        return code.replace(self.before, self.after)


def read_changes() -> list[Change]:
    """The changes of broken_code.yaml, one for each promise."""
    content = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return [Change(promise, **entry) for promise, entry in content["changes"].items()]


def read_exceptions() -> dict[str, str]:
    """Promise -> why no change is tried."""
    exceptions: dict[str, str] = yaml.safe_load(FILE.read_text(encoding="utf-8"))["exceptions"]
    return exceptions


def try_change(change: Change, clone: Path) -> tuple[bool, str]:
    """Whether the test fails with the change, and the first line of its error."""
    subprocess.run(["git", "checkout", "--quiet", "--force", "--detach", "base"], cwd=clone, check=True)
    file = clone / change.file
    file.write_text(change.applied_to(file.read_text(encoding="utf-8")), encoding="utf-8")
    subprocess.run(["git", "commit", "--quiet", "--all", "--message", "break"], cwd=clone, check=True)
    words = ["-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--tb=short", change.test]
    environment = {**os.environ, "PYTHONPATH": str(clone), "HF_HUB_OFFLINE": "1"}
    try:
        ended = subprocess.run(
            [sys.executable, *words], cwd=clone, env=environment, capture_output=True, text=True, timeout=SECONDS
        )
    except subprocess.TimeoutExpired:
        return True, f"not ended within {SECONDS} s"
    finally:
        kill_processes_of(clone)
    has_failed = ended.returncode == FAILED and re.search(r"^\d+ failed", ended.stdout.splitlines()[-1]) is not None
    error = re.search(r"^E +(.*)$", ended.stdout, re.MULTILINE)
    return has_failed, error[1][:160] if error else ended.stdout[-200:] + ended.stderr[-200:]


def kill_processes_of(clone: Path) -> None:
    """Kill the commands that a failed test has left, some of them stopped by a signal."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("PYTHONPATH") == str(clone):
                process.kill()


def main() -> int:
    words = sys.argv[1:]
    changes = [
        change
        for change in read_changes()
        if not words or any(word in f"{change.promise} {change.test}" for word in words)
    ]
    noticed = 0
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "clone"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        if (shared := ROOT.parent / "shared").is_dir():  # real clips
            (clone.parent / shared.name).symlink_to(shared)
        for words_of_git in (["branch", "base"], ["config", "user.name", "x"], ["config", "user.email", "x@x"]):
            subprocess.run(["git", *words_of_git], cwd=clone, check=True)
        for change in changes:
            start = time.monotonic()
            has_failed, error = try_change(change, clone)
            noticed += has_failed
            seconds = time.monotonic() - start
            print(f"{'noticed' if has_failed else 'NOT NOTICED'}  {change.promise}  ({seconds:.0f} s)\n    {error}")
            sys.stdout.flush()
    print(f"{noticed} of {len(changes)} broken promises were noticed")
    return int(noticed < len(changes))


if __name__ == "__main__":
    sys.exit(main())
