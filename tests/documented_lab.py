"""A folder in which the shell blocks of the documentation run, and made files in the layouts that they name.

Only sizes differ: a wrapper of the `signllava` command brings training and decoding to a tiny LLM and a few steps.
"""

import atexit
import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from conftest import run_script
from doc_pages import ROOT

WIDTHS = {"sign2vec": 768, "mae": 768, "dino": 1152, "pose": 208}
WORDS = ["now", "we", "take", "the", "small", "brush", "and", "paint", "a", "thin", "line", "along", "this", "edge"]

# The `signllava` of a lab: brings a command to a small size, and has it run by the server below.
WRAPPER = """
import os, shutil, socket, sys
words = sys.argv[1:]
if "--launch" in words:
    at = words.index("--launch")
    del words[at : at + 2]
sets = lambda *settings: [word for setting in settings for word in ("--set", setting)]
llm = sets("llm.path={llm}")
unquantized = sets("llm.bits=32", "llm.dtype=float32")
train = sets("train.max_steps=2", "train.batch_size=4", "train.micro_batch_size=2", "llm.dtype=float32")
train += sets("data.num_workers=0", "train.torch_compile=false")
if words[0] in ("pretrain", "finetune"):
    words += train + llm + (unquantized if words[0] == "pretrain" else [])
elif words[0] == "generate":
    words += ["--max-new-tokens", "4", "--beams", "1"]
elif words[0] == "eval" and "--context-sources" in words:
    words += sets("generate.max_new_tokens=4", "generate.num_beams=1")
elif words[:2] in (["prepare", "check"], ["prepare", "describe"]) and "--recipe" in words:
    words += llm
elif words[:2] == ["checkpoint", "convert"]:
    words += llm + unquantized
elif words[:3] == ["prepare", "llm", "tiny"]:
    out = words[words.index("--out") + 1] if "--out" in words else "data/llm/tiny"
    shutil.copytree("{llm}", out, dirs_exist_ok=True)
    sys.exit()
client = socket.socket(socket.AF_UNIX)
client.connect({server!r})
socket.send_fds(client, [chr(0).join([os.getcwd(), *words]).encode()], [0, 1, 2])
code = client.recv(1)
sys.exit(code[0] if code else 1)
"""
# Runs each command in a fork of a process that has imported the libraries, which takes longer than most commands.
SERVER = """
import os, signal, socket, sys, traceback
import torch, transformers, peft, accelerate, h5py, sacrebleu
from signllava_cli.cli.main import run
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
server = socket.socket(socket.AF_UNIX)
server.bind(sys.argv[1])
server.listen()
while True:
    client = server.accept()[0]
    message, descriptors, _, _ = socket.recv_fds(client, 2**16, 3)
    if os.fork() == 0:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for number, descriptor in enumerate(descriptors):
            os.dup2(descriptor, number)
        folder, *words = message.decode().split(chr(0))
        os.chdir(folder)
        sys.argv, code = ["signllava", *words], 1
        try:
            run()
        except SystemExit as ended:
            code = int(ended.code or 0)
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        client.sendall(bytes([code]))
        os._exit(code)
    client.close()
    for descriptor in descriptors:
        os.close(descriptor)
"""


@cache
def command_server() -> Path:
    """The socket of a server of commands, which ends with this process."""
    folder = Path(tempfile.mkdtemp(prefix="signllava-lab-"))
    address = folder / "socket"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", SERVER, str(address)], env=environment)
    atexit.register(shutil.rmtree, folder)
    atexit.register(process.terminate)
    deadline = time.monotonic() + 300
    while not address.exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(0.2)  # from bind to listen
    return address


