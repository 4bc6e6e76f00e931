"""`signllava env`: the machine and the versions, for a bug report."""

import platform
from importlib.metadata import PackageNotFoundError, version

PACKAGES = (
    "torch",
    "transformers",
    "accelerate",
    "peft",
    "bitsandbytes",
    "deepspeed",
    "evaluate",
    "sacrebleu",
    "h5py",
    "safetensors",
)


def env() -> None:
    """Print the machine, the devices and the versions, for a bug report."""
    import torch

    from signllava_cli._version import __version__
    from signllava_cli.console import info

    info(f"signllava {__version__}, Python {platform.python_version()}, {platform.platform()}")
    for index in range(torch.cuda.device_count()):
        info(f"GPU {index}: {torch.cuda.get_device_name(index)}")
    if not torch.cuda.is_available():
        info(f"no GPU; {torch.get_num_threads()} CPU threads, {torch.backends.cpu.get_cpu_capability()}")
    for package in PACKAGES:
        try:
            info(f"{package} {version(package)}")
        except PackageNotFoundError:
            info(f"{package} is not installed")
