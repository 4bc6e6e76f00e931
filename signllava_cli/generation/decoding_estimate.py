"""The memory, the FLOPs and the hours of a generation, from its recipe and the config of its LLM alone.

The KV cache holds the prompt of a clip once, and the new tokens of each of its hypotheses; an LLM that transformers'
`generate` must decode holds the prompt once per hypothesis. Memory is that of a full batch of the longest prompts at
its last token. Reading prompts is limited by FLOP/s, decoding by the bandwidth of the memory, from which each step
reads all weights and the KV cache once.
"""

from dataclasses import dataclass
from functools import cache

import torch

from signllava_cli.data.prompts import PromptBuilder
from signllava_cli.generation.search import SearchConfig, init_search
from signllava_cli.model.cost_counter import CostCounter
from signllava_cli.model.fake_model import BatchShape, FakeModel, fake_model
from signllava_cli.model.gpus import GPU
from signllava_cli.model.memory_limit import most_clips, usable_memory
from signllava_cli.model.step_cost import PrefillCost, prefill_cost
from signllava_cli.prepare.workload import NUM_CLIPS_DECODED, Workload, find_workload
from signllava_cli.recipe import Recipe

UTILIZATION = 0.4  # assumed: of the GPU's dense bfloat16 FLOP/s while prompts are read
BANDWIDTH_SHARE = 0.25  # of the bandwidth of its memory in decoding, as on an H200 (docs/gpu.md)
FLOAT32 = 4  # bytes


@dataclass(frozen=True)
class DecodingMemory:
    """The peak memory of a process by kind, in bytes.

    `llm`: the weights of the LLM as they are decoded: those of 4 bits are converted, if the GPU has the memory for it
    (model/decoding_weights.py). `trained`: projectors and adapter. `prompt_kv`, `token_kv`: keys
    and values of prompts and of new tokens. `logits`: what the search makes of a step. `working`: the most beside all
    others, while prompts are read or tokens are chosen.
    """

    llm: float
    trained: float
    prompt_kv: float
    token_kv: float
    logits: float
    working: float

    @property
    def peak(self) -> float:
        """The most at once."""
        return self.llm + self.trained + self.prompt_kv + self.token_kv + self.working


@dataclass(frozen=True)
class DecodingEstimate:
    """An estimate; `hours` and what it needs are None where the speed of the GPU is unknown.

    `batch_clips`: of a batch of the longest prompts, `prompt_len` tokens each. `max_batch_size`: the most clips of
    such a batch that fit; `max_tokens_per_batch`: their tokens, new ones included.
    """

    gpu: str
    gpu_memory: int
    usable_memory: float
    llm_parameters: int
    trained_parameters: int
    workload: str
    num_clips: int
    mean_len: int
    batch_clips: int
    prompt_len: int
    num_hypotheses: int
    kv_bytes_per_token: float
    prefill_flops: float
    decoding_flops: float
    utilization: float | None
    bandwidth_share: float | None
    num_processes: int
    hours: float | None
    memory: DecodingMemory
    peak: float
    fits: bool
    max_batch_size: int
    max_tokens_per_batch: int


