"""Choosing tokens: greedy, by beams, or by sampling; for many clips at once, each at its own length.

What is chosen for a clip is a function of that clip's own scores (and, in sampling, of the seed and its id), so it
does not matter which clips stand beside it.
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

MIN_SCORE = -1e9  # a score that no hypothesis reaches, as in transformers' beam search


@dataclass(frozen=True)
class Candidate:
    """A hypothesis as token ids, the end of turn included where it `finished`.

    `score`: the mean of its tokens' log-probabilities, as the model gave them, whatever was done to steer the search.
    """

    ids: tuple[int, ...]
    score: float
    finished: bool


@dataclass(frozen=True)
class SearchConfig:
    """What steers the search, and the token that ends a turn."""

    config: Generate
    end: int

    @property
    def width(self) -> int:
        """How many hypotheses of a clip are worked on side by side: beams or samples."""
        return self.config.num_return_sequences if self.config.temperature else self.config.num_beams

    def adjust_scores(self, scores: Tensor, ids: Tensor, lengths: Tensor) -> Tensor:
        """`scores` (C, W, V) of the next token, less what repeats or ends too early; `ids` (C, W, T) as yet."""
        config = self.config
        if config.min_new_tokens:
            early = lengths < config.min_new_tokens
            scores = scores.clone()
            scores[early, :, self.end] = float("-inf")
        if config.repetition_penalty == 1.0 and not config.no_repeat_ngram_size:
            return scores
        adjust_scores = []
        for clip, length in enumerate(lengths.tolist()):
            each, before = scores[clip], ids[clip, :, :length]
            if config.repetition_penalty != 1.0:
                each = RepetitionPenaltyLogitsProcessor(config.repetition_penalty)(before, each)
            if config.no_repeat_ngram_size:
                each = NoRepeatNGramLogitsProcessor(config.no_repeat_ngram_size)(before, each)
            adjust_scores.append(each)
        return torch.stack(adjust_scores)


@dataclass
class Search:
    """What C clips have been given so far: greedy search or sampling, in which hypotheses do not meet.

    `ids`: int64 (C, W, longest allowed). `lengths`: int64 (C,), tokens of each clip's hypotheses. `sums`: float32
    (C, W), of log-probabilities. `ended`: bool (C, W), and `own_lengths` (C, W) where. `open`: bool (C,), whether a
    clip's search goes on. `numbers`: float64 (C, W, longest allowed) in [0, 1), what samples are drawn with.
    """

    rules: SearchConfig
    ids: Tensor
    lengths: Tensor
    sums: Tensor
    ended: Tensor
    own_lengths: Tensor
    open: Tensor
    numbers: Tensor

    @classmethod
    def init(cls, rules: SearchConfig, clips: Sequence[str], device: torch.device) -> "Search":
        """Nothing chosen yet for these clip ids."""
        shape = (len(clips), rules.width)
        longest = rules.config.max_new_tokens
        numbers = np.zeros((*shape, longest))
        if rules.config.temperature:
            for index, clip in enumerate(clips):
                numbers[index] = clip_rng(rules.config.seed, clip).random((rules.width, longest))
        return cls(
            rules,
            ids=torch.zeros(*shape, longest, dtype=torch.int64, device=device),
            lengths=torch.zeros(len(clips), dtype=torch.int64, device=device),
            sums=torch.zeros(shape, device=device),
            ended=torch.zeros(shape, dtype=torch.bool, device=device),
            own_lengths=torch.zeros(shape, dtype=torch.int64, device=device),
            open=torch.ones(len(clips), dtype=torch.bool, device=device),
            numbers=torch.from_numpy(numbers).to(device),
        )

    @property
    def tokens(self) -> Tensor:
        """The newest token (C, W) of each hypothesis."""
        clips = torch.arange(len(self.lengths), device=self.lengths.device)
        return self.ids[clips, :, self.lengths - 1]

    def advance(self, logits: Tensor) -> Tensor | None:
        """Add a token to each hypothesis, given the logits (C, W, V, float32).

        Returns the number (C, W) of the hypothesis that each now goes on from, or None where each is its own.
        """
        scores = self.rules.adjust_scores(logits, self.ids, self.lengths)
        tokens = self._sample_tokens(scores) if self.rules.config.temperature else scores.argmax(-1)
        tokens = tokens.masked_fill(self.ended, self.rules.end)
        gained = logits.log_softmax(-1).gather(-1, tokens[..., None])[..., 0]
        self._write(self.ids, tokens)
        self.sums = self.sums + gained.masked_fill(self.ended, 0.0)
        self.own_lengths = self.own_lengths + ~self.ended
        self.lengths = self.lengths + 1
        self.ended = self.ended | (tokens == self.rules.end)
        self.open = ~self.ended.all(1) & (self.lengths < self.rules.config.max_new_tokens)
        return None

    def found(self, clip: int) -> list[Candidate]:
        """The hypotheses of `clip`, the one of the highest score first."""
        each = zip(
            self.ids[clip].tolist(),
            self.own_lengths[clip].tolist(),
            self.sums[clip].tolist(),
            self.ended[clip].tolist(),
            strict=True,
        )
        found = [Candidate(tuple(ids[:length]), total / length, ended) for ids, length, total, ended in each]
        return sorted(found, key=lambda one: -one.score)

    def keep(self, clips: Tensor) -> None:
        """Forget all clips but these (int64 indices)."""
        for name, each in self._per_clip().items():
            setattr(self, name, each[clips])

    def join(self, others: "Search") -> None:
        """Take in the clips of another search, behind one's own."""
        theirs = others._per_clip()
        for name, each in self._per_clip().items():
            setattr(self, name, torch.cat([each, theirs[name]]))

    def _per_clip(self) -> dict[str, Tensor]:
        return {name: each for name, each in vars(self).items() if isinstance(each, Tensor)}

    def _write(self, ids: Tensor, tokens: Tensor) -> None:
        """Put `tokens` (C, N) where each clip's next ones stand in `ids` (C, N, longest)."""
        ids[torch.arange(len(ids), device=ids.device), :, self.lengths] = tokens

    def _sample_tokens(self, scores: Tensor) -> Tensor:
        """A token (C, W) for each hypothesis, by its own random number: where this falls among the probabilities."""
        config, flat = self.rules.config, scores.flatten(0, 1)
        assert config.temperature
        flat = TemperatureLogitsWarper(config.temperature)(None, flat)
        if config.top_k:
            flat = TopKLogitsWarper(config.top_k)(None, flat)
        if config.top_p < 1.0:
            flat = TopPLogitsWarper(config.top_p)(None, flat)
        probabilities, order = flat.double().softmax(-1).sort(dim=-1, descending=True, stable=True)
        clips = torch.arange(len(self.lengths), device=self.lengths.device)
        numbers = self.numbers[clips, :, self.lengths].flatten()[:, None]
        index = torch.searchsorted(probabilities.cumsum(-1), numbers, right=True)
        likely = (probabilities > 0).sum(-1, keepdim=True) - 1  # rounding may leave the sum a little below 1
        return order.gather(-1, index.minimum(likely)).view(scores.shape[:2])


