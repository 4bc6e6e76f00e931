"""No --help needs torch, and every command has one."""

import json
import subprocess
import sys

from typer.main import get_command

from signllava_cli.cli.main import app

END_OF_PAGE = "END OF PAGE"
WITHOUT_TORCH = f"""
import json, sys
for name in ("torch", "transformers", "accelerate", "peft", "h5py", "numpy"):
    sys.modules[name] = None
from signllava_cli.cli.main import run
for words in json.loads(sys.argv[1]):
    sys.argv = ["signllava", *words, "--help"]
    try:
        run()
    except SystemExit as ended:
        assert not ended.code, words
    print("{END_OF_PAGE}")
"""


def commands() -> list[tuple[str, ...]]:
    root = get_command(app)
    all_words: list[tuple[str, ...]] = [()]
    for name, command in root.commands.items():  # type: ignore[attr-defined]
        all_words.append((name,))
        all_words += [(name, subcommand) for subcommand in getattr(command, "commands", {})]
    return all_words


def test_every_help_is_printed_without_torch() -> None:
    """One process for all of them; benchmarks/limits.py measures how long each takes in its own."""
    every = json.dumps([list(words) for words in commands()])
    command = [sys.executable, "-c", WITHOUT_TORCH, every]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    pages = ended.stdout.split(END_OF_PAGE)[:-1]
    for words, page in zip(commands(), pages, strict=True):
        assert " ".join(("signllava", *words)) in page, words
        assert "Usage" in page


def test_all_documented_commands_exist() -> None:
    names = {" ".join(words) for words in commands()}
    assert {
        *(f"prepare {source}" for source in ("how2sign", "youtube-asl", "openasl", "phoenix14t", "csv")),
        *(f"prepare {step}" for step in ("pack", "link", "index", "check", "describe", "keywords", "paraphrases")),
        "prepare toy",
        "prepare llm",
        "pretrain",
        "finetune",
        "generate",
        "eval",
        "demo",
        "recipes show",
    } <= names
