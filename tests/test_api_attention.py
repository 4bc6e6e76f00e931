"""Which frames were read for which word: the parts of the attention, the words, the frames, and the picture."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import open_recipe_split
from transformers import AutoTokenizer

from signllava_cli import SignLlava
from signllava_cli.api.answer_attention import frame_spans, split_answer
from signllava_cli.api.inputs import InvalidInput, check_features
from signllava_cli.data.examples import ExampleBuilder
from signllava_cli.data.projector_inputs import projector_inputs
from signllava_cli.data.prompts import PromptBuilder
from signllava_cli.data.split import Split
from signllava_cli.data.tasks import translation_instruction
from signllava_cli.errors import UserError
from signllava_cli.model.checkpoint import checkpoint_recipe, find_checkpoint
from signllava_cli.plotting import save_chart
from signllava_cli.recipe import Recipe, read_recipe

CONTEXT = ["On Monday my sister visits the garden.", "She is happy."]


@pytest.fixture(scope="module")
def model(run: Path) -> SignLlava:
    return SignLlava.from_pretrained(run, num_beams=1, max_new_tokens=8)


@pytest.fixture(scope="module")
def split(run: Path) -> Split:
    return open_recipe_split(checkpoint_recipe(find_checkpoint(run), []), "dev")


def test_the_attention_is_assigned_to_streams_context_answer_and_instructions(model: SignLlava, split: Split) -> None:
    """The parts against transformers' own attentions of the prompt, with each part found by hand."""
    features, text = split.read(split.clips[0]), "The garden is big."
    attention = model.attention(features, text, CONTEXT)
    prompts, llm, bundle = model._bundle.prompts, model._bundle.model.llm, model._bundle.model
    answer = prompts.answer(text)
    with torch.no_grad():
        ids = [*prompts.before_streams]
        inputs, places = [bundle.llm_forward.embed(torch.tensor(ids))], {}
        for name, frames in features.items():
            projector: Any = bundle.projectors[name]
            first = sum(map(len, inputs))
            places[name] = range(first + 1, first + 1 + len(frames))
            embeddings = projector.embed_clip(torch.from_numpy(frames.copy()))
            inputs += [projector.boundary[:1], embeddings, projector.boundary[1:]]
        after, without = prompts.prompt(CONTEXT).after, prompts.prompt([]).after
        places["context"] = range(sum(map(len, inputs)), sum(map(len, inputs)) + len(after) - len(without))
        inputs.append(bundle.llm_forward.embed(torch.tensor([*after, *answer[:-1]])))
        sequence = torch.cat(inputs)[None]
        places["answer"] = range(sequence.shape[1] - len(answer) + 1, sequence.shape[1])
        original = llm.config._attn_implementation
        llm.set_attn_implementation("eager")
        layers = llm.model(inputs_embeds=sequence, output_attentions=True, use_cache=False).attentions
        llm.set_attn_implementation(original)
    expected = torch.stack(list(layers)).mean((0, 1, 2))[-len(answer) :].numpy()  # (A, L)
    words = split_answer(prompts, answer)
    assert (attention.words, words.words) == (("The", "garden", "is", "big."), attention.words)
    for word, indices in enumerate(words.token_indices):
        row = expected[list(indices)].mean(0)
        for name in features:
            np.testing.assert_allclose(attention.streams[name].weights[word], row[places[name]], atol=1e-5)
        assert attention.context[word] == pytest.approx(row[places["context"]].sum(), abs=1e-5)
        assert attention.answer[word] == pytest.approx(row[places["answer"]].sum(), abs=1e-5)
        assert sum(share[word] for share in attention.shares.values()) == pytest.approx(1, abs=1e-4)
    assert attention.context.min() > 0
    assert not model.attention(features, text).context.any()


def test_translations_after_it_are_as_before(model: SignLlava, split: Split) -> None:
    features = split.read(split.clips[3])
    translation = model.translate(features, CONTEXT)
    attention = model.attention(features, translation.text, translation.context)
    assert " ".join(attention.words) == translation.text
    assert model.translate(features, CONTEXT) == translation


