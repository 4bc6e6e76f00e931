"""The language model and its tokenizer: loading in 32, 16, 8 or 4 bits, and the LoRA adapter."""

import contextlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from signllava_cli import recipe as recipes
from signllava_cli.errors import UserError
from signllava_cli.model.hub_access import hub_options
from signllava_cli.model.partitioning import gathered

ADAPTER_WEIGHTS = "adapter_model.safetensors"
PROBE_ROWS, PROBE_COLUMNS = 16, 4


def load_tokenizer(settings: recipes.LLM) -> Any:
    """The tokenizer of the LLM.

    Raises:
        UserError: the path is neither a Hugging Face folder nor a hub id within reach.
    """
    from transformers import AutoTokenizer

    location = _resolve_path(settings)
    with _as_user_error(settings), hub_options(location) as options:
        return AutoTokenizer.from_pretrained(location, revision=settings.revision, **options)


def load_llm(settings: recipes.LLM, device: torch.device) -> Any:
    """The frozen causal LLM on `device`, in eval mode, in the precision that the recipe names.

    Norms keep the dtype they were loaded in: RMSNorm computes in float32 whatever its weights are, while
    float32 weights would turn every activation behind them into float32.

    Raises:
        UserError: the path is neither a Hugging Face folder nor a hub id within reach.
    """
    from transformers import AutoModelForCausalLM

    dtype, location = getattr(torch, settings.dtype), _resolve_path(settings)
    with _as_user_error(settings), hub_options(location) as options, _zero3_dtype(dtype):
        llm = AutoModelForCausalLM.from_pretrained(
            location,
            revision=settings.revision,
            dtype=dtype,
            attn_implementation=settings.attn_implementation,
            quantization_config=_quantization_config(settings, dtype),
            # One device per process, never "auto": https://github.com/huggingface/accelerate/issues/1515
            device_map={"": device} if settings.bits in (4, 8) else None,
            adapter_kwargs={
                "local_files_only": options["local_files_only"]
            },  # transformers also looks for an adapter of that name
            **options,
        )
    if settings.bits in (16, 32):
        llm.to(device)
    llm.requires_grad_(False)
    return llm.eval()


@contextlib.contextmanager
def _zero3_dtype(dtype: torch.dtype) -> Iterator[None]:
    """ZeRO-3 builds weights in the precision that DeepSpeed's own settings name, whatever dtype is asked for.

    They name one inside this block alone: for training it would be that of the projectors too.
    """
    from transformers.integrations.deepspeed import deepspeed_config, is_deepspeed_zero3_enabled

    if not is_deepspeed_zero3_enabled():
        yield
        return
    config = deepspeed_config()
    config["bf16"] = {"enabled": dtype == torch.bfloat16}
    try:
        yield
    finally:
        del config["bf16"]


def _quantization_config(settings: recipes.LLM, dtype: torch.dtype) -> Any:
    from transformers import BitsAndBytesConfig

    if settings.bits == 8:
        return BitsAndBytesConfig(load_in_8bit=True)
    if settings.bits == 4:
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=settings.bnb_4bit_quant_type,
            bnb_4bit_use_double_quant=settings.bnb_4bit_use_double_quant,
            bnb_4bit_compute_dtype=dtype,
        )
    return None


def add_lora(llm: Any, settings: recipes.Lora) -> Any:
    """The LLM wrapped by PEFT with a fresh adapter, the only part of it that is trained (float32 weights)."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=settings.r,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=list(settings.target_modules),
        task_type="CAUSAL_LM",
    )
    try:
        return get_peft_model(llm, config)
    except ValueError as error:
        raise UserError(f"lora.target_modules: {error}") from None


def save_adapter(llm: Any, weights: dict[str, Tensor], folder: Path) -> None:
    """Write the adapter in PEFT's own format: its `weights`, by their names in `llm`, and its config."""
    # "auto" would ask the hub whether the vocabulary was resized; here it never is.
    llm.save_pretrained(str(folder), state_dict=weights, save_embedding_layers=False)


def load_adapter(llm: Any, folder: Path) -> None:
    """Load the adapter in `folder` into an LLM that `add_lora` wrapped, strictly.

    Raises:
        UserError: the names or shapes in the file are not exactly those of the adapter.
    """
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    weights = read_tensors(folder / ADAPTER_WEIGHTS)
    expected = get_peft_model_state_dict(llm, save_embedding_layers=False)
    require_same_tensors(weights, expected, folder / ADAPTER_WEIGHTS)
    set_peft_model_state_dict(llm, weights)


