"""A virtual environment outside of the repository, with nothing of the machine's other environments."""

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
CONSTRAINTS = ROOT / "constraints.txt"
# Nothing else of the caller's environment reaches a command: no PYTHONPATH, no cache of a hub, no settings of ours.
KEPT_VARIABLES = ("PATH", "LANG", "LC_ALL", "TMPDIR", "SSL_CERT_FILE", "OPENBLAS_CORETYPE")
INSTALL_SECONDS = 1800


@dataclass(frozen=True)
class CleanEnvironment:
    """The folder of a virtual environment, and an empty folder in which its commands run."""

    folder: Path
    empty: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    @property
    def site_packages(self) -> Path:
        [folder] = (self.folder / "lib").glob("python3.*/site-packages")
        return folder

    def install(self, *words: str | Path, constraints: Path = CONSTRAINTS) -> float:
        """pip install with the versions of a constraints file; the seconds that it took."""
        start_time = time.monotonic()
        command = [self.python, "-m", "pip", "install", "--quiet", "--constraint", constraints, *words]
        subprocess.run(command, check=True, timeout=INSTALL_SECONDS)
        return time.monotonic() - start_time

    def run(self, *words: str | Path, seconds: float = 300, **variables: str) -> str:
        """What a command prints; it must end with exit code 0. A bare name is a program of this environment."""
        program = self.folder / "bin" / words[0]
        command = [str(program if program.exists() else words[0]), *map(str, words[1:])]
        try:
            ended = subprocess.run(
                command,
                cwd=self.empty,
                env=self._variables() | variables,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired as late:
            printed = (late.output or b"").decode(errors="replace")
            raise SystemExit(f"{' '.join(command)} took more than {seconds:.0f} s:\n{printed}") from None
        if ended.returncode:
            raise SystemExit(f"{' '.join(command)} ended with exit code {ended.returncode}:\n{ended.stdout}")
        return ended.stdout

    def _variables(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
        path = f"{self.folder / 'bin'}{os.pathsep}{kept.get('PATH', os.defpath)}"
        return kept | {"PATH": path, "HOME": str(self.empty), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


def make_environment(folder: Path, python: str | Path) -> CleanEnvironment:
    """A new virtual environment in `folder`, made by the interpreter `python`."""
    empty = folder / "empty"
    empty.mkdir(parents=True)
    subprocess.run([python, "-m", "venv", folder / "venv"], check=True, timeout=300)
    return CleanEnvironment(folder / "venv", empty)


def size_of(folder: Path) -> int:
    """The bytes of all files in a folder."""
    return sum(file.lstat().st_size for file in folder.rglob("*") if file.is_file() or file.is_symlink())


def print_rows(rows: Sequence[tuple[str, str]] | Mapping[str, str]) -> None:
    """Print a table of two columns."""
    pairs = list(rows.items()) if isinstance(rows, Mapping) else list(rows)
    width = max(len(name) for name, _ in pairs)
    for name, value in pairs:
        print(f"{name:{width}}  {value}", flush=True)
