"""Greedy search, beam search and sampling, for many clips at once, each with its own length.

The tokens chosen for a clip are a function of that clip's own scores (in sampling also of the seed and the clip's
id), so the other clips of the batch do not matter.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import (
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from signllava_cli.recipe import Generate

MIN_SCORE = -1e9  # lower than the score of any hypothesis, as in transformers' beam search


@dataclass(frozen=True)
class Candidate:
    """A hypothesis as token ids, end of turn included if it is `finished`.

    `score`: the mean log-probability of its tokens as the model gave it, before any penalty of the search.
    """

    ids: tuple[int, ...]
    score: float
    finished: bool


@dataclass(frozen=True)
class SearchConfig:
    """The recipe's decoding settings, and the token id that ends a turn."""

    generate: Generate
    end_of_turn: int

    @property
    def num_hypotheses(self) -> int:
        """W, how many hypotheses of a clip are extended in parallel: beams or samples."""
        return self.generate.num_return_sequences if self.generate.temperature else self.generate.num_beams

    def adjust_scores(self, scores: Tensor, ids: Tensor, lengths: Tensor) -> Tensor:
        """`scores` (C, W, V) of the next token after the minimum length and the repetition penalties.

        Args:
            ids: the tokens of the hypotheses, int64 (C, W, T), of which the first `lengths` (C,) are set.
        """
        config = self.generate
        if config.min_new_tokens:
            is_short = lengths < config.min_new_tokens
            scores = scores.clone()
            scores[is_short, :, self.end_of_turn] = float("-inf")
        if config.repetition_penalty == 1.0 and not config.no_repeat_ngram_size:
            return scores
        adjusted = []
        for clip, length in enumerate(lengths.tolist()):
            clip_scores, clip_ids = scores[clip], ids[clip, :, :length]
            if config.repetition_penalty != 1.0:
                clip_scores = RepetitionPenaltyLogitsProcessor(config.repetition_penalty)(clip_ids, clip_scores)
            if config.no_repeat_ngram_size:
                clip_scores = NoRepeatNGramLogitsProcessor(config.no_repeat_ngram_size)(clip_ids, clip_scores)
            adjusted.append(clip_scores)
        return torch.stack(adjusted)


