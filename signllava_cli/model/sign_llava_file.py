"""Reads the checkpoint files of Sign_LLaVA, without running code in them.

DeepSpeed's `mp_rank_00_model_states.pt` is a dict whose `module` holds the tensors and whose `global_steps` counts
the optimizer steps. The `.bin` files of the Trainer are dicts of tensors. Its checkpoint folders have either.
"""

import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from signllava_cli.errors import UserError, escape_unprintable, summarize_names
from signllava_cli.files import sha256_file
from signllava_cli.model.llm import read_tensors

STATES_FILE = "mp_rank_00_model_states.pt"
ZERO3_STATES_PATTERN = "zero_pp_rank_*_mp_rank_*_model_states.pt"
TRAINER_FILES = ("non_lora_trainables.bin", "pytorch_model.bin", "model.safetensors")
ADAPTER_FILES = ("adapter_model.safetensors", "adapter_model.bin")


@dataclass(frozen=True)
class SignLlavaCheckpoint:
    """The tensors of a Sign_LLaVA checkpoint, by their names in its `files`.

    `step`: the number of optimizer steps in the file, or 0. `ignored`: the names of entries that are not tensors.
    `digest`: the SHA-256 of the first file.
    """

    files: tuple[Path, ...]
    tensors: dict[str, Tensor]
    ignored: tuple[str, ...]
    step: int
    digest: str


def read_sign_llava(source: Path) -> SignLlavaCheckpoint:
    """The tensors in `source`, a file or a checkpoint folder of the Trainer; memory-mapped if possible.

    Raises:
        UserError: there is no checkpoint; a file is damaged, contains more than tensors and plain containers, or has
            only one rank's part of each tensor.
    """
    files = _find_files(source.expanduser())
    tensors: dict[str, Tensor] = {}
    ignored: list[str] = []
    step = 0
    for file in files:
        content = load_tensors(file)
        entries = content["module"] if isinstance(content.get("module"), Mapping) else content
        if entries is not content:
            ignored += [str(name) for name in content if name != "module"]
        steps = content.get("global_steps")
        step = max(step, steps if isinstance(steps, int) else 0)
        for name, value in entries.items():
            if not isinstance(value, Tensor):
                ignored.append(str(name))
            elif str(name) in tensors:
                raise UserError(f"{file} and {files[0]} both have {escape_unprintable(str(name))}; name one file.")
            else:
                tensors[str(name)] = _check_tensor(value, str(name), file)
    return SignLlavaCheckpoint(files, tensors, tuple(map(escape_unprintable, ignored)), step, sha256_file(files[0]))


def _find_files(source: Path) -> tuple[Path, ...]:
    if source.is_file():
        return (source,)
    if not source.is_dir():
        raise UserError(f"No Sign_LLaVA checkpoint at {source}; name a file such as {STATES_FILE}, or its folder.")
    states = sorted([*source.glob(STATES_FILE), *source.glob(f"global_step*/{STATES_FILE}")], key=_global_step)
    if states:
        return (states[-1],)
    adapter = next((source / name for name in ADAPTER_FILES if (source / name).is_file()), None)
    for name in TRAINER_FILES:
        if (source / name).is_file():
            return (source / name,) if adapter is None else (source / name, adapter)
    if any(source.rglob(ZERO3_STATES_PATTERN)):
        raise _zero3_error(source)
    raise UserError(
        f"{source} has no {STATES_FILE} (nor one in global_step*/), and no {' or '.join(TRAINER_FILES)}; name a file."
    )


def _global_step(states: Path) -> int:
    match = re.fullmatch(r"global_step(\d+)", states.parent.name)
    return int(match[1]) if match else -1


def _zero3_error(path: Path) -> UserError:
    return UserError(
        f"{path} was saved under ZeRO-3, so each file has only a part of each tensor; merge the files with "
        "DeepSpeed's zero_to_fp32.py, and convert the pytorch_model.bin that it writes."
    )


def load_tensors(file: Path) -> Mapping[Any, Any]:
    """The contents of a safetensors or PyTorch file: tensors and plain containers, never objects that run code.

    Raises:
        UserError: the file cannot be read, or contains other objects.
    """
    if file.suffix == ".safetensors":
        return read_tensors(file)
    try:
        # weights_only: only tensors and plain containers are created, and no code of the file runs
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror or error}.") from None
    except Exception:  # the unpickler may raise anything on an untrusted file
        raise _unsafe_file_error(file) from None
    if not isinstance(content, Mapping):
        raise UserError(f"{file} contains a {type(content).__name__}, expected a dict of tensors.")
    return content


def _unsafe_file_error(file: Path) -> UserError:
    try:
        objects = torch.serialization.get_unsafe_globals_in_checkpoint(str(file))
    except Exception:  # not a zip file, or truncated
        objects = []
    if objects:
        return UserError(
            f"{file} was not opened: it also contains {summarize_names(sorted(objects))}, and loading these could "
            "run code. If you trust the file, save its tensors alone and convert that file."
        )
    return UserError(f"{file} is not a PyTorch file of tensors and plain containers, or is truncated; copy it again.")


def _check_tensor(tensor: Tensor, name: str, file: Path) -> Tensor:
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex():
        raise UserError(f"{file}: {escape_unprintable(name)} is not a dense tensor of real numbers.")
    if not tensor.numel():
        raise _zero3_error(file)
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise UserError(
            f"{file}: {escape_unprintable(name)} has shape {tuple(tensor.shape)}, but less data; copy the file again."
        )
    return tensor