def estimate_decoding(recipe: Recipe, gpu: GPU, prompts: PromptBuilder | None) -> DecodingEstimate:
    """The estimate for the section `generate` of `recipe` on `gpu`.

    Args:
        prompts: of the tokenizer of the LLM; without them the number of text tokens is assumed.

    Raises:
        UserError: the config of the LLM cannot be read, or nothing can be estimated for its class.
    """
    config = recipe.generate
    workload = find_workload(recipe, config.split, prompts, NUM_CLIPS_DECODED)
    prompt_len = max(1, min(workload.longest_len, recipe.data.max_seq_len - config.max_new_tokens))
    clip_len = prompt_len + config.max_new_tokens
    batch_clips = config.batch_size
    if config.max_tokens_per_batch is not None:
        batch_clips = min(batch_clips, max(1, config.max_tokens_per_batch // clip_len))
    limit, num_processes = usable_memory(gpu), recipe.launch.num_processes or 1
    with fake_model(recipe) as model:
        memory_of = cache(lambda count: _memory(recipe, model, workload, count, prompt_len, limit))
        memory, cost = memory_of(batch_clips)
        fixed = memory.llm + memory.trained
        most = most_clips(lambda count: memory_of(count)[0].peak, batch_clips, fixed, limit)
        mean_prompt = max(1, workload.mean_len - workload.answer_len)
        prefill = prefill_cost(model, _shape(workload, 1, mean_prompt))
        head = model.llm_forward.head
        head_flops = 2.0 * sum(weight.numel() for weight in head.parameters())
        num_trained = sum(weight.numel() for weight in model.trainable_parameters().values())
        num_llm = model.num_llm_parameters
    num_hypotheses = SearchConfig(config, 0).num_hypotheses
    kv_bytes = cost.kv / (batch_clips * prompt_len)
    prefill_flops = prefill.flops * workload.num_clips
    per_token = prefill.flops / mean_prompt + head_flops
    decoding_flops = per_token * num_hypotheses * workload.answer_len * workload.num_clips
    hours = None
    if gpu.flops and gpu.bandwidth:
        num_steps = workload.answer_len * workload.num_clips / config.batch_size
        kv_read = kv_bytes * config.batch_size * (mean_prompt + num_hypotheses * workload.answer_len / 2)
        seconds = prefill_flops / (gpu.flops * UTILIZATION)
        seconds += num_steps * (memory.llm + kv_read) / (gpu.bandwidth * BANDWIDTH_SHARE)
        hours = seconds / 3600 / num_processes
    return DecodingEstimate(
        gpu=gpu.name,
        gpu_memory=gpu.memory,
        usable_memory=limit,
        llm_parameters=num_llm,
        trained_parameters=num_trained,
        workload=workload.source,
        num_clips=workload.num_clips,
        mean_len=workload.mean_len,
        batch_clips=batch_clips,
        prompt_len=prompt_len,
        num_hypotheses=num_hypotheses,
        kv_bytes_per_token=kv_bytes,
        prefill_flops=prefill_flops,
        decoding_flops=decoding_flops,
        utilization=UTILIZATION if hours is not None else None,
        bandwidth_share=BANDWIDTH_SHARE if hours is not None else None,
        num_processes=num_processes,
        hours=hours,
        memory=memory,
        peak=memory.peak,
        fits=memory.peak <= limit,
        max_batch_size=most,
        max_tokens_per_batch=most * clip_len,
    )


def _shape(workload: Workload, num_clips: int, prompt_len: int) -> BatchShape:
    prefix_len = min(workload.prefix_len, prompt_len - 1)
    return BatchShape(num_clips, prompt_len, prefix_len, 0, workload.embeddings(prompt_len))


def _memory(
    recipe: Recipe, model: FakeModel, workload: Workload, num_clips: int, prompt_len: int, usable: float
) -> tuple[DecodingMemory, PrefillCost]:
    """The memory of a batch of `num_clips` prompts, and the cost of reading them."""
    config = recipe.generate
    cost = prefill_cost(model, _shape(workload, num_clips, prompt_len))
    num_hypotheses = SearchConfig(config, 0).num_hypotheses
    prompt_kv = cost.kv if cost.shares_prompts else cost.kv * num_hypotheses
    token_kv = cost.kv / prompt_len * config.max_new_tokens * num_hypotheses
    logits = _search_memory(recipe, model, num_clips)
    # prompts are read before there are new tokens, and their keys and values are then copied into the cache
    working = max(cost.forward - token_kv, cost.kv, logits)
    trained = float(FLOAT32 * sum(weight.numel() for weight in model.trainable_parameters().values()))
    llm_memory = model.decoding_memory(free=usable - model.llm_memory - trained)
    return DecodingMemory(llm_memory, trained, prompt_kv, token_kv, logits, working), cost


@torch.no_grad()
def _search_memory(recipe: Recipe, model: FakeModel, num_clips: int) -> float:
    """The most memory that choosing a token for each hypothesis takes."""
    config = SearchConfig(recipe.generate, end_of_turn=0)
    search = init_search(config, [""] * num_clips, torch.device("cpu"))
    counter = CostCounter([*model.parameters(), *model.buffers()])
    with counter:
        hidden = torch.zeros(num_clips * config.num_hypotheses, model.llm_forward.hidden, dtype=model.dtype)
        logits = model.llm_forward.head(hidden).float()
        search.advance(logits.view(num_clips, config.num_hypotheses, -1))
    return float(counter.peak)
