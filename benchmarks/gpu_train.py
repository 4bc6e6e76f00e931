"""The training stages of gpu.py: tokens/s, MFU (model FLOPs utilization), memory, launches and waits of a step."""

import itertools
import warnings
from collections import Counter
from typing import Any

import torch
from accelerate import Accelerator
from gpu_run import Run, Values, count_gpu_work, host_peak_gb, make_recipe, open_examples
from torch import nn

from signllava_cli.data.batches import Batch, training_collator
from signllava_cli.data.training_set import training_steps
from signllava_cli.model.cuda_settings import deterministic_algorithms
from signllava_cli.model.llm_parts import (
    base_llm,
    compile_layers,
    decoder_layers,
    disable_activation_checkpointing,
    enable_activation_checkpointing,
)
from signllava_cli.model.loading import ModelBundle, load_model_bundle
from signllava_cli.recipe import Recipe
from signllava_cli.training.accelerator import start_accelerator
from signllava_cli.training.engine import Engine, open_engine
from signllava_cli.training.optimizer import make_optimizer
from signllava_cli.training.step import optimizer_step

WARMUP_STEPS, MICRO_BATCHES = 2, {"1.6k": 4, "8k": 2}
DATASHEET_TFLOPS = 989.4  # dense bfloat16 of H100 SXM and H200


def train_frozen(run: Run) -> None:
    """pretrain: the LLM in bfloat16, projectors are trained."""
    _train(run, "bf16", bits=16, lora=False)


def train_quantized(run: Run) -> None:
    """finetune: the LLM in nf4, projectors and a LoRA adapter are trained."""
    _train(run, "nf4 + LoRA", bits=4, lora=True)


def _train(run: Run, label: str, bits: int, lora: bool) -> None:
    recipe = make_recipe(run, bits, lora)
    session: list[_Training] = []

    def open_training() -> Values:
        session.append(_Training(run, recipe))
        return session[0].loaded

    if not run.attempt(f"load {label}", 20, open_training):
        return
    training = session[0]
    settings = itertools.product(reversed(run.size.budgets), (False, True))
    for budget, checkpointing in itertools.islice(settings, 1 if run.is_quick else None):
        name = f"{label}, {budget} tokens, checkpointing {'on' if checkpointing else 'off'}"
        run.attempt(name, 15, lambda: training.measure(budget, checkpointing))  # noqa: B023
    if not lora:
        name = f"{label}, 8k tokens, checkpointing off, deterministic"
        run.attempt(name, 15, training.measure_deterministic)
    if run.has_gpu:  # a CPU compiles for minutes
        run.attempt(f"{label}, 8k tokens, torch.compile", 60, training.measure_compiled)


