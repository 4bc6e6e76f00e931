"""Tab completion in real shells, after the one command that installs it."""

import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import shellingham
from conftest import Ended
from doc_pages import shell_block, signllava_commands
from typer.main import get_command

from signllava_cli.cli.main import app

ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[()].|[=>])")
SHELLS = ["bash", pytest.param("zsh", marks=pytest.mark.drill), pytest.param("fish", marks=pytest.mark.drill)]
SECONDS = 180
BEGINNING_OF_LINE = "\x01"
# What is typed before each Tab, and what Tab adds to it.
LINES = [
    [("signllava fine", "tune "), ("--reci", "pe "), ("toy/tiny_f", "inetune ")],
    [("signllava pretrain --launch zero3_o", "ffload "), ("--set train.max_gr", "ad_norm=")],
    [("signllava recipes explain train.max_gr", "ad_norm ")],
    [("signllava demo --llm ti", "ny "), ("--out fold", "er/")],
]
SETTINGS = {  # a user's own, which the installation keeps
    "bash": (".bashrc", "PS1='READY> '\n"),
    "zsh": (".zshrc", "PS1='READY> '\n"),
    "fish": (".config/fish/config.fish", "function fish_prompt; echo -n 'READY> '; end\n"),
}


class Terminal:
    """A shell on a terminal of its own."""

    def __init__(self, shell: str, home: Path) -> None:
        program = shutil.which(shell)
        if program is None:
            pytest.skip(f"{shell} is not installed (Debian: apt install {shell})")
        folders = {"HOME": home, "ZDOTDIR": home, "XDG_CONFIG_HOME": home / ".config", "XDG_DATA_HOME": home / "data"}
        variables = {name: str(folder) for name, folder in folders.items()} | {"TERM": "xterm"}
        variables["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.output = ""
        self.process, self.terminal = pty.fork()
        if self.process == 0:
            os.chdir(home)
            os.execve(program, [shell, "-i"], {**os.environ, **variables})

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *_: object) -> None:
        os.kill(self.process, signal.SIGKILL)
        os.close(self.terminal)
        os.waitpid(self.process, 0)

    def type(self, keys: str) -> None:
        os.write(self.terminal, keys.encode())

    def wait_for(self, pattern: str) -> str:
        """Wait until the terminal shows `pattern`, after what was waited for before; its last group."""
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            if match := re.search(pattern, self.output):
                self.output = self.output[match.end() :]
                return match[match.lastindex or 0]
            if select.select([self.terminal], [], [], 1)[0]:
                text = os.read(self.terminal, 65536).decode(errors="replace")
                self.output = ESCAPES.sub("", self.output + text)
        raise AssertionError(f"the terminal does not show {pattern!r}:\n{self.output!r}")


@pytest.mark.timeout(900)
@pytest.mark.parametrize("shell", SHELLS)
def test_one_command_installs_completion_of_commands_options_recipes_and_choices(shell: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    name, text = SETTINGS[shell]
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text(text)
    with Terminal(shell, tmp_path) as terminal:
        terminal.wait_for("READY> ")
        terminal.type("signllava completion\n")
        terminal.wait_for(f"completion for {shell} installed in ")
    assert (tmp_path / name).read_text().startswith(text)
    with Terminal(shell, tmp_path) as terminal:
        for line in LINES:
            terminal.wait_for("READY> ")
            for keys, added in line:
                terminal.type(keys)
                terminal.wait_for(re.escape(keys[-5:]))
                terminal.type("\t")  # apart: zsh completes nothing while more keys are pending
                terminal.wait_for(re.escape(added.strip()))
            terminal.type(f"{BEGINNING_OF_LINE}echo 'LINE:' \n")
            shown = terminal.wait_for(r"[\r\n]LINE: ([^\r\n]*)")
            # zsh removes the slash that it has added after a folder
            assert shown.strip(" /") == "".join(keys + added for keys, added in line).strip(" /")


def complete(line: str, signllava: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What bash is offered at the end of a line."""
    monkeypatch.setenv("_SIGNLLAVA_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(line.split(" ")) - 1))
    ended = signllava()
    assert (ended.code, ended.err) == (0, "")
    return ended.out.split()


def commands(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    for name, below in getattr(command, "commands", {}).items():
        yield from commands(below, (*words, name))
    if not hasattr(command, "commands"):
        yield " ".join(words), command


@pytest.mark.parametrize(
    ("option", "beginning", "expected"),
    [
        ("--recipe", "toy/tiny_", ["toy/tiny_finetune", "toy/tiny_pretrain"]),
        ("--set", "run.", ["run.output_dir=", "run.seed="]),
        ("--launch", "zero3", ["zero3", "zero3_cpu", "zero3_offload"]),
    ],
)
def test_an_option_is_completed_in_every_command_that_has_it(
    option: str, beginning: str, expected: list[str], signllava: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    having = [name for name, each in commands(get_command(app)) if any(option in param.opts for param in each.params)]
    assert len(having) >= 4
    for name in having:
        assert complete(f"signllava {name} {option} {beginning}", signllava, monkeypatch) == expected, name


def test_completion_needs_no_library() -> None:
    block = "import sys\nfor name in ('torch', 'transformers', 'numpy', 'h5py'): sys.modules[name] = None\n"
    script = block + "sys.argv = ['signllava']; from signllava_cli.cli.main import run; run()"
    variables = {"_SIGNLLAVA_COMPLETE": "complete_bash", "COMP_WORDS": "signllava pretrain --rec", "COMP_CWORD": "2"}
    ended = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "--recipe\n", "")


@pytest.mark.parametrize("text", ["", "alias l=ls\n", "alias l=ls"])
def test_installing_twice_adds_one_line_and_keeps_the_others(
    text: str, signllava: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    (tmp_path / ".bashrc").write_text(text)
    [words] = signllava_commands(shell_block("docs/install.md", "signllava completion"))
    assert [signllava(*words).code for _ in range(2)] == [0, 0]
    lines = (tmp_path / ".bashrc").read_text().splitlines()
    assert lines == [*text.splitlines(), f"source {tmp_path}/signllava/completion.bash"]


def test_an_unknown_shell_is_one_line(signllava: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shellingham, "detect_shell", lambda: ("csh", "/bin/csh"))
    ended = signllava("completion")
    assert ended.code == 2
    assert "csh is not supported: name one of bash, zsh, fish." in ended.err
