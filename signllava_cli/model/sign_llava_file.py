"""Reads the files in which Sign_LLaVA saved what it had trained, without running any of them.

DeepSpeed's `mp_rank_00_model_states.pt` is a dict whose `module` holds the tensors and whose `global_steps` counts
the optimizer steps; the Trainer's `.bin` files are dicts of tensors; its checkpoint folders hold either.
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

    `step` is the number of optimizer steps that the file counted, or 0; `beside` are the names of what was no tensor;
    `digest` is the SHA-256 of the first file.
    """

    files: tuple[Path, ...]
    tensors: dict[str, Tensor]
    beside: tuple[str, ...]
    step: int
    digest: str


def read_sign_llava(source: Path) -> SignLlavaCheckpoint:
    """The tensors in the file or Trainer's folder `source`, left on the disk until they are used where that can be.

    Raises:
        UserError: there is nothing to read, a file is damaged, holds more than tensors and plain containers, or holds
            but a rank's part of each tensor.
    """
    files = _find_files(source.expanduser())
    tensors: dict[str, Tensor] = {}
    beside: list[str] = []
    step = 0
    for file in files:
        content = load_tensors(file)
        entries = content["module"] if isinstance(content.get("module"), Mapping) else content
        if entries is not content:
            beside += [str(name) for name in content if name != "module"]
        steps = content.get("global_steps")
        step = max(step, steps if isinstance(steps, int) else 0)
        for name, value in entries.items():
            if not isinstance(value, Tensor):
                beside.append(str(name))
            elif str(name) in tensors:
                raise UserError(
                    f"{file} holds {escape_unprintable(str(name))}, which {files[0]} holds too; name one file."
                )
            else:
                tensors[str(name)] = _check_tensor(value, str(name), file)
    return SignLlavaCheckpoint(files, tensors, tuple(map(escape_unprintable, beside)), step, sha256_file(files[0]))


def _find_files(source: Path) -> tuple[Path, ...]:
    if source.is_file():
        return (source,)
    if not source.is_dir():
        raise UserError(
            f"No Sign_LLaVA checkpoint at {source}: expected a file such as {STATES_FILE}, or its folder."
        )
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
        f"{source} holds no {STATES_FILE} (nor one in global_step*/), and no {' or '.join(TRAINER_FILES)}."
    )


def _global_step(states: Path) -> int:
    found = re.fullmatch(r"global_step(\d+)", states.parent.name)
    return int(found[1]) if found else -1


def _zero3_error(where: Path) -> UserError:
    return UserError(
        f"{where} was saved under ZeRO-3, which leaves but a part of each tensor in a file: join them with "
        "DeepSpeed's zero_to_fp32.py, and convert the pytorch_model.bin that it writes."
    )


def load_tensors(file: Path) -> Mapping[Any, Any]:
    """What a safetensors or PyTorch file holds: tensors and plain containers, and nothing that runs code.

    Raises:
        UserError: it cannot be read, or holds more than that.
    """
    if file.suffix == ".safetensors":
        return read_tensors(file)
    try:
        # weights_only: nothing but tensors and plain containers is built, and no code of the file is run
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror or error}.") from None
    except Exception:  # whatever the unpickler stumbles over in a file that a stranger wrote
        raise _unsafe_file_error(file) from None
    if not isinstance(content, Mapping):
        raise UserError(f"{file} holds a {type(content).__name__}, not a dict of tensors.")
    return content


def _unsafe_file_error(file: Path) -> UserError:
    try:
        objects = torch.serialization.get_unsafe_globals_in_checkpoint(str(file))
    except Exception:  # no zip file, or cut short
        objects = []
    if objects:
        return UserError(
            f"{file} was not opened: beside tensors it holds {summarize_names(sorted(objects))}, and building these "
            "could run code. Where you trust it, save its tensors alone and convert that file."
        )
    return UserError(f"{file} is no PyTorch file of tensors and plain containers alone, or is cut short.")


def _check_tensor(tensor: Tensor, name: str, file: Path) -> Tensor:
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex():
        raise UserError(f"{file}: {escape_unprintable(name)} is no plain tensor of numbers.")
    if not tensor.numel():
        raise _zero3_error(file)
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise UserError(
            f"{file}: {escape_unprintable(name)} is {tuple(tensor.shape)}, more than the file holds of it."
        )
    return tensor
