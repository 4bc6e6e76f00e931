"""The forward pass of a causal LLM in three parts: token ids to input embeddings, decoder, hidden states to logits.

Frames enter between the first two parts, and few hidden states go through the last. Some classes do more than an
embedding table and an LM head: they scale embeddings, and scale or cap logits. Nothing about this is assumed:
`divide_forward` compares the parts with the forward pass of the class itself, and refuses an LLM where they differ.
"""

import contextlib
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from signllava_cli.errors import UserError, first_line
from signllava_cli.model.llm_mode import eval_mode
from signllava_cli.model.llm_parts import base_llm, inner_model, text_decoder
from signllava_cli.model.partitioning import gathered, gathered_by_module, is_partitioned

PROBE_TOKENS = 12  # tokens, and as many vectors that are none, whose logits are compared
TOLERANCE = 0.01  # relative RMS: the same operations in another order, in bfloat16


@dataclass(frozen=True)
class LLMForward:
    """The parts of a causal LLM's forward pass.

    `table`: module from token ids to vectors. `embedding_scale`: by which the class multiplies these vectors.
    `decoder`: module from `inputs_embeds` to `last_hidden_state`. `head`: module from hidden states (..., hidden) to
    logits (..., vocabulary). `num_tokens`: number of vectors in the table. `hidden`: width of input embeddings;
    `spread`: their standard deviation over all tokens.
    """

    table: nn.Module
    embedding_scale: float
    decoder: nn.Module
    head: nn.Module
    num_tokens: int
    hidden: int
    spread: float

    def embed(self, ids: Tensor) -> Tensor:
        """The input embeddings (..., hidden) of token ids (...)."""
        vectors: Tensor = self.table(ids)
        return vectors if self.embedding_scale == 1.0 else vectors * self.embedding_scale


class ClassHead(nn.Module):
    """From hidden states to logits as the class of the LLM does it, whatever it does.

    Calls the `forward` of the class on a copy of the LLM, which shares all modules but has a decoder that returns the
    given hidden states.
    """

    def __init__(self, causal_lm: Any) -> None:
        super().__init__()
        self.linear = causal_lm.get_output_embeddings()
        self.__dict__["causal_lm"] = causal_lm  # not registered: its parameters are not those of this module
        body = inner_model(causal_lm, causal_lm.get_input_embeddings())
        self.body_name = next(name for name, child in causal_lm.named_children() if child is body)

    def forward(self, states: Tensor) -> Tensor:
        """Logits (..., vocabulary) of hidden states (..., hidden)."""
        rows = states.reshape(1, -1, states.shape[-1])  # (1, N, hidden)
        llm = copy.copy(self.__dict__["causal_lm"])
        llm._modules = {**llm._modules, self.body_name: _KnownStates(llm._modules[self.body_name], rows)}
        # the method of the class: an instance may have a wrapper, which is bound to the original
        logits: Tensor = type(llm).forward(llm, inputs_embeds=rows, use_cache=False).logits
        return logits.reshape(*states.shape[:-1], -1)


class _KnownStates(nn.Module):
    """Stands for a decoder (for its attributes too), and returns known hidden states."""

    def __init__(self, body: nn.Module, states: Tensor) -> None:
        super().__init__()
        self.__dict__.update(body=body, output=_KnownOutput(states))

    def forward(self, *args: Any, **kwargs: Any) -> "_KnownOutput":
        output: _KnownOutput = self.__dict__["output"]
        return output

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["body"], name)


class _KnownOutput:
    """The output of a decoder that has hidden states and nothing else."""

    def __init__(self, states: Tensor) -> None:
        self.last_hidden_state = states

    def __getitem__(self, index: Any) -> Any:
        return (self.last_hidden_state,)[index]

    def __getattr__(self, name: str) -> None:
        return None


