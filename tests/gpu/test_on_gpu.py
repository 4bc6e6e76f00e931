"""What must hold on a GPU: the results of the CPU, our KV cache, 4 bits, resuming, and no cuDNN attention."""

import json
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import Ended, open_recipe_split, sets, subprocess_command

from signllava_cli.recipe import Recipe, read_recipe

sys.path.append(str(Path(__file__).parent.parent.parent / "benchmarks"))  # the suite's own LLM and comparison

Command = Callable[..., Ended]
SHAPE = {
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 1024,
}
SHORT = ["train.max_steps=6", "train.save_steps=6", "train.eval_steps=6"]


def test_float32_gives_the_results_of_the_cpu(recipe: Recipe) -> None:
    import torch
    from gpu_checks import step_and_decode

    from signllava_cli.model.llm_forward import relative_difference

    loss, gradients, texts = step_and_decode(recipe, torch.device("cuda"))
    expected_loss, expected_gradients, expected_texts = step_and_decode(recipe, torch.device("cpu"))
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    assert gradients.keys() == expected_gradients.keys()
    for name, gradient in expected_gradients.items():
        assert relative_difference(gradients[name], gradient) < 1e-3, name
    assert texts == expected_texts


def test_bfloat16_loss_is_near_that_of_the_cpu(settings: list[str]) -> None:
    import torch
    from gpu_checks import step_and_decode

    on_gpu = read_recipe("toy/tiny_pretrain", [*settings, "llm.bits=16", "llm.dtype=bfloat16"])
    loss, *_ = step_and_decode(on_gpu, torch.device("cuda"))
    expected_loss, *_ = step_and_decode(read_recipe("toy/tiny_pretrain", settings), torch.device("cpu"))
    assert loss == pytest.approx(expected_loss, rel=0.02)


@pytest.mark.parametrize("bits", [16, 4])
def test_outliers_leave_our_kv_cache(settings: list[str], tiny_llm: Path, tmp_path: Path, bits: int) -> None:
    """Channels and a first token whose values are far larger than the others, as in real LLMs, in bfloat16."""
    import torch
    from gpu_run import llama_config, write_llm
    from transformers import AutoTokenizer

    from signllava_cli.generation.decoding import SharedPrefixDecoder, open_decoder
    from signllava_cli.model.loading import load_model_bundle

    device = torch.device("cuda")
    write_llm(tmp_path / "outliers", llama_config(SHAPE), AutoTokenizer.from_pretrained(tiny_llm), device)
    changed = [f"llm.path={tmp_path / 'outliers'}", f"llm.bits={bits}", "llm.dtype=bfloat16"]
    recipe = read_recipe("toy/tiny_pretrain", [*settings, *changed])
    bundle = load_model_bundle(recipe, device)
    bundle.model.eval()
    assert isinstance(open_decoder(bundle, recipe), SharedPrefixDecoder)


def test_finetune_in_4_bits_trains_and_generates(signllava: Command, settings: list[str], tmp_path: Path) -> None:
    changed = [*settings, *SHORT, "llm.dtype=bfloat16", "init.projector=null"]
    ended = signllava("finetune", "--recipe", "toy/tiny_finetune", *sets(changed))
    assert ended.code == 0, ended.err
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    norms = [line["gradient_norm"] for line in map(json.loads, lines) if "gradient_norm" in line]
    assert len(norms) == 6
    assert all(norm > 0 for norm in norms)
    out = tmp_path / "predictions"
    ended = signllava("generate", "--checkpoint", tmp_path / "run", "--split", "dev", "--out", out)
    assert ended.code == 0, ended.err


@pytest.fixture
def cudnn_enabled() -> Iterator[None]:
    """torch's own default, that cuDNN may compute attention, before and after the test."""
    import torch

    torch.backends.cuda.enable_cudnn_sdp(True)
    yield
    torch.backends.cuda.enable_cudnn_sdp(True)


