"""Without a network, the cache of the Hugging Face hub is used immediately; missing files give a one-line error."""

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

REPOSITORY, COMMIT = "lab/tiny", "0123456789abcdef0123456789abcdef01234567"
UNREACHABLE = "http://127.0.0.1:9"  # nothing listens on this port
LOAD = """
import sys, torch
from signllava_cli.recipe import build_recipe
from signllava_cli.model.llm import load_llm, load_tokenizer
recipe = build_recipe({}, ["llm.path=lab/tiny", "llm.bits=32", "llm.dtype=float32"])
print(0 < len(load_tokenizer(recipe.llm)) <= load_llm(recipe.llm, torch.device("cpu")).config.vocab_size)
"""


def run_online(endpoint: str, hub: Path, *arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run Python with the hub at `endpoint` and its cache in `hub`."""
    environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(hub), "NO_PROXY": "127.0.0.1", **variables}
    del environment["HF_HUB_OFFLINE"]
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.drill
def test_without_a_network_there_is_one_warning_and_no_retry(corpus: Path, tmp_path: Path) -> None:
    """Instead of a line for each of twelve retries in 46 seconds."""
    arguments = (
        "-m",
        "signllava_cli",
        "prepare",
        "check",
        corpus,
        "--recipe",
        "pretrain",
        "--split",
        "dev",
        "--fast",
    )
    ended = run_online(UNREACHABLE, tmp_path, *arguments)
    output = ended.stdout + ended.stderr
    assert "Retrying" not in output
    (line,) = (line for line in output.splitlines() if "meta-llama" in line)
    assert line.startswith("warning: llm.path: meta-llama/Meta-Llama-3-8B-Instruct cannot be loaded: ")
    assert f"{UNREACHABLE} cannot be reached (" in line
    assert str(tmp_path / "hub") in line


@pytest.mark.drill
@pytest.mark.parametrize(
    "arguments",
    [
        ("pretrain", "--recipe", "toy/tiny_pretrain", "--set", "llm.path=lab/tiny", "--set", "data.root={corpus}"),
        ("prepare", "llm", "lab/tiny", "--out", "{out}"),
    ],
)
def test_a_command_that_needs_the_llm_gives_a_one_line_error(
    corpus: Path, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    formatted = [argument.format(corpus=corpus, out=tmp_path / "llm") for argument in arguments]
    run = ("--set", f"run.output_dir={tmp_path / 'run'}") if arguments[0] == "pretrain" else ()
    ended = run_online(UNREACHABLE, tmp_path, "-m", "signllava_cli", *formatted, *run)
    assert ended.returncode == 2, ended.stderr
    (line,) = ended.stderr.splitlines()
    assert line.startswith("error: ")
    assert "lab/tiny cannot be loaded" in line
    assert f"{UNREACHABLE} cannot be reached (" in line


@pytest.mark.drill
def test_cached_files_are_used_without_a_network(tiny_llm: Path, tmp_path: Path) -> None:
    snapshots = tmp_path / "hub/models--lab--tiny"
    shutil.copytree(tiny_llm, snapshots / "snapshots" / COMMIT)
    (snapshots / "refs").mkdir()
    (snapshots / "refs/main").write_text(COMMIT)
    ended = run_online(UNREACHABLE, tmp_path, "-c", LOAD)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    assert ended.stdout == "True\n"


@pytest.fixture
def slow_hub(tiny_llm: Path) -> Iterator[str]:
    """The address of a hub that has `lab/tiny`, and answers other requests after 1.2 seconds."""

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer()

        def do_GET(self) -> None:
            self.answer()

        def answer(self) -> None:
            file = tiny_llm / self.path.partition("?")[0].rpartition("/")[2]
            exists = self.path.startswith(f"/{REPOSITORY}/resolve/") and file.is_file()
            if "/resolve/" not in self.path:
                time.sleep(1.2)
            content = file.read_bytes() if exists else b""
            self.send_response(200 if exists else 404)
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{file.name}"')
            self.send_header("Content-Length", str(len(content)))
            if not exists:
                self.send_header("X-Error-Code", "EntryNotFound")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.drill
def test_a_slow_hub_is_not_an_error(slow_hub: str, tmp_path: Path) -> None:
    ended = run_online(slow_hub, tmp_path, "-c", LOAD, HF_HUB_ETAG_TIMEOUT="1")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "True\n"
