"""The LoRA adapter of an LLM: which of its weights it covers, and its files in PEFT's format."""

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from signllava_cli import recipe as recipes
from signllava_cli.console import info, warning
from signllava_cli.errors import UserError
from signllava_cli.files import read_json, write_json
from signllava_cli.model.layer_weights import (
    UNCALLED_LAYERS,
    LayerWeight,
    adapter_share,
    format_share,
    layer_weights,
    linear_layers_without_adapter,
)
from signllava_cli.model.llm import read_tensors, require_same_tensors
from signllava_cli.recipe import ALL_LINEAR

ADAPTER_WEIGHTS, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"
EXPECTED_SHARE = 0.9  # of the layers' weights; below it, an adapter misses what is not small


def add_lora(llm: Any, config: recipes.Lora) -> Any:
    """The LLM as a PeftModel with a new adapter, whose float32 weights are its only trainable parameters.

    Raises:
        UserError: the LLM lacks a target, or an adapter of a parameter would have dropout.
    """
    from peft import LoraConfig, get_peft_model

    before = layer_weights(llm)
    excluded, uncalled = linear_layers_without_adapter(llm), UNCALLED_LAYERS.get(llm.config.model_type, ())
    if config.target_modules == ALL_LINEAR:
        excluded += uncalled
    else:
        _require_trained_layers(llm, config.target_modules, uncalled)
    lora_config = LoraConfig(
        r=config.r,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=config.target_modules,
        target_parameters=config.target_parameters or None,
        exclude_modules=excluded or None,
        task_type="CAUSAL_LM",
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about targets without a match, which are errors below
            adapted = get_peft_model(llm, lora_config)
    except ValueError as error:
        if "lora_dropout" in str(error):
            raise UserError(
                f"lora.lora_dropout: the adapter of {llm.config.model_type} includes parameters "
                f"({_names(before, 'stack')}), which PEFT adapts without dropout only; set lora.lora_dropout=0, or "
                f"name linear layers in lora.target_modules ({_names(before, 'linear')})."
            ) from None
        if "not found in the base model" in str(error) or "No `target_modules` passed" in str(error):
            raise _missing_target("target_modules", config.target_modules, llm, before) from None
        raise UserError(f"lora.target_modules: {' '.join(str(error).split())}") from None
    _require_targets(adapted, config, before)
    return adapted


class InputDtypeLinear(nn.Linear):
    """A linear layer without bias that computes in the dtype of its input, and whose weight keeps its own."""

    def forward(self, input: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        return F.linear(input, self.weight.to(input.dtype))


def compute_in_input_dtype(llm: Any) -> None:
    """Let the adapter of a PeftModel compute in the dtype of the activations, as autocast does, not in float32.

    Its weights and their gradients stay float32. PEFT casts activations to float32 instead, which GPUs multiply some
    ten times slower than bfloat16. Adapters of parameters (`lora.target_parameters`) are added to the parameter and
    do not change.
    """
    for layer in _adapted_linear_layers(llm):
        layer.cast_input_dtype_enabled = False
        for matrix in _adapter_matrices(layer):
            matrix.__class__ = InputDtypeLinear


def cast_adapter(llm: Any, dtype: torch.dtype) -> None:
    """Store the adapter of a PeftModel in `dtype`, for decoding, where each step would cast it to this dtype."""
    for layer in _adapted_linear_layers(llm):
        for matrix in _adapter_matrices(layer):
            matrix.to(dtype)


def _adapted_linear_layers(llm: Any) -> list[Any]:
    from peft.tuners.lora.layer import LoraLayer, ParamWrapper

    layers = [module for module in llm.modules() if isinstance(module, LoraLayer)]
    return [layer for layer in layers if not isinstance(layer, ParamWrapper)]


def _adapter_matrices(layer: Any) -> list[nn.Module]:
    """The linear layers A and B of an adapted layer."""
    return [*layer.lora_A.values(), *layer.lora_B.values()]


def _require_trained_layers(llm: Any, targets: Iterable[str], uncalled: Iterable[str]) -> None:
    """Check that no target is the embedding, the LM head or a layer of `UNCALLED_LAYERS`."""
    others = (llm.get_input_embeddings(), llm.get_output_embeddings())
    names = {name.rpartition(".")[2] for name, module in llm.named_modules() if module in others}
    for target in targets:
        name = target.rpartition(".")[2]
        if name in names:
            raise UserError(
                f"lora.target_modules: {name} is not a linear layer of the decoder, and only these are adapted; "
                f"remove it, or use {ALL_LINEAR}."
            )
        if name in uncalled:
            raise UserError(
                f"lora.target_modules: {llm.config.model_type} reads the weights of {name} without calling this "
                f"layer, so an adapter of it would not be trained; remove it, or use {ALL_LINEAR}."
            )


def _require_targets(llm: Any, config: recipes.Lora, before: list[LayerWeight]) -> None:
    """Check that every target of the recipe is adapted; PEFT checks only that one of them is.

    For some mixtures of experts PEFT replaces names such as `gate_proj` in its config by those of parameters.
    """
    tuner, parameters = llm.base_model, config.target_parameters
    modules = [] if config.target_modules == ALL_LINEAR else sorted(llm.peft_config["default"].target_modules)
    for key, targets, found in (
        ("target_modules", modules, tuner.targeted_module_names),
        ("target_parameters", parameters, tuner.targeted_parameter_names),
    ):
        missing = [target for target in targets if not any(f".{name}".endswith(f".{target}") for name in found)]
        if missing:
            raise _missing_target(key, missing, llm, before)


def _missing_target(key: str, targets: list[str] | str, llm: Any, weights: list[LayerWeight]) -> UserError:
    names = targets if isinstance(targets, str) else ", ".join(targets)
    linear, stacks = (_names(weights, kind) for kind in ("linear", "stack"))
    parameters = f", and lora.target_parameters can name {stacks}" if stacks else ""
    return UserError(
        f"lora.{key}: {llm.config.model_type} has no {names or 'target'}; its linear layers are {linear} "
        f"(all of them: {ALL_LINEAR}){parameters}."
    )


def _names(weights: list[LayerWeight], kind: str | None = None, separator: str = ", ") -> str:
    """The names of the weights (of one kind), each once."""
    return separator.join(dict.fromkeys(weight.name for weight in weights if kind in (None, weight.kind)))


def print_adapter_coverage(llm: Any, config: recipes.Lora) -> None:
    """Print the share of the layers' weights that the adapter covers and their names; warn if it is below 90 %."""
    weights = layer_weights(llm)
    share, adapted = adapter_share(weights), [weight for weight in weights if weight.has_adapter]
    info(f"adapter: covers {format_share(share)} of the layers' weights: {_names(adapted)}")
    if share >= EXPECTED_SHARE:
        return
    missed = [weight for weight in weights if not weight.has_adapter]
    advice = ""
    if config.target_modules != ALL_LINEAR and _names(missed, "linear"):
        advice = f"; lora.target_modules={ALL_LINEAR} covers every linear layer"
    elif stacks := _names(missed, "stack", ","):
        advice = f"; lora.target_parameters=[{stacks}] and lora.lora_dropout=0 cover the experts"
    warning(f"the adapter leaves {format_share(1 - share)} of the layers' weights: {_names(missed)}{advice}")


def save_adapter(llm: Any, weights: dict[str, Tensor], folder: Path) -> None:
    """Write the adapter in PEFT's format: its `weights`, by their names in `llm`, and its config."""
    # "auto" would request the hub to check whether the vocabulary was resized; it never is
    llm.save_pretrained(str(folder), state_dict=weights, save_embedding_layers=False)
    config = read_json(folder / ADAPTER_CONFIG)
    for key in ("target_modules", "exclude_modules"):  # sets in PEFT, in another order in each process
        config[key] = sorted(names) if isinstance(names := config.get(key), list) else names
    write_json(folder / ADAPTER_CONFIG, config)


def has_adapted_parameters(llm: Any) -> bool:
    """Whether the adapter covers parameters, such as experts.

    PEFT changes the modules around them in each forward pass, and lists all modules in `save_pretrained`, so that
    another thread cannot save such an adapter meanwhile.
    """
    from peft.tuners.lora.layer import ParamWrapper

    return any(isinstance(module, ParamWrapper) for module in llm.modules())


def load_adapter(llm: Any, folder: Path) -> None:
    """Load the adapter in `folder` into a PeftModel of `add_lora`, strictly.

    Raises:
        UserError: the names or shapes in the file are not exactly those of the adapter.
    """
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    weights = read_tensors(folder / ADAPTER_WEIGHTS)
    expected = get_peft_model_state_dict(llm, save_embedding_layers=False)
    require_same_tensors(weights, expected, folder / ADAPTER_WEIGHTS)
    set_peft_model_state_dict(llm, weights)
