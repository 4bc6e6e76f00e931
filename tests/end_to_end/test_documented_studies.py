"""The studies of the docs, command by command in a shell, on made copies of the real folder layouts; twice each.

Only sizes differ: a wrapper of the `signllava` command brings training and decoding to a tiny LLM and a few steps.
"""

import csv
import json
import re
import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import run_script

ROOT = Path(__file__).parents[2]
WIDTHS = {"sign2vec": 768, "mae": 768, "dino": 1152, "pose": 208}
WORDS = ["now", "we", "take", "the", "small", "brush", "and", "paint", "a", "thin", "line", "along", "this", "edge"]

WRAPPER = """
import os, sys
words = sys.argv[1:]
if "--launch" in words:
    at = words.index("--launch")
    del words[at : at + 2]
llm = ["--set", "llm.path={llm}"]
train = ["train.max_steps=2", "train.batch_size=4", "train.micro_batch_size=2"]
train += ["data.num_workers=0", "llm.dtype=float32", "train.torch_compile=false"]
if words[0] in ("pretrain", "finetune"):
    words += [word for setting in train for word in ("--set", setting)] + llm
    words += ["--set", "llm.bits=32"] if words[0] == "pretrain" else []
elif words[0] == "generate":
    words += ["--max-new-tokens", "4", "--beams", "1"]
elif words[:2] in (["prepare", "check"], ["prepare", "describe"]) and "--recipe" in words:
    words += llm
os.execv({python!r}, [{python!r}, "-m", "signllava_cli", *words])
"""


def shell_block(page: str, mark: str) -> str:
    """The indented block of `page` that holds `mark`, but for the installation."""
    blocks = re.findall(r"(?:^(?:    .*)?\n)+", (ROOT / page).read_text(), flags=re.MULTILINE)
    (block,) = [block for block in blocks if mark in block]
    return "".join(line for line in textwrap.dedent(block).splitlines(True) if not line.startswith("pip install"))


class Lab:
    """A folder, and a shell in it whose `signllava` is that of this checkout, for tiny models."""

    def __init__(self, folder: Path, llm: Path) -> None:
        self.folder = folder
        command = folder / "bin" / "signllava"
        command.parent.mkdir(parents=True)
        command.write_text(f"#!{sys.executable}" + WRAPPER.format(llm=llm, python=sys.executable))
        command.chmod(0o755)

    def shell(self, script: str) -> str:
        """What `script` prints; each of its commands must end with exit code 0."""
        return run_script(script, self.folder, self.folder / "bin", PYTHONPATH=str(ROOT))

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

    def twice(self, script: str) -> dict[str, Any]:
        """Run `script`, then again, which may change nothing; what it made."""
        self.shell(script)
        made = self.results()
        self.shell(script)
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


def how2sign(folder: Path) -> dict[str, list[dict[str, str]]]:
    """The realigned tables, TAB-separated, with two signers of each script; split -> its rows."""
    rng = np.random.default_rng(0)
    tables: dict[str, list[dict[str, str]]] = {}
    for split, videos in {"train": 4, "val": 2, "test": 2}.items():
        names = [f"_{split[:2]}{video}abcdEFG" for video in range(videos)]
        tables[split] = rows = [
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
        with open(folder / f"how2sign_realigned_{split}.csv", "w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="\t")
            writer.writeheader()
            writer.writerows(rows)
    return tables


@pytest.mark.drill
@pytest.mark.timeout(1800)
def test_how2sign_from_files_per_clip(tmp_path: Path, tiny_llm: Path) -> None:
    for split, rows in how2sign(tmp_path).items():
        clips = [row["SENTENCE_NAME"] for row in rows]
        save_features(tmp_path, "dev" if split == "val" else split, clips, WIDTHS)
    study = shell_block("README.md", "prepare how2sign")
    for command in ("prepare how2sign", "prepare pack", "pretrain", "finetune", "generate", "eval"):
        assert f"signllava {command}" in study
    made = Lab(tmp_path, tiny_llm).twice(study)
    assert sum(name.endswith("predictions.jsonl") for name in made) == 3


def phoenix14t(folder: Path) -> dict[str, list[str]]:
    """The official folder, whose broadcasts are divided over the splits; split -> names of its clips."""
    rng = np.random.default_rng(0)
    names: dict[str, list[str]] = {"train": [], "dev": [], "test": []}
    for day in range(1, 7):
        for n in range(1, 13):
            split = ("train", "train", "dev", "test")[int(rng.integers(4))]
            names[split].append(f"{day:02d}April_2010_Thursday_heute-{n + 20}")
    manual = folder / "PHOENIX-2014-T" / "annotations" / "manual"
    manual.mkdir(parents=True)
    for split, clips in names.items():
        texts = [sentence(rng) for _ in clips]
        write_corpus(manual / f"PHOENIX-2014-T.{split}.corpus.csv", clips, texts)
        if split == "train":
            complex_file = manual / "PHOENIX-2014-T.train-complex-annotation.corpus.csv"
            write_corpus(complex_file, clips, [f"{text} ." for text in texts])
    return names


def write_corpus(file: Path, clips: list[str], texts: list[str]) -> None:
    rows = ["name|video|start|end|speaker|orth|translation"]
    rows += [
        f"{clip}|{clip}/1/*.png|-1|-1|Signer04|REGEN KOMMEN|{text}" for clip, text in zip(clips, texts, strict=True)
    ]
    file.write_text("\n".join(rows) + "\n", encoding="utf-8")


@pytest.mark.drill
@pytest.mark.timeout(1800)
def test_phoenix14t_from_the_official_folder(tmp_path: Path, tiny_llm: Path) -> None:
    for split, clips in phoenix14t(tmp_path).items():
        save_features(tmp_path, split, clips, ["mae"])
    made = Lab(tmp_path, tiny_llm).twice(shell_block("docs/importing.md", "PHOENIX-2014-T/annotations"))
    (gold,) = [file for name, file in made.items() if "gold-n2-m2-from-dev-test-train/predictions" in name]
    rows = [json.loads(line) for line in gold.splitlines()]
    for row in rows:
        number = int(row["clip"].rpartition("-")[2]) - 21
        assert len(row["context"]) == min(number, 4)  # of the whole broadcast
    texts = [
        clip
        for recording in json.loads(made["data/phoenix14t/annotation.train.json"]).values()
        for clip in recording.values()
    ]
    assert not [clip for clip in texts if isinstance(clip, dict) and clip["translation"].endswith(" .")]
