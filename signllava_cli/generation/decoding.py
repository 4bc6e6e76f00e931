"""Decoding: clips go in with their prompts, hypotheses come out, and whoever ends makes room for another."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from signllava_cli.data.batches import collate_examples
from signllava_cli.data.examples import Example
from signllava_cli.errors import UserError
from signllava_cli.generation.mbr import rank_by_agreement
from signllava_cli.generation.search import Candidate, Search, SearchConfig, init_search
from signllava_cli.model.kv_cache import KVCache, PrefillRecorder, matches_reference
from signllava_cli.model.llm import decoder_and_head
from signllava_cli.model.loading import ModelBundle
from signllava_cli.model.prefix_cache import PrefixCache, build_prefix_cache
from signllava_cli.recipe import Generate, Recipe


@dataclass(frozen=True)
class Hypothesis:
    """A translation and its score: the mean log-probability of its tokens, end of turn included.

    `finished` is false when `max_new_tokens` ended it. `n_best`: the texts of the best hypotheses with their scores,
    this one first, when several were asked for.
    """

    text: str
    score: float
    finished: bool
    n_best: tuple[tuple[str, float], ...] = ()


DecodedClip = tuple[Example, Hypothesis]


class Decoder(Protocol):
    """What decodes: it is given examples, and steps until they have come out as hypotheses."""

    def admit(self, examples: Sequence[Example]) -> None:
        """Take in examples, beside those at work."""

    def step(self) -> list[DecodedClip]:
        """Go a step on; those whose hypotheses are complete come out."""

    @property
    def active(self) -> list[Example]:
        """The examples at work."""


def open_decoder(bundle: ModelBundle, recipe: Recipe) -> Decoder:
    """The decoder of a model by the recipe's section `generate`.

    Raises:
        UserError: the LLM only decodes by transformers' own generate, which does not offer what is asked for.
    """
    bundle.model.requires_grad_(False)
    llm, (decoder, _) = bundle.model.llm, decoder_and_head(bundle.model.llm)
    ids = torch.tensor(bundle.prompts.before_streams, device=bundle.device)
    causal = llm.get_base_model() if hasattr(llm, "get_base_model") else llm
    prefix = build_prefix_cache(causal, decoder, ids)
    if prefix is not None and matches_reference(causal, decoder, prefix):
        return SharedPrefixDecoder(bundle, recipe, prefix)
    if recipe.generate.temperature:
        raise UserError(
            f"generate.temperature: sampling needs attention that reads all positions, which {recipe.llm.path} has "
            f"not with llm.attn_implementation={recipe.llm.attn_implementation}; use sdpa, or search by beams."
        )
    return GenerateDecoder(bundle, recipe)


def decode_all(decoder: Decoder, examples: Sequence[Example], at_once: int) -> Iterator[DecodedClip]:
    """The hypotheses of all `examples`, at most `at_once` of them at work at a time, in the order of their ends."""
    waiting = deque(examples)
    while waiting or decoder.active:
        if waiting and should_admit(len(decoder.active), at_once):
            room = min(len(waiting), at_once - len(decoder.active))
            decoder.admit([waiting.popleft() for _ in range(room)])
        yield from decoder.step()


def should_admit(active: int, at_once: int) -> bool:
    """Whether a quarter of the places are free: prompts are read faster several at a time."""
    return active <= at_once - max(1, at_once // 4)


class SharedPrefixDecoder:
    """Decodes with one memory for all clips at work, in which each clip's prompt stands once.

    Hypotheses do not depend on which clips are decoded together, except by the rounding of sums. Weights must not
    change while it lives: the constant text before the streams has been read.
    """

    def __init__(self, bundle: ModelBundle, recipe: Recipe, prefix: PrefixCache) -> None:
        self.bundle, self.config, self.prefix = bundle, recipe.generate, prefix
        self.rules = SearchConfig(recipe.generate, bundle.prompts.end_of_turn)
        self.widths = {name: stream.width for name, stream in recipe.streams.items()}
        self.decoder, self.head = decoder_and_head(bundle.model.llm)
        self.active: list[Example] = []
        self._memory: KVCache | None = None
        self._search: Search | None = None

    @torch.no_grad()
    def admit(self, examples: Sequence[Example]) -> None:
        """Read the prompts of `examples` and choose their first tokens."""
        batch = collate_examples(examples, self.widths, self.bundle.pad_id, "right", omit_prefix=True)
        batch = batch.to(self.bundle.device)
        embeddings = self.bundle.model.embed(batch)
        recorder = PrefillRecorder(self.prefix)
        hidden = self.decoder(
            inputs_embeds=embeddings, use_cache=False, **recorder.arguments(embeddings)
        ).last_hidden_state
        lengths = batch.attention_mask.sum(1)
        last = hidden[torch.arange(len(examples), device=hidden.device), lengths - 1]
        search = init_search(self.rules, batch.clips, hidden.device)
        memory = KVCache.from_prompts(recorder, lengths + self.prefix.length, self.rules.width)
        search.advance(self._logits(last)[:, None].expand(-1, self.rules.width, -1))
        if self._search is None or self._memory is None:
            self._search, self._memory = search, memory
        else:
            self._search.join(search)
            self._memory.join(memory)
        self.active += examples

    @torch.no_grad()
    def step(self) -> list[DecodedClip]:
        """Choose one more token for every hypothesis at work; clips whose search is over come out."""
        over = self._take_finished()
        if over or self._search is None or self._memory is None:
            return over
        words = self.bundle.model.llm.get_input_embeddings()(self._search.tokens.flatten()[:, None])
        hidden = self.decoder(inputs_embeds=words, use_cache=False, **self._memory.arguments()).last_hidden_state
        logits = self._logits(hidden[:, 0])
        self._memory.advance(self._search.advance(logits.view(len(self.active), self.rules.width, -1)))
        return self._take_finished()

    def _logits(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self.head(hidden).float()
        return logits

    def _take_finished(self) -> list[DecodedClip]:
        if self._search is None or self._memory is None or bool(self._search.open.all()):
            return []
        over = (~self._search.open).nonzero().flatten().tolist()
        out = [(self.active[clip], self._hypothesis(self._search.found(clip))) for clip in over]
        left = self._search.open.nonzero().flatten()
        self.active = [self.active[clip] for clip in left.tolist()]
        if self.active:
            self._search.keep(left)
            self._memory.keep(left)
        else:
            self._search = self._memory = None
        return out

    def _hypothesis(self, found: list[Candidate]) -> Hypothesis:
        return choose_hypothesis(found, self.bundle, self.config)


class GenerateDecoder:
    """Decodes whole batches by transformers' generate: for LLMs whose attention does not take a memory."""

    def __init__(self, bundle: ModelBundle, recipe: Recipe) -> None:
        self.bundle, self.recipe = bundle, recipe
        self.active: list[Example] = []

    def admit(self, examples: Sequence[Example]) -> None:
        """Put `examples` into the next batch."""
        self.active += examples

    def step(self) -> list[DecodedClip]:
        """Decode the batch."""
        batch, self.active = self.active, []
        if not batch:
            return []
        return list(zip(batch, generate_batch(self.bundle, batch, self.recipe), strict=True))


