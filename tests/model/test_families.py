"""Every architecture class against its own forward and its own `generate`, or refused before training.

The models are tiny and random (families.py). The dozen that differ most run in `make test`, the others as drills.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from families import FAMILIES, write_family
from torch.nn.functional import cross_entropy

from signllava_cli.data.batches import Batch, collate_examples
from signllava_cli.data.examples import Example, ExampleBuilder, Truncation
from signllava_cli.data.tasks import translation_instruction
from signllava_cli.errors import UserError
from signllava_cli.generation.decoding import decode_all, generate_batch, open_decoder
from signllava_cli.model.loading import ModelBundle, load_model_bundle
from signllava_cli.model.signllava_model import SignLlavaModel
from signllava_cli.recipe import Recipe, read_recipe

CPU = torch.device("cpu")
TYPICAL = [
    "llama",
    "qwen3_moe",
    "gemma2",
    "gemma3",
    "cohere2",
    "granite",
    "gpt_oss",
    "gpt2",
    "falcon_h1",
    "deepseek_v3",
    "minicpm3",
    "nanochat",
]
REFUSED = {"gemma3n": "per-layer inputs", "gemma4_per_layer": "from input embeddings alone"}

MadeOnce = Callable[[str, Callable[[Path], object]], Path]
RIGHT = [
    pytest.param(name, marks=[] if name in TYPICAL else [pytest.mark.drill])
    for name in FAMILIES
    if name not in REFUSED
]


@pytest.fixture
def folder_of(made_once: MadeOnce) -> Callable[[str], Path]:
    """The folder of a family, which is written once for all tests."""
    return lambda name: made_once(f"family_{name}", lambda folder: write_family(name, folder))


def family_recipe(folder: Path, *settings: str) -> Recipe:
    return read_recipe("toy/tiny_pretrain", [f"llm.path={folder}", "generate.max_new_tokens=8", *settings])


def make_examples(bundle: ModelBundle, recipe: Recipe, with_answer: bool) -> list[Example]:
    """Clips of different lengths with random frames."""
    builder = ExampleBuilder(bundle.prompts, recipe.data.max_seq_len, 1, 2)
    rng = np.random.default_rng(0)
    return [
        builder.build(
            f"recording/{clip}",
            {
                name: rng.normal(size=(length, stream.width)).astype("float16")
                for name, stream in recipe.streams.items()
            },
            translation_instruction(recipe.tasks, "The cat sits."),
            ["The cat sits."] * (clip % 2),
            with_answer=with_answer,
        )
        for clip, length in enumerate((9, 4, 14))
    ]


def make_batch(bundle: ModelBundle, recipe: Recipe) -> Batch:
    widths = {name: stream.width for name, stream in recipe.streams.items()}
    return collate_examples(make_examples(bundle, recipe, with_answer=True), widths, bundle.pad_id, "right")


def text_batch(ids: torch.Tensor) -> Batch:
    """A batch (B, L) without streams, in which every token but the first is a target."""
    indices = torch.arange(ids.numel()).view(ids.shape)[:, :-1]
    mask = torch.ones_like(ids)
    return Batch(("",), ids, mask, ids[:, 1:].flatten(), indices.flatten(), {}, Truncation())


def own_loss(bundle: ModelBundle, batch: Batch) -> torch.Tensor:
    """The loss of the class's own forward for the same input embeddings, on all its logits."""
    logits = bundle.model.llm(inputs_embeds=bundle.model.embed(batch), use_cache=False).logits
    return cross_entropy(logits.flatten(0, 1)[batch.logit_indices].float(), batch.targets, reduction="sum")


@pytest.mark.parametrize("name", RIGHT)
def test_the_loss_is_that_of_the_class(name: str, folder_of: Callable[[str], Path]) -> None:
    """Of text, given to the class as ids; and with frames, also the gradients of the projectors."""
    recipe = family_recipe(folder_of(name))
    bundle = load_model_bundle(recipe, CPU)
    ids = torch.randint(3, 280, (2, 30), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        loss, num_targets = SignLlavaModel(bundle.model.llm, {}, 0)(text_batch(ids))
        expected = bundle.model.llm(input_ids=ids, labels=ids, use_cache=False).loss
    torch.testing.assert_close(loss / num_targets, expected.float(), rtol=1e-5, atol=1e-5)
    batch, parameters = make_batch(bundle, recipe), list(bundle.model.projectors.parameters())
    loss, own = bundle.model(batch)[0], own_loss(bundle, batch)
    torch.testing.assert_close(loss, own, rtol=1e-5, atol=1e-5)
    gradients, expected_gradients = torch.autograd.grad(loss, parameters), torch.autograd.grad(own, parameters)
    torch.testing.assert_close(gradients, expected_gradients, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", RIGHT)
def test_hypotheses_are_those_of_generate(name: str, folder_of: Callable[[str], Path]) -> None:
    """Greedy and beam search of several clips together, against the class's `generate`, one clip at a time."""
    for settings in (["generate.num_beams=1"], ["generate.num_beams=3", "generate.num_return_sequences=3"]):
        recipe = family_recipe(folder_of(name), *settings)
        bundle = load_model_bundle(recipe, CPU)
        bundle.model.eval()
        examples = make_examples(bundle, recipe, with_answer=False)
        expected = [generate_batch(bundle, [example], recipe)[0] for example in examples]
        assert len({round(hypothesis.score, 3) for hypothesis in expected}) > 1
        for hypothesis, reference in zip(
            decode_all(open_decoder(bundle, recipe), examples, 4), expected, strict=True
        ):
            assert (hypothesis.text, hypothesis.finished) == (reference.text, reference.finished)
            assert hypothesis.score == pytest.approx(reference.score, abs=1e-4)
            assert [text for text, _ in hypothesis.n_best] == [text for text, _ in reference.n_best]


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_right_is_refused_in_one_line(name: str, folder_of: Callable[[str], Path]) -> None:
    with pytest.raises(UserError, match=REFUSED[name]) as refused:
        load_model_bundle(family_recipe(folder_of(name)), CPU)
    assert "\n" not in str(refused.value)
