"""The studies of the docs, command by command in a shell, on made copies of the real folder layouts; twice each."""

import json
from pathlib import Path

import numpy as np
import pytest
from doc_pages import shell_block
from documented_lab import Lab, how2sign_with_features, save_features, sentence


@pytest.mark.drill
@pytest.mark.timeout(1800)
def test_how2sign_from_files_per_clip(tmp_path: Path, tiny_llm: Path) -> None:
    how2sign_with_features(tmp_path)
    study = [
        shell_block("docs/how2sign.md", "prepare how2sign"),
        shell_block("docs/how2sign.md", "prepare pack"),
        shell_block("docs/how2sign.md", "prepare check"),
        shell_block("docs/how2sign.md", "--projector runs/pretrain"),
        shell_block("docs/how2sign.md", "signllava eval"),
    ]
    lab = Lab(tmp_path, tiny_llm)
    made = lab.twice(*study)
    assert sum(name.endswith("predictions.jsonl") for name in made) == 3
    lab.shell(shell_block("README.md", "prepare how2sign"))  # the same study in short: nothing is left to do
    assert lab.results().keys() == made.keys()


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
