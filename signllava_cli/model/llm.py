"""Loads the LLM in 32, 16, 8 or 4 bits, and its tokenizer."""

import contextlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from signllava_cli import recipe as recipes
from signllava_cli.errors import UserError, first_line, format_count
from signllava_cli.model.attention import supported_attention
from signllava_cli.model.hub_access import hub_options
from signllava_cli.model.llm_checks import describe_misfit, require_all_weights, require_causal_lm
from signllava_cli.model.llm_memory import free_memory, outline_llm, require_memory
from signllava_cli.model.partitioning import gathered
from signllava_cli.model.weights_hash import hash_weights

PROBE_ROWS, PROBE_COLUMNS = 16, 4  # of the embedding table: the values by which an LLM is recognized


def load_tokenizer(config: recipes.LLM) -> Any:
    """The tokenizer of the LLM.

    Raises:
        UserError: the path is neither a Hugging Face folder nor an available hub id.
    """
    from transformers import AutoTokenizer

    location = _resolve_path(config)
    with _as_user_error(config), hub_options(location) as options:
        return AutoTokenizer.from_pretrained(location, revision=config.revision, **options)


def require_causal(config: recipes.LLM) -> None:
    """Check that the model is a causal LLM, before anything but its config.json is read.

    Raises:
        UserError: it is not, or the path is neither a Hugging Face folder nor an available hub id.
    """
    require_causal_lm(read_llm_config(config), f"llm.path: {config.path}")


def read_llm_config(config: recipes.LLM) -> Any:
    """The config.json of the LLM, as the config class of its architecture."""
    from transformers import AutoConfig

    location = _resolve_path(config)
    with _as_user_error(config), hub_options(location) as options:
        return AutoConfig.from_pretrained(location, revision=config.revision, **options)


def load_llm(config: recipes.LLM, device: torch.device) -> Any:
    """The frozen causal LLM on `device`, in eval mode, in the precision of the recipe.

    Norms keep the dtype in which they were loaded: RMSNorm computes in float32 in any case, and float32 weights would
    make all later activations float32.

    Raises:
        UserError: the path is neither a Hugging Face folder nor an available hub id; its model is not a causal LLM,
            its weights are not those of its config, or it does not fit into the memory of its GPU.
    """
    from transformers import AutoModelForCausalLM
    from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

    is_zero3 = is_deepspeed_zero3_enabled()
    llm_config, free = read_llm_config(config), free_memory(device)
    if free is not None and not hasattr(llm_config, "quantization_config"):
        require_memory(outline(config), free, f"llm.path: {config.path}")
    dtype, location = getattr(torch, config.dtype), _resolve_path(config)
    with _as_user_error(config), hub_options(location) as options, _zero3_dtype(dtype):
        llm, loading_info = AutoModelForCausalLM.from_pretrained(
            location,
            revision=config.revision,
            dtype=dtype,
            attn_implementation=supported_attention(config, llm_config),
            quantization_config=_quantization_config(config, dtype),
            # Weights go straight to the device. One device per process, never "auto":
            # https://github.com/huggingface/accelerate/issues/1515. ZeRO-3 distributes the weights itself.
            device_map=None if is_zero3 else {"": device},
            # transformers also looks for an adapter in the same repository
            adapter_kwargs={"local_files_only": options["local_files_only"]},
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are reported instead, with their shapes
            **options,
        )
        require_all_weights(llm, loading_info, config.path)
    if is_zero3:
        llm.to(device)
    llm.requires_grad_(False)
    return llm.eval()


def outline(config: recipes.LLM) -> Any:
    """The LLM of a recipe on the device `meta` (`outline_llm`): shares and memory without loading it."""
    llm_config, dtype = read_llm_config(config), getattr(torch, config.dtype)
    with _as_user_error(config):
        return outline_llm(llm_config, dtype, _quantization_config(config, dtype))


