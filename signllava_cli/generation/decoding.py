"""The decoder: takes in examples and gives hypotheses. A finished clip frees its slot for the next one."""

import contextlib
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import pad

from signllava_cli.console import info
from signllava_cli.data.batches import collate_examples
from signllava_cli.data.examples import Example
from signllava_cli.errors import UserError
from signllava_cli.generation.class_generate import decodes_batches, embeddings_to_tokens
from signllava_cli.generation.cuda_graphs import CudaGraphs
from signllava_cli.generation.mbr import rank_by_agreement
from signllava_cli.generation.search import Candidate, Search, SearchConfig, init_search
from signllava_cli.model.kv_cache import KVCache, PrefillRecorder, padded_rows, require_equal_decoding
from signllava_cli.model.llm_mode import eval_mode
from signllava_cli.model.llm_parts import base_llm
from signllava_cli.model.loading import ModelBundle
from signllava_cli.model.partitioning import is_partitioned
from signllava_cli.model.prefix_cache import (
    PROBE_TOKENS,
    CacheError,
    PrefixCache,
    build_prefix_cache,
    longest_window,
)
from signllava_cli.recipe import Generate, Recipe

SLOWDOWN = "up to 4"  # measured, see docs/llms.md
KEYS_MULTIPLE = 64  # of the keys that a step reads on a GPU


@dataclass(frozen=True)
class Hypothesis:
    """A translation or an answer.

    `score`: the mean log-probability of its tokens, end of turn included. `finished`: whether the model ended it;
    otherwise `max_new_tokens` did. `n_best`: texts and scores of the best hypotheses, this one first, if the recipe
    asks for several. `abstained`: the text that was withheld because its score is below `generate.abstain`; `text` is
    then empty.
    """

    text: str
    score: float
    finished: bool
    n_best: tuple[tuple[str, float], ...] = ()
    abstained: str | None = None


DecodedExample = tuple[Example, Hypothesis]


class Decoder(Protocol):
    """Decodes examples step by step; examples may be admitted between any two steps."""

    def admit(self, examples: Sequence[Example]) -> None:
        """Add examples to those that are being decoded."""

    def step(self) -> list[DecodedExample]:
        """Decode one step, and return and remove the examples whose hypotheses are complete."""

    @property
    def active(self) -> list[Example]:
        """The examples that are being decoded."""

    @property
    def description(self) -> str:
        """How it decodes, and why in this way if that is the slower one."""


def open_decoder(bundle: ModelBundle, recipe: Recipe) -> Decoder:
    """The decoder for a model and the recipe's section `generate`; the LLM then needs no gradients.

    Raises:
        UserError: the LLM needs `GenerateDecoder`, which does not sample, or cannot be decoded at all.
    """
    bundle.model.requires_grad_(False)
    llm_forward = bundle.model.llm_forward
    ids = torch.tensor(bundle.prompts.before_streams, device=bundle.device)
    llm, max_seq_len = base_llm(bundle.model.llm), recipe.data.max_seq_len
    try:
        if any(map(is_partitioned, llm_forward.table.parameters())):
            raise CacheError("under ZeRO-3 all ranks must decode the same number of tokens")
        prefix = build_prefix_cache(llm, llm_forward, ids, max_seq_len)
        num_probed = 2 * PROBE_TOKENS + min(max_seq_len, longest_window(llm.config))
        require_equal_decoding(llm_forward, prefix, num_probed)
        return SharedPrefixDecoder(bundle, recipe, prefix)
    except CacheError as error:
        reason = str(error)
    if recipe.generate.temperature:
        raise UserError(f"generate.temperature: sampling is not possible with {recipe.llm.path}: {reason}.")
    has_batches = decodes_batches(bundle.model.llm, llm_forward, bundle.device)
    return GenerateDecoder(bundle, recipe, reason, has_batches)


@contextlib.contextmanager
def decoder_in_training(bundle: ModelBundle, recipe: Recipe) -> Iterator[Decoder]:
    """The decoder for the present weights of a model that is trained; the model is afterwards as before.

    Deterministic algorithms are off inside: sampling sums probabilities, for which GPUs have none.

    Raises:
        UserError: as `open_decoder`.
    """
    llm, trained = base_llm(bundle.model.llm), list(bundle.model.trainable_parameters().values())
    attention, is_deterministic = llm.config._attn_implementation, torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(False)
    try:
        with eval_mode(bundle.model):
            yield open_decoder(bundle, recipe)
    finally:
        torch.use_deterministic_algorithms(is_deterministic)
        for parameter in trained:
            parameter.requires_grad_(True)
        llm.set_attn_implementation(attention)


def print_slow_decoder(decoder: Decoder) -> None:
    """Say so if the decoder is not the fast one, and why."""
    if isinstance(decoder, GenerateDecoder):
        info(f"decoding {SLOWDOWN} times slower than with our KV cache, with {decoder.description}")


