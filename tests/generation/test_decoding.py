"""The decoder against transformers' own generate, one clip at a time."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from slow_reference import gold_examples, opened

from signllava_cli.data.batches import collate_examples
from signllava_cli.data.examples import ExampleBuilder
from signllava_cli.errors import UserError
from signllava_cli.generation.decoding import (
    GenerateDecoder,
    Hypothesis,
    SharedPrefixDecoder,
    decode_all,
    generate_batch,
    open_decoder,
)
from signllava_cli.generation.mbr import rank_by_agreement
from signllava_cli.generation.search import Search, SearchConfig
from signllava_cli.model.kv_cache import matches_reference
from signllava_cli.model.llm import decoder_and_head
from signllava_cli.model.prefix_cache import build_prefix_cache
from signllava_cli.recipe import Generate

STEERED = ["generate.repetition_penalty=1.3", "generate.no_repeat_ngram_size=2", "generate.min_new_tokens=3"]


def decoded(run: Path, size: int, *settings: str, clips: int = 12) -> list[Hypothesis]:
    """By the decoder, at most `size` clips at a time; in the order of the clips."""
    recipe, bundle, split = opened(run, *settings)
    decoder = open_decoder(bundle, recipe)
    assert isinstance(decoder, SharedPrefixDecoder)
    examples = gold_examples(recipe, bundle, split, clips)
    found = {example.clip.id: hypothesis for example, hypothesis in decode_all(decoder, examples, size)}
    return [found[example.clip.id] for example in examples]


@pytest.mark.parametrize(
    "settings",
    [
        ["generate.num_beams=1"],
        ["generate.num_beams=4", "generate.num_return_sequences=4"],
        ["generate.num_beams=4", "generate.length_penalty=-1"],
        ["generate.num_beams=3", "generate.length_penalty=2", "generate.num_return_sequences=2"],
        ["generate.num_beams=1", *STEERED],
        ["generate.num_beams=3", *STEERED],
    ],
)
def test_hypotheses_are_those_of_transformers_one_clip_at_a_time(run: Path, settings: list[str]) -> None:
    recipe, bundle, split = opened(run, *settings)
    expected = [generate_batch(bundle, [each], recipe)[0] for each in gold_examples(recipe, bundle, split, 12)]
    assert len({each.text for each in expected}) > 3
    for size in (1, 3, 16):
        ours = decoded(run, size, *settings)
        assert [(each.text, each.finished) for each in ours] == [(each.text, each.finished) for each in expected]
        assert [each.score for each in ours] == pytest.approx([each.score for each in expected], abs=1e-4)
        for mine, theirs in zip(ours, expected, strict=True):
            assert [text for text, _ in mine.n_best] == [text for text, _ in theirs.n_best]
            assert [score for _, score in mine.n_best] == pytest.approx([s for _, s in theirs.n_best], abs=1e-4)


@pytest.mark.parametrize("kind", ["LlamaConfig", "Qwen2Config", "Qwen3Config", "MistralConfig", "GPTNeoXConfig"])
def test_text_is_read_from_memory_as_in_one_piece(kind: str) -> None:
    """Also where several query heads share a key head. A wrong memory is noticed."""
    sizes: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 48, "vocab_size": 100}
    sizes |= {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "sliding_window": None}
    torch.manual_seed(0)
    llm = transformers.AutoModelForCausalLM.from_config(getattr(transformers, kind)(**sizes)).eval()
    decoder, _ = decoder_and_head(llm)
    prefix = build_prefix_cache(llm, decoder, torch.arange(7))
    assert prefix is not None
    assert matches_reference(llm, decoder, prefix)
    prefix.values[1] = prefix.values[1].roll(1, dims=2)
    assert not same_as_without(llm, decoder, prefix)


def same_as_without(llm: Any, decoder: torch.nn.Module, prefix: Any) -> bool:
    text = llm.get_input_embeddings()(torch.arange(7, 20))[None]
    whole = decoder(inputs_embeds=torch.cat([llm.get_input_embeddings()(torch.arange(7))[None], text], 1))
    behind = decoder(inputs_embeds=text, use_cache=False, **prefix.arguments(text))
    return torch.allclose(whole.last_hidden_state[:, 7:], behind.last_hidden_state, atol=1e-5)


def test_a_sample_is_a_function_of_the_seed_and_the_clip(run: Path) -> None:
    settings = ["generate.temperature=0.9", "generate.num_return_sequences=3", "generate.seed=5"]
    alone, together = decoded(run, 1, *settings), decoded(run, 16, *settings)
    assert [[text for text, _ in each.n_best] for each in alone] == [
        [text for text, _ in each.n_best] for each in together
    ]
    other = decoded(run, 16, *settings[:2], "generate.seed=6")
    assert [each.text for each in other] != [each.text for each in alone]
    assert all(each.score == max(score for _, score in each.n_best) for each in alone)


@pytest.mark.parametrize(("top_k", "top_p"), [(0, 1.0), (3, 1.0), (0, 0.7)])
def test_samples_are_drawn_with_the_models_probabilities(top_k: int, top_p: float) -> None:
    """4,000 draws among five tokens against the softmax at this temperature, cut as asked: to 5 standard errors."""
    count, temperature = 4000, 0.8
    logits = torch.tensor([2.0, 1.0, 0.5, 0.0, -1.0])
    settings = Generate(
        temperature=temperature, num_return_sequences=count, max_new_tokens=2, top_k=top_k, top_p=top_p
    )
    search = Search.init(SearchConfig(settings, end=4), ["recording/clip"], torch.device("cpu"))
    search.advance(logits.expand(1, count, -1))
    drawn = torch.bincount(search.tokens.flatten(), minlength=5) / count
    expected = (logits / temperature).softmax(-1)
    kept = expected.clone()
    if top_k:
        kept[top_k:] = 0
    if top_p < 1:
        kept[expected.cumsum(-1) - expected >= top_p] = 0
    kept /= kept.sum()
    errors = (kept * (1 - kept) / count).sqrt()
    assert (drawn[kept == 0] == 0).all()
    assert ((drawn - kept).abs() <= 5 * errors).all()


@pytest.mark.parametrize("beams", [1, 3])
def test_the_score_is_the_mean_log_probability_of_the_hypothesis(run: Path, beams: int) -> None:
    """Whatever penalties steered the search: as the model itself scores the text."""
    settings = [f"generate.num_beams={beams}", "generate.max_new_tokens=40", "generate.repetition_penalty=1.1"]
    recipe, bundle, split = opened(run, *settings)
    builder = ExampleBuilder(bundle.prompts, recipe.data.max_seq_len, recipe.data.min_frames, recipe.context.prelude)
    widths = {name: stream.width for name, stream in recipe.streams.items()}
    finished = [
        (clip, each) for clip, each in zip(split.clips, decoded(run, 8, *settings), strict=False) if each.finished
    ]
    assert len(finished) > 3
    for clip, hypothesis in finished:
        gold = split.gold_context(clip, 2, 2)
        example = builder.build(clip, split.read(clip), gold, hypothesis.text)
        with torch.no_grad():
            loss, targets = bundle.model(collate_examples([example], widths, bundle.pad_id, "right"))
        assert hypothesis.score == pytest.approx(-loss.item() / targets, abs=1e-4)


def test_mbr_chooses_what_the_others_agree_with() -> None:
    texts = ["a cat sat on the mat", "the cat sat on the mat", "the cat sat on a mat", "dogs bark"]
    for utility in ("chrf", "bleu"):
        assert texts[rank_by_agreement(texts, utility)[0]] == "the cat sat on the mat"
        assert rank_by_agreement(texts, utility)[-1] == 3
    assert rank_by_agreement(["rare", "twice", "twice"], "chrf")[0] == 1


def test_mbr_gives_the_same_hypotheses_in_another_order(run: Path) -> None:
    settings = ["generate.temperature=1", "generate.num_return_sequences=4"]
    plain, chosen = decoded(run, 8, *settings), decoded(run, 8, *settings, "generate.mbr=chrf")
    for one, other in zip(plain, chosen, strict=True):
        assert sorted(text for text, _ in one.n_best) == sorted(text for text, _ in other.n_best)
        assert other.text == other.n_best[0][0]
    assert [each.text for each in plain] != [each.text for each in chosen]


def test_an_llm_that_takes_no_memory_is_decoded_by_transformers(run: Path) -> None:
    settings = ["generate.num_beams=2", "llm.attn_implementation=eager"]
    recipe, bundle, split = opened(run, *settings)
    decoder = open_decoder(bundle, recipe)
    assert isinstance(decoder, GenerateDecoder)
    examples = gold_examples(recipe, bundle, split, 6)
    found = {example.clip.id: hypothesis.text for example, hypothesis in decode_all(decoder, examples, 4)}
    ours = decoded(run, 4, "generate.num_beams=2", clips=6)
    assert [found[example.clip.id] for example in examples] == [each.text for each in ours]
    recipe, bundle, _ = opened(run, "llm.attn_implementation=eager", "generate.temperature=1")
    with pytest.raises(UserError, match="sampling needs attention"):
        open_decoder(bundle, recipe)


def test_clips_of_all_lengths_come_and_go(run: Path) -> None:
    """However many are admitted at a time, at whichever step: the same hypotheses."""
    recipe, bundle, split = opened(run, "generate.num_beams=2")
    examples = gold_examples(recipe, bundle, split, 14)
    expected = {each.clip.id: generate_batch(bundle, [each], recipe)[0].text for each in examples}
    rng = np.random.default_rng(0)
    decoder, waiting, found = open_decoder(bundle, recipe), list(examples), dict[str, str]()
    while waiting or decoder.active:
        if waiting and rng.random() < 0.4:
            count = int(rng.integers(1, 4))
            decoder.admit(waiting[:count])
            del waiting[:count]
        found |= {example.clip.id: hypothesis.text for example, hypothesis in decoder.step()}
    assert found == expected
