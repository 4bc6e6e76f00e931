"""The tiny LLM on other text than the toy corpus: a clear error, and no more work."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Ended

from signllava_cli.data.annotations import Clip, Recording
from signllava_cli.errors import UserError
from signllava_cli.model import tiny_llm
from signllava_cli.model.tiny_llm import save_tiny_llm
from signllava_cli.prepare.dataset_writer import write_annotations
from signllava_cli.recipe import read_recipe


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


def test_a_step_on_own_text_is_bounded_as_on_the_toy_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """benchmarks/limits.py measures the time."""
    num_tokens: list[int] = []
    rows_of_step = tiny_llm._sample_rows

    def counting(*arguments: Any) -> Any:
        rows, skipped = rows_of_step(*arguments)
        num_tokens.append(len(rows) * max(len(ids) for ids, _ in rows))  # padding included
        return rows, skipped

    monkeypatch.setattr(tiny_llm, "_sample_rows", counting)
    own = write_corpus(tmp_path / "data", 200, 25)
    save_tiny_llm(tmp_path / "own", own, read_recipe("toy/tiny_pretrain").tasks, steps=2)
    assert len(num_tokens) == 2
    assert max(num_tokens) <= tiny_llm.MAX_TOKENS_OF_STEP


def test_clips_beyond_the_limit_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = write_corpus(tmp_path / "data", 12_000, 8)
    save_tiny_llm(tmp_path / "own", own, read_recipe("toy/tiny_pretrain").tasks, steps=1)
    assert "10,000 of 12,000 clips" in capsys.readouterr().out


def test_a_missing_corpus_names_a_command_that_can_be_pasted(tmp_path: Path) -> None:
    corpus = tmp_path / "my corpus"
    with pytest.raises(UserError, match=f"`signllava prepare toy --out '{corpus}'`"):
        save_tiny_llm(tmp_path / "llm", corpus, read_recipe("toy/tiny_pretrain").tasks, steps=1)


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
