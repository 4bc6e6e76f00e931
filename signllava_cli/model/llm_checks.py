"""Checks that an LLM is causal, and that its folder has exactly the weights that its config describes."""

from collections.abc import Iterator
from typing import Any

from torch import nn

from signllava_cli.console import warning
from signllava_cli.errors import UserError, format_count

# Their attention sees later tokens, although transformers offers a class with an LM head for them
BIDIRECTIONAL = ("bert-generation", "xlm", "xlnet")


def require_causal_lm(llm_config: Any, path: str) -> None:
    """Check by its class that the LLM of a transformers config is a causal one.

    Raises:
        UserError: it is an encoder-decoder model, or one whose tokens attend to later ones, or has no LM head.
    """
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    )

    name, kind = next(iter(llm_config.architectures or [llm_config.model_type])), llm_config.model_type
    if getattr(llm_config, "is_encoder_decoder", False):
        raise UserError(f"{path}: {name} is an encoder-decoder model; choose a causal LLM (...ForCausalLM).")
    is_masked = kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES or kind in BIDIRECTIONAL
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES or (is_masked and not getattr(llm_config, "is_decoder", False)):
        raise UserError(
            f"{path}: {name} is not a causal LLM, in which a token attends to earlier tokens only; "
            "choose one (...ForCausalLM)."
        )


def require_all_weights(llm: Any, loading_info: dict[str, Any], path: str) -> None:
    """Check that every weight of `llm` was in its folder, with the shape that its config says.

    Weights of the folder that the model does not use are counted and named, unless they show that config and weights
    do not fit each other.

    Args:
        loading_info: what transformers reports with `output_loading_info`. Tied weights and what the class of the LLM
            declares as optional are not in it. Under ZeRO-3 it has missing weights only.

    Raises:
        UserError: weights are missing, have another shape, or belong to a larger model than the config describes.
    """
    name, missing = type(llm).__name__, sorted(loading_info["missing_keys"])
    if missing:
        raise UserError(
            f"{path} lacks {format_count(len(missing), 'weight')} of {name}, such as {missing[0]}, which would be "
            "random; copy the folder again, or choose a complete one."
        )
    mismatched = sorted([*loading_info["mismatched_keys"], *_mismatched_quantized(llm)])
    if mismatched:
        key, stored, expected = mismatched[0]
        raise UserError(
            f"{path}: config.json does not fit {format_count(len(mismatched), 'weight')}: {key} has shape "
            f"{tuple(stored)}, but the config says {tuple(expected)}; copy both files again."
        )
    unused = sorted(loading_info["unexpected_keys"])
    misfit = [key for key in unused if _belongs_to_layers(llm, key)]
    if misfit:
        raise UserError(
            f"{path}: config.json does not fit {format_count(len(misfit), 'weight')}: {name} of this config has no "
            f"{misfit[0]}; copy both files again."
        )
    if unused:
        warning(f"{path} has {format_count(len(unused), 'weight')} that {name} does not use, such as {unused[0]}")


def describe_misfit(error: RuntimeError) -> str | None:
    """Why transformers cannot load weights that do not fit the config, or None if `error` has another cause.

    It raises for weights that it joins (the experts of a layer), and under ZeRO-3 for every weight of another shape.
    """
    text = str(error)
    mismatch = next((line.strip() for line in text.splitlines() if "size mismatch for" in line), None)
    if mismatch is not None:
        return f"config.json does not fit the weights: {mismatch.rstrip('.')}; copy both files again."
    if "conversion of the weights" in text:
        return "config.json does not fit the experts: some are missing, or of another shape; copy both files again."
    return None


def _mismatched_quantized(llm: Any) -> Iterator[tuple[str, Any, Any]]:
    """Name, shape in the folder, and shape in the config of quantized weights: transformers does not compare them."""
    for name, module in llm.named_modules():
        if isinstance(module, nn.Linear):
            quant_state = getattr(module.weight, "quant_state", None)  # of 4 bits
            stored = quant_state.shape if quant_state else getattr(module.weight, "ds_shape", module.weight.shape)
            if tuple(stored) != (module.out_features, module.in_features):
                yield f"{name}.weight", stored, (module.out_features, module.in_features)


def _belongs_to_layers(llm: Any, key: str) -> bool:
    """Whether an unused weight is of one layer too many, or a weight or bias that an existing module lacks.

    Layers for the prediction of several tokens (`num_nextn_predict_layers`) are not part of the causal LLM.
    """
    modules, parts = dict(llm.named_modules()), key.split(".")
    for position, part in enumerate(parts):
        layers = modules.get(".".join(parts[:position]))
        if part.isdigit() and isinstance(layers, nn.ModuleList) and int(part) >= len(layers):
            return int(part) >= len(layers) + (getattr(llm.config, "num_nextn_predict_layers", None) or 0)
    owner = modules.get(".".join(parts[:-1]))
    return parts[-1] in ("weight", "bias") and owner is not None and not list(owner.children())
