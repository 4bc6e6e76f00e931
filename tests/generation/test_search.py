"""The searches against a slow search of one clip over plain lists, on scores that depend on the tokens so far."""

import hashlib
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from signllava_cli.generation.search import BeamSearch, Candidate, Search, SearchConfig, clip_rng, init_search
from signllava_cli.recipe import Generate

END, VOCABULARY = 1, 6
CLIPS = [f"recording/{number}" for number in range(5)]
Logits = Callable[[tuple[int, ...]], list[float]]


def logits_of(clip: str) -> Logits:
    """The logits after any tokens, float32 as a model's; tokens repeat often, and turns end after a few tokens."""

    def logits(ids: tuple[int, ...]) -> list[float]:
        seed = int.from_bytes(hashlib.sha256(f"{clip} {ids}".encode()).digest()[:4])
        values = np.random.default_rng(seed).normal(size=VOCABULARY).astype(np.float32)
        if ids:
            values[ids[-1]] += 0.7
        return values.tolist()

    return logits


def log_softmax(logits: list[float]) -> list[float]:
    total = math.log(sum(map(math.exp, logits)))
    return [value - total for value in logits]


def adjust(scores: list[float], ids: tuple[int, ...], config: Generate) -> list[float]:
    """`scores` with the minimum length, the repetition penalty and the n-grams that may not be repeated."""
    scores = list(scores)
    if len(ids) < config.min_new_tokens:
        scores[END] = -math.inf
    for token in set(ids):
        factor = config.repetition_penalty
        scores[token] = scores[token] * factor if scores[token] < 0 else scores[token] / factor
    size = config.no_repeat_ngram_size
    if size:
        ngrams = {ids[start : start + size] for start in range(len(ids) - size + 1)}
        for token in range(VOCABULARY):
            if (*ids[len(ids) - size + 1 :], token) in ngrams:
                scores[token] = -math.inf
    return scores


def slow_greedy(logits: Logits, config: Generate) -> list[Candidate]:
    ids: tuple[int, ...] = ()
    total = 0.0
    while len(ids) < config.max_new_tokens and ids[-1:] != (END,):
        scores = adjust(logits(ids), ids, config)
        token = scores.index(max(scores))
        total += log_softmax(logits(ids))[token]
        ids = (*ids, token)
    return [Candidate(ids, total / len(ids), ids[-1] == END)]


def slow_beam_search(logits: Logits, config: Generate) -> list[Candidate]:
    """transformers' beam search with `early_stopping=False`."""
    width, power = config.num_beams, config.length_penalty
    running: list[tuple[float, float, tuple[int, ...]]] = [(0.0, 0.0, ())]
    ended: list[tuple[float, Candidate]] = []
    while True:
        extended = []
        for score, total, ids in running:
            log_probabilities = log_softmax(logits(ids))
            adjusted = adjust(log_probabilities, ids, config)
            extended += [
                (score + adjusted[token], total + log_probabilities[token], (*ids, token))
                for token in range(VOCABULARY)
            ]
        extended = sorted(extended, reverse=True)[: 2 * width]
        length = len(extended[0][2])
        is_last = length == config.max_new_tokens
        ended += [
            (score / length**power, Candidate(ids, total / length, ids[-1] == END))
            for score, total, ids in extended[:width]
            if ids[-1] == END or is_last
        ]
        ended = sorted(ended, key=lambda pair: -pair[0])[:width]
        running = [beam for beam in extended if beam[2][-1] != END][:width]
        can_improve = len(ended) < width or running[0][0] / length**power > ended[-1][0]
        if is_last or not can_improve:
            return [candidate for _, candidate in ended[: config.num_return_sequences]]


