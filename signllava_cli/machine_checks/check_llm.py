"""The LLM as the recipe loads it: time, memory, decoding with its self-tests, and a training step."""

import time
from collections.abc import Iterator

import numpy as np
import torch

from signllava_cli.data.batches import training_collator
from signllava_cli.data.examples import Example, ExampleBuilder
from signllava_cli.data.tasks import translation_instruction
from signllava_cli.errors import format_count
from signllava_cli.generation.decoding import SharedPrefixDecoder
from signllava_cli.generation.trial import NUM_TOKENS, try_decoding
from signllava_cli.machine_checks.check_result import CheckResult, guarded
from signllava_cli.model.layer_weights import weights_memory
from signllava_cli.model.llm_memory import format_bytes
from signllava_cli.model.loading import load_model_bundle
from signllava_cli.recipe import Recipe
from signllava_cli.training.accelerator import start_accelerator
from signllava_cli.training.optimizer import set_learning_rate
from signllava_cli.training.preflight import peak_memory
from signllava_cli.training.session_setup import prepare_training
from signllava_cli.training.step import optimizer_step

SLOW_LLM = "use another LLM (docs/llms.md), or llm.attn_implementation=sdpa if the recipe has set another"
ANSWER = "This is the answer of a clip that only tries the machine."
NUM_STEPS = 2  # the second one is timed


def check_llm(recipe: Recipe) -> Iterator[CheckResult]:
    """Load the LLM of `recipe` with new projectors, decode two clips, and train on the longest possible batch."""
    trial = _Trial(recipe)
    loaded = guarded("LLM", trial.load)
    yield loaded
    for name, check in {"decoding": trial.decode, "training step": trial.train}.items():
        if loaded.problem and not hasattr(trial, "bundle"):
            yield CheckResult(name, "the LLM is not loaded", is_skipped=True)
        else:
            yield guarded(name, check)


class _Trial:
    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe

    def load(self) -> tuple[str, str]:
        start_time = time.monotonic()
        self.accelerator = start_accelerator(self.recipe)
        self.bundle = load_model_bundle(self.recipe, self.accelerator.device)
        seconds, config = time.monotonic() - start_time, self.recipe.llm
        llm, device = self.bundle.model.llm, self.accelerator.device.type
        seen = (
            f"{type(llm).__name__} {config.path}, {config.bits} bits, {config.dtype}, loaded in {seconds:.1f} s on "
            f"{device}; weights {format_bytes(weights_memory(llm))}, {self._peak()}"
        )
        return seen, ""

    def decode(self) -> tuple[str, str]:
        start_time = time.monotonic()
        decoder = try_decoding(self.bundle, self.recipe)
        seen = f"{NUM_TOKENS} tokens of 2 clips in {time.monotonic() - start_time:.1f} s"
        if not isinstance(decoder, SharedPrefixDecoder):
            return seen, SLOW_LLM  # try_decoding has printed the reason
        graphs = ", CUDA graphs" if decoder.has_cuda_graphs else ""
        return f"{seen}, {decoder.description}{graphs}, {self._peak()}", ""  # without graphs on a GPU it has warned

    def train(self) -> tuple[str, str]:
        recipe, config = self.recipe, self.recipe.train
        optimizer, engine, has_prefix = prepare_training(recipe, self.accelerator, self.bundle)
        set_learning_rate(optimizer, 1.0)
        examples = self._longest_examples()
        batch = training_collator(recipe, self.bundle.pad_id, has_prefix)(examples)
        if self.accelerator.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.accelerator.device)
        smoothing = config.label_smoothing
        results = [optimizer_step(engine, [batch], smoothing, self.accelerator) for _ in range(NUM_STEPS)]
        seen = (
            f"{format_count(len(examples), 'clip')} of {examples[0].seq_len} tokens, "
            f"{'with' if has_prefix else 'without'} prefix cache: losses "
            f"{', '.join(f'{result.loss:.4f}' for result in results)}, "
            f"{results[-1].num_tokens / results[-1].seconds:,.0f} tokens per second, {self._peak()}"
        )
        if not all(result.is_finite for result in results):
            return seen, "the loss or its gradients are not finite: check the weights of the LLM, or use bfloat16"
        is_slow = config.reuse_prefix and not has_prefix and not recipe.lora.enabled
        return seen, f"no prefix cache: {SLOW_LLM}" if is_slow else ""

    def _longest_examples(self) -> list[Example]:
        """Clips of random frames that fill `data.max_seq_len`, as many as the recipe allows in a micro-batch."""
        recipe, max_seq_len = self.recipe, self.recipe.data.max_seq_len
        rng = np.random.default_rng(recipe.run.seed)
        frames = {  # more than fit: the builder removes some
            name: rng.normal(size=(stream.stride * max_seq_len, stream.width)).astype(np.float16)
            for name, stream in recipe.streams.items()
        }
        builder = ExampleBuilder(
            self.bundle.prompts, recipe.streams, max_seq_len, recipe.data.min_frames, recipe.context.prelude
        )
        example = builder.build("trial", frames, translation_instruction(recipe.tasks, ANSWER), [])
        budget = recipe.train.max_tokens_per_batch
        num_clips = recipe.train.micro_batch_size if budget is None else max(1, budget // example.seq_len)
        return [example] * num_clips

    def _peak(self) -> str:
        return f"peak memory {format_bytes(peak_memory(self.accelerator.device))}"