@pytest.mark.usefixtures("cudnn_enabled")
def test_cudnn_attention_is_off_in_training_and_generation(
    signllava: Command, settings: list[str], tmp_path: Path
) -> None:
    """cuDNN makes a plan for every new shape, and shapes hardly repeat."""
    import torch

    bits = ["llm.bits=16", "llm.dtype=bfloat16"]
    ended = signllava("pretrain", "--recipe", "toy/tiny_pretrain", *sets([*settings, *SHORT, *bits]))
    assert ended.code == 0, ended.err
    assert not torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(True)
    out = tmp_path / "predictions"
    ended = signllava("generate", "--checkpoint", tmp_path / "run", "--split", "dev", "--out", out)
    assert ended.code == 0, ended.err
    assert not torch.backends.cuda.cudnn_sdp_enabled()


def test_a_stopped_run_resumes(settings: list[str], tmp_path: Path) -> None:
    """SIGTERM saves the state and ends with exit code 75; the same command goes on from there."""
    many = ["llm.bits=16", "llm.dtype=bfloat16", "train.max_steps=50000", "train.save_steps=50000"]
    words = ["pretrain", "--recipe", "toy/tiny_pretrain", *sets([*settings, *many, "train.eval_steps=50000"])]
    metrics, deadline = tmp_path / "run" / "metrics.jsonl", time.monotonic() + 90
    process = subprocess_command(*words)
    while not metrics.exists() or metrics.read_text().count("\n") < 3:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 75, output
    last = json.loads(metrics.read_text().splitlines()[-1])["step"]
    process = subprocess_command(*words, "--set", f"train.stop_at_step={last + 5}")
    output = process.communicate(timeout=90)[0]
    assert process.returncode == 75, output
    assert f"at step {last}" in output


def test_an_answer_and_its_attention_are_those_of_the_cpu(run: Path) -> None:
    import numpy as np
    import torch

    from signllava_cli import SignLlava
    from signllava_cli.model.checkpoint import checkpoint_recipe, find_checkpoint

    split = open_recipe_split(checkpoint_recipe(find_checkpoint(run), []), "dev")
    on_gpu, on_cpu = (SignLlava.from_pretrained(run, device=device, num_beams=3) for device in ("cuda", "cpu"))
    assert torch.device(on_gpu._bundle.device).type == "cuda"
    for clip in split.clips[:4]:
        features = split.read(clip)
        answer, expected = on_gpu.translate(features), on_cpu.translate(features)
        assert answer.text == expected.text
        assert answer.score == pytest.approx(expected.score, abs=1e-4)
        attention, expected_attention = (model.attention(features, clip.translation) for model in (on_gpu, on_cpu))
        assert attention.words == expected_attention.words
        for name, shares in expected_attention.shares.items():
            np.testing.assert_allclose(attention.shares[name], shares, atol=1e-4)
        for name, stream in expected_attention.streams.items():
            np.testing.assert_allclose(attention.streams[name].weights, stream.weights, atol=1e-4)


def test_vectors_of_an_image_backbone_are_near_those_of_the_cpu(tmp_path: Path) -> None:
    """In float16 on the GPU; the class token, whose values have a root mean square of 1."""
    import numpy as np
    import torch
    from transformers import Dinov2Config, Dinov2Model

    from signllava_cli.prepare.extract.dino_extractor import choose_device
    from signllava_cli.prepare.extract.image_backbone import ImageBackbone

    torch.manual_seed(0)
    config = Dinov2Config(hidden_size=64, num_hidden_layers=4, num_attention_heads=4, image_size=518)
    Dinov2Model(config).save_pretrained(tmp_path / "backbone")
    images = np.random.default_rng(0).integers(0, 256, (16, 224, 224, 3), np.uint8)
    on_gpu, on_cpu = (ImageBackbone(str(tmp_path / "backbone"), device) for device in (choose_device(), "cpu"))
    assert next(on_gpu.model.parameters()).is_cuda
    np.testing.assert_allclose(on_gpu.vectors(images), on_cpu.vectors(images), atol=0.02)
