"""The decoder against transformers' own generate, one clip at a time."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from slow_reference import gold_examples, open_builder, open_run

from signllava_cli.data.batches import collate_examples
from signllava_cli.data.tasks import translation_instruction
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
from signllava_cli.model.kv_cache import require_equal_decoding
from signllava_cli.model.llm_forward import divide_forward
from signllava_cli.model.prefix_cache import build_prefix_cache
from signllava_cli.recipe import Generate

PENALTIES = ["generate.repetition_penalty=1.3", "generate.no_repeat_ngram_size=2", "generate.min_new_tokens=3"]


def decode(run: Path, batch_size: int, *settings: str, num_clips: int = 12) -> list[Hypothesis]:
    """The hypotheses of the first clips, by our decoder."""
    recipe, bundle, split = open_run(run, *settings)
    decoder = open_decoder(bundle, recipe)
    assert isinstance(decoder, SharedPrefixDecoder)
    return decode_all(decoder, gold_examples(recipe, bundle, split, num_clips), batch_size)


@pytest.mark.parametrize(
    "settings",
    [
        ["generate.num_beams=1"],
        ["generate.num_beams=4", "generate.num_return_sequences=4"],
        ["generate.num_beams=4", "generate.length_penalty=-1"],
        ["generate.num_beams=3", "generate.length_penalty=2", "generate.num_return_sequences=2"],
        ["generate.num_beams=1", *PENALTIES],
        ["generate.num_beams=3", *PENALTIES],
    ],
)
def test_hypotheses_are_those_of_transformers_one_clip_at_a_time(run: Path, settings: list[str]) -> None:
    recipe, bundle, split = open_run(run, *settings)
    examples = gold_examples(recipe, bundle, split, 12)
    references = [generate_batch(bundle, [example], recipe)[0] for example in examples]
    assert len({reference.text for reference in references}) > 3
    for batch_size in (1, 3, 16):
        for hypothesis, reference in zip(decode(run, batch_size, *settings), references, strict=True):
            assert (hypothesis.text, hypothesis.finished) == (reference.text, reference.finished)
            assert hypothesis.score == pytest.approx(reference.score, abs=1e-4)
            assert [text for text, _ in hypothesis.n_best] == [text for text, _ in reference.n_best]
            scores = [score for _, score in reference.n_best]
            assert [score for _, score in hypothesis.n_best] == pytest.approx(scores, abs=1e-4)


@pytest.mark.parametrize("kind", ["LlamaConfig", "Qwen2Config", "Qwen3Config", "MistralConfig", "GPTNeoXConfig"])
def test_text_is_read_through_the_kv_cache_as_without_it(kind: str) -> None:
    """Also where several query heads share a key head. A wrong cache is noticed."""
    sizes: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 48, "vocab_size": 100}
    sizes |= {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "sliding_window": None}
    torch.manual_seed(0)
    llm = transformers.AutoModelForCausalLM.from_config(getattr(transformers, kind)(**sizes)).eval()
    forward = divide_forward(llm)
    prefix = build_prefix_cache(llm, forward, torch.arange(7), max_seq_len=64)
    require_equal_decoding(forward, prefix, 16)
    prefix.values[1] = prefix.values[1].roll(1, dims=2)
    assert not matches_uncached(llm, forward.decoder, prefix)


def matches_uncached(llm: Any, decoder: torch.nn.Module, prefix: Any) -> bool:
    text = llm.get_input_embeddings()(torch.arange(7, 20))[None]
    uncached = decoder(inputs_embeds=torch.cat([llm.get_input_embeddings()(torch.arange(7))[None], text], 1))
    cached = decoder(inputs_embeds=text, use_cache=False, **prefix.arguments(text))
    return torch.allclose(uncached.last_hidden_state[:, 7:], cached.last_hidden_state, atol=1e-5)


def test_a_sample_is_a_function_of_the_seed_and_the_clip(run: Path) -> None:
    settings = ["generate.temperature=0.9", "generate.num_return_sequences=3", "generate.seed=5"]
    alone, together = decode(run, 1, *settings), decode(run, 16, *settings)
    for one, other in zip(alone, together, strict=True):
        assert [text for text, _ in one.n_best] == [text for text, _ in other.n_best]
        assert one.score == max(score for _, score in one.n_best)
    other_seed = decode(run, 16, *settings[:2], "generate.seed=6")
    assert [hypothesis.text for hypothesis in other_seed] != [hypothesis.text for hypothesis in alone]


@pytest.mark.parametrize(("top_k", "top_p"), [(0, 1.0), (3, 1.0), (0, 0.7)])
def test_samples_follow_the_models_probabilities(top_k: int, top_p: float) -> None:
    """4,000 samples of five tokens against the softmax at this temperature, top-k and top-p: 5 standard errors."""
    count, temperature = 4000, 0.8
    logits = torch.tensor([2.0, 1.0, 0.5, 0.0, -1.0])
    settings = Generate(
        temperature=temperature, num_return_sequences=count, max_new_tokens=2, top_k=top_k, top_p=top_p
    )
    search = Search.init(SearchConfig(settings, end_of_turn=4), ["recording/clip"], torch.device("cpu"))
    search.advance(logits.expand(1, count, -1))
    frequencies = torch.bincount(search.tokens.flatten(), minlength=5) / count
    expected = (logits / temperature).softmax(-1)
    probabilities = expected.clone()
    if top_k:
        probabilities[top_k:] = 0
    if top_p < 1:
        probabilities[expected.cumsum(-1) - expected >= top_p] = 0
    probabilities /= probabilities.sum()
    standard_errors = (probabilities * (1 - probabilities) / count).sqrt()
    assert (frequencies[probabilities == 0] == 0).all()
    assert ((frequencies - probabilities).abs() <= 5 * standard_errors).all()


@pytest.mark.parametrize("beams", [1, 3])
def test_the_score_is_the_mean_log_probability_of_the_hypothesis(run: Path, beams: int) -> None:
    """Whatever penalties the search used: the score is that of the model."""
    settings = [f"generate.num_beams={beams}", "generate.max_new_tokens=40", "generate.repetition_penalty=1.1"]
    recipe, bundle, split = open_run(run, *settings)
    builder = open_builder(recipe, bundle)
    finished = [
        (clip, hypothesis)
        for clip, hypothesis in zip(split.clips, decode(run, 8, *settings), strict=False)
        if hypothesis.finished
    ]
    assert len(finished) > 3
    for clip, hypothesis in finished:
        instruction = translation_instruction(recipe.tasks, hypothesis.text)
        example = builder.build(clip.id, split.read(clip), instruction, split.gold_context(clip, 2, 2))
        with torch.no_grad():
            loss, targets = bundle.model(collate_examples([example], recipe.streams, bundle.pad_id, "right"))
        assert hypothesis.score == pytest.approx(-loss.item() / targets, abs=1e-4)


def test_mbr_chooses_the_text_most_similar_to_the_others() -> None:
    texts = ["a cat sat on the mat", "the cat sat on the mat", "the cat sat on a mat", "dogs bark"]
    for utility in ("chrf", "bleu"):
        assert texts[rank_by_agreement(texts, utility)[0]] == "the cat sat on the mat"
        assert rank_by_agreement(texts, utility)[-1] == 3
    assert rank_by_agreement(["rare", "twice", "twice"], "chrf")[0] == 1


def test_mbr_gives_the_same_hypotheses_in_another_order(run: Path) -> None:
    settings = ["generate.temperature=1", "generate.num_return_sequences=4"]
    plain, ranked = decode(run, 8, *settings), decode(run, 8, *settings, "generate.mbr=chrf")
    for one, other in zip(plain, ranked, strict=True):
        assert sorted(text for text, _ in one.n_best) == sorted(text for text, _ in other.n_best)
        assert other.text == other.n_best[0][0]
    assert [hypothesis.text for hypothesis in plain] != [hypothesis.text for hypothesis in ranked]


def test_a_score_below_abstain_withholds_the_text(run: Path) -> None:
    plain = decode(run, 8, "generate.num_beams=1")
    threshold = sorted(hypothesis.score for hypothesis in plain)[len(plain) // 2]
    withheld = decode(run, 8, "generate.num_beams=1", f"generate.abstain={threshold}")
    assert any(hypothesis.abstained for hypothesis in withheld)
    for hypothesis, reference in zip(withheld, plain, strict=True):
        is_withheld = reference.score < threshold
        expected = ("", reference.text) if is_withheld else (reference.text, None)
        assert (hypothesis.text, hypothesis.abstained) == expected


def test_an_llm_without_our_kv_cache_is_decoded_by_transformers(run: Path) -> None:
    settings = ["generate.num_beams=2", "llm.attn_implementation=eager"]
    recipe, bundle, split = open_run(run, *settings)
    decoder = open_decoder(bundle, recipe)
    assert isinstance(decoder, GenerateDecoder)
    examples = gold_examples(recipe, bundle, split, 6)
    by_transformers = [hypothesis.text for hypothesis in decode_all(decoder, examples, 4)]
    ours = decode(run, 4, "generate.num_beams=2", num_clips=6)
    assert by_transformers == [hypothesis.text for hypothesis in ours]
    recipe, bundle, _ = open_run(run, "llm.attn_implementation=eager", "generate.temperature=1")
    with pytest.raises(UserError, match="sampling is not possible"):
        open_decoder(bundle, recipe)


def test_hypotheses_do_not_depend_on_when_clips_are_admitted(run: Path) -> None:
    recipe, bundle, split = open_run(run, "generate.num_beams=2")
    examples = gold_examples(recipe, bundle, split, 14)
    expected = {example.id: generate_batch(bundle, [example], recipe)[0].text for example in examples}
    rng = np.random.default_rng(0)
    decoder, waiting, hypotheses = open_decoder(bundle, recipe), list(examples), dict[str, str]()
    while waiting or decoder.active:
        if waiting and rng.random() < 0.4:
            count = int(rng.integers(1, 4))
            decoder.admit(waiting[:count])
            del waiting[:count]
        hypotheses |= {example.id: hypothesis.text for example, hypothesis in decoder.step()}
    assert hypotheses == expected
