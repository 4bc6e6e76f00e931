"""The tiny LLM on another corpus than the toy corpus: limited training time, and clear errors."""

import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Ended

from signllava_cli.data.annotations import Clip, Recording
from signllava_cli.model.tiny_llm import save_tiny_llm
from signllava_cli.prepare.dataset_writer import write_annotations
from signllava_cli.recipe import read_recipe

STEPS = 6


def write_corpus(root: Path, clips: int, words: int) -> Path:
    """A dataset of `clips` sentences of `words` random words, 20 per recording."""
    rng = random.Random(0)
    letters = "etaoinshrdlucmfw"
    vocabulary = ["".join(rng.choices(letters, k=rng.randint(2, 10))) for _ in range(4000)]
    recordings = [
        Recording(
            f"r{number}",
            tuple(Clip(f"r{number}", f"{n:03d}", n, " ".join(rng.choices(vocabulary, k=words))) for n in range(20)),
        )
        for number in range(clips // 20)
    ]
    write_annotations(root, "train", recordings)
    return root


def cpu_seconds(work: Callable[[], object]) -> float:
    start_time = time.process_time()
    work()
    return time.process_time() - start_time


@pytest.mark.parametrize(("clips", "words"), [(200, 25), (20_000, 12)], ids=["long sentences", "many sentences"])
def test_another_corpus_takes_no_longer_than_the_toy_corpus(
    tmp_path: Path, corpus: Path, clips: int, words: int
) -> None:
    other = write_corpus(tmp_path / "data", clips, words)
    tasks = read_recipe("toy/tiny_pretrain").tasks
    save_tiny_llm(tmp_path / "warm", corpus, tasks, steps=1)  # imports
    toy = cpu_seconds(lambda: save_tiny_llm(tmp_path / "toy", corpus, tasks, steps=STEPS))
    seconds = cpu_seconds(lambda: save_tiny_llm(tmp_path / "other", other, tasks, steps=STEPS))
    assert seconds < 4 * toy


def test_the_number_of_used_clips_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = write_corpus(tmp_path / "data", 40_000, 12)
    save_tiny_llm(tmp_path / "other", other, read_recipe("toy/tiny_pretrain").tasks, steps=1)
    assert "10,000 of 40,000 clips" in capsys.readouterr().out


def test_a_corpus_of_too_long_sentences_is_an_error(signllava: Callable[..., Ended], tmp_path: Path) -> None:
    other = write_corpus(tmp_path / "data", 20, 1000)
    ended = signllava("prepare", "llm", "tiny", "--corpus", other, "--out", tmp_path / "llm")
    assert ended.code == 2
    assert "too long" in ended.err
    assert not (tmp_path / "llm").exists()


@pytest.mark.parametrize("folder", ["missing", "empty"])
def test_a_corpus_without_annotation_names_the_option(
    signllava: Callable[..., Ended], tmp_path: Path, folder: str
) -> None:
    (tmp_path / "empty").mkdir()
    ended = signllava("prepare", "llm", "tiny", "--corpus", tmp_path / folder, "--out", tmp_path / "llm")
    assert (ended.code, len(ended.err.strip().splitlines())) == (2, 1)
    assert "--corpus" in ended.err
    assert "data.root" not in ended.err