@pytest.mark.parametrize(
    ("settings", "lengths"),
    [
        ([], {"left": 13, "right": 13, "sign2vec": 9}),
        (["streams.sign2vec.stride=2", "streams.sign2vec.stack=2"], {"sign2vec": 9}),
        (["streams.sign2vec.max_frames=4"], {"left": 13, "right": 11, "sign2vec": 9}),
        (["streams.left.stride=2", "streams.right.stride=2"], {"left": 40, "right": 43, "sign2vec": 5}),
        (["data.max_seq_len=75"], {"left": 60, "right": 60, "sign2vec": 50}),
        (
            ["streams.sign2vec.conv={kernel: 3, stride: 2, layers: 2}", "data.max_seq_len=75"],
            {"sign2vec": 170, "right": 60},
        ),
    ],
)
def test_frames_are_those_of_the_clip(settings: list[str], lengths: dict[str, int], tiny_llm: Path) -> None:
    """The frames that the projectors read are numbered in the clip; each embedding begins with one of them."""
    half = "{width: 1, join: halves, stack: 3}"
    streams = f"streams={{left: {half}, sign2vec: {{width: 1}}, right: {half}}}"
    recipe: Recipe = read_recipe("toy/tiny_pretrain", ["data.max_seq_len=500", streams, *settings])
    prompts = PromptBuilder(AutoTokenizer.from_pretrained(tiny_llm), recipe.tasks)
    builder = ExampleBuilder(prompts, recipe.streams, recipe.data.max_seq_len, 2, 0)
    numbers = {name: np.arange(length, dtype=np.float32)[:, None] for name, length in lengths.items()}
    checked = check_features(numbers, recipe.streams)
    assert all(len(checked[name]) <= -(-lengths[name] // recipe.streams[name].stride) for name in lengths)
    example = builder.build("r/c", checked, translation_instruction(recipe.tasks), [], with_answer=False)
    for name, frames in example.streams.items():
        projector_input = projector_inputs(recipe.streams)[name]
        first = next(stream for stream in projector_input.streams if stream in lengths)
        column = list(projector_input.streams).index(first)
        spans = frame_spans(lengths, recipe.streams, projector_input, len(frames))
        assert spans[0, 0] == 0
        assert spans[-1, 1] == lengths[first]
        assert all(one[1] == other[0] for one, other in pairwise(spans.tolist()))
        assert (np.diff(spans, axis=1) > 0).all()
        read = frames[:: projector_input.frames_per_embedding, column]
        assert spans[:, 0].tolist() == read.tolist()
        assert len(spans) == example.num_embeddings[name]
    if "data.max_seq_len=75" in settings:
        assert example.truncation.frames


def test_words_have_all_tokens_of_the_answer_once(tiny_llm: Path) -> None:
    prompts = PromptBuilder(AutoTokenizer.from_pretrained(tiny_llm), read_recipe("toy/tiny_pretrain").tasks)
    for text in ("It's  the garden,  isn't it?", "Ĝardeno", "我在 here 🙂🙂", " x "):
        answer = prompts.answer(text)
        words = split_answer(prompts, answer)
        indices = [index for group in words.token_indices for index in group]
        assert indices == list(range(len(indices)))
        assert len(answer) - 2 <= len(indices) <= len(answer) - 1  # the end of turn, and perhaps a space at the end
        assert all(words.token_indices)
        assert "".join(words.words) == "".join(text.split())
    assert split_answer(prompts, prompts.answer("It's the 我在")).words == ("It's", "the", "我", "在")


def test_frames_of_one_embedding_share_its_weight(model: SignLlava, split: Split) -> None:
    stream = model.attention(split.read(split.clips[0]), "The garden.").streams["mae"]
    merged = replace(stream, spans=np.stack([stream.spans[:, 0] * 2, stream.spans[:, 1] * 2], axis=1))
    assert merged.num_frames == 2 * stream.num_frames
    np.testing.assert_allclose(merged.frames[:, ::2] * 2, stream.weights)
    np.testing.assert_allclose(merged.frames.sum(1), stream.weights.sum(1), rtol=1e-5)
    first, end = merged.strongest_span(1)
    assert (first, end) == (2 * int(stream.weights[1].argmax()), first + 2)


def test_invalid_arguments_are_rejected(model: SignLlava, split: Split) -> None:
    features = split.read(split.clips[0])
    for text in ("", " \n", 5, "\ud800"):
        with pytest.raises(InvalidInput):
            model.attention(features, text)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="question"):
        model.attention(features, "Yes.", question="")
    with pytest.raises(UserError, match="no attention in layer 99"):
        model.attention(features, "Yes.", layers=[99])


def test_the_picture_has_a_heat_map_per_stream_and_the_shares(model: SignLlava, split: Split, tmp_path: Path) -> None:
    attention = model.attention(split.read(split.clips[0]), "The $garden is _big.", CONTEXT)
    figure = attention.plot()
    *maps, shares = figure.axes
    assert [axes.get_title(loc="left").partition(":")[0] for axes in maps] == list(attention.streams)
    for axes, stream in zip(maps, attention.streams.values(), strict=True):
        [mesh] = axes.collections
        np.testing.assert_allclose(np.asarray(mesh.get_array()), stream.weights)
        assert axes.get_xlim() == (0, stream.num_frames)
        assert [label.get_text() for label in axes.get_yticklabels()] == ["The", r"\$garden", "is", " _big."]
    bars: Any = shares.patches
    lengths, starts = (
        np.array([getattr(bar, edge)() for bar in bars]).reshape(-1, len(attention.words))
        for edge in ("get_width", "get_x")
    )
    np.testing.assert_allclose(lengths, list(attention.shares.values()))
    np.testing.assert_allclose(starts[1:], lengths.cumsum(0)[:-1], atol=1e-6)
    save_chart(figure, tmp_path / "attention.png")
    assert (tmp_path / "attention.png").stat().st_size > 10_000