@dataclass
class Search:
    """The running hypotheses of C clips in greedy search or sampling, where hypotheses do not compete.

    `ids`: int64 (C, W, max_new_tokens). `lengths`: int64 (C,), the number of tokens of a clip's running hypotheses.
    `sums`: float32 (C, W), of log-probabilities. `has_ended`: bool (C, W); `ended_at`: int64 (C, W), the number of
    tokens up to the end of turn. `is_open`: bool (C,), whether a clip's search goes on. `random_numbers`: float64
    (C, W, max_new_tokens) in [0, 1), one for each sampled token.
    """

    config: SearchConfig
    ids: Tensor
    lengths: Tensor
    sums: Tensor
    has_ended: Tensor
    ended_at: Tensor
    is_open: Tensor
    random_numbers: Tensor

    @classmethod
    def init(cls, config: SearchConfig, clip_ids: Sequence[str], device: torch.device) -> "Search":
        """A search for these clips, before the first token."""
        shape = (len(clip_ids), config.num_hypotheses)
        max_length = config.generate.max_new_tokens
        random_numbers = np.zeros((*shape, max_length))
        if config.generate.temperature:
            for index, clip_id in enumerate(clip_ids):
                rng = clip_rng(config.generate.seed, clip_id)
                random_numbers[index] = rng.random((config.num_hypotheses, max_length))
        return cls(
            config,
            ids=torch.zeros(*shape, max_length, dtype=torch.int64, device=device),
            lengths=torch.zeros(len(clip_ids), dtype=torch.int64, device=device),
            sums=torch.zeros(shape, device=device),
            has_ended=torch.zeros(shape, dtype=torch.bool, device=device),
            ended_at=torch.zeros(shape, dtype=torch.int64, device=device),
            is_open=torch.ones(len(clip_ids), dtype=torch.bool, device=device),
            random_numbers=torch.from_numpy(random_numbers).to(device),
        )

    @property
    def tokens(self) -> Tensor:
        """The newest token of each hypothesis, int64 (C, W)."""
        clips = torch.arange(len(self.lengths), device=self.lengths.device)
        return self.ids[clips, :, self.lengths - 1]

    def advance(self, logits: Tensor) -> Tensor | None:
        """Append a token to each hypothesis, given its logits, float32 (C, W, V).

        Returns the index (C, W) of the hypothesis that each one now continues, or None if each continues itself.
        """
        scores = self.config.adjust_scores(logits, self.ids, self.lengths)
        tokens = self._sample_tokens(scores) if self.config.generate.temperature else scores.argmax(-1)  # (C, W)
        tokens = tokens.masked_fill(self.has_ended, self.config.end_of_turn)
        log_probabilities = logits.log_softmax(-1).gather(-1, tokens[..., None])[..., 0]  # (C, W)
        self._append(self.ids, tokens)
        self.sums = self.sums + log_probabilities.masked_fill(self.has_ended, 0.0)
        self.ended_at = self.ended_at + ~self.has_ended
        self.lengths = self.lengths + 1
        self.has_ended = self.has_ended | (tokens == self.config.end_of_turn)
        self.is_open = ~self.has_ended.all(1) & (self.lengths < self.config.generate.max_new_tokens)
        return None

    def candidates(self, clip: int) -> list[Candidate]:
        """The hypotheses of the clip at index `clip`, highest score first."""
        hypotheses = zip(
            self.ids[clip].tolist(),
            self.ended_at[clip].tolist(),
            self.sums[clip].tolist(),
            self.has_ended[clip].tolist(),
            strict=True,
        )
        candidates = [
            Candidate(tuple(ids[:length]), total / length, finished) for ids, length, total, finished in hypotheses
        ]
        return sorted(candidates, key=lambda candidate: -candidate.score)

    def keep(self, clips: Tensor) -> None:
        """Remove all clips except those at the indices `clips` (int64)."""
        for name, tensor in self._clip_tensors().items():
            setattr(self, name, tensor[clips])

    def join(self, other: "Search") -> None:
        """Append the clips of another search."""
        other_tensors = other._clip_tensors()
        for name, tensor in self._clip_tensors().items():
            setattr(self, name, torch.cat([tensor, other_tensors[name]]))

    def _clip_tensors(self) -> dict[str, Tensor]:
        """The fields whose first dimension is C."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}

    def _append(self, ids: Tensor, tokens: Tensor) -> None:
        """Write `tokens` (C, N) to the next index of each clip in `ids` (C, N, max_new_tokens)."""
        ids[torch.arange(len(ids), device=ids.device), :, self.lengths] = tokens

    def _sample_tokens(self, scores: Tensor) -> Tensor:
        """A token (C, W) for each hypothesis, by inverting the cumulative probabilities at its random number."""
        config, flat = self.config.generate, scores.flatten(0, 1)  # (C * W, V)
        assert config.temperature
        flat = TemperatureLogitsWarper(config.temperature)(None, flat)
        if config.top_k:
            flat = TopKLogitsWarper(config.top_k)(None, flat)
        if config.top_p < 1.0:
            flat = TopPLogitsWarper(config.top_p)(None, flat)
        probabilities, order = flat.double().softmax(-1).sort(dim=-1, descending=True, stable=True)
        clips = torch.arange(len(self.lengths), device=self.lengths.device)
        random_numbers = self.random_numbers[clips, :, self.lengths].flatten()[:, None]  # (C * W, 1)
        ranks = torch.searchsorted(probabilities.cumsum(-1), random_numbers, right=True)
        last_rank = (probabilities > 0).sum(-1, keepdim=True) - 1  # rounding may leave the sum a little below 1
        return order.gather(-1, ranks.minimum(last_rank)).view(scores.shape[:2])


@dataclass
class BeamSearch(Search):
    """Beam search: a clip's `W` best continuations of all its hypotheses.

    The same choices as transformers' beam search with `early_stopping=False`, its length penalty included (the score
    of an ended hypothesis is its sum divided by its length to that power), but clip by clip.

    `beam_scores`: float32 (C, W), by which the running hypotheses are ranked. The best ended hypotheses, best first:
    `ended_ids`, `ended_lengths`, `ended_sums`, `ended_scores` (after the penalty), `ended_exists` (bool, whether the
    entry is used), `ended_finished` (bool, whether it has an end of turn).
    """

    beam_scores: Tensor
    ended_ids: Tensor
    ended_lengths: Tensor
    ended_sums: Tensor
    ended_scores: Tensor
    ended_exists: Tensor
    ended_finished: Tensor

    @classmethod
    def init(cls, config: SearchConfig, clip_ids: Sequence[str], device: torch.device) -> "BeamSearch":
        """A search for these clips, before the first token."""
        search = Search.init(config, clip_ids, device)
        beam_scores = torch.full_like(search.sums, MIN_SCORE)
        beam_scores[:, 0] = 0.0  # all beams start with the same prompt: only the first one counts
        return cls(
            **vars(search),
            beam_scores=beam_scores,
            ended_ids=search.ids.clone(),
            ended_lengths=search.ended_at.clone(),
            ended_sums=search.sums.clone(),
            ended_scores=torch.full_like(search.sums, MIN_SCORE),
            ended_exists=search.has_ended.clone(),
            ended_finished=search.has_ended.clone(),
        )

    def advance(self, logits: Tensor) -> Tensor:
        """As in `Search.advance`."""
        width, end_of_turn, config = self.config.num_hypotheses, self.config.end_of_turn, self.config.generate
        log_probabilities = logits.log_softmax(-1)  # (C, W, V)
        adjusted = self.config.adjust_scores(log_probabilities, self.ids, self.lengths)
        # 2W continuations: W are left even if W of them end. Those of each hypothesis first, which is faster
        count = min(2 * width, adjusted.shape[-1])
        best_scores, best_tokens = adjusted.topk(count)  # (C, W, 2W)
        totals = best_scores + self.beam_scores[..., None]
        scores, indices = totals.flatten(1).topk(2 * width)  # (C, 2W)
        parents, tokens = indices // count, best_tokens.flatten(1).gather(1, indices)
        clips = torch.arange(len(parents), device=parents.device)[:, None]
        sums = self.sums.gather(1, parents) + log_probabilities[clips, parents, tokens]
        ids = self.ids[clips, parents]  # (C, 2W, max_new_tokens)
        self._append(ids, tokens)
        self.lengths = self.lengths + 1
        is_end = (tokens == end_of_turn) | (self.lengths >= config.max_new_tokens)[:, None]
        self._store_ended(ids, sums, scores, tokens == end_of_turn, is_end)
        self.beam_scores, best = (scores + is_end * MIN_SCORE).topk(width)
        self.ids = ids[clips, best]
        self.sums = sums.gather(1, best)
        self.is_open = self._can_improve() & (self.lengths < config.max_new_tokens)
        return parents.gather(1, best)

    def candidates(self, clip: int) -> list[Candidate]:
        """The ended hypotheses of the clip at index `clip`, best first by the penalized score."""
        hypotheses = zip(
            self.ended_ids[clip].tolist(),
            self.ended_lengths[clip].tolist(),
            self.ended_sums[clip].tolist(),
            self.ended_finished[clip].tolist(),
            strict=True,
        )
        candidates = [
            Candidate(tuple(ids[:length]), total / max(1, length), finished)
            for ids, length, total, finished in hypotheses
        ]
        return candidates[: self.config.generate.num_return_sequences]

    def _store_ended(self, ids: Tensor, sums: Tensor, scores: Tensor, is_finished: Tensor, is_end: Tensor) -> None:
        """Merge those of the 2W continuations that end and are among the first W into the ended hypotheses."""
        width = self.config.num_hypotheses
        lengths = self.lengths[:, None].expand_as(sums)
        is_ending = is_end & (torch.arange(2 * width, device=is_end.device) < width)
        penalized = scores / lengths**self.config.generate.length_penalty + ~is_ending * MIN_SCORE
        self.ended_scores, best = torch.cat([self.ended_scores, penalized], 1).topk(width)
        clips = torch.arange(len(best), device=best.device)[:, None]
        for name, values in (("ids", ids), ("lengths", lengths), ("sums", sums), ("finished", is_finished)):
            merged = torch.cat([getattr(self, f"ended_{name}"), values], 1)
            setattr(self, f"ended_{name}", merged[clips, best])
        self.ended_exists = torch.cat([self.ended_exists, is_ending], 1).gather(1, best)

    def _can_improve(self) -> Tensor:
        """Whether the best running hypothesis, bool (C,), would beat the worst ended one if it ended now."""
        possible = self.beam_scores[:, :1] / self.lengths[:, None] ** self.config.generate.length_penalty
        worst = self.ended_scores.min(1, keepdim=True).values
        return (possible > torch.where(self.ended_exists, worst, MIN_SCORE)).any(1)


def init_search(config: SearchConfig, clip_ids: Sequence[str], device: torch.device) -> Search:
    """The search that `config` describes for these clips, before the first token."""
    is_beam_search = config.generate.num_beams > 1 and not config.generate.temperature
    return (BeamSearch if is_beam_search else Search).init(config, clip_ids, device)


def clip_rng(seed: int, clip_id: str) -> np.random.Generator:
    """The random numbers of a clip, a function of the seed and its id."""
    return np.random.default_rng([seed, int.from_bytes(hashlib.sha256(clip_id.encode()).digest()[:8])])
