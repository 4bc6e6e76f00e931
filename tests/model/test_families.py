"""Every architecture class against its own forward and its own `generate`, or refused before training.

The models are tiny and random (families.py). Some that differ much run in `make test`, the others as drills.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import sets, subprocess_command
from families import FAMILIES, write_family
from family_checks import family_recipe, make_batch, make_examples, own_loss

from signllava_cli.data.batches import Batch
from signllava_cli.data.examples import Truncation
from signllava_cli.errors import UserError
from signllava_cli.generation.decoding import decode_all, generate_batch, open_decoder
from signllava_cli.generation.trial import try_decoding
from signllava_cli.model import attention
from signllava_cli.model.llm_parts import compile_layers, decoder_layers, enable_activation_checkpointing
from signllava_cli.model.loading import load_model_bundle
from signllava_cli.model.signllava_model import SignLlavaModel

pytestmark = pytest.mark.command
CPU = torch.device("cpu")
TYPICAL = [
    "llama",
    "gemma2",
    "gemma3",
    "granite",
    "gpt_oss",
    "gpt2",
    "deepseek_v3",
]
REFUSED = {"gemma3n": "per-layer inputs", "gemma4_per_layer": "from input embeddings alone"}

LORA_TARGETS = {
    "opt": "q_proj,v_proj",
    "gpt2": "c_attn",
    "seed_oss": "q_proj,v_proj",
    "falcon": "query_key_value",
    "phimoe": "q_proj,v_proj",
}

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


def text_batch(ids: torch.Tensor) -> Batch:
    """A batch (B, L) without streams, in which every token but the first is a target."""
    indices = torch.arange(ids.numel()).view(ids.shape)[:, :-1]
    mask = torch.ones_like(ids)
    return Batch(("",), ids, mask, ids[:, 1:].flatten(), indices.flatten(), {}, Truncation())


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


@pytest.mark.parametrize("name", ["mistral", "gemma3", "gpt_oss", "deepseek_v3"])
def test_a_prefix_cache_changes_neither_loss_nor_gradients(name: str, folder_of: Callable[[str], Path]) -> None:
    """Also where the text is longer than the window of a layer."""
    recipe = family_recipe(folder_of(name))
    bundle = load_model_bundle(recipe, CPU)
    model = bundle.model
    full, omitted = make_batch(bundle, recipe), make_batch(bundle, recipe, omit_prefix=True)
    parameters = list(model.projectors.parameters())
    expected = model(full)[0]
    assert model.reuse_prefix(bundle.prompts.before_streams, recipe.data.max_seq_len)
    assert len(bundle.prompts.before_streams) > 12
    loss = model(omitted)[0]
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    gradients, expected_gradients = torch.autograd.grad(loss, parameters), torch.autograd.grad(expected, parameters)
    torch.testing.assert_close(gradients, expected_gradients, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("settings", [["llm.bits=4"], ["llm.bits=8"], ["llm.bits=16", "llm.dtype=bfloat16"]])
@pytest.mark.parametrize("has_adapter", [False, True])
def test_the_loss_of_a_rounded_llm_is_that_of_the_class(
    settings: list[str], has_adapter: bool, folder_of: Callable[[str], Path]
) -> None:
    """Granite scales its logits by 4; the weights are the same rounded ones on both sides."""
    lora = ["lora.enabled=true", "lora.target_modules=[q_proj,v_proj]"] if has_adapter else []
    recipe = family_recipe(folder_of("granite"), "llm.dtype=bfloat16", *settings, *lora)
    bundle = load_model_bundle(recipe, CPU)
    batch = make_batch(bundle, recipe)
    with torch.no_grad():
        torch.testing.assert_close(bundle.model(batch)[0], own_loss(bundle, batch), rtol=1e-3, atol=1e-3)


def test_a_wrong_window_is_noticed(folder_of: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """One token more than the window; then no prefix cache is used, and the LLM is as before."""
    recipe = family_recipe(folder_of("gemma3"))
    bundle = load_model_bundle(recipe, CPU)
    right = attention.visible_keys

    def wrong(queries: torch.Tensor, keys: torch.Tensor, window: int | None) -> torch.Tensor:
        return right(queries, keys, None if window is None else window + 1)

    monkeypatch.setattr(attention, "visible_keys", wrong)
    assert not bundle.model.reuse_prefix(bundle.prompts.before_streams, recipe.data.max_seq_len)
    assert bundle.model.llm.config._attn_implementation == "sdpa"


def test_frames_are_as_loud_as_what_the_first_layer_receives_for_words(folder_of: Callable[[str], Path]) -> None:
    """Gemma multiplies embeddings by 8, the square root of its width, and Falcon-H1 by 5."""
    for name in ("llama", "gemma3", "minicpm3", "falcon_h1", "granite"):
        bundle = load_model_bundle(family_recipe(folder_of(name)), CPU)
        received: list[torch.Tensor] = []
        hook = decoder_layers(bundle.model.llm)[0].register_forward_pre_hook(
            lambda layer, args, kwargs, received=received: received.append(args[0]), with_kwargs=True
        )
        recipe = family_recipe(folder_of(name))
        batch = make_batch(bundle, recipe)
        bundle.model.llm(input_ids=torch.arange(3, 280)[None], use_cache=False)
        bundle.model(batch)
        hook.remove()
        words, sequence = received
        frames = sequence.flatten(0, 1)[batch.streams["mae"].embedding_indices]
        assert 0.7 < float(frames.std() / words.std()) < 1.4, name


@pytest.mark.parametrize("name", ["opt", "gpt2", "seed_oss", "falcon", "phimoe"])
@pytest.mark.parametrize("stage", ["pretrain", "finetune"])
def test_the_frozen_llm_has_no_dropout_and_recomputes_activations(
    name: str, stage: str, folder_of: Callable[[str], Path]
) -> None:
    """In training mode the loss is that of eval mode; only an adapter has dropout, its own."""
    settings = ["lora.enabled=true", "lora.lora_dropout=0.5", f"lora.target_modules=[{LORA_TARGETS[name]}]"]
    recipe = family_recipe(folder_of(name), *(settings if stage == "finetune" else []))
    bundle = load_model_bundle(recipe, CPU)
    model, batch = bundle.model, make_batch(bundle, recipe)
    expected = model.eval()(batch)[0]
    enable_activation_checkpointing(model.llm)
    calls: list[int] = []
    child = next(iter(decoder_layers(model.llm)[0].children()))
    child.register_forward_hook(lambda *_: calls.append(1))
    loss = model.train()(batch)[0]
    loss.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    assert len(calls) == 2
    if stage == "finetune":
        adapter = [weight for part, weight in model.named_parameters() if "lora_B" in part]
        with torch.no_grad():
            for weight in adapter:
                weight.normal_(std=0.1)
        assert model(batch)[0] != model(batch)[0]
        assert model.eval()(batch)[0] == model(batch)[0]


@pytest.mark.parametrize("name", ["bloom", "opt"])
def test_layers_are_compiled_wherever_a_class_has_them(
    name: str, folder_of: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[torch.nn.Module] = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module, **_: compiled.append(module))
    llm = load_model_bundle(family_recipe(folder_of(name)), CPU).model.llm
    compile_layers(llm)
    assert len(compiled) == llm.config.num_hidden_layers


def test_a_pad_id_that_the_llm_lacks_is_not_used(folder_of: Callable[[str], Path]) -> None:
    bundle = load_model_bundle(family_recipe(folder_of("llama")), CPU)
    bundle.prompts.tokenizer.add_special_tokens({"pad_token": "<|new|>"})
    bundle.prompts.tokenizer.pad_token_id = 512
    assert bundle.pad_id == bundle.prompts.end_of_turn


def test_what_cannot_be_decoded_is_refused_before_training(
    folder_of: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = family_recipe(folder_of("lfm2"))
    bundle = load_model_bundle(recipe, CPU)
    trained, attention_name = set(bundle.model.trainable_parameters()), bundle.model.llm.config._attn_implementation
    try_decoding(bundle, recipe)
    assert set(bundle.model.trainable_parameters()) == trained
    assert bundle.model.llm.config._attn_implementation == attention_name

    def broken(*args: object, **kwargs: object) -> None:
        raise RuntimeError("shape mismatch\nin many lines")

    monkeypatch.setattr(type(bundle.model.llm), "generate", broken)
    with pytest.raises(UserError, match=r"Lfm2ForCausalLM could be trained, but not decoded .shape m") as refused:
        try_decoding(bundle, recipe)
    assert "\n" not in str(refused.value)


def test_the_reason_why_an_llm_does_not_sample_is_named(folder_of: Callable[[str], Path]) -> None:
    """An LLM that our KV cache cannot serve does not sample; the message does not advise what is already set."""
    recipe = family_recipe(folder_of("lfm2"), "generate.temperature=0.5")
    with pytest.raises(UserError, match="Lfm2ForCausalLM has layers without attention"):
        open_decoder(load_model_bundle(recipe, CPU), recipe)
    recipe = family_recipe(folder_of("llama"), "generate.temperature=0.5", "llm.attn_implementation=eager")
    with pytest.raises(UserError, match="is eager; set it to sdpa"):
        open_decoder(load_model_bundle(recipe, CPU), recipe)


@pytest.mark.drill
def test_the_table_of_the_docs_is_current() -> None:
    """The script that makes it fills every row again."""
    script = Path(__file__).parents[2] / "benchmarks" / "llms.py"
    ended = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    page = (Path(__file__).parents[2] / "docs" / "llms.md").read_text()
    table = [line for line in page.splitlines() if line.startswith("| ")]
    assert [line for line in ended.stdout.splitlines() if line.startswith("| ")] == table


@pytest.mark.parametrize("name", ["granite", "nanochat"])
def test_a_class_is_trained_and_decoded_by_the_commands(
    name: str, signllava: Callable[..., Any], folder_of: Callable[[str], Path], corpus: Path, tmp_path: Path
) -> None:
    """From the first step to predictions: a class that scales logits, and one whose norms have no weights."""
    settings = [f"llm.path={folder_of(name)}", f"data.root={corpus}", f"run.output_dir={tmp_path / 'run'}"]
    settings += ["train.max_steps=2", "train.eval_steps=2", "train.save_steps=2", "generate.max_new_tokens=3"]
    ended = signllava("pretrain", "--recipe", "toy/tiny_pretrain", *sets(settings))
    assert ended.code == 0, ended.err
    ended = signllava("generate", "-c", tmp_path / "run", "--split", "dev", "--set", "generate.num_beams=2")
    assert ended.code == 0, ended.err


def test_a_class_that_is_refused_ends_the_command_with_one_line(
    signllava: Callable[..., Any], folder_of: Callable[[str], Path], corpus: Path, tmp_path: Path
) -> None:
    settings = [f"llm.path={folder_of('gemma3n')}", f"data.root={corpus}", f"run.output_dir={tmp_path / 'run'}"]
    ended = signllava("pretrain", "--recipe", "toy/tiny_pretrain", *sets(settings))
    assert ended.code == 2
    assert ended.err.startswith("error: llm.path: Gemma3nForCausalLM computes more from token ids")
    assert ended.err.count("\n") == 1


@pytest.mark.drill
@pytest.mark.parametrize("name", ["granite", "gemma3"])
def test_partitioned_weights_give_the_losses_of_whole_ones(
    name: str, folder_of: Callable[[str], Path], corpus: Path, tmp_path: Path
) -> None:
    """Under ZeRO-3 all ranks compare the parts of the forward pass, with the weights of one layer at a time."""
    losses = []
    for run_name, launch in (("whole", []), ("partitioned", ["--launch", "zero3_cpu", "--num-processes", "2"])):
        settings = [f"llm.path={folder_of(name)}", f"data.root={corpus}", f"run.output_dir={tmp_path / run_name}"]
        settings += ["train.max_steps=2", "train.eval_steps=2", "train.save_steps=2", "track.logging_steps=1"]
        process = subprocess_command("pretrain", "--recipe", "toy/tiny_pretrain", *launch, *sets(settings))
        output, _ = process.communicate()
        assert process.returncode == 0, output
        rows = [json.loads(line) for line in (tmp_path / run_name / "metrics.jsonl").read_text().splitlines()]
        losses.append([row[key] for row in rows for key in ("loss", "dev_loss") if key in row])
    assert len(losses[0]) == 3
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
