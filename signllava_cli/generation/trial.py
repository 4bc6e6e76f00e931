"""A trial of decoding before training, so that nobody trains an LLM that cannot be decoded."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch

from signllava_cli.data.examples import ExampleBuilder
from signllava_cli.data.tasks import translation_instruction
from signllava_cli.errors import UserError, first_line
from signllava_cli.generation.decoding import decode_all, open_decoder
from signllava_cli.model.llm_mode import eval_mode
from signllava_cli.model.llm_parts import base_llm
from signllava_cli.model.loading import ModelBundle
from signllava_cli.recipe import Recipe

NUM_FRAMES = (2, 4)  # of the two clips, per stream
NUM_TOKENS = 2


def try_decoding(bundle: ModelBundle, recipe: Recipe) -> None:
    """Decode two tokens of two clips of zeros as `generate` would; the model is then as before.

    Under ZeRO-3 all ranks must call this together.

    Raises:
        UserError: the LLM cannot be decoded with the section `generate` of the recipe.
    """
    recipe = replace(recipe, generate=replace(recipe.generate, max_new_tokens=NUM_TOKENS, min_new_tokens=NUM_TOKENS))
    builder = ExampleBuilder(bundle.prompts, recipe.streams, recipe.data.max_seq_len, 1, recipe.context.prelude)
    instruction = translation_instruction(recipe.tasks)
    examples = []
    for length in NUM_FRAMES:
        streams = {name: np.zeros((length, stream.width), np.float16) for name, stream in recipe.streams.items()}
        examples.append(builder.build("preflight", streams, instruction, [], with_answer=False))
    llm = base_llm(bundle.model.llm)
    try:
        with eval_mode(bundle.model), _restored(bundle):
            decode_all(open_decoder(bundle, recipe), examples, len(examples))
    except (UserError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise UserError(
            f"llm.path: {type(llm).__name__} could be trained, but not decoded ({first_line(error)}); use another "
            "LLM."
        ) from error


@contextlib.contextmanager
def _restored(bundle: ModelBundle) -> Iterator[None]:
    """Undo after this block what a decoder changes: no gradients, another attention function.

    Deterministic algorithms are off inside: sampling sums probabilities, for which GPUs have none.
    """
    llm, trained = base_llm(bundle.model.llm), list(bundle.model.trainable_parameters().values())
    attention, is_deterministic = llm.config._attn_implementation, torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(False)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(is_deterministic)
        for parameter in trained:
            parameter.requires_grad_(True)
        llm.set_attn_implementation(attention)
