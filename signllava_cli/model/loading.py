"""Loads a model with its prompts, from a recipe or from a checkpoint."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from signllava_cli.console import warning
from signllava_cli.data.prompts import PromptBuilder
from signllava_cli.errors import UserError
from signllava_cli.model import checkpoint as checkpoints
from signllava_cli.model.cuda_settings import configure_cuda
from signllava_cli.model.decoding_weights import prepare_decoding_weights
from signllava_cli.model.llm import (
    llm_identity,
    load_llm,
    load_tokenizer,
    local_llm_folder,
    require_causal,
    require_same_llm,
)
from signllava_cli.model.lora import add_lora, compute_in_input_dtype
from signllava_cli.model.signllava_model import SignLlavaModel
from signllava_cli.recipe import Recipe


@dataclass(frozen=True)
class ModelBundle:
    """A model on its device, its prompts, and the identity of its LLM (`llm_identity`)."""

    model: SignLlavaModel
    prompts: PromptBuilder
    llm_identity: dict[str, Any]

    @property
    def device(self) -> torch.device:
        """The device of the projectors, on which batches must be."""
        return next(self.model.projectors.parameters()).device

    @property
    def pad_id(self) -> int:
        """The token id of padding; one that the embedding table lacks is replaced by the end of turn."""
        pad = self.prompts.tokenizer.pad_token_id
        is_usable = pad is not None and pad < self.model.llm_forward.num_tokens
        return int(pad if is_usable else self.prompts.end_of_turn)


def load_model_bundle(
    recipe: Recipe, device: torch.device, trained: checkpoints.CheckpointConfig | None = None
) -> ModelBundle:
    """The model of `recipe` with new projectors (or those of `init.projector`) and a new adapter.

    Args:
        trained: of a checkpoint whose weights the caller will load: its turns are used, and `init.projector` is not.

    Raises:
        UserError: the LLM cannot be loaded, or `init.projector` does not fit it or the streams.
    """
    configure_cuda()
    require_causal(recipe.llm)
    tokenizer = load_tokenizer(recipe.llm)
    prompts = PromptBuilder(tokenizer, recipe.tasks, trained.turns if trained else None)
    llm = load_llm(recipe.llm, device)
    identity = llm_identity(llm, recipe.llm, local_llm_folder(recipe.llm))
    if recipe.lora.enabled:
        torch.manual_seed(recipe.run.seed)  # PEFT initializes the adapter from the global generator
        llm = add_lora(llm, recipe.lora)
        if device.type == "cuda":
            compute_in_input_dtype(llm)
    model = SignLlavaModel(llm, recipe.streams, recipe.run.seed)
    _require_embeddings(prompts, model.llm_forward.num_tokens, recipe.llm.path)
    if recipe.init.projector and trained is None:
        file = checkpoints.find_projector(recipe.init.projector)
        if (file.parent / checkpoints.CONFIG).is_file():
            config = checkpoints.read_config(file.parent)
            require_same_llm(config.llm, identity, file.parent)
            if config.turns != prompts.turns:
                warning(
                    f"{file.parent} was trained with other turns: tasks.system, tasks.chat_template_kwargs or the "
                    "chat template of the LLM has changed"
                )
        checkpoints.load_projectors(model, file)
    return ModelBundle(model, prompts, identity)


def _require_embeddings(prompts: PromptBuilder, num_tokens: int, path: str) -> None:
    """Check that the LLM has an embedding for every token of a text and of the prompt.

    Added tokens may have none: texts never contain them, and padding is masked.
    """
    prompt = prompts.prompt([])
    largest_id = max(prompts.tokenizer.vocab_size - 1, prompts.end_of_turn, *prompt.before, *prompt.after)
    if largest_id >= num_tokens:
        raise UserError(
            f"llm.path: the tokenizer of {path} has a token {largest_id}, but the LLM has embeddings for "
            f"{num_tokens} tokens only; copy both from the same LLM."
        )


def load_checkpoint_bundle(checkpoint: Path, recipe: Recipe, device: torch.device) -> ModelBundle:
    """The model of `checkpoint` in eval mode, with the prompts of its training.

    Raises:
        UserError: the LLM is not the one it was trained with, or the weights are not exactly those of the model.
    """
    config = checkpoints.read_config(checkpoint)
    bundle = load_model_bundle(recipe, device, config)
    require_same_llm(config.llm, bundle.llm_identity, checkpoint)
    checkpoints.load_weights(bundle.model, checkpoint, with_adapter=recipe.lora.enabled)
    bundle.model.eval()
    return bundle


def load_for_decoding(checkpoint: Path, recipe: Recipe, device: torch.device) -> ModelBundle:
    """As `load_checkpoint_bundle`, for a model that is only decoded: see `prepare_decoding_weights`."""
    bundle = load_checkpoint_bundle(checkpoint, recipe, device)
    prepare_decoding_weights(bundle.model, getattr(torch, recipe.llm.dtype))
    return bundle
