"""The GPUs that an estimate knows: memory, speed and memory bandwidth. Nothing here imports torch."""

import re
from dataclasses import dataclass

from signllava_cli.errors import UserError

# Units of a plain memory size, such as `24GiB`; GB is decimal, as in data sheets.
UNITS = {"gib": 2**30, "mib": 2**20, "gb": 10**9, "mb": 10**6}


@dataclass(frozen=True)
class GPU:
    """A GPU.

    `memory`: bytes. `flops`: dense bfloat16 matrix products with float32 sums, FLOP/s. `bandwidth`: of its memory,
    bytes/s. The last two are None for a plain memory size.
    """

    name: str
    memory: int
    flops: float | None = None
    bandwidth: float | None = None


def _gpu(name: str, mebibytes: int, teraflops: float, gigabytes_per_second: float) -> GPU:
    return GPU(name, mebibytes * 2**20, teraflops * 1e12, gigabytes_per_second * 1e9)


# Memory as nvidia-smi shows it (MiB), speed without sparsity (TFLOP/s) and bandwidth (GB/s) of NVIDIA's data sheets
# and, for the GeForce cards, of the white papers of their architectures (Ampere GA102, Ada, Blackwell).
GPUS = {
    gpu.name: gpu
    for gpu in (
        _gpu("a100-40gb", 40_960, 312, 1_555),
        _gpu("a100-80gb", 81_920, 312, 2_039),
        _gpu("a6000-48gb", 49_140, 154.8, 768),
        _gpu("b200-180gb", 183_359, 2_250, 8_000),
        _gpu("h100-80gb", 81_559, 989.4, 3_350),  # SXM
        _gpu("h200-141gb", 143_771, 989.4, 4_800),
        _gpu("l4-24gb", 23_034, 121, 300),
        _gpu("l40s-48gb", 46_068, 362.05, 864),
        _gpu("rtx-3090-24gb", 24_576, 71, 936),
        _gpu("rtx-4090-24gb", 24_564, 165.2, 1_008),
        _gpu("rtx-5090-32gb", 32_607, 209.5, 1_792),
    )
}
DEFAULT_GPU = "h100-80gb"


def find_gpu(name: str) -> GPU:
    """The GPU of this name (`h200` is `h200-141gb`), or one of this memory (`24GiB`, `80GB`), whose speed is unknown.

    Raises:
        UserError: it is neither.
    """
    matches = [gpu for known, gpu in GPUS.items() if name.lower() in (known, known.rpartition("-")[0])]
    if len(matches) == 1:
        return matches[0]
    size = re.fullmatch(r"(\d{1,6}(?:\.\d{1,6})?)\s*([a-z]+)", name.lower())
    if size and size[2] in UNITS and (memory := int(float(size[1]) * UNITS[size[2]])):
        return GPU(name, memory)
    raise UserError(f"--gpu {name}: unknown; use one of {', '.join(GPUS)}, or a memory size such as 24GiB.")
