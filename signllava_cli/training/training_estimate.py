"""The memory, the FLOPs and the hours of a training run, from its recipe and the config of its LLM alone.

Memory is that of one rank under DDP or alone; ZeRO divides a part of it over the ranks. It is exact for what torch
allocates in a step on the largest micro-batch, as far as the assumptions of `model/fake_model.py` hold, and leaves a
share of the GPU free (`model/memory_limit.py`). Hours are FLOPs divided by an assumed utilization of the GPU.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np

from signllava_cli.data.length_grouping import group_by_length, group_into_batches, largest_batch
from signllava_cli.data.prompts import PromptBuilder
from signllava_cli.model.fake_model import BatchShape, FakeModel, fake_model
from signllava_cli.model.gpus import GPU
from signllava_cli.model.memory_limit import most_clips, usable_memory
from signllava_cli.model.step_cost import TrainingCost, training_cost
from signllava_cli.prepare.workload import Workload, find_workload
from signllava_cli.recipe import Recipe
from signllava_cli.training.session_setup import total_steps

# Of the GPU's dense bfloat16 FLOP/s, by llm.bits: a little less than an H100 and an H200 reached (docs/gpu.md); 8
# bits: assumed
UTILIZATION = {16: 0.37, 8: 0.2, 4: 0.29}
COMPILED_UTILIZATION = {16: 0.5, 8: 0.2, 4: 0.4}
SAMPLED_STEPS = 20  # of which padding is measured
FLOAT32 = 4  # bytes


@dataclass(frozen=True)
class TrainingMemory:
    """The peak memory of a rank by kind, in bytes.

    `llm`: the weights of the LLM as they are stored. `trained`: projectors, boundary vectors and adapter, with
    gradients and AdamW's state in the next two; `buckets`: DDP's copy of the gradients. `prefix`: the keys and values
    of the constant text. `working`: the most beside all of these, in the loss or in the backward pass.
    `max_tokens_per_batch`: the largest that fits, of sequences of the greatest length; 0 if no clip fits.
    """

    gradient_checkpointing: bool
    llm: float
    trained: float
    gradients: float
    optimizer: float
    buckets: float
    prefix: float
    activations: float
    logits: float
    working: float
    peak: float
    fits: bool
    max_tokens_per_batch: int


@dataclass(frozen=True)
class TrainingEstimate:
    """An estimate. FLOPs are those of forward and backward passes, without padding.

    `hours`, `tokens_per_second` (of all processes) and `utilization` are None where the speed of the GPU is unknown,
    and for a float32 LLM.

    `recomputed_flops_per_token`: with gradient checkpointing. `padding`: the share of padding in the batches of a
    step; None if it is unknown. `memory`: without and with gradient checkpointing.
    """

    gpu: str
    gpu_memory: int
    usable_memory: float
    llm_parameters: int
    projector_parameters: int
    adapter_parameters: int
    workload: str
    num_clips: int
    mean_len: int
    batch_clips: int
    batch_len: int
    flops_per_token: float
    recomputed_flops_per_token: float
    flops_per_step: float
    num_steps: int
    flops: float
    padding: float | None
    utilization: float | None
    num_processes: int
    hours: float | None
    tokens_per_second: float | None
    memory: tuple[TrainingMemory, TrainingMemory]


def estimate_training(recipe: Recipe, gpu: GPU, prompts: PromptBuilder | None) -> TrainingEstimate:
    """The estimate for `recipe` on `gpu`.

    Args:
        prompts: of the tokenizer of the LLM; without them the number of text tokens is assumed.

    Raises:
        UserError: the config of the LLM cannot be read, or nothing can be estimated for its class.
    """
    workload, train = find_workload(recipe, recipe.data.train, prompts), recipe.train
    num_clips, seq_len = _largest_batch(recipe, workload)
    with fake_model(recipe) as model:
        stored, checkpointed = (
            _memory(recipe, gpu, model, workload, num_clips, seq_len, is_on) for is_on in (False, True)
        )
        flops, recomputed = (_flops_per_token(recipe, model, workload, is_on) for is_on in (False, True))
        parameters = {name: weight.numel() for name, weight in model.trainable_parameters().items()}
        llm_parameters = model.num_llm_parameters
    num_steps, num_processes = total_steps(recipe, workload.num_clips), recipe.launch.num_processes or 1
    padding = _padding(recipe, workload, num_processes)
    tokens = float(workload.mean_len * train.batch_size)
    spent = (recomputed if train.gradient_checkpointing else flops) * tokens * num_steps / (1 - (padding or 0.0))
    utilization = (COMPILED_UTILIZATION if train.torch_compile else UTILIZATION).get(recipe.llm.bits)
    hours = spent / (gpu.flops * utilization * num_processes) / 3600 if gpu.flops and utilization else None
    projectors = sum(count for name, count in parameters.items() if name.startswith("projectors."))
    return TrainingEstimate(
        gpu=gpu.name,
        gpu_memory=gpu.memory,
        usable_memory=usable_memory(gpu),
        llm_parameters=llm_parameters,
        projector_parameters=projectors,
        adapter_parameters=sum(parameters.values()) - projectors,
        workload=workload.source,
        num_clips=workload.num_clips,
        mean_len=workload.mean_len,
        batch_clips=num_clips,
        batch_len=seq_len,
        flops_per_token=flops,
        recomputed_flops_per_token=recomputed,
        flops_per_step=flops * tokens,
        num_steps=num_steps,
        flops=flops * tokens * num_steps,
        padding=padding,
        utilization=utilization if gpu.flops else None,
        num_processes=num_processes,
        hours=hours,
        tokens_per_second=tokens * num_steps / (3600 * hours) if hours else None,
        memory=(stored, checkpointed),
    )


def _largest_batch(recipe: Recipe, workload: Workload) -> tuple[int, int]:
    """The clips and the length of the largest micro-batch."""
    train = recipe.train
    if train.max_tokens_per_batch is None:
        return train.micro_batch_size, workload.longest_len
    if workload.is_measured:
        clips = largest_batch(workload.lengths, train.max_tokens_per_batch, train.batch_size)
        return len(clips), int(workload.lengths[clips[0]])
    return min(train.batch_size, max(1, train.max_tokens_per_batch // workload.longest_len)), workload.longest_len


def _shape(workload: Workload, num_clips: int, seq_len: int) -> BatchShape:
    embeddings = workload.embeddings(seq_len)
    return BatchShape(num_clips, seq_len, workload.prefix_len, workload.answer_len, embeddings)


def _cost(
    recipe: Recipe, model: FakeModel, workload: Workload, num_clips: int, seq_len: int, checkpointing: bool
) -> TrainingCost:
    with_prefix = recipe.train.reuse_prefix and not recipe.lora.enabled
    return training_cost(model, _shape(workload, num_clips, seq_len), checkpointing, with_prefix)


def _flops_per_token(recipe: Recipe, model: FakeModel, workload: Workload, checkpointing: bool) -> float:
    return _cost(recipe, model, workload, 1, workload.mean_len, checkpointing).flops / workload.mean_len


def _memory(
    recipe: Recipe,
    gpu: GPU,
    model: FakeModel,
    workload: Workload,
    num_clips: int,
    seq_len: int,
    checkpointing: bool,
) -> TrainingMemory:
    trained = float(FLOAT32 * sum(weight.numel() for weight in model.trainable_parameters().values()))
    buckets = trained if (recipe.launch.num_processes or 1) > 1 else 0.0
    fixed = model.llm_memory + 4 * trained + buckets

    @cache
    def cost_of(count: int, length: int) -> TrainingCost:
        return _cost(recipe, model, workload, count, length, checkpointing)

    cost, limit, longest = cost_of(num_clips, seq_len), usable_memory(gpu), workload.longest_len
    known = max(1, num_clips * seq_len // longest)
    most = most_clips(lambda count: fixed + cost_of(count, longest).peak, known, fixed, limit)
    return TrainingMemory(
        gradient_checkpointing=checkpointing,
        llm=model.llm_memory,
        trained=trained,
        gradients=trained,
        optimizer=2 * trained,
        buckets=buckets,
        prefix=cost.prefix,
        activations=cost.activations,
        logits=cost.logits,
        working=max(cost.logits, cost.backward),
        peak=fixed + cost.peak,
        fits=fixed + cost.peak <= limit,
        max_tokens_per_batch=most * longest,
    )


def _padding(recipe: Recipe, workload: Workload, num_processes: int) -> float | None:
    """The share of padding in the micro-batches of some steps, from 0 to 1; None without an index."""
    train, lengths = recipe.train, workload.lengths
    if not workload.is_measured or len(lengths) < train.batch_size:
        return None
    rng = np.random.default_rng(recipe.run.seed)
    order = rng.permutation(len(lengths))
    if train.max_tokens_per_batch is not None:
        order = group_by_length(order, lengths, 0, train.batch_size, rng)
    num_real = num_padded = 0
    for start in range(0, min(SAMPLED_STEPS, len(order) // train.batch_size) * train.batch_size, train.batch_size):
        step = lengths[order[start : start + train.batch_size]]
        if train.max_tokens_per_batch is None:
            size = train.micro_batch_size
            batches = [list(range(first, first + size)) for first in range(0, train.batch_size, size)]
        else:
            batches = group_into_batches(step, train.max_tokens_per_batch, num_processes)
        num_real += int(step.sum())
        num_padded += sum(len(batch) * int(step[batch].max()) for batch in batches)
    return 1 - num_real / num_padded
