"""Stages of gpu.py without the large LLM: the limits of the machine, the attention kernels, GPU against CPU."""

import platform
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from gpu_run import Run, Values
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from signllava_cli.data.batches import training_collator
from signllava_cli.data.examples import ExampleBuilder
from signllava_cli.data.tasks import translation_instruction
from signllava_cli.generation.decoding import decode_all, open_decoder
from signllava_cli.model.llm_forward import relative_difference
from signllava_cli.model.loading import load_model_bundle
from signllava_cli.model.tiny_llm import save_tiny_llm
from signllava_cli.prepare.indexing import open_split
from signllava_cli.prepare.toy_corpus import write_toy_corpus
from signllava_cli.recipe import Recipe, read_recipe

PACKAGES = ("torch", "transformers", "bitsandbytes", "peft", "accelerate", "triton", "deepspeed")
BACKENDS = {
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}
HEADS, KV_HEADS, HEAD_WIDTH, PREFIX = 32, 8, 128, 100
COMPARED_CLIPS = 8


def measure_limits(run: Run) -> None:
    """The versions, the speed of a large matrix product, and of a copy in memory."""
    versions = {name: installed_version(name) for name in PACKAGES}
    gpu = torch.cuda.get_device_name() if run.has_gpu else platform.processor() or platform.machine()
    values: Values = {
        "device": gpu,
        "python": platform.python_version(),
        "cuda": torch.version.cuda,
        "versions": versions,
    }
    figure = ", ".join([gpu, *(f"{name} {versions[name]}" for name in ("torch", "transformers", "bitsandbytes"))])
    run.report("machine", figure, **values)
    run.attempt("limits", 1, lambda: _limits(run))


def installed_version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _limits(run: Run) -> Values:
    size, dtype = run.size.matrix, torch.bfloat16
    first, second = (torch.randn(size, size, device=run.device, dtype=dtype) for _ in range(2))
    product = torch.empty_like(first)
    multiply_ms = _steady_ms(run, lambda: torch.mm(first, second, out=product))
    source = torch.randint(256, (run.size.copy_bytes,), device=run.device, dtype=torch.uint8)
    target = torch.empty_like(source)
    copy_ms = _steady_ms(run, lambda: target.copy_(source))
    tflops, copied = 2 * size**3 / multiply_ms / 1e9, 2 * run.size.copy_bytes / copy_ms / 1e9
    return {
        "figure": f"{tflops:.0f} TFLOP/s of bf16 {size}^3, copy {copied:.2f} TB/s",
        "tflops": round(tflops, 4 if run.is_tiny else 1),
        "copy_tb_per_second": round(copied, 4),
    }


def _steady_ms(run: Run, function: Callable[[], object], warmups: int = 3, repeats: int = 10) -> float:
    for _ in range(warmups):
        function()
    return run.time_ms(function, repeats)


def measure_attention(run: Run) -> None:
    """First-call and steady times of each kernel of scaled_dot_product_attention, over shapes that do not repeat."""
    if not run.has_gpu:
        run.report("sdpa", figure="skipped", skipped="needs CUDA")
        return
    for name, backend in BACKENDS.items():
        for case in ("training, causal", "training, mask", "decoding, mask"):
            run.attempt(f"{name}: {case}", 5, lambda: _try_attention(run, backend, case))  # noqa: B023


def _try_attention(run: Run, backend: SDPBackend, case: str) -> Values:
    try:
        return _attention_times(run, backend, case)
    except RuntimeError as error:
        if "No available kernel" not in str(error):
            raise
        return {"figure": "does not compute this", "is_refused": True}


def _attention_times(run: Run, backend: SDPBackend, case: str) -> Values:
    firsts, steadies = [], []
    for number in range(run.size.shapes):
        call = _attention_call(number, case)
        with sdpa_kernel(backend):
            firsts.append(run.time_ms(call))
            call()
            steadies.append(run.time_ms(call, 3))
    first, steady = sum(firsts[1:]) / len(firsts[1:]), sum(steadies) / len(steadies)
    return {
        "figure": f"first call {first:.2f} ms (slowest {max(firsts[1:]):.1f}), then {steady:.3f} ms",
        "first_of_all_ms": round(firsts[0], 2),
        "first_ms": round(first, 3),
        "slowest_first_ms": round(max(firsts[1:]), 2),
        "steady_ms": round(steady, 4),
    }


