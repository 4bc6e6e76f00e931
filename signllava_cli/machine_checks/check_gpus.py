"""The GPUs and the libraries that compute on them: memory, bfloat16, speed, NCCL, 4 bits, attention."""

import contextlib
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from signllava_cli.errors import UserError
from signllava_cli.machine_checks.check_result import CheckResult, guarded
from signllava_cli.model.cuda_settings import configure_cuda
from signllava_cli.model.llm import read_llm_config
from signllava_cli.model.llm_forward import relative_difference
from signllava_cli.model.llm_memory import format_bytes
from signllava_cli.recipe import LLM

NO_GPU = "no GPU"
FREE_SHARE, SPEED_SHARE = 0.9, 0.55  # of the memory, and of the data sheet; less is a problem
DATA_SHEETS = {  # part of a GPU's name -> dense bfloat16 TFLOP/s, memory in TB/s; NVIDIA's data sheets
    "MIG": None,
    "H200 NVL": (835, 4.8),
    "H200": (989, 4.8),
    "H100 NVL": (835, 3.9),
    "H100 PCIe": (756, 2.0),
    "H100 80GB HBM3": (989, 3.35),
    "A100": (312, 1.555),
}
MATRIX, COPY_BYTES, REPEATS = 8192, 2**30, 10
HEAD_WIDTH, HEADS, LENGTH = 128, 8, 64  # HEAD_WIDTH: of Llama-3-8B
IN_FEATURES, OUT_FEATURES, ROWS, TOLERANCE = 256, 128, (1, 32), 0.02  # of a product in 4 bits; bfloat16 has 8 bits


def check_gpus(llm: LLM | None) -> Iterator[CheckResult]:
    """All checks without loading the LLM, of which only the width of the attention's heads is read."""
    has_gpu = torch.cuda.is_available()
    for index in range(torch.cuda.device_count()):
        yield guarded(f"GPU {index}", partial(_describe_gpu, index))
        yield guarded(f"speed of GPU {index}", partial(_measure_speed, index))
    if has_gpu:
        yield guarded("NCCL", lambda: (".".join(map(str, torch.cuda.nccl.version())), ""))
        yield guarded("attention", partial(_try_attention, llm))
    else:
        yield _missing_gpu()
        yield from (CheckResult(name, NO_GPU, is_skipped=True) for name in ("speed", "NCCL", "attention"))
    advice = f"install a bitsandbytes with a library for CUDA {torch.version.cuda}, or set llm.bits=16"
    yield guarded("4 bits", partial(_multiply_in_4_bits, torch.device("cuda" if has_gpu else "cpu")), advice)


def _missing_gpu() -> CheckResult:
    if Path("/dev/nvidia0").exists():
        build = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "a build for CPUs"
        fix = (
            f"torch {torch.__version__}, {build}, does not see it: unset CUDA_VISIBLE_DEVICES if it is empty, or "
            "install a build of torch that fits the driver"
        )
        return CheckResult("GPU", "there is a GPU, /dev/nvidia0", fix)
    return CheckResult("GPU", NO_GPU, is_skipped=True)


def _describe_gpu(index: int) -> tuple[str, str]:
    free, total = torch.cuda.mem_get_info(index)
    capability = torch.cuda.get_device_capability(index)
    with torch.cuda.device(index):
        has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    problems = []
    if not has_bf16:
        problems.append("it does not compute bfloat16: use another GPU, or llm.bits=32 and llm.dtype=float32")
    if free < FREE_SHARE * total:
        problems.append("another process uses its memory: end it (nvidia-smi lists it), or use another GPU")
    seen = (
        f"{torch.cuda.get_device_name(index)}, {format_bytes(free)} of {format_bytes(total)} free, compute "
        f"capability {capability[0]}.{capability[1]}, {'with' if has_bf16 else 'without'} bfloat16; torch "
        f"{torch.__version__} for CUDA {torch.version.cuda}"
    )
    return seen, "; ".join(problems)


