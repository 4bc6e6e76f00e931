"""The edits of TER equal sacreBLEU's, in pairs for each of its rules: shifts, their limits, the beam, equal costs."""

import numpy as np
import pytest
from sacrebleu.metrics import TER, lib_ter

from signllava_cli.evaluation.metrics import ter
from signllava_cli.evaluation.metrics.ter import count_edits


def sacrebleu_edits(hypothesis: list[str], reference: list[str]) -> int:
    return int(TER()._extract_corpus_statistics([" ".join(hypothesis)], [[" ".join(reference)]])[0][0])


def words(count: int, vocabulary: int, rng: np.random.Generator) -> list[str]:
    return [f"w{number}" for number in rng.integers(vocabulary, size=count)]


def shift_blocks(source: list[str], rng: np.random.Generator, vocabulary: int) -> list[str]:
    """`source` with blocks moved, and with words replaced, deleted and added."""
    edited = list(source)
    for _ in range(int(rng.integers(1, 4))):
        start, end, to = sorted(rng.integers(0, len(edited) + 1, 3).tolist())
        edited = edited[:start] + edited[end:to] + edited[start:end] + edited[to:]
    return [w if rng.random() < 0.85 else f"w{rng.integers(vocabulary)}" for w in edited if rng.random() < 0.93]


@pytest.mark.parametrize(("count", "vocabulary", "pairs"), [(7, 3, 60), (9, 12, 60), (16, 8, 4), (32, 40, 1)])
def test_edits_equal_those_of_sacrebleu(count: int, vocabulary: int, pairs: int) -> None:
    rng = np.random.default_rng(count)
    for _ in range(pairs):
        reference = words(count, vocabulary, rng)
        hypothesis = shift_blocks(reference, rng, vocabulary)
        assert count_edits(hypothesis, reference) == sacrebleu_edits(hypothesis, reference), (hypothesis, reference)


@pytest.mark.parametrize(
    ("hypothesis", "reference"),
    [
        ("", "a b"),
        ("a b c", ""),
        ("a b", "b a"),
        ("a", "a"),
        ("x y", "a b"),
        ("a b c d e", "d e a b c"),
        ("a b c d e f", "f e d c b a"),
        ("a a b", "b a a"),
        ("b a b a", "a b a b a b"),
        ("a b c x y z", "x y z a b c"),
        ("a b a b c", "c a b"),
    ],
)
def test_edits_of_short_pairs_equal_those_of_sacrebleu(hypothesis: str, reference: str) -> None:
    pair = hypothesis.split(), reference.split()
    assert count_edits(*pair) == sacrebleu_edits(*pair)


# The limits of sacreBLEU, and our names of them.
LIMITS = {
    "_MAX_SHIFT_SIZE": "MAX_BLOCK_LEN",
    "_MAX_SHIFT_DIST": "MAX_MATCH_DISTANCE",
    "_BEAM_WIDTH": "BEAM_WIDTH",
    "_MAX_SHIFT_CANDIDATES": "MAX_SHIFTS_TRIED",
}


def test_the_limits_are_those_of_sacrebleu() -> None:
    assert {name: getattr(ter, ours) for name, ours in LIMITS.items()} == {
        name: getattr(lib_ter, name) for name in LIMITS
    }


def set_limit(monkeypatch: pytest.MonkeyPatch, name: str, value: int) -> None:
    """Lower a limit in both programs, so that short pairs exceed it."""
    monkeypatch.setattr(lib_ter, name, value)
    monkeypatch.setattr(lib_ter, "_MAX_CACHE_SIZE", 0)
    monkeypatch.setattr(ter, LIMITS[name], value)


@pytest.mark.parametrize("width", [1, 2, 3, 5])
def test_the_beam_around_the_diagonal_limits_the_edits(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Words before and after a common part move it away from the diagonal.

    Some pairs have a block at the end of the hypothesis whose target is inside of it.
    """
    set_limit(monkeypatch, "_BEAM_WIDTH", width)
    rng = np.random.default_rng(width)
    for _ in range(40):
        common = words(int(rng.integers(1, 9)), 6, rng)
        reference = [*words(int(rng.integers(0, 5)), 6, rng), *common, *words(int(rng.integers(0, 5)), 6, rng)]
        hypothesis = [*words(int(rng.integers(0, 5)), 6, rng), *shift_blocks(common, rng, 6)]
        for pair in ((hypothesis, reference), (reference, hypothesis), (hypothesis[:1], reference)):
            assert count_edits(*pair) == sacrebleu_edits(*pair), pair


@pytest.mark.parametrize(
    ("width", "hypothesis", "reference"),
    [
        (1, "a b c d e f x y z w g d h i j c k", "a b c d e f g d h i j c k"),
        (1, "a b c d e x y z c b f g h b b i g", "a b c c b f g h b b i g"),
        (2, "b c x y z", "b c"),
        (3, "a b c d e f g d h i c j k l m b a m i n", "a b c g d j k l m b a m i d e f n"),
    ],
)
def test_shortest_paths_along_the_edges_of_the_beam(
    width: int, hypothesis: str, reference: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reference as long as the beam is wide, and deletions in its first column."""
    set_limit(monkeypatch, "_BEAM_WIDTH", width)
    pair = hypothesis.split(), reference.split()
    assert count_edits(*pair) == sacrebleu_edits(*pair)


@pytest.mark.parametrize(("name", "value"), [("_MAX_SHIFT_SIZE", 2), ("_MAX_SHIFT_SIZE", 3), ("_MAX_SHIFT_DIST", 2)])
def test_long_blocks_and_distant_words_are_not_shifted(
    name: str, value: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_limit(monkeypatch, name, value)
    rng = np.random.default_rng(value)
    for _ in range(40):
        reference = words(10, 12, rng)
        hypothesis = shift_blocks(reference, rng, 12)
        assert count_edits(hypothesis, reference) == sacrebleu_edits(hypothesis, reference), (hypothesis, reference)


@pytest.mark.parametrize("tried", [1, 2, 6, 7, 8, 20, 50])
def test_the_number_of_shifts_that_are_tried_is_limited(tried: int, monkeypatch: pytest.MonkeyPatch) -> None:
    set_limit(monkeypatch, "_MAX_SHIFT_CANDIDATES", tried)
    rng = np.random.default_rng(tried)
    for _ in range(12):
        reference = words(9, 5, rng)
        hypothesis = shift_blocks(reference, rng, 5)
        assert count_edits(hypothesis, reference) == sacrebleu_edits(hypothesis, reference), (hypothesis, reference)
