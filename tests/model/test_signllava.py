"""The model compared with slow, simple references."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.modeling_outputs import CausalLMOutput
from transformers.trainer_pt_utils import LabelSmoother

from signllava_cli.data.batches import Batch, collate_examples
from signllava_cli.data.examples import ExampleBuilder
from signllava_cli.data.projector_inputs import ProjectorInput
from signllava_cli.data.tasks import translation_instruction
from signllava_cli.model import loss as module
from signllava_cli.model.llm_parts import enable_activation_checkpointing
from signllava_cli.model.loading import ModelBundle, load_model_bundle
from signllava_cli.model.projector import Projector
from signllava_cli.model.signllava_model import SignLlavaModel
from signllava_cli.prepare.indexing import open_split
from signllava_cli.recipe import Recipe, Stream, read_recipe

CPU = torch.device("cpu")


@pytest.fixture
def bundle(recipe: Recipe) -> ModelBundle:
    return load_model_bundle(recipe, CPU)


def batch_of(recipe: Recipe, bundle: ModelBundle, size: int, omit_prefix: bool = False) -> Batch:
    split, builder = (
        open_split(recipe.data, recipe.streams, "dev"),
        ExampleBuilder(
            bundle.prompts, recipe.streams, recipe.data.max_seq_len, recipe.data.min_frames, recipe.context.prelude
        ),
    )
    examples = [
        builder.build(
            clip.id,
            split.read(clip),
            translation_instruction(recipe.tasks, clip.translation),
            split.gold_context(clip, 2, 2),
        )
        for clip in split.clips[:size]
    ]
    return collate_examples(examples, recipe.streams, bundle.pad_id, "right", omit_prefix)


def gradient(parameter: torch.Tensor) -> torch.Tensor:
    assert parameter.grad is not None
    return parameter.grad


def loss_and_gradients(
    model: SignLlavaModel, batch: Batch, smoothing: float
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    model.zero_grad()
    loss, _ = model(batch, smoothing)
    loss.backward()
    return loss.detach(), {name: gradient(weight).clone() for name, weight in model.trainable_parameters().items()}


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.3])
@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_loss_equals_full_logits_and_label_smoother(
    recipe: Recipe, bundle: ModelBundle, smoothing: float, size: int
) -> None:
    """Of Hugging Face, on all logits and with its shift of labels, at every batch size."""
    model, batch = bundle.model, batch_of(recipe, bundle, size)
    loss, targets = model(batch, label_smoothing=smoothing)
    logits = model.llm(inputs_embeds=model.embed(batch), attention_mask=batch.attention_mask).logits
    rows, length = batch.input_ids.shape
    full = torch.full((rows, length + 1), -100)  # the last target is no input: its index is after them
    for logit_index, target in zip(batch.logit_indices.tolist(), batch.targets.tolist(), strict=True):
        full[logit_index // length, logit_index % length + 1] = target
    padded = torch.cat([logits, logits[:, -1:]], dim=1)
    smoother = LabelSmoother(epsilon=smoothing)
    expected = smoother(CausalLMOutput(logits=padded), full, shift_labels=True)
    assert targets == len(batch.targets)
    torch.testing.assert_close(loss / targets, expected, rtol=1e-5, atol=1e-5)


def test_loss_does_not_depend_on_the_chunks(
    recipe: Recipe, bundle: ModelBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, batch = bundle.model, batch_of(recipe, bundle, 4)
    expected = loss_and_gradients(model, batch, 0.1)
    monkeypatch.setattr(module, "TARGETS_PER_CHUNK", 3)
    torch.testing.assert_close(loss_and_gradients(model, batch, 0.1), expected, rtol=1e-5, atol=1e-5)


def test_the_gradient_of_the_loss_equals_that_of_autograd(recipe: Recipe, bundle: ModelBundle) -> None:
    head = bundle.model.llm.get_output_embeddings()
    states = torch.randn(9, head.in_features, requires_grad=True)
    targets = torch.arange(9)
    logits = torch.nn.functional.cross_entropy(head(states), targets, label_smoothing=0.1, reduction="sum")
    (expected,) = torch.autograd.grad(3 * logits, states)
    (gradient,) = torch.autograd.grad(3 * module.summed_loss(head, states, targets, 0.1), states)
    torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-6)
    assert not module.summed_loss(head, states.detach(), targets, 0.1).requires_grad


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_prefix_cache_changes_neither_loss_nor_gradients(
    recipe: Recipe, bundle: ModelBundle, checkpointing: bool
) -> None:
    model = bundle.model.train()
    if checkpointing:
        enable_activation_checkpointing(model.llm)
    full, without_prefix = batch_of(recipe, bundle, 5), batch_of(recipe, bundle, 5, omit_prefix=True)
    expected = loss_and_gradients(model, full, 0.1)
    assert model.reuse_prefix(bundle.prompts.before_streams, 256)
    assert without_prefix.input_ids.shape[1] == full.input_ids.shape[1] - len(bundle.prompts.before_streams)
    torch.testing.assert_close(loss_and_gradients(model, without_prefix, 0.1), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(loss_and_gradients(model, full, 0.1), expected, rtol=1e-5, atol=1e-5)


def test_an_llm_with_an_adapter_has_no_prefix_cache(settings: list[str]) -> None:
    finetuned = load_model_bundle(read_recipe("toy/tiny_finetune", [*settings, "init.projector=null"]), CPU)
    assert not finetuned.model.reuse_prefix(finetuned.prompts.before_streams, 256)


@pytest.mark.parametrize("size", [2, 5])
def test_the_loss_of_a_batch_is_the_sum_over_its_clips(recipe: Recipe, bundle: ModelBundle, size: int) -> None:
    split, builder = (
        open_split(recipe.data, recipe.streams, "dev"),
        ExampleBuilder(
            bundle.prompts, recipe.streams, recipe.data.max_seq_len, recipe.data.min_frames, recipe.context.prelude
        ),
    )
    examples = [
        builder.build(clip.id, split.read(clip), translation_instruction(recipe.tasks, clip.translation), [])
        for clip in split.clips[:size]
    ]
    losses = [
        bundle.model(collate_examples([example], recipe.streams, bundle.pad_id, "right"))[0] for example in examples
    ]
    batch_loss, _ = bundle.model(collate_examples(examples, recipe.streams, bundle.pad_id, "right"))
    torch.testing.assert_close(batch_loss, torch.stack(losses).sum(), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("name", ["tiny_pretrain", "tiny_finetune"])
def test_exactly_the_trainable_parameters_have_gradients(name: str, settings: list[str]) -> None:
    recipe = read_recipe(f"toy/{name}", [*settings, "init.projector=null"])
    bundle = load_model_bundle(recipe, CPU)
    model = bundle.model.train()
    for _ in range(2):  # LoRA's A has a zero gradient while B is zero, so the first step changes B
        model.zero_grad()
        model(batch_of(recipe, bundle, 4))[0].backward()
        with torch.no_grad():
            for parameter in model.trainable_parameters().values():
                parameter.sub_(1e-3 * gradient(parameter))
    trainable = model.trainable_parameters()
    assert {n.split(".")[0] for n in trainable} == ({"projectors", "llm"} if recipe.lora.enabled else {"projectors"})
    assert set(trainable) >= {f"projectors.{n}" for n in model.projectors.state_dict()}
    for parameter_name, parameter in model.named_parameters():
        if parameter_name in trainable:
            assert parameter.dtype == torch.float32
            assert parameter.grad is not None, parameter_name
            assert parameter.grad.abs().sum() > 0, parameter_name
        else:
            assert parameter.grad is None, parameter_name
    if recipe.lora.enabled:
        assert all("lora_" in n for n in trainable if n.startswith("llm."))


def test_embeddings_contain_frames_and_both_boundary_vectors(recipe: Recipe, bundle: ModelBundle) -> None:
    model, batch = bundle.model, batch_of(recipe, bundle, 3)
    projector: Any
    rows = model.embed(batch).flatten(0, 1)
    for name, projector in model.projectors.items():
        stream = batch.streams[name]
        assert torch.equal(rows[stream.start_indices], projector.boundary[0].expand(3, -1))
        assert torch.equal(rows[stream.end_indices], projector.boundary[1].expand(3, -1))
        assert torch.equal(rows[stream.embedding_indices], projector.embed(stream.frames, stream.windows))


def test_the_projector_of_a_stream_without_frames_has_zero_gradients(recipe: Recipe, bundle: ModelBundle) -> None:
    split, builder = (
        open_split(recipe.data, recipe.streams, "dev"),
        ExampleBuilder(
            bundle.prompts, recipe.streams, recipe.data.max_seq_len, recipe.data.min_frames, recipe.context.prelude
        ),
    )
    clip = split.clips[0]
    streams = {"mae": split.read(clip)["mae"]}
    example = builder.build(clip.id, streams, translation_instruction(recipe.tasks, clip.translation), [])
    model = bundle.model
    model(collate_examples([example], recipe.streams, bundle.pad_id, "right"))[0].backward()
    for name, parameter in model.projectors["sign2vec"].named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() == 0
    assert gradient(model.projectors.get_parameter("mae.boundary")).abs().sum() > 0


@pytest.mark.parametrize("kind", ["linear", "mlp1x_gelu", "mlp2x_gelu", "mlp3x_gelu"])
@pytest.mark.parametrize("normalize_output", [False, True])
def test_initial_embeddings_have_the_standard_deviation_of_the_table(kind: str, normalize_output: bool) -> None:
    config = Stream(width=48, projector=kind, normalize_output=normalize_output)
    projector = Projector(ProjectorInput("mae", {"mae": config}), 192, 0.136, torch.Generator().manual_seed(0))
    frames = 5 + 3 * torch.randn(400, 48, generator=torch.Generator().manual_seed(1))
    assert 0.8 < float(projector.embed_clip(frames).detach().std()) / 0.136 < 1.2
    assert sum(isinstance(layer, torch.nn.Linear) for layer in projector.layers) == (
        1 if kind == "linear" else int(kind[3])
    )


def test_equal_seeds_give_equal_initial_projectors(recipe: Recipe, tiny_llm: Path) -> None:
    one, two = load_model_bundle(recipe, CPU).model, load_model_bundle(recipe, CPU).model
    for name, tensor in one.projectors.state_dict().items():
        assert torch.equal(tensor, two.projectors.state_dict()[name])