@torch.no_grad()
def generate_batch(bundle: ModelBundle, examples: Sequence[Example], recipe: Recipe) -> list[Hypothesis]:
    """One hypothesis an example, by greedy or beam search; the same as if each were decoded alone.

    The batch is padded on the left, so that every clip's new tokens follow its own last position.
    """
    model, end, config = bundle.model, bundle.prompts.end_of_turn, recipe.generate
    widths = {name: stream.width for name, stream in recipe.streams.items()}
    batch = collate_examples(examples, widths, bundle.pad_id, "left").to(bundle.device)
    count = config.num_return_sequences
    output = model.llm.generate(
        inputs_embeds=model.embed(batch),
        attention_mask=batch.attention_mask,
        max_new_tokens=config.max_new_tokens,
        min_new_tokens=config.min_new_tokens or None,
        num_beams=config.num_beams,
        num_return_sequences=count,
        do_sample=False,
        temperature=None,
        top_p=None,
        top_k=None,
        length_penalty=config.length_penalty,
        repetition_penalty=config.repetition_penalty,
        no_repeat_ngram_size=config.no_repeat_ngram_size,
        eos_token_id=end,
        pad_token_id=bundle.pad_id,
        return_dict_in_generate=True,
        output_logits=True,
    )
    beams = output.beam_indices if config.num_beams > 1 else None
    steps = model.llm.compute_transition_scores(output.sequences, output.logits, beams, normalize_logits=True)
    found = [
        _candidate(ids, log_probabilities, end)
        for ids, log_probabilities in zip(output.sequences.tolist(), steps.tolist(), strict=True)
    ]
    return [
        choose_hypothesis(found[first : first + count], bundle, config)
        for first in range(0, count * len(examples), count)
    ]


def _candidate(ids: list[int], log_probabilities: list[float], end: int) -> Candidate:
    finished = end in ids
    length = ids.index(end) + 1 if finished else len(ids)
    return Candidate(tuple(ids[:length]), sum(log_probabilities[:length]) / max(1, length), finished)


def choose_hypothesis(found: Sequence[Candidate], bundle: ModelBundle, config: Generate) -> Hypothesis:
    """The hypothesis of a clip: the first of those `found`, or the one that the others agree with most (MBR)."""
    texts = [bundle.prompts.text(each.ids) for each in found]
    order = rank_by_agreement(texts, config.mbr) if config.mbr else range(len(found))
    best, *_ = ranked = [(texts[index], found[index]) for index in order]
    n_best = tuple((text, each.score) for text, each in ranked) if len(found) > 1 else ()
    return Hypothesis(best[0], best[1].score, best[1].finished, n_best)