class _Training:
    """A model with its engine, as the command opens it, whose steps are measured under several settings."""

    def __init__(self, run: Run, recipe: Recipe) -> None:
        self.run, self.recipe = run, recipe
        self.accelerator: Accelerator = start_accelerator(recipe)
        run.reset_peak()
        self.loaded: Values = {}
        seconds = run.time_ms(self._load) / 1e3
        self.loaded = {
            "figure": f"{seconds:.1f} s, peak {run.peak_gb()} GB, host {host_peak_gb()} GB",
            "load_seconds": round(seconds, 2),
            "peak_gb": run.peak_gb(),
            "host_peak_gb": host_peak_gb(),
        }
        model = self.bundle.model.train()
        self.engine: Engine = open_engine(self.accelerator, model, make_optimizer(model, recipe), 1.0)
        self.has_prefix = model.reuse_prefix(self.bundle.prompts.before_streams, recipe.data.max_seq_len)
        self.loaded |= {"has_prefix": self.has_prefix, "cudnn_sdp": torch.backends.cuda.cudnn_sdp_enabled()}

    def _load(self) -> None:
        self.bundle: ModelBundle = load_model_bundle(self.recipe, self.run.device)

    def measure(self, budget: str, checkpointing: bool) -> Values:
        """Tokens/s and the rest, for micro-batches of at most `budget` tokens."""
        llm = self.bundle.model.llm
        if checkpointing:
            enable_activation_checkpointing(llm)
        else:
            disable_activation_checkpointing(llm)
        self.bundle.model.train()
        steps = self._read_steps(budget)
        self.run.reset_peak()
        for micro_batches in steps[:WARMUP_STEPS]:
            self._step(micro_batches)
        timed = steps[WARMUP_STEPS:]
        numbers = iter(timed)
        seconds = self.run.time_ms(lambda: self._step(next(numbers)), len(timed)) * len(timed) / 1e3
        peak, last = self.run.peak_gb(), timed[-1]
        batches = [batch for micro_batches in timed for batch in micro_batches]
        tokens = sum(int(batch.attention_mask.sum()) for batch in batches)
        padded = sum(batch.attention_mask.numel() for batch in batches)
        flops = sum(training_flops(self.bundle.model.llm, batch) for batch in batches)
        tflops, measured = flops / seconds / 1e12, self.run.limits().get("tflops")
        values: Values = {
            "tokens_per_second": round(tokens / seconds),
            "tokens_per_second_with_prefix": round(sum(batch.num_tokens for batch in batches) / seconds),
            "tokens_per_micro_batch": round(tokens / len(batches)),
            "clips_per_micro_batch": round(sum(len(batch.clips) for batch in batches) / len(batches), 1),
            "padding": round(1 - tokens / padded, 4),
            "ms_per_micro_batch": round(1e3 * seconds / len(batches), 2),
            "micro_batches_per_step": len(last),
            "model_tflops": round(tflops, 1),
            "mfu": round(tflops / measured, 4) if measured else None,
            "mfu_datasheet": round(tflops / DATASHEET_TFLOPS, 4),
            "peak_gb": peak,
            "loss": round(self.last_result.loss, 4),
            "is_finite": self.last_result.is_finite,
        }
        if self.run.has_gpu:
            values["reserved_gb"] = round(torch.cuda.max_memory_reserved() / 1e9, 2)
            values["synchronizations"], values["synchronizing"] = self._synchronizations(last)  # of the step
            values |= count_gpu_work(lambda: self._step(last[:1]))  # of one micro-batch
        share = f", MFU {values['mfu']:.0%}" if measured else ""
        figure = f"{values['tokens_per_second']:,} tokens/s, {tflops:.1f} TFLOP/s{share}, peak {peak} GB"
        if "launches" in values:
            waits = values["synchronizations"] / len(last)
            figure += f", {values['launches']:,} launches and {waits:.1f} waits a micro-batch"
        return {"figure": figure, "limit": f"{measured} TFLOP/s" if measured else "", **values}

    def measure_deterministic(self) -> Values:
        """As `measure`, with `train.deterministic`."""
        with deterministic_algorithms(is_enabled=True):
            return self.measure("8k", checkpointing=False)

    def measure_compiled(self) -> Values:
        """As `measure`, with compiled layers; the time of the compilation is that of the warm-up steps."""
        disable_activation_checkpointing(self.bundle.model.llm)
        compile_layers(self.bundle.model.llm)
        steps = self._read_steps("8k")
        first = self.run.time_ms(lambda: self._step(steps[0])) / 1e3
        from torch._dynamo.utils import counters

        values = self.measure("8k", checkpointing=False)
        breaks = sum(counters["graph_break"].values())
        return {**values, "first_step_seconds": round(first, 1), "graph_breaks": breaks}

    def _read_steps(self, budget: str) -> list[list[Batch]]:
        """The micro-batches of the warm-up and timed steps, through the real training set and collate function."""
        sizes = self.run.size
        count = WARMUP_STEPS + sizes.timed_steps
        train = {"batch_size": sizes.batch_size, "max_tokens_per_batch": sizes.budgets[budget]}
        recipe = make_recipe(self.run, self.recipe.llm.bits, self.recipe.lora.enabled, train=train)
        collate = training_collator(recipe, self.bundle.pad_id, self.has_prefix)
        steps = training_steps(recipe, open_examples(self.bundle, recipe), 0, count, collate, 0, 1)
        return [micro_batches[: MICRO_BATCHES[budget]] for micro_batches in steps]

    def _step(self, micro_batches: list[Batch]) -> None:
        self.last_result = optimizer_step(self.engine, micro_batches, 0.1, self.accelerator)

    def _synchronizations(self, micro_batches: list[Batch]) -> tuple[int, list[Any]]:
        """How often a step waits for the GPU, and where."""
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                self._step(micro_batches)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        syncs = [each for each in caught if "synchroniz" in str(each.message)]
        places = Counter(f"{'/'.join(each.filename.split('/')[-2:])}:{each.lineno}" for each in syncs)
        return len(syncs), [list(item) for item in places.most_common(8)]


def training_flops(llm: Any, batch: Batch) -> float:
    """The model FLOPs of forward and backward of a batch; what is computed again is not counted, nor is padding.

    A frozen linear layer of N weights takes 2 N per token forward and 2 N backward (the gradient of its input), a
    trained one 2 N more (that of its weights). Attention takes 4 x heads x head width per layer for each pair of a
    query and a key that it sees, and twice that backward. The LM head is computed at targets only.
    """
    frozen, adapter = count_linear(llm)
    config = base_llm(llm).config
    lengths = batch.attention_mask.sum(1).double()
    tokens, prefix = float(lengths.sum()), batch.prefix_len
    pairs = float((lengths * prefix + lengths * (lengths + 1) / 2).sum())
    width = config.num_attention_heads * (config.hidden_size // config.num_attention_heads)
    attention = 12 * width * config.num_hidden_layers * pairs
    head = 4 * config.hidden_size * config.vocab_size * len(batch.targets)
    return (4 * frozen + 6 * adapter) * tokens + attention + head


def count_linear(llm: Any) -> tuple[int, int]:
    """The number of weights in the linear layers of the decoder's layers: frozen ones, and those of the adapter."""
    frozen = adapter = 0
    for name, module in decoder_layers(llm).named_modules():
        if isinstance(module, nn.Linear):
            size = module.in_features * module.out_features
            if "lora_" in name:
                adapter += size
            else:
                frozen += size
    return frozen, adapter