@torch.no_grad()
def divide_forward(llm: Any) -> LLMForward:
    """Divide the forward pass of a causal LLM (or a PeftModel of one) into parts, and compare them with the whole.

    All ranks must call this together: the weights may be partitioned.

    Raises:
        UserError: the parts give other logits than the LLM, or the class takes no input embeddings.
    """
    causal_lm, decoder = base_llm(llm), text_decoder(llm)
    table = causal_lm.get_input_embeddings()
    is_zero3 = is_partitioned(table.weight)
    refusal = f"llm.path: {type(causal_lm).__name__} does not compute logits" + (" under ZeRO-3" if is_zero3 else "")
    advice = "use ZeRO-2, or another LLM" if is_zero3 else "use another LLM, or other llm.bits"
    with gathered(table.weight):
        num_tokens = len(table.weight)
        rows = torch.linspace(0, num_tokens - 1, PROBE_TOKENS, device=table.weight.device).long()[None]  # (1, N)
        probed, std = table.weight[rows], float(table.weight.float().std())
    with eval_mode(causal_lm), gathered_by_module(causal_lm):
        vectors = table(rows)  # (1, N, hidden)
        with _refusing_errors(refusal, advice):
            expected = causal_lm(input_ids=rows, use_cache=False).logits
        with _refusing_errors(f"{refusal} from input embeddings alone", advice):
            embedding_scale = _find_scale(causal_lm, vectors, expected)
            words = vectors * embedding_scale
            head = _choose_head(causal_lm, decoder, words)
    spread = std * float(words.float().std() / probed.float().std())
    return LLMForward(table, embedding_scale, decoder, head, num_tokens, words.shape[-1], spread)


def _find_scale(causal_lm: Any, vectors: Tensor, expected: Tensor) -> float:
    """By what the class multiplies the `vectors` of tokens, whose logits are `expected` when it is given their ids.

    It is 1, or a number of the config that is named after it.
    """
    if not expected.isfinite().all():
        raise UserError(
            f"llm.path: the logits of {type(causal_lm).__name__} are not finite; check its weights and llm.dtype."
        )
    config = causal_lm.config.get_text_config().to_dict()
    names = [name for name in config if "emb" in name and ("mult" in name or "scal" in name)]
    for scale in (1.0, *(float(config[name]) for name in names if isinstance(config[name], int | float))):
        if nearly_equal(_logits(causal_lm, vectors * scale), expected):
            return scale
    raise UserError(
        f"llm.path: {type(causal_lm).__name__} computes more from token ids than input embeddings (such as per-layer "
        "inputs), which frames cannot have; use another LLM."
    )


def _choose_head(causal_lm: Any, decoder: nn.Module, words: Tensor) -> nn.Module:
    """The LM head if its logits are exactly those of the LLM, else the class's own way to logits.

    Compared for input embeddings of tokens, `words` (1, N, hidden), and as many random ones, as frames are.
    """
    noise = torch.randn(words.shape, generator=torch.Generator().manual_seed(0)).to(words)
    inputs = torch.cat([words, noise * words.float().std().to(words)], dim=1)  # (1, 2 N, hidden)
    expected = _logits(causal_lm, inputs)
    hidden = decoder(inputs_embeds=inputs, use_cache=False).last_hidden_state
    linear = causal_lm.get_output_embeddings()
    if linear is not None and torch.equal(linear(hidden).float(), expected.float()):
        return linear
    head = ClassHead(causal_lm)
    if not nearly_equal(head(hidden), expected):
        raise UserError(
            f"llm.path: the logits of {type(causal_lm).__name__} are not a function of its decoder's hidden states; "
            "use another LLM."
        )
    return head


def _logits(causal_lm: Any, embeddings: Tensor) -> Tensor:
    logits: Tensor = causal_lm(inputs_embeds=embeddings, use_cache=False).logits
    return logits


def nearly_equal(values: Tensor, expected: Tensor, tolerance: float = TOLERANCE) -> bool:
    """Whether both have one shape, and a relative difference of at most `tolerance`."""
    return values.shape == expected.shape and relative_difference(values, expected) <= tolerance


def relative_difference(values: Tensor, expected: Tensor) -> float:
    """The root mean square of the difference, divided by that of the expected values."""
    difference = (values.float() - expected.float()).pow(2).mean().sqrt()
    return float(difference / expected.float().pow(2).mean().sqrt())


@contextlib.contextmanager
def _refusing_errors(refusal: str, advice: str) -> Iterator[None]:
    """Turn the errors of a class into a UserError that begins with `refusal` and ends with `advice`."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, TypeError, AttributeError, LookupError, NotImplementedError) as error:
        raise UserError(f"{refusal} ({first_line(error)}); {advice}.") from error