def decode(config: Generate) -> dict[str, list[Candidate]]:
    """The candidates of all clips: three are searched from the start, two join after two steps; ended ones leave."""
    searched = SearchConfig(config, END)
    search, clips = init_search(searched, CLIPS[:3], torch.device("cpu")), CLIPS[:3]
    candidates: dict[str, list[Candidate]] = {}
    histories: dict[str, list[tuple[int, ...]]] = {clip: [()] * searched.num_hypotheses for clip in CLIPS}
    for step in range(99):
        if step == 2:
            search.join(init_search(searched, CLIPS[3:], torch.device("cpu")))
            clips = clips + CLIPS[3:]
        if not clips:
            return candidates
        logits = torch.tensor([[logits_of(clip)(ids) for ids in histories[clip]] for clip in clips])
        parents = search.advance(logits)
        for row, clip in enumerate(clips):
            origins = range(searched.num_hypotheses) if parents is None else parents[row].tolist()
            tokens = search.tokens[row].tolist()
            histories[clip] = [
                (*histories[clip][origin], token) for origin, token in zip(origins, tokens, strict=True)
            ]
            if not isinstance(search, BeamSearch):
                has_ended = all(END in ids for ids in histories[clip])
                is_full = int(search.lengths[row]) == config.max_new_tokens
                assert bool(search.is_open[row]) == (not has_ended and not is_full)
            if search.is_open[row]:
                written = search.ids[row, :, : int(search.lengths[row])].tolist()
                assert [tuple(ids) for ids in written] == histories[clip]
            else:
                candidates[clip] = search.candidates(row)
        kept = search.is_open.nonzero()[:, 0]
        search.keep(kept)
        clips = [clips[row] for row in kept.tolist()]
    raise AssertionError("the search does not end")


PENALTIES: dict[str, Any] = {"repetition_penalty": 1.7, "no_repeat_ngram_size": 2, "min_new_tokens": 3}


@pytest.mark.parametrize("beams", [1, 2, 4])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"length_penalty": 2.5, "num_return_sequences": 2},
        {"length_penalty": -1.5},
        {"length_penalty": 0.0, "num_return_sequences": 2},
        {"repetition_penalty": 0.6},
        {"repetition_penalty": 2.0},
        {"no_repeat_ngram_size": 1, "max_new_tokens": 5},
        {"min_new_tokens": 4, "max_new_tokens": 6},
        PENALTIES,
    ],
)
def test_the_search_of_many_clips_equals_the_slow_search_of_each(beams: int, settings: dict[str, Any]) -> None:
    settings = {**settings, "num_return_sequences": min(beams, settings.get("num_return_sequences", 1))}
    config = Generate(num_beams=beams, **{"max_new_tokens": 8, **settings})
    candidates = decode(config)
    slow = slow_greedy if beams == 1 else slow_beam_search
    for clip in CLIPS:
        expected = slow(logits_of(clip), config)
        assert [(one.ids, one.finished) for one in candidates[clip]] == [(one.ids, one.finished) for one in expected]
        assert [one.score for one in candidates[clip]] == pytest.approx([one.score for one in expected], abs=1e-5)


def test_beam_search_stops_when_the_best_running_hypothesis_only_equals_the_worst_ended_one() -> None:
    """An end of turn and token 2 have probability 1/2 each; the mean of any number of steps is the same."""
    searched = SearchConfig(Generate(num_beams=2, max_new_tokens=8), END)
    search = init_search(searched, CLIPS[:1], torch.device("cpu"))
    logits = torch.full((1, 2, VOCABULARY), -1e9)
    logits[..., [END, 2]] = 0
    search.advance(logits)
    assert search.is_open.tolist() == [True]
    search.advance(logits)
    assert search.is_open.tolist() == [False]


def slow_sample(clip: str, number: int, config: Generate) -> Candidate:
    """Sample `number` of a clip: each token is where the cumulative probability exceeds its random number."""
    randoms = clip_rng(config.seed, clip).random((config.num_return_sequences, config.max_new_tokens))[number]
    ids: tuple[int, ...] = ()
    total = 0.0
    for random in randoms:
        scores = adjust(logits_of(clip)(ids), ids, config)
        order = sorted(range(VOCABULARY), key=lambda token, scores=scores: -scores[token])  # type: ignore[misc]
        assert config.temperature
        order = order[: config.top_k or None]
        weights = [math.exp(scores[token] / config.temperature) for token in order]
        cumulative = np.cumsum(weights) / sum(weights)
        count = sum(bool(before < config.top_p) for before in [0.0, *cumulative[:-1]])
        cumulative = np.cumsum(weights[:count]) / sum(weights[:count])
        token = order[int(np.searchsorted(cumulative, random, side="right"))]
        total += log_softmax(logits_of(clip)(ids))[token]
        ids = (*ids, token)
        if token == END:
            break
    return Candidate(ids, total / len(ids), ids[-1] == END)


@pytest.mark.parametrize(
    "settings",
    [{}, {"top_k": 1}, {"top_k": 2}, {"top_p": 0.6}, {"top_k": 4, "top_p": 0.8}, PENALTIES, {"num_beams": 4}],
)
def test_samples_are_those_of_the_random_numbers_of_the_clip(settings: dict[str, Any]) -> None:
    config = Generate(temperature=0.8, num_return_sequences=3, max_new_tokens=7, seed=3, **settings)
    candidates = decode(config)
    for clip in CLIPS:
        expected = sorted((slow_sample(clip, number, config) for number in range(3)), key=lambda one: -one.score)
        assert [(one.ids, one.finished) for one in candidates[clip]] == [(one.ids, one.finished) for one in expected]
        assert [one.score for one in candidates[clip]] == pytest.approx([one.score for one in expected], abs=1e-5)