def decode_all(decoder: Decoder, examples: Sequence[Example], batch_size: int) -> list[Hypothesis]:
    """The hypotheses of `examples`, in the same order; at most `batch_size` examples are decoded at a time."""
    indices = {id(example): index for index, example in enumerate(examples)}  # different clips may share an `id`
    hypotheses: dict[int, Hypothesis] = {}
    waiting = deque(examples)
    while waiting or decoder.active:
        if waiting and should_admit(len(decoder.active), batch_size):
            num_free = min(len(waiting), batch_size - len(decoder.active))
            decoder.admit([waiting.popleft() for _ in range(num_free)])
        hypotheses |= {indices[id(example)]: hypothesis for example, hypothesis in decoder.step()}
    return [hypotheses[index] for index in range(len(examples))]


def should_admit(num_active: int, batch_size: int) -> bool:
    """Whether a quarter of the slots are free: reading several prompts together is faster."""
    return num_active <= batch_size - max(1, batch_size // 4)


class SharedPrefixDecoder:
    """Decodes all active clips with one KV cache, in which each clip's prompt is stored once for all its hypotheses.

    Hypotheses do not depend on which clips are decoded together, except for the rounding of sums. The weights must
    not change while this object lives: it holds the keys and values of the constant text before the streams.
    """

    description = "KV cache"

    def __init__(self, bundle: ModelBundle, recipe: Recipe, prefix: PrefixCache) -> None:
        self.bundle, self.config, self.prefix = bundle, recipe.generate, prefix
        self.search_config = SearchConfig(recipe.generate, bundle.prompts.end_of_turn)
        self.streams = recipe.streams
        self.llm_forward = bundle.model.llm_forward
        self.active: list[Example] = []
        self._search: Search | None = None
        self._cache = KVCache(self.search_config.num_hypotheses, bundle.device)
        self._graphs = CudaGraphs(self._next_logits) if bundle.device.type == "cuda" else None
        self._num_allocations = 0  # of the cache, when its graphs were recorded

    @property
    def has_cuda_graphs(self) -> bool:
        """Whether its steps are CUDA graphs."""
        return self._graphs is not None and self._graphs.is_enabled

    @torch.no_grad()
    def admit(self, examples: Sequence[Example]) -> None:
        """Read the prompts of `examples` and choose the first tokens of their hypotheses."""
        batch = collate_examples(examples, self.streams, self.bundle.pad_id, "right", omit_prefix=True)
        lengths = batch.attention_mask.sum(1)  # (C,)
        batch = batch.to(self.bundle.device)
        embeddings = self.bundle.model.embed(batch)  # (C, L, hidden), without the prefix
        recorder = PrefillRecorder(self.prefix)
        hidden = self.llm_forward.decoder(
            inputs_embeds=embeddings, use_cache=False, **recorder.arguments(embeddings)
        ).last_hidden_state  # (C, L, hidden)
        last = hidden[torch.arange(len(examples)), lengths - 1]  # (C, hidden)
        self._cache.add(recorder, (lengths + self.prefix.length).tolist())
        search = init_search(self.search_config, batch.clips, hidden.device)
        logits = self.llm_forward.head(last).float()  # (C, vocabulary)
        search.advance(logits[:, None].expand(-1, self.search_config.num_hypotheses, -1))
        if self._search is None:
            self._search = search
        else:
            self._search.join(search)
        self.active += examples

    @torch.no_grad()
    def step(self) -> list[DecodedExample]:
        """Choose one more token for every active hypothesis; return and remove the clips whose search has ended."""
        finished = self._take_finished()
        if finished or self._search is None:
            return finished
        ids, num_keys = self._search.tokens, self._cache.num_keys  # (C, W)
        if self._graphs is None:
            logits = self._next_logits(ids, num_keys)
        else:
            logits = self._graphed_logits(self._graphs, ids, num_keys)[: len(ids)]
        self._cache.advance(self._search.advance(logits.float()))
        return self._take_finished()

    def _next_logits(self, ids: Tensor, num_keys: int) -> Tensor:
        """The logits (rows, W, vocabulary) after the next token of each hypothesis, `ids` (rows, W)."""
        embeddings = self.llm_forward.embed(ids.flatten()[:, None])
        hidden = self.llm_forward.decoder(
            inputs_embeds=embeddings, use_cache=False, **self._cache.arguments(len(ids), num_keys)
        ).last_hidden_state  # (rows * W, 1, hidden)
        logits: Tensor = self.llm_forward.head(hidden[:, 0])
        return logits.view(*ids.shape, -1)

    def _graphed_logits(self, graphs: CudaGraphs, ids: Tensor, num_keys: int) -> Tensor:
        """As `_next_logits`, with few shapes: all rows for which the cache has space, and a multiple of its keys."""
        if self._num_allocations != self._cache.num_allocations:
            graphs.clear()
            self._num_allocations = self._cache.num_allocations
        num_rows = min(padded_rows(len(ids), ids.device), self._cache.max_rows)
        num_keys = min(num_keys + -num_keys % KEYS_MULTIPLE, self._cache.max_keys)
        return graphs.run(pad(ids, (0, 0, 0, num_rows - len(ids))), num_keys)

    def _take_finished(self) -> list[DecodedExample]:
        if self._search is None or all(is_open := self._search.is_open.tolist()):
            return []
        finished = [clip for clip, clip_is_open in enumerate(is_open) if not clip_is_open]
        decoded = [(self.active[clip], self._choose(self._search.candidates(clip))) for clip in finished]
        kept = _fill_gaps(is_open)
        self.active = [self.active[clip] for clip in kept]
        self._cache.keep(kept)
        if kept:
            self._search.keep(torch.tensor(kept, device=self.bundle.device))
        else:
            self._search = None
        return decoded

    def _choose(self, candidates: list[Candidate]) -> Hypothesis:
        return choose_hypothesis(candidates, self.bundle, self.config)


def _fill_gaps(is_open: Sequence[bool]) -> list[int]:
    """The indices of the open clips; the last ones take the places of those that are not, so that few are moved."""
    open_clips = [clip for clip, clip_is_open in enumerate(is_open) if clip_is_open]
    last = iter(reversed(open_clips))
    return [clip if is_open[clip] else next(last) for clip in range(len(open_clips))]


class GenerateDecoder:
    """Decodes whole batches with transformers' `generate`, because (`reason`) our KV cache cannot be used.

    Without `has_batches`, each example is decoded alone.
    """

    def __init__(self, bundle: ModelBundle, recipe: Recipe, reason: str, has_batches: bool = True) -> None:
        self.bundle, self.recipe, self.has_batches = bundle, recipe, has_batches
        one_by_one = "" if has_batches else ", one clip at a time, since padding changes what it computes"
        self.description = f"transformers' generate{one_by_one}, because {reason}"
        self.active: list[Example] = []

    def admit(self, examples: Sequence[Example]) -> None:
        """Add `examples` to the next batch."""
        self.active += examples

    def step(self) -> list[DecodedExample]:
        """Decode the batch to its end."""
        size = len(self.active) if self.has_batches else 1
        batch, self.active = self.active[:size], self.active[size:]
        if not batch:
            return []
        return list(zip(batch, generate_batch(self.bundle, batch, self.recipe), strict=True))


@torch.no_grad()
def generate_batch(bundle: ModelBundle, examples: Sequence[Example], recipe: Recipe) -> list[Hypothesis]:
    """One hypothesis per example, by greedy or beam search; the same as if each were decoded alone.

    The batch is padded on the left, so that the new tokens of every clip directly follow its prompt.
    """
    model, end_of_turn, config = bundle.model, bundle.prompts.end_of_turn, recipe.generate
    batch = collate_examples(examples, recipe.streams, bundle.pad_id, "left").to(bundle.device)
    num_return = config.num_return_sequences
    output = embeddings_to_tokens(
        model.llm,
        model.embed(batch),
        batch.attention_mask,
        max_new_tokens=config.max_new_tokens,
        min_new_tokens=config.min_new_tokens or None,
        num_beams=config.num_beams,
        num_return_sequences=num_return,
        do_sample=False,
        temperature=None,
        top_p=None,
        top_k=None,
        length_penalty=config.length_penalty,
        repetition_penalty=config.repetition_penalty,
        no_repeat_ngram_size=config.no_repeat_ngram_size,
        eos_token_id=end_of_turn,
        pad_token_id=bundle.pad_id,
        return_dict_in_generate=True,
        output_logits=True,
    )
    beam_indices = output.beam_indices if config.num_beams > 1 else None
    log_probabilities = model.llm.compute_transition_scores(  # (B * num_return, new tokens)
        output.sequences, output.logits, beam_indices, normalize_logits=True
    )
    candidates = [
        _make_candidate(ids, row, end_of_turn)
        for ids, row in zip(output.sequences.tolist(), log_probabilities.tolist(), strict=True)
    ]
    return [
        choose_hypothesis(candidates[first : first + num_return], bundle, config)
        for first in range(0, num_return * len(examples), num_return)
    ]


def _make_candidate(ids: list[int], log_probabilities: list[float], end_of_turn: int) -> Candidate:
    finished = end_of_turn in ids
    length = ids.index(end_of_turn) + 1 if finished else len(ids)
    return Candidate(tuple(ids[:length]), sum(log_probabilities[:length]) / max(1, length), finished)


def choose_hypothesis(candidates: Sequence[Candidate], bundle: ModelBundle, config: Generate) -> Hypothesis:
    """The hypothesis of a clip: the first candidate, or the one that agrees most with the others (`config.mbr`).

    Its text is withheld if its score is below `config.abstain`.
    """
    texts = [bundle.prompts.text(candidate.ids) for candidate in candidates]
    order = rank_by_agreement(texts, config.mbr) if config.mbr else range(len(candidates))
    (text, best), *_ = ranked = [(texts[index], candidates[index]) for index in order]
    n_best = tuple((text, candidate.score) for text, candidate in ranked) if len(candidates) > 1 else ()
    is_withheld = config.abstain is not None and best.score < config.abstain
    return Hypothesis(
        text="" if is_withheld else text,
        score=best.score,
        finished=best.finished,
        n_best=n_best,
        abstained=text if is_withheld else None,
    )