@dataclass
class BeamSearch(Search):
    """Beam search: the `W` best continuations of all of a clip's hypotheses together.

    The same choices as transformers' beam search with `early_stopping=False`, its length penalty included (an ended
    hypothesis is worth its sum divided by its length to that power), but per clip.

    `beam_scores`: float32 (C, W), what the running hypotheses are ranked by. The ended ones, best first: `kept_ids`,
    `kept_lengths`, `kept_sums`, `kept_scores` (after the penalty), `kept` (is there one), `kept_ended` (by itself).
    """

    beam_scores: Tensor
    kept_ids: Tensor
    kept_lengths: Tensor
    kept_sums: Tensor
    kept_scores: Tensor
    kept: Tensor
    kept_ended: Tensor

    @classmethod
    def init(cls, rules: SearchConfig, clips: Sequence[str], device: torch.device) -> "BeamSearch":
        """Nothing chosen yet for these clip ids."""
        start = Search.init(rules, clips, device)
        beam_scores = torch.full_like(start.sums, MIN_SCORE)
        beam_scores[:, 0] = 0.0  # all beams begin alike: only the first counts
        return cls(
            **vars(start),
            beam_scores=beam_scores,
            kept_ids=start.ids.clone(),
            kept_lengths=start.own_lengths.clone(),
            kept_sums=start.sums.clone(),
            kept_scores=torch.full_like(start.sums, MIN_SCORE),
            kept=start.ended.clone(),
            kept_ended=start.ended.clone(),
        )

    def advance(self, logits: Tensor) -> Tensor:
        """As in `Search.advance`."""
        width, end, config = self.rules.width, self.rules.end, self.rules.config
        raw = logits.log_softmax(-1)
        totals = self.rules.adjust_scores(raw, self.ids, self.lengths) + self.beam_scores[..., None]
        scores, indices = totals.flatten(1).topk(2 * width)  # enough to go on with when `width` of them end
        parents, tokens = indices // logits.shape[-1], indices % logits.shape[-1]
        gained = raw.flatten(1).gather(1, indices)
        sums = self.sums.gather(1, parents) + gained
        ids = self.ids[torch.arange(len(parents), device=parents.device)[:, None], parents]
        self._write(ids, tokens)
        self.lengths = self.lengths + 1
        ends = (tokens == end) | (self.lengths >= config.max_new_tokens)[:, None]
        self._keep_ended(ids, sums, scores, tokens == end, ends)
        self.beam_scores, best = (scores + ends * MIN_SCORE).topk(width)
        self.ids = ids[torch.arange(len(ids), device=ids.device)[:, None], best]
        self.sums = sums.gather(1, best)
        self.open = self._can_improve() & (self.lengths < config.max_new_tokens)
        return parents.gather(1, best)

    def found(self, clip: int) -> list[Candidate]:
        """The hypotheses of `clip`, the best by the length penalty first."""
        each = zip(
            self.kept_ids[clip].tolist(),
            self.kept_lengths[clip].tolist(),
            self.kept_sums[clip].tolist(),
            self.kept_ended[clip].tolist(),
            strict=True,
        )
        found = [Candidate(tuple(ids[:length]), total / max(1, length), ended) for ids, length, total, ended in each]
        return found[: self.rules.config.num_return_sequences]

    def _keep_ended(self, ids: Tensor, sums: Tensor, scores: Tensor, by_itself: Tensor, ends: Tensor) -> None:
        """Merge those of the 2W candidates that end, and stand among the first W, with the ended ones so far."""
        width = self.rules.width
        lengths = self.lengths[:, None].expand_as(sums)
        ending = ends & (torch.arange(2 * width, device=ends.device) < width)
        penalized = scores / lengths**self.rules.config.length_penalty + ~ending * MIN_SCORE
        self.kept_scores, best = torch.cat([self.kept_scores, penalized], 1).topk(width)
        indices = torch.arange(len(best), device=best.device)[:, None]
        for name, news in (("ids", ids), ("lengths", lengths), ("sums", sums), ("ended", by_itself)):
            merged = torch.cat([getattr(self, f"kept_{name}"), news], 1)
            setattr(self, f"kept_{name}", merged[indices, best])
        self.kept = torch.cat([self.kept, ending], 1).gather(1, best)

    def _can_improve(self) -> Tensor:
        """Whether the best running hypothesis (C,) could still beat the worst ended one, were it to end now."""
        possible = self.beam_scores[:, :1] / self.lengths[:, None] ** self.rules.config.length_penalty
        worst = self.kept_scores.min(1, keepdim=True).values
        return (possible > torch.where(self.kept, worst, MIN_SCORE)).any(1)


def init_search(rules: SearchConfig, clips: Sequence[str], device: torch.device) -> Search:
    """The search that `rules` ask for, with nothing chosen yet for these clip ids."""
    beams = rules.config.num_beams > 1 and not rules.config.temperature
    return (BeamSearch if beams else Search).init(rules, clips, device)


def clip_rng(seed: int, clip: str) -> np.random.Generator:
    """The random numbers of a clip: a function of the seed and of its id."""
    return np.random.default_rng([seed, int.from_bytes(hashlib.sha256(clip.encode()).digest()[:8])])