@contextlib.contextmanager
def _zero3_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Make ZeRO-3 create weights in `dtype` inside this block: it ignores the argument `dtype` of `from_pretrained`.

    It takes the precision of DeepSpeed's config, which is reset afterwards: in training it would apply to the
    projectors too.
    """
    from transformers.integrations.deepspeed import deepspeed_config, is_deepspeed_zero3_enabled

    if not is_deepspeed_zero3_enabled():
        yield
        return
    deepspeed = deepspeed_config()
    deepspeed["bf16"] = {"enabled": dtype == torch.bfloat16}
    try:
        yield
    finally:
        del deepspeed["bf16"]


def _quantization_config(config: recipes.LLM, dtype: torch.dtype) -> Any:
    from transformers import BitsAndBytesConfig

    if config.bits == 8:
        return BitsAndBytesConfig(load_in_8bit=True)
    if config.bits == 4:
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=config.bnb_4bit_quant_type,
            bnb_4bit_use_double_quant=config.bnb_4bit_use_double_quant,
            bnb_4bit_compute_dtype=dtype,
        )
    return None


def read_tensors(file: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        return load_file(file)
    except FileNotFoundError:
        raise UserError(f"{file} is missing; copy the checkpoint again.") from None
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file} is not a valid safetensors file: {error}; copy it again.") from None


def require_same_tensors(tensors: dict[str, Tensor], expected: dict[str, Tensor], file: Path) -> None:
    """Check that the `tensors` of `file` have exactly the names and shapes of `expected`.

    Raises:
        UserError: tensors are missing, unexpected, or of another shape; the message has the first one.
    """
    missing, unexpected = sorted(set(expected) - set(tensors)), sorted(set(tensors) - set(expected))
    mismatched = [name for name in expected if name in tensors and expected[name].shape != tensors[name].shape]
    if missing:
        raise UserError(
            f"{file} lacks {format_count(len(missing), 'tensor')} of this recipe's model, such as {missing[0]}; use "
            "the recipe that it was trained with."
        )
    if unexpected:
        raise UserError(
            f"{file} has {format_count(len(unexpected), 'tensor')} that this recipe's model lacks, such as "
            f"{unexpected[0]}; use the recipe that it was trained with."
        )
    if mismatched:
        name = mismatched[0]
        raise UserError(
            f"{file}: {name} has shape {tuple(tensors[name].shape)}, but this recipe and LLM require "
            f"{tuple(expected[name].shape)}; use the LLM, widths and projectors that it was trained with."
        )


def llm_identity(llm: Any, config: recipes.LLM, folder: Path | None) -> dict[str, Any]:
    """What a checkpoint stores to recognize its LLM: sizes, vocabulary, a few values, and a hash of all tensors.

    `folder`: of its files (`local_llm_folder`).
    """
    table, norms, text_config = llm.get_input_embeddings().weight, _first_norm(llm), llm.config.get_text_config()
    with gathered(table, *norms):
        rows = torch.linspace(0, table.shape[0] - 1, PROBE_ROWS).long()  # (PROBE_ROWS,)
        norm_probe = [value for norm in norms for value in norm[:PROBE_ROWS].float().tolist()]
        embedding_probe = table[rows.to(table.device), :PROBE_COLUMNS].float().flatten().tolist()
    return {
        "path": config.path,
        "revision": config.revision,
        "model_type": llm.config.model_type,
        "hidden_size": text_config.hidden_size,
        "layers": text_config.num_hidden_layers,
        "vocabulary": text_config.vocab_size,
        "norm_probe": norm_probe,
        "embedding_probe": embedding_probe,
        **(hash_weights(folder) if folder else {}),
    }


def require_same_llm(expected: dict[str, Any], identity: dict[str, Any], checkpoint: Path) -> None:
    """Check that the LLM of `identity` is the one that `checkpoint` was trained with.

    Files with the same dtypes must have the same weights. Of others, such as those of a quantized copy, a few values
    are compared, with a tolerance that covers the rounding to another dtype.

    Raises:
        UserError: it is another LLM; the message has what differs.
    """
    for key in ("model_type", "hidden_size", "layers", "vocabulary"):
        if expected[key] != identity[key]:
            raise UserError(
                f"{checkpoint} was trained with {expected['path']} ({key} {expected[key]}), "
                f"not with {identity['path']} ({key} {identity[key]}); set llm.path to the LLM it was trained with."
            )
    expected_probe, probe = (
        torch.tensor([*values["embedding_probe"], *values["norm_probe"]]) for values in (expected, identity)
    )
    is_near = torch.allclose(expected_probe, probe, rtol=0.02, atol=1e-4)
    has_hash = "weights_hash" in expected and expected["weights_dtypes"] == identity.get("weights_dtypes")
    if not is_near or (has_hash and expected["weights_hash"] != identity["weights_hash"]):
        raise UserError(
            f"{checkpoint} was trained with {expected['path']}; {identity['path']} has the same sizes, but other "
            "weights; set llm.path to the LLM it was trained with."
        )


def _first_norm(llm: Any) -> list[nn.Parameter]:
    """The weight of the first norm; norms are never quantized. Empty where no norm has a weight, as in OLMo-1."""
    names = ("norm", "ln_")
    return [weight for name, weight in llm.named_parameters() if any(part in name for part in names)][:1]


def _resolve_path(config: recipes.LLM) -> str:
    """The path of a local folder, or the hub id unchanged."""
    path = Path(config.path).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise UserError(f"llm.path: {path} is not a Hugging Face model folder: config.json is missing.")
        return str(path)
    if path.is_absolute() or config.path.startswith((".", "~")) or config.path.count("/") != 1:
        raise UserError(f"llm.path: no folder at {path}; create one with `signllava prepare llm`.")
    return config.path


def local_llm_folder(config: recipes.LLM) -> Path | None:
    """The folder with the files of the LLM: that of `llm.path`, or of the hub's cache; None if neither has it."""
    from huggingface_hub import try_to_load_from_cache

    path = Path(_resolve_path(config))
    if path.is_dir():
        return path
    file = try_to_load_from_cache(config.path, "config.json", revision=config.revision)
    return Path(file).parent if isinstance(file, str) else None


@contextlib.contextmanager
def _as_user_error(config: recipes.LLM) -> Iterator[None]:
    """Turn loading errors into one-line UserErrors, and hide the progress bars and warnings of transformers."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except UserError as error:
        raise UserError(f"llm.path: {error}") from None
    except RuntimeError as error:
        if (misfit := describe_misfit(error)) is None:
            raise
        raise UserError(f"llm.path: {config.path}: {misfit}") from None
    except (OSError, ValueError, ImportError, SafetensorError) as error:
        raise UserError(f"llm.path: {config.path} cannot be loaded: {first_line(error)}") from None
