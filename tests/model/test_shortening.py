"""Projectors that shorten or join streams, compared with slow, simple references."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SHORTENINGS
from torch import Tensor, nn

from signllava_cli.data.batches import Batch, collate_examples
from signllava_cli.data.examples import Example, ExampleBuilder
from signllava_cli.data.expected_lengths import expected_lengths
from signllava_cli.data.projector_inputs import ProjectorInput
from signllava_cli.data.tasks import Instruction, translation_instruction
from signllava_cli.errors import UserError
from signllava_cli.model.checkpoint import PROJECTOR, CheckpointConfig, load_projectors, write_checkpoint
from signllava_cli.model.loading import ModelBundle, load_model_bundle
from signllava_cli.model.projector import JoinedNorm, Projector
from signllava_cli.prepare.indexing import open_split
from signllava_cli.recipe import Conv, Recipe, Stream, read_recipe

CPU = torch.device("cpu")
WIDTH, HIDDEN = 6, 16
CONFIGS = {
    "stack": Stream(width=WIDTH, stack=4),
    "conv": Stream(width=WIDTH, conv=Conv(kernel=4, stride=3, layers=2)),
    "conv without norms": Stream(width=WIDTH, conv=Conv(), normalize_input=False, normalize_output=False),
    "linear stack without norms": Stream(
        width=WIDTH, stack=3, projector="linear", normalize_input=False, normalize_output=False
    ),
}
LENGTHS = [5, 1, 12, 7]


def make_projector(streams: dict[str, Stream]) -> Projector:
    return Projector(ProjectorInput("x", streams), HIDDEN, 0.1, torch.Generator().manual_seed(0))


def embed_together(projector: Projector, clips: list[Tensor]) -> list[Tensor]:
    """The embeddings of each clip, computed in one batch."""
    counts = np.array([len(clip) for clip in clips])
    windows = [torch.from_numpy(indices) for indices in projector.input.window_indices(counts)]
    return list(projector.embed(torch.cat(clips), windows).split(projector.input.count_embeddings(counts).tolist()))


def slow_embeddings(projector: Projector, frames: Tensor) -> Tensor:
    """The embeddings of one clip, by torch's Conv1d or by padding and reshaping."""
    config = projector.input.config
    states = projector.norm_in(frames)
    if config.conv:
        for layer in projector.conv:
            assert isinstance(layer, nn.Linear)
            kernel, stride = config.conv.kernel, config.conv.stride
            weight = layer.weight.view(WIDTH, kernel, WIDTH).transpose(1, 2)  # (out, in, kernel)
            before = (kernel - 1) // 2
            padded = nn.functional.pad(states.T, (before, kernel))
            output = nn.functional.conv1d(padded[None], weight, layer.bias, stride)[0].T
            states = nn.functional.gelu(output[: -(-len(states) // stride)])
    else:
        padding = states.new_zeros(-len(states) % config.stack, WIDTH)
        states = torch.cat([states, padding]).reshape(-1, config.stack * WIDTH)
    return projector.norm_out(projector.layers(states))


def random_clips() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [2 + torch.randn(length, WIDTH, generator=generator) for length in LENGTHS]


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_the_embeddings_of_a_clip_are_the_same_alone_and_in_a_batch(config: Stream) -> None:
    projector, clips = make_projector({"x": config}), random_clips()
    for clip, together in zip(clips, embed_together(projector, clips), strict=True):
        torch.testing.assert_close(together, slow_embeddings(projector, clip), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(together, projector.embed_clip(clip), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_no_embedding_of_a_clip_reads_another_clip(config: Stream) -> None:
    """Every gradient of one clip's embeddings is zero at the frames of the others, and at none of its own."""
    projector = make_projector({"x": config})
    clips = [clip.requires_grad_() for clip in random_clips()]
    weights = torch.randn(HIDDEN, generator=torch.Generator().manual_seed(2))
    for index, embeddings in enumerate(embed_together(projector, clips)):
        gradients = torch.autograd.grad((embeddings @ weights).sum(), clips, retain_graph=True)
        for other, gradient in enumerate(gradients):
            assert bool((gradient.abs().sum(1) > 0).all()) == (other == index)
            assert bool((gradient == 0).all()) == (other != index)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_the_projector_of_a_stream_without_frames_has_zero_gradients(config: Stream) -> None:
    projector = make_projector({"x": config})
    windows = [torch.from_numpy(indices) for indices in projector.input.window_indices(np.zeros(0, np.int64))]
    output = projector(torch.zeros(0, WIDTH, dtype=torch.float16), windows, 0)
    assert output.shape == (0, HIDDEN)
    output.sum().backward()
    for name, parameter in projector.named_parameters():
        assert parameter.grad is not None, name
        assert not parameter.grad.any(), name


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_initial_embeddings_have_the_standard_deviation_of_the_table(config: Stream) -> None:
    frames = torch.randn(600, WIDTH, generator=torch.Generator().manual_seed(3))
    assert 0.7 < float(make_projector({"x": config}).embed_clip(frames).detach().std()) / 0.1 < 1.3


def test_each_joined_stream_has_its_own_norm() -> None:
    """So a stream of a large scale does not hide another one."""
    config = {"loud": Stream(width=4, join="x"), "quiet": Stream(width=2, join="x", normalize_input=False)}
    norm = make_projector(config).norm_in
    assert isinstance(norm, JoinedNorm)
    assert set(norm.state_dict()) == {"loud.weight", "loud.bias"}
    frames = torch.randn(5, 6) * torch.tensor([100.0] * 4 + [0.01] * 2)
    expected = torch.cat([nn.functional.layer_norm(frames[:, :4], (4,)), frames[:, 4:]], dim=1)
    torch.testing.assert_close(norm(frames), expected)


PLAIN: list[str] = []
STACK = ["streams.mae.stack=3"]
JOIN = ["streams={a: {width: 32, join: x}, b: {width: 32, join: x}}"]


@pytest.mark.parametrize(
    ("trained", "loaded", "message"),
    [
        (PLAIN, STACK, "mae was trained with stack=1, but this recipe has stack=3"),
        (STACK, PLAIN, "mae was trained with stack=3, but this recipe has stack=1"),
        (STACK, ["streams.mae.stack=2"], "mae was trained with stack=3, but this recipe has stack=2"),
        (["streams.mae.conv.stride=2"], ["streams.mae.conv.stride=3"], "'stride': 2.* has conv=.*'stride': 3"),
        (STACK, ["streams.mae.width=192"], "mae was trained with stack=3"),
        (JOIN, ["streams={b: {width: 32, join: x}, a: {width: 32, join: x}}"], r"join=\['a', 'b'\].*\['b', 'a'\]"),
        (["streams={x: {width: 64}}"], JOIN, r"x was trained with stack=1, but this recipe has join=\['a', 'b'\]"),
    ],
)
def test_a_checkpoint_is_refused_for_other_settings_also_of_the_same_shapes(
    settings: list[str], tmp_path: Path, trained: list[str], loaded: list[str], message: str
) -> None:
    recipe = read_recipe("toy/tiny_pretrain", [*settings, *trained])
    bundle = load_model_bundle(recipe, CPU)
    config = CheckpointConfig("pretrain", 0, bundle.llm_identity, bundle.prompts.turns, "data", {})
    weights = {name: weight.detach() for name, weight in bundle.model.trainable_parameters().items()}
    write_checkpoint(tmp_path, bundle.model, weights, config, recipe)
    load_projectors(bundle.model, tmp_path / PROJECTOR)
    other = load_model_bundle(read_recipe("toy/tiny_pretrain", [*settings, *loaded]), CPU).model
    with pytest.raises(UserError, match=message) as refused:
        load_projectors(other, tmp_path / PROJECTOR)
    assert "\n" not in str(refused.value)


def test_joined_halves_of_a_stream_give_the_loss_of_the_stream(settings: list[str], halved_corpus: Path) -> None:
    """Without the layer norm of the input, which is that of each half; numbers and weights are the same."""
    half = "{width: 32, join: mae, normalize_input: false}"
    halves = f"streams={{left: {half}, right: {half}}}"
    losses = []
    for streams in ("streams={mae: {width: 64, normalize_input: false}}", halves):
        recipe = read_recipe("toy/tiny_pretrain", [*settings, f"data.root={halved_corpus}", streams])
        bundle = load_model_bundle(recipe, CPU)
        examples = build_examples(recipe, bundle, 5)[1:]  # the first clip has a shorter half
        losses.append(bundle.model(collate_examples(examples, recipe.streams, bundle.pad_id, "right"))[0])
    assert torch.equal(*losses)


@pytest.fixture(params=SHORTENINGS)
def shortened(request: pytest.FixtureRequest, settings: list[str], halved_corpus: Path) -> Recipe:
    return read_recipe("toy/tiny_pretrain", [*settings, f"data.root={halved_corpus}", *SHORTENINGS[request.param]])


def build_examples(recipe: Recipe, bundle: ModelBundle, count: int) -> list[Example]:
    split = open_split(recipe.data, recipe.streams, "dev")
    builder = ExampleBuilder(bundle.prompts, recipe.streams, 256, recipe.data.min_frames, recipe.context.prelude)
    instructions = [translation_instruction(recipe.tasks, clip.translation) for clip in split.clips[:count]]
    return [
        builder.build(clip.id, split.read(clip), instruction, split.gold_context(clip, 2, 2))
        for clip, instruction in zip(split.clips[:count], instructions, strict=True)
    ]


def loss_and_gradients(bundle: ModelBundle, batches: list[Batch]) -> dict[str, Tensor]:
    """The summed loss, and the gradient of each trained parameter."""
    bundle.model.zero_grad()
    loss = torch.stack([bundle.model(batch)[0] for batch in batches]).sum()
    loss.backward()
    gradients = {name: weight.grad for name, weight in bundle.model.trainable_parameters().items()}
    assert all(gradient is not None and gradient.any() for gradient in gradients.values())
    return {
        "loss": loss.detach(),
        **{name: gradient.clone() for name, gradient in gradients.items() if gradient is not None},
    }


def test_loss_and_gradients_do_not_depend_on_the_batches(shortened: Recipe) -> None:
    bundle = load_model_bundle(shortened, CPU)
    examples = build_examples(shortened, bundle, 5)
    one_by_one = [collate_examples([example], shortened.streams, bundle.pad_id, "right") for example in examples]
    together = [collate_examples(examples, shortened.streams, bundle.pad_id, "right")]
    expected = loss_and_gradients(bundle, one_by_one)
    torch.testing.assert_close(loss_and_gradients(bundle, together), expected, rtol=1e-4, atol=1e-4)


def test_a_batch_has_an_index_for_every_embedding_and_padding_elsewhere(shortened: Recipe) -> None:
    bundle = load_model_bundle(shortened, CPU)
    examples = build_examples(shortened, bundle, 4)
    batch = collate_examples(examples, shortened.streams, bundle.pad_id, "right")
    rows = bundle.model.embed(batch).flatten(0, 1)
    flat_ids, is_stream = batch.input_ids.flatten(), torch.zeros(batch.input_ids.numel(), dtype=torch.bool)
    for name, stream in batch.streams.items():
        projector = bundle.model.projectors[name]
        assert isinstance(projector, Projector)
        expected = torch.cat([projector.embed_clip(torch.from_numpy(e.streams[name].copy())) for e in examples])
        torch.testing.assert_close(rows[stream.embedding_indices], expected, rtol=1e-4, atol=1e-5)
        for indices in (stream.embedding_indices, stream.start_indices, stream.end_indices):
            assert not is_stream[indices].any(), "each index belongs to one vector"
            is_stream[indices] = True
    assert (flat_ids[is_stream] == bundle.pad_id).all()
    words = batch.attention_mask.flatten().bool() & ~is_stream
    table = bundle.model.llm.get_input_embeddings()
    torch.testing.assert_close(rows[words], table(flat_ids[words]))
    assert batch.num_tokens == sum(example.seq_len - 1 for example in examples)


def test_the_embeddings_of_every_clip_are_known_from_the_index(shortened: Recipe) -> None:
    bundle = load_model_bundle(shortened, CPU)
    split = open_split(shortened.data, shortened.streams, "dev")
    counts = split.count_embeddings()
    examples = build_examples(shortened, bundle, len(split.clips))
    for clip, example in zip(split.clips, examples, strict=True):
        assert {name: int(each[clip.row]) for name, each in counts.items()} == example.num_embeddings
    plain = read_recipe("toy/tiny_pretrain", [f"data.root={shortened.data.root}", f"llm.path={shortened.llm.path}"])
    plain_split = open_split(plain.data, plain.streams, "dev")
    saved = sum(map(sum, plain_split.count_embeddings().values())) - sum(map(sum, counts.values()))
    saved_tokens = expected_lengths(plain_split, plain, bundle.prompts) - expected_lengths(
        split, shortened, bundle.prompts
    )
    assert saved_tokens.sum() == saved > 0


def test_truncation_removes_frames_until_the_embeddings_fit(shortened: Recipe) -> None:
    """Never below `min_frames`, and no more than needed."""
    bundle = load_model_bundle(shortened, CPU)
    split = open_split(shortened.data, shortened.streams, "dev")
    clip, min_frames = split.clips[0], 3
    instruction = Instruction("is_reversed", "Is the video played backwards?", "yes", is_reversed=True)
    streams = {name: np.concatenate([frames] * 5) for name, frames in split.read(clip).items()}

    def build(max_seq_len: int) -> Example:
        builder = ExampleBuilder(bundle.prompts, shortened.streams, max_seq_len, min_frames, 2)
        return builder.build(clip.id, streams, instruction, [])

    full = build(1000)
    assert not full.truncation
    for name, frames in full.streams.items():
        assert any(np.array_equal(frames[::-1, : each.shape[1]], each) for each in streams.values()), name
    shortest = sum(full.num_embeddings.values()) - 2 * len(full.num_embeddings)
    for excess in range(1, shortest - 6):
        example = build(full.seq_len - excess)
        assert full.seq_len - excess - len(example.streams) < example.seq_len <= full.seq_len - excess
        removed = sum(len(full.streams[name]) - len(frames) for name, frames in example.streams.items())
        assert example.truncation.frames == removed > 0
        for name, frames in example.streams.items():
            assert len(frames) >= min_frames
            assert np.array_equal(frames[[0, -1]], full.streams[name][[0, -1]])