class Lab:
    """A folder, and a shell in it whose `signllava` is that of this checkout, for tiny models."""

    def __init__(self, folder: Path, llm: Path) -> None:
        self.folder = folder
        command = folder / "bin" / "signllava"
        command.parent.mkdir(parents=True, exist_ok=True)
        command.write_text(f"#!{sys.executable} -IS" + WRAPPER.format(llm=llm, server=str(command_server())))
        command.chmod(0o755)

    def shell(self, *scripts: str) -> str:
        """What `scripts` print, one after the other; each of their commands must end with exit code 0."""
        return run_script("\n".join(scripts), self.folder, self.folder / "bin", PYTHONPATH=str(ROOT))

    def results(self) -> dict[str, Any]:
        """What the commands made, but for times and dates."""
        made: dict[str, Any] = {
            str(file.relative_to(self.folder)): file.read_bytes()
            for pattern in ("*.h5", "annotation.*.json", "*.safetensors", "predictions.jsonl")
            for file in self.folder.rglob(pattern)
        }
        for file in self.folder.rglob("scores.json"):
            scores = json.loads(file.read_text())
            made[str(file)] = [
                {key: value for key, value in each.items() if key != "date"} for each in scores["results"]
            ]
        return made

    def twice(self, *scripts: str) -> dict[str, Any]:
        """Run `scripts`, then again, which may change nothing; what they made."""
        self.shell(*scripts)
        made = self.results()
        self.shell(*scripts)
        assert self.results() == made
        return made


def sentence(rng: np.random.Generator) -> str:
    return " ".join(rng.choice(WORDS, int(rng.integers(4, 9))))


def frames(rng: np.random.Generator, width: int) -> np.ndarray:
    return rng.standard_normal((int(rng.integers(6, 14)), width)).astype(np.float16)


def save_features(folder: Path, split: str, clips: Iterable[str], streams: Iterable[str]) -> None:
    """`features/{stream}/{split}/{clip}.npy`."""
    rng = np.random.default_rng(list(split.encode()))
    for clip in clips:
        for stream in streams:
            file = folder / "features" / stream / split / f"{clip}.npy"
            file.parent.mkdir(parents=True, exist_ok=True)
            np.save(file, frames(rng, WIDTHS[stream]))


def write_table(file: Path, rows: Sequence[Mapping[str, object]], delimiter: str = ",", header: bool = True) -> None:
    """A delimited file with the keys of the rows as columns."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file, "w", newline="", encoding="utf-8") as opened:
        writer = csv.DictWriter(opened, list(rows[0]), delimiter=delimiter)
        if header:
            writer.writeheader()
        writer.writerows(rows)


def how2sign(folder: Path) -> dict[str, list[dict[str, object]]]:
    """The realigned tables, TAB-separated, with two signers of each script; split -> its rows."""
    rng = np.random.default_rng(0)
    tables: dict[str, list[dict[str, object]]] = {}
    for split, videos in {"train": 4, "val": 2, "test": 2}.items():
        names = [f"_{split[:2]}{video}abcdEFG" for video in range(videos)]
        tables[split] = [
            {
                "VIDEO_ID": name,
                "VIDEO_NAME": f"{name}-{signer}-rgb_front",
                "SENTENCE_ID": f"{name}_{n}",
                "SENTENCE_NAME": f"{name}_{n}-{signer}-rgb_front",
                "START_REALIGNED": f"{3.0 * n}",
                "END_REALIGNED": f"{3.0 * n + 2.5}",
                "SENTENCE": f"{sentence(rng).capitalize()}.",
            }
            for name in names
            for signer in (5, 8)
            for n in range(4)
        ]
        write_table(folder / f"how2sign_realigned_{split}.csv", tables[split], "\t")
    return tables


def how2sign_with_features(folder: Path) -> None:
    """The realigned tables, and a file per clip in `features/{stream}/{split}` of all four streams."""
    for split, rows in how2sign(folder).items():
        clips = [str(row["SENTENCE_NAME"]) for row in rows]
        save_features(folder, "dev" if split == "val" else split, clips, WIDTHS)


def copied_lab(source: Path, folder: Path, llm: Path) -> Lab:
    """A lab in a copy of `source`, whose files keep their times, which an index compares."""
    shutil.copytree(source, folder, symlinks=True, ignore=shutil.ignore_patterns("bin"))
    return Lab(folder, llm)