def read_tensors(file: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        return load_file(file)
    except FileNotFoundError:
        raise UserError(f"No weights at {file}.") from None
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file} is no readable safetensors file: {error}.") from None


def require_same_tensors(found: dict[str, Tensor], expected: dict[str, Tensor], where: Path) -> None:
    """Check that `found` has exactly the names and shapes of `expected`.

    Raises:
        UserError: naming the first tensors that are missing, unknown, or of another shape.
    """
    missing, unknown = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    other = [name for name in expected if name in found and expected[name].shape != found[name].shape]
    if missing:
        raise UserError(f"{where} lacks {len(missing)} tensors of this recipe's model, such as {missing[0]}.")
    if unknown:
        raise UserError(f"{where} holds {len(unknown)} tensors unknown to this recipe, such as {unknown[0]}.")
    if other:
        name = other[0]
        raise UserError(
            f"{where}: {name} is {tuple(found[name].shape)}, but this recipe and LLM make it "
            f"{tuple(expected[name].shape)}; use the LLM, widths and projectors that it was trained with."
        )


def decoder_and_head(llm: Any) -> tuple[nn.Module, nn.Module]:
    """The stack of layers that yields hidden states, and the head that turns them into logits."""
    causal = llm.get_base_model() if hasattr(llm, "get_base_model") else llm
    return getattr(causal, causal.base_model_prefix), causal.get_output_embeddings()


def compile_layers(llm: Any) -> None:
    """Let torch.compile have the LLM's layers, one by one: they are alike, so one compilation serves them all."""
    decoder, _ = decoder_and_head(llm)
    for layer in cast(nn.ModuleList, decoder.layers):
        layer.compile(dynamic=True)


def llm_identity(llm: Any, settings: recipes.LLM) -> dict[str, Any]:
    """What a checkpoint must know of its LLM to recognize it: shape, vocabulary, and a few embedding values."""
    table, norm = llm.get_input_embeddings().weight, _first_norm(llm)
    with gathered(table, norm):
        rows = torch.linspace(0, table.shape[0] - 1, PROBE_ROWS).long()
        norm_probe = norm[:PROBE_ROWS].float().tolist()
        embedding_probe = table[rows.to(table.device), :PROBE_COLUMNS].float().flatten().tolist()
    return {
        "path": settings.path,
        "revision": settings.revision,
        "model_type": llm.config.model_type,
        "hidden_size": llm.config.hidden_size,
        "layers": llm.config.num_hidden_layers,
        "vocabulary": llm.config.vocab_size,
        "norm_probe": norm_probe,
        "embedding_probe": embedding_probe,
    }


def require_same_llm(expected: dict[str, Any], found: dict[str, Any], where: Path) -> None:
    """Check that the LLM `found` is the one that the checkpoint at `where` was trained with.

    The probe allows for the rounding of another dtype, not for other weights.

    Raises:
        UserError: naming what differs.
    """
    for fact in ("model_type", "hidden_size", "layers", "vocabulary"):
        if expected[fact] != found[fact]:
            raise UserError(
                f"{where} was trained with {expected['path']} ({fact} {expected[fact]}), "
                f"not with {found['path']} ({fact} {found[fact]}); set llm.path to the LLM it was trained with."
            )
    ours, theirs = (torch.tensor([*each["embedding_probe"], *each["norm_probe"]]) for each in (expected, found))
    if not torch.allclose(ours, theirs, rtol=0.02, atol=1e-4):
        raise UserError(
            f"{where} was trained with {expected['path']}; {found['path']} has the same shape but other weights; "
            "set llm.path to the LLM it was trained with."
        )


def _first_norm(llm: Any) -> nn.Parameter:
    """The weight of the first norm, which no precision quantizes."""
    return next(weight for name, weight in llm.named_parameters() if "norm" in name)


def _resolve_path(settings: recipes.LLM) -> str:
    """A folder when one is meant, else the hub id as it is."""
    path = Path(settings.path).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise UserError(f"llm.path: {path} has no config.json; it is no Hugging Face model folder.")
        return str(path)
    if path.is_absolute() or settings.path.startswith((".", "~")) or settings.path.count("/") != 1:
        raise UserError(f"llm.path: no folder at {path}; make one with `signllava prepare llm`.")
    return settings.path


@contextlib.contextmanager
def _as_user_error(settings: recipes.LLM) -> Iterator[None]:
    """Loading errors as one line, and without the library's own progress and advice."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except UserError as error:
        raise UserError(f"llm.path: {error}") from None
    except (OSError, ValueError, ImportError, SafetensorError) as error:
        first_line = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UserError(f"llm.path: {settings.path} cannot be loaded: {first_line}") from None
