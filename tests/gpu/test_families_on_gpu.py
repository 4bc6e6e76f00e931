"""Every architecture class on a GPU: results of the CPU in float32, and 4 bits, bfloat16 and compiled layers."""

import gc
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

sys.path.append(str(Path(__file__).parent.parent / "model"))
from families import FAMILIES, write_family
from family_checks import family_recipe, make_batch, make_examples

from signllava_cli.errors import UserError
from signllava_cli.generation.decoding import Hypothesis, decode_all, open_decoder
from signllava_cli.model.llm_parts import compile_layers
from signllava_cli.model.loading import ModelBundle, load_model_bundle
from signllava_cli.recipe import Recipe

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
REFUSED = {"gemma3n", "gemma4_per_layer"}
RIGHT = [name for name in FAMILIES if name not in REFUSED]


@pytest.fixture(autouse=True)
def without_tf32() -> Iterator[None]:
    """float32 products of 23 bits, and memory that is free for the next test."""
    allowed = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = allowed
    gc.collect()
    torch.cuda.empty_cache()


def open_in_eval_mode(recipe: Recipe, device: torch.device) -> ModelBundle:
    """Without dropout and jitter."""
    bundle = load_model_bundle(recipe, device)
    bundle.model.eval()
    return bundle


def loss_and_gradients(bundle: ModelBundle, recipe: Recipe) -> tuple[float, list[Tensor]]:
    """The loss of a batch, and its gradients of the projectors."""
    batch = make_batch(bundle, recipe).to(torch.device(bundle.device))
    loss, num_targets = bundle.model(batch)
    gradients = torch.autograd.grad(loss / num_targets, list(bundle.model.projectors.parameters()))
    return float(loss.detach()) / num_targets, [gradient.cpu() for gradient in gradients]


def assert_close(gradients: list[Tensor], expected_gradients: list[Tensor]) -> None:
    """Relative to the norm of each; both are 0 where no window of a layer reaches from the answer to the frames."""
    for gradient, expected in zip(gradients, expected_gradients, strict=True):
        assert float((gradient - expected).norm()) <= 1e-3 * float(expected.norm())


def hypotheses(bundle: ModelBundle, recipe: Recipe) -> list[Hypothesis]:
    examples = make_examples(bundle, recipe, with_answer=False)
    return list(decode_all(open_decoder(bundle, recipe), examples, len(examples)))


@pytest.mark.parametrize("name", RIGHT)
def test_float32_gives_the_results_of_the_cpu(name: str, tmp_path: Path) -> None:
    """The loss, the gradients of the projectors, and the hypotheses of beam search with their scores."""
    recipe = family_recipe(write_family(name, tmp_path / name), "generate.num_beams=3")
    on_gpu, on_cpu = (open_in_eval_mode(recipe, device) for device in (CUDA, CPU))
    loss, gradients = loss_and_gradients(on_gpu, recipe)
    expected_loss, expected_gradients = loss_and_gradients(on_cpu, recipe)
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    assert_close(gradients, expected_gradients)
    for hypothesis, reference in zip(hypotheses(on_gpu, recipe), hypotheses(on_cpu, recipe), strict=True):
        assert hypothesis.text == reference.text
        assert hypothesis.score == pytest.approx(reference.score, abs=1e-3)


@pytest.mark.parametrize("name", RIGHT)
def test_a_4_bit_llm_in_bfloat16_trains_and_decodes(name: str, tmp_path: Path) -> None:
    """The loss is near that of the CPU for the same 4-bit weights; what cannot be quantized is refused.

    Gradients are finite. They are not compared: of linear attention (Qwen3.5, Qwen3-Next), those of a tiny random LLM
    in bfloat16 differ from those in float32 by as much as their norm, on a CPU too.
    """
    recipe = family_recipe(write_family(name, tmp_path / name), "llm.bits=4", "llm.dtype=bfloat16")
    try:
        on_cpu = open_in_eval_mode(recipe, CPU)
    except UserError:
        with pytest.raises(UserError):
            load_model_bundle(recipe, CUDA)
        return
    on_gpu = open_in_eval_mode(recipe, CUDA)
    loss, gradients = loss_and_gradients(on_gpu, recipe)
    assert loss == pytest.approx(loss_and_gradients(on_cpu, recipe)[0], rel=0.05)
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert len(hypotheses(on_gpu, recipe)) == 3


@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma2", "gemma3", "gpt_oss", "granite", "phi3", "cohere2"])
def test_compiled_layers_have_the_gradients_of_the_others(name: str, tmp_path: Path) -> None:
    recipe = family_recipe(write_family(name, tmp_path / name))
    bundle = load_model_bundle(recipe, CUDA)
    bundle.model.train()
    expected_loss, expected_gradients = loss_and_gradients(bundle, recipe)
    compile_layers(bundle.model.llm)
    loss, gradients = loss_and_gradients(bundle, recipe)
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    assert_close(gradients, expected_gradients)