def test_a_random_number_above_the_sum_of_the_probabilities_gives_the_last_token_that_is_possible() -> None:
    config = Generate(temperature=1.0, num_return_sequences=1, max_new_tokens=2, top_k=3)
    search = init_search(SearchConfig(config, END), CLIPS[:1], torch.device("cpu"))
    search.random_numbers.fill_(1.0)
    search.advance(torch.tensor([[[0.5, 0.1, 3.0, 0.2, 2.0, 1.0]]]))
    assert search.tokens.tolist() == [[5]]


def test_the_samples_of_a_seed_stay_the_same_from_version_to_version() -> None:
    numbers = [clip_rng(seed, clip).integers(10**9) for seed, clip in ((0, "a/1"), (0, "ü/2"), (7, "a/1"))]
    assert numbers == [132844300, 940371572, 714042006]


class OnDevice(TorchDispatchMode):
    """Fails where an operation makes a tensor that is not on the meta device."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, list | tuple) else [result]:
            assert not isinstance(tensor, Tensor) or tensor.device.type == "meta", function
        return result


@pytest.mark.parametrize("settings", [{"num_beams": 1}, {"num_beams": 3}, {"temperature": 1.0}])
def test_every_tensor_of_a_search_is_on_its_device(settings: dict[str, Any]) -> None:
    """One on the CPU would make the GPU wait at every token."""
    config = Generate(max_new_tokens=4, **settings)
    search = init_search(SearchConfig(config, END), CLIPS, torch.device("meta"))
    assert {value.device.type for value in vars(search).values() if isinstance(value, Tensor)} == {"meta"}
    shape = (len(CLIPS), search.config.num_hypotheses)
    with OnDevice():
        search.advance(torch.empty(*shape, VOCABULARY, device="meta"))
        assert search.tokens.shape == shape


def test_a_search_has_the_types_and_shapes_of_its_description() -> None:
    search = init_search(SearchConfig(Generate(num_beams=3, max_new_tokens=4), END), CLIPS, torch.device("cpu"))
    assert isinstance(search, BeamSearch)
    sampling = init_search(
        SearchConfig(Generate(temperature=1.0, num_return_sequences=2, max_new_tokens=4), END),
        CLIPS[:2],
        torch.device("cpu"),
    )
    assert type(sampling) is Search
    described = {
        "ids": (torch.int64, (5, 3, 4)),
        "lengths": (torch.int64, (5,)),
        "sums": (torch.float32, (5, 3)),
        "has_ended": (torch.bool, (5, 3)),
        "ended_at": (torch.int64, (5, 3)),
        "is_open": (torch.bool, (5,)),
        "random_numbers": (torch.float64, (5, 3, 4)),
        "beam_scores": (torch.float32, (5, 3)),
        "ended_ids": (torch.int64, (5, 3, 4)),
        "ended_lengths": (torch.int64, (5, 3)),
        "ended_sums": (torch.float32, (5, 3)),
        "ended_scores": (torch.float32, (5, 3)),
        "ended_exists": (torch.bool, (5, 3)),
        "ended_finished": (torch.bool, (5, 3)),
    }
    tensors = {name: value for name, value in vars(search).items() if isinstance(value, Tensor)}
    assert {name: (value.dtype, tuple(value.shape)) for name, value in tensors.items()} == described
    assert len({value.data_ptr() for value in tensors.values()}) == len(tensors)  # none is a view of another
    assert ((sampling.random_numbers >= 0) & (sampling.random_numbers < 1)).all()
    assert len(sampling.random_numbers.unique()) == sampling.random_numbers.numel()


def test_a_random_number_at_the_end_of_a_token_gives_the_next_token() -> None:
    """The token of a number in [0, 1/2) is the first of two equal ones, that of [1/2, 1) the second."""
    config = Generate(temperature=1.0, num_return_sequences=1, max_new_tokens=2)
    search = init_search(SearchConfig(config, END), CLIPS[:1], torch.device("cpu"))
    search.random_numbers.fill_(0.5)
    search.advance(torch.tensor([[[0.0, 0.0]]]))
    assert search.tokens.tolist() == [[1]]
