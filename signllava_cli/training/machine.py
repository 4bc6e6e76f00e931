"""What a result may depend on besides recipe and data: versions, toolkit, hardware and environment variables."""

import os
import platform
import socket
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from signllava_cli._version import __version__

PACKAGES = (
    *("torch", "transformers", "peft", "accelerate", "bitsandbytes", "deepspeed", "tokenizers", "safetensors"),
    *("numpy", "h5py", "pyarrow"),
)
# By name: the value of any other variable may be a secret.
VARIABLES = (
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS"),
    *("ATEN_CPU_CAPABILITY", "DNNL_MAX_CPU_ISA", "ONEDNN_MAX_CPU_ISA", "ONEDNN_DEFAULT_FPMATH_MODE"),
    *("CUDA_VISIBLE_DEVICES", "CUBLAS_WORKSPACE_CONFIG", "NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE"),
    *("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF", "TORCHDYNAMO_DISABLE"),
    *("NCCL_ALGO", "NCCL_PROTO", "ACCELERATE_USE_CPU", "ACCELERATE_MIXED_PRECISION", "PYTHONHASHSEED"),
)
GIT_SECONDS = 20  # a repository on a slow network file system must not delay a run


def package_versions() -> dict[str, str | None]:
    """The versions of Python, of this package and of the libraries that compute; None: not installed."""
    versions: dict[str, str | None] = {"python": platform.python_version(), "signllava": __version__}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    return versions


def toolkit_commit() -> dict[str, Any] | None:
    """The commit of the repository from which the toolkit runs, and whether its package differs from it (`dirty`).

    Other files of the repository, such as recipes and runs, do not matter. None without repository, as after an
    installation from a wheel, or without git.
    """
    package = Path(__file__).resolve().parents[1]
    root = package.parent
    if not (root / ".git").exists():
        return None
    try:
        commit = _git(root, "rev-parse", "HEAD")
        return {"commit": commit, "dirty": bool(_git(root, "status", "--porcelain", "--", package.name))}
    except (OSError, subprocess.SubprocessError):
        return None


def _git(root: Path, *words: str) -> str:
    command = ["git", "--no-optional-locks", "-C", str(root), *words]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, timeout=GIT_SECONDS)
    return ended.stdout.strip()


def environment_variables() -> dict[str, str]:
    """The environment variables that are set, of those in `VARIABLES`."""
    return {name: os.environ[name] for name in VARIABLES if name in os.environ}


def describe_hardware(accelerator: Accelerator) -> dict[str, Any]:
    """CPUs and GPUs over all machines of the run. Called on all ranks.

    `cpus`, `gpus`: the different models, each with the number of machines or ranks that have it.
    """
    gpu = _describe_gpu(accelerator.device)
    own: list[dict[str, Any]] = [{"host": socket.gethostname(), "cpu": _describe_cpu(), "gpu": gpu}]
    ranks = gather_object(own) if accelerator.num_processes > 1 else own
    cpu_of_host = {rank["host"]: rank["cpu"] for rank in ranks}
    return {
        "ranks": len(ranks),
        "hosts": len(cpu_of_host),
        "cpus": _count([*cpu_of_host.values()]),
        "gpus": _count([rank["gpu"] for rank in ranks if rank["gpu"]]),
    }


def _describe_cpu() -> str:
    capability, threads = torch.backends.cpu.get_cpu_capability(), torch.get_num_threads()
    return f"{_cpu_model()}, {os.cpu_count()} CPUs, {capability}, {threads} threads per rank"


def _cpu_model() -> str:
    """The name of the CPU; Python itself has none on Linux."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _describe_gpu(device: torch.device) -> str | None:
    if device.type != "cuda":
        return None
    properties = torch.cuda.get_device_properties(device)
    return f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}"


def _count(descriptions: list[str]) -> dict[str, int]:
    """Each description with the number of its occurrences."""
    return {each: descriptions.count(each) for each in sorted(set(descriptions))}