def _measure_speed(index: int) -> tuple[str, str]:
    """A large product in bfloat16 and a copy, against the data sheet: a throttled or shared GPU is slower."""
    device = torch.device("cuda", index)
    first, second = (torch.randn(MATRIX, MATRIX, device=device, dtype=torch.bfloat16) for _ in range(2))
    source = torch.empty(COPY_BYTES, device=device, dtype=torch.uint8)
    target = torch.empty_like(source)
    tflops = 2 * MATRIX**3 / _mean_seconds(lambda: first @ second, device) / 1e12
    copied = 2 * COPY_BYTES / _mean_seconds(lambda: target.copy_(source), device) / 1e12
    seen = f"{tflops:.0f} TFLOP/s in a bfloat16 product, {copied:.2f} TB/s in a copy"
    name = torch.cuda.get_device_name(index)
    limits = next((DATA_SHEETS[part] for part in DATA_SHEETS if part in name), None)
    if limits is None:
        return f"{seen}; its data sheet is not known here", ""
    is_slow = tflops < SPEED_SHARE * limits[0] or copied < SPEED_SHARE * limits[1]
    problem = "the GPU is shared, too hot or limited in power: see `nvidia-smi -q -d PERFORMANCE`" if is_slow else ""
    return f"{seen}; data sheet {limits[0]} and {limits[1]:.2f}", problem


def _mean_seconds(function: Callable[[], object], device: torch.device) -> float:
    for repeats in (3, REPEATS):  # the first ones warm up
        torch.cuda.synchronize(device)
        start_time = time.perf_counter()
        for _ in range(repeats):
            function()
        torch.cuda.synchronize(device)
    return (time.perf_counter() - start_time) / REPEATS


def _try_attention(llm: LLM | None) -> tuple[str, str]:
    """Forward and backward of the two kernels that do not need the whole matrix of scores."""
    configure_cuda()
    width = HEAD_WIDTH
    with contextlib.suppress(UserError):  # an LLM that cannot be read is named where it is loaded
        config = read_llm_config(llm).get_text_config() if llm else None
        width = (
            getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads if config else width
        )
    mask = torch.ones(LENGTH, LENGTH, dtype=torch.bool, device="cuda").tril()
    cases: dict[str, tuple[SDPBackend, dict[str, Any]]] = {
        "flash": (SDPBackend.FLASH_ATTENTION, {"is_causal": True}),
        "memory-efficient": (SDPBackend.EFFICIENT_ATTENTION, {"attn_mask": mask}),
    }
    refused = []
    for name, (backend, options) in cases.items():
        query, key, value = torch.randn(
            3, 1, HEADS, LENGTH, width, device="cuda", dtype=torch.bfloat16, requires_grad=True
        )
        try:
            with sdpa_kernel(backend):
                scaled_dot_product_attention(query, key, value, **options).sum().backward()
        except RuntimeError:
            refused.append(name)
    cudnn = "on" if torch.backends.cuda.cudnn_sdp_enabled() else "off"
    seen = (
        f"head width {width} in bfloat16: {', '.join(name for name in cases if name not in refused)}; cuDNN {cudnn}"
    )
    if not refused:
        return seen, ""
    return seen, f"no {' and no '.join(refused)} attention, so more memory and time: use an LLM with narrower heads"


def _multiply_in_4_bits(device: torch.device) -> tuple[str, str]:
    """Products of bitsandbytes against those with the weights that it dequantizes."""
    from bitsandbytes.functional import dequantize_4bit
    from bitsandbytes.nn import Linear4bit

    layer = Linear4bit(IN_FEATURES, OUT_FEATURES, bias=False, compute_dtype=torch.bfloat16, quant_type="nf4").to(
        device
    )
    weight = dequantize_4bit(layer.weight.data, layer.weight.quant_state).float()  # (OUT_FEATURES, IN_FEATURES)
    inputs = [torch.randn(rows, IN_FEATURES, device=device, dtype=torch.bfloat16) for rows in ROWS]
    with torch.no_grad():
        difference = max(relative_difference(layer(each).float(), each.float() @ weight.T) for each in inputs)
    seen = f"bitsandbytes {version('bitsandbytes')}, nf4 on {device.type}: relative difference {difference:.1e}"
    is_wrong = not difference <= TOLERANCE  # NaN too
    return seen, "its products are wrong: install another version, or set llm.bits=16" if is_wrong else ""
