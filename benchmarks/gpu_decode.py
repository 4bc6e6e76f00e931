"""The decoding stages of gpu.py: loading, the self-tests of both caches, and the time of a decoding step."""

import contextlib
import statistics
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from gpu_run import Run, Values, count_gpu_work, host_peak_gb, make_recipe, open_examples

from signllava_cli.data.examples import Example
from signllava_cli.data.tasks import translation_instruction
from signllava_cli.generation.decoding import Decoder, SharedPrefixDecoder, open_decoder
from signllava_cli.model import llm_forward, prefix_cache
from signllava_cli.model.decoding_weights import prepare_decoding_weights
from signllava_cli.model.llm_parts import base_llm, compile_layers
from signllava_cli.model.loading import ModelBundle, load_model_bundle
from signllava_cli.recipe import Recipe

BEAMS, PROFILED_STEP = 5, 8
TEST_CLIPS, TEST_STEPS = 2357, 25  # clips of How2Sign's test split, and steps until the beams of a clip have ended


def decode_bf16(run: Run) -> None:
    """Decoding with the LLM in bfloat16."""
    _decode(run, "bf16", bits=16, lora=False)


def decode_quantized(run: Run) -> None:
    """Decoding with the LLM in nf4 and the adapter of a finetune."""
    _decode(run, "nf4 + LoRA", bits=4, lora=True)


def _decode(run: Run, label: str, bits: int, lora: bool) -> None:
    loaded: list[ModelBundle] = []

    def load() -> Values:
        run.reset_peak()
        with recorded_differences() as differences:
            seconds = run.time_ms(lambda: loaded.append(load_model_bundle(recipe(8), run.device))) / 1e3
        randomize_adapter(loaded[0])
        loaded[0].model.eval()
        figure = f"{seconds:.1f} s, peak {run.peak_gb()} GB, host {host_peak_gb()} GB"
        return {
            "figure": figure,
            "load_seconds": round(seconds, 2),
            "peak_gb": run.peak_gb(),
            "host_peak_gb": host_peak_gb(),
            "differences": differences,
        }

    def recipe(clips: int) -> Recipe:
        tokens = run.size.new_tokens
        generate = {
            "num_beams": BEAMS,
            "batch_size": clips,
            "max_new_tokens": tokens,
            "min_new_tokens": tokens,
        }
        return make_recipe(run, bits, lora, generate=generate)

    if not run.attempt(f"load {label}", 15, load):
        return
    bundle = loaded[0]
    run.attempt(f"self-test {label}", 5, lambda: try_caches(run, bundle, recipe(8)))

    def measure_all(variant: str, all_clips: Sequence[int]) -> None:
        for clips in all_clips[-1:] if run.is_quick else all_clips:
            name = f"{label}{variant}, {clips} clips x {BEAMS} beams"
            run.attempt(name, 15, lambda: measure_decoding(run, bundle, recipe(clips), clips))  # noqa: B023

    measure_all("", run.size.clips if bits == 16 else run.size.clips[-1:])
    if run.has_gpu and bits == 4:
        run.attempt("dequantize", 5, lambda: dequantize(run, bundle))
        measure_all(", dequantized", run.size.clips)
    if run.has_gpu:  # a CPU compiles for minutes
        compile_layers(bundle.model.llm)
        measure_all(", torch.compile", run.size.clips)


def dequantize(run: Run, bundle: ModelBundle) -> Values:
    """Convert the weights as the command `generate` does."""
    run.reset_peak()
    seconds = run.time_ms(lambda: prepare_decoding_weights(bundle.model, torch.bfloat16)) / 1e3
    return {"figure": f"{seconds:.1f} s, peak {run.peak_gb()} GB", "seconds_taken": round(seconds, 2)}


def randomize_adapter(bundle: ModelBundle) -> None:
    """Give the adapter values as after training; a new one adds zero."""
    generator = torch.Generator(bundle.device).manual_seed(0)
    with torch.no_grad():
        for name, weight in bundle.model.llm.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, 1e-3, generator=generator)


@contextlib.contextmanager
def recorded_differences() -> Iterator[list[float]]:
    """The relative differences that the package's self-tests compare inside the block."""
    original, differences = llm_forward.relative_difference, []

    def record(*arguments: Any, **options: Any) -> float:
        difference = original(*arguments, **options)
        differences.append(float(f"{difference:.3g}"))
        return difference

    modules: tuple[Any, ...] = (llm_forward, prefix_cache)
    for module in modules:
        module.relative_difference = record
    try:
        yield differences
    finally:
        for module in modules:
            module.relative_difference = original


def try_caches(run: Run, bundle: ModelBundle, recipe: Recipe) -> Values:
    """Which decoder the self-tests of prefix cache and KV cache choose, and by which differences."""
    chosen: list[Decoder] = []
    with recorded_differences() as differences:
        seconds = run.time_ms(lambda: chosen.append(open_decoder(bundle, recipe))) / 1e3
    decoder = chosen[0].description
    tolerance = chosen[0].prefix.tolerance if isinstance(chosen[0], SharedPrefixDecoder) else None
    return {
        "figure": f"{decoder}, differences {', '.join(f'{each:.2g}' for each in differences)}",
        "limit": f"{tolerance:.2g}" if tolerance else "",
        "decoder": decoder,
        "differences": differences,
        "open_seconds": round(seconds, 2),
    }