def _attention_call(number: int, case: str) -> Callable[[], object]:
    """The attention of one layer, in training forward and backward, as transformers calls it."""

    def random(*shape: int, gradient: bool = False) -> Tensor:
        return torch.randn(*shape, device="cuda", dtype=torch.bfloat16, requires_grad=gradient)

    if case.startswith("decoding"):
        rows, length = 40, 301 + 7 * number
        query = random(rows, HEADS, 1, HEAD_WIDTH)
        key, value = (random(rows, HEADS, length, HEAD_WIDTH) for _ in "kv")
        mask = torch.arange(length, device="cuda")[None, None, None] < torch.full((rows, 1, 1, 1), 300, device="cuda")
        return lambda: scaled_dot_product_attention(query, key, value, attn_mask=mask)
    length = 203 + 17 * number
    rows = max(1, 8192 // length)
    query = random(rows, HEADS, length, HEAD_WIDTH, gradient=True)
    if case.endswith("causal"):
        key, value = (random(rows, KV_HEADS, length, HEAD_WIDTH, gradient=True) for _ in "kv")
        options: dict[str, Any] = {"is_causal": True, "enable_gqa": True}
    else:
        total = PREFIX + length
        key, value = (random(rows, HEADS, total, HEAD_WIDTH, gradient=True) for _ in "kv")
        mask = torch.ones(length, total, dtype=torch.bool, device="cuda").tril(PREFIX)[None, None]
        options = {"attn_mask": mask}

    def forward_and_backward() -> None:
        for tensor in (query, key, value):
            tensor.grad = None
        output = scaled_dot_product_attention(query, key, value, **options)
        output.backward(torch.ones_like(output))

    return forward_and_backward


def compare_devices(run: Run) -> None:
    """float32 on the GPU against the CPU: loss, gradients and hypotheses of the tiny LLM."""
    run.attempt("float32, GPU against CPU", 5, lambda: _compare(run))


def _compare(run: Run) -> Values:
    recipe = write_tiny(run.folder / "parity", steps=2 if run.is_tiny else 60)
    loss, gradients, texts = step_and_decode(recipe, run.device)
    expected_loss, expected_gradients, expected_texts = step_and_decode(recipe, torch.device("cpu"))
    worst = max(relative_difference(gradients[name], gradient) for name, gradient in expected_gradients.items())
    different = sum(text != other for text, other in zip(texts, expected_texts, strict=True))
    loss_difference = abs(loss / expected_loss - 1)
    return {
        "figure": f"loss {loss_difference:.1e}, gradients {worst:.1e}, {different} of {len(texts)} hypotheses differ",
        "limit": "0",
        "loss_difference": loss_difference,
        "gradient_difference": worst,
        "different_hypotheses": different,
    }


def write_tiny(folder: Path, steps: int, settings: tuple[str, ...] = ()) -> Recipe:
    """Write the toy corpus and a tiny LLM into `folder`; their recipe."""
    recipe = read_recipe(
        "toy/tiny_pretrain", [f"llm.path={folder / 'llm'}", f"data.root={folder / 'corpus'}", *settings]
    )
    write_toy_corpus(folder / "corpus")
    save_tiny_llm(folder / "llm", folder / "corpus", recipe.tasks, steps=steps)
    return recipe


def step_and_decode(recipe: Recipe, device: torch.device) -> tuple[float, dict[str, Tensor], list[str]]:
    """The loss and the gradients of some clips before training, and the hypotheses of beam search."""
    allowed = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        bundle = load_model_bundle(recipe, device)
        split = open_split(recipe.data, recipe.streams, "dev")
        clips = split.clips[:COMPARED_CLIPS]
        builder = ExampleBuilder(
            bundle.prompts, recipe.streams, recipe.data.max_seq_len, recipe.data.min_frames, recipe.context.prelude
        )

        def examples(with_answer: bool) -> list[Any]:
            instruction = [translation_instruction(recipe.tasks, clip.translation) for clip in clips]
            triples = zip(clips, split.read_all(clips), instruction, strict=True)
            return [builder.build(clip.id, frames, each, [], 0, 20, with_answer) for clip, frames, each in triples]

        model = bundle.model.train()
        batch = training_collator(recipe, bundle.pad_id)(examples(True)).to(device)
        loss, targets = model(batch, 0.1)
        (loss / targets).backward()
        trained = model.trainable_parameters()
        gradients = {name: weight.grad.cpu() for name, weight in trained.items() if weight.grad is not None}
        model.eval()
        hypotheses = decode_all(open_decoder(bundle, recipe), examples(False), batch_size=4)
        return float(loss.detach()) / targets, gradients, [hypothesis.text for hypothesis in hypotheses]
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = allowed