def read_examples(bundle: ModelBundle, recipe: Recipe, count: int) -> list[Example]:
    """The first clips of the corpus as examples of generation."""
    training_set = open_examples(bundle, recipe)
    split, builder = training_set.split, training_set.builder
    clips = [split.clips[index % len(split.clips)] for index in range(count)]
    return [
        builder.build(
            clip.id,
            frames,
            translation_instruction(recipe.tasks),
            split.gold_context(clip, recipe.context.window, recipe.context.prelude),
            reserve=recipe.generate.max_new_tokens,
            with_answer=False,
        )
        for clip, frames in zip(clips, split.read_all(clips), strict=True)
    ]


def measure_decoding(run: Run, bundle: ModelBundle, recipe: Recipe, clips: int) -> Values:
    """The time of one step for so many clips, from the second of two equal passes."""
    examples = read_examples(bundle, recipe, clips)
    run.reset_peak()
    decoder = open_decoder(bundle, recipe)
    values: Values = {
        "decoder": type(decoder).__name__,
        "cudnn_sdp": torch.backends.cuda.cudnn_sdp_enabled(),
    }
    first = run.time_ms(lambda: decode(decoder, examples)) / 1e3
    prefill_ms = run.time_ms(lambda: decoder.admit(examples))
    steps: list[float] = []
    while decoder.active:
        steps.append(run.time_ms(decoder.step))
    peak = run.peak_gb()
    if run.has_gpu and values["decoder"] != "GenerateDecoder":
        decoder.admit(examples)
        for _ in range(PROFILED_STEP):
            decoder.step()
        values |= count_gpu_work(decoder.step)
        decode(decoder, [])
    step_ms = statistics.median(steps)
    per_token_ms = step_ms if len(steps) > 1 else step_ms / recipe.generate.max_new_tokens
    prompts, batches = sum(example.seq_len for example in examples), TEST_CLIPS / clips
    bytes_stored, bytes_bf16 = weight_bytes(bundle)
    bytes_kv = kv_bytes(bundle, prompts, clips * BEAMS * recipe.generate.max_new_tokens / 2)
    copy, tflops = run.limits().get("copy_tb_per_second"), run.limits().get("tflops")
    values |= {
        "step_ms": round(step_ms, 2),
        "slowest_step_ms": round(max(steps), 2),
        "steps": len(steps),
        "prefill_ms": round(prefill_ms, 1),
        "prompt_tokens": prompts,
        "first_pass_seconds": round(first, 2),
        "second_pass_seconds": round((sum(steps) + prefill_ms) / 1e3, 2),
        "peak_gb": peak,
        "weights_gb": round(bytes_stored / 1e9, 2),
        "weights_bf16_gb": round(bytes_bf16 / 1e9, 2),
        "kv_gb": round(bytes_kv / 1e9, 2),
        # All batches of the split: so many steps each, and its prompts.
        "test_split_minutes": round(batches * (TEST_STEPS * per_token_ms + prefill_ms) / 6e4, 2),
    }
    if copy and tflops:  # a step reads all weights and keys, and multiplies each weight once per hypothesis
        memory_ms, compute_ms = (bytes_bf16 + bytes_kv) / copy / 1e9, bytes_bf16 * clips * BEAMS / tflops / 1e9
        values |= {"memory_bound_ms": round(memory_ms, 2), "compute_bound_ms": round(compute_ms, 2)}
        values["times_bound"] = round(per_token_ms / max(memory_ms, compute_ms), 2)
    parts = [f"{step_ms:.1f} ms a step", f"prefill {prefill_ms:.0f} ms", f"peak {peak} GB", values["decoder"]]
    parts += [f"{values['launches']:,} launches a step"] if "launches" in values else []
    parts += [f"test split {values['test_split_minutes']} min"]
    limit = f"{values['memory_bound_ms']} ms memory, {values['compute_bound_ms']} ms compute" if copy else ""
    return {"figure": ", ".join(parts), "limit": limit, **values}


def decode(decoder: Decoder, examples: list[Example]) -> None:
    """Decode `examples` and all that the decoder holds to the end."""
    if examples:
        decoder.admit(examples)
    deadline = time.monotonic() + 120
    while decoder.active:
        assert time.monotonic() < deadline, "the decoder did not end in two minutes"
        decoder.step()


def weight_bytes(bundle: ModelBundle) -> tuple[int, int]:
    """The bytes of the weights that a step reads (all but the embeddings): as they are stored, and in bfloat16."""
    llm = base_llm(bundle.model.llm)
    embeddings = {id(llm.get_input_embeddings().weight)} - {id(llm.get_output_embeddings().weight)}
    stored = in_bf16 = 0
    for weight in llm.parameters():
        if id(weight) not in embeddings:
            is_packed = weight.dtype == torch.uint8  # two 4-bit weights in each byte
            stored += weight.numel() * weight.element_size()
            in_bf16 += weight.numel() * (4 if is_packed else 2)
    return stored, in_bf16


def kv_bytes(bundle: ModelBundle, prompt_tokens: float, new_tokens: float) -> float:
    """The bytes of keys and values that a step reads, if those of a prompt are read once for all its beams."""
    config = base_llm(bundle.model.llm).config
    head_width = config.hidden_size // config.num_attention_heads
    return (prompt_tokens + new_tokens) * config.num_hidden_layers * config.num_key_value_heads * head_width * 2 * 2
