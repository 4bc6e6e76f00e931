"""An adapter of experts, which are parameters, is merged as exactly as that of linear layers."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import Ended, sets
from families import write_family
from transformers import AutoModelForCausalLM

from signllava_cli.model.checkpoint import checkpoint_recipe, find_checkpoint
from signllava_cli.model.loading import load_checkpoint_bundle

CPU = torch.device("cpu")
EXPERTS = "lora.target_parameters=[experts.gate_up_proj,experts.down_proj]"
EAGER = "llm.attn_implementation=eager"


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("mixtral", []),
        ("gpt_oss", [EXPERTS, EAGER]),
        pytest.param("qwen3_moe", [], marks=pytest.mark.drill),
        pytest.param("deepseek_v3", [], marks=pytest.mark.drill),
        pytest.param("granitemoe", [EXPERTS], marks=pytest.mark.drill),
    ],
)
def test_a_merged_mixture_of_experts_has_the_logits_of_llm_and_adapter(
    family: str, settings: list[str], signllava: Callable[..., Ended], corpus: Path, tmp_path: Path
) -> None:
    run, out = tmp_path / "run", tmp_path / "merged"
    train = ["max_steps=3", "batch_size=4", "micro_batch_size=4", "preflight=false", "learning_rate=0.05"]
    common = [f"llm.path={write_family(family, tmp_path / 'llm')}", f"data.root={corpus}", f"run.output_dir={run}"]
    common += ["init.projector=null", "llm.bits=32", "llm.dtype=float32", "lora.lora_dropout=0", *settings]
    common += [*(f"train.{setting}" for setting in train), "train.warmup_ratio=0", "train.save_steps=3"]
    ended = signllava("finetune", "-r", "toy/tiny_finetune", *sets(common))
    assert ended.code == 0, ended.err
    ended = signllava("checkpoint", "merge", run, "--out", out, "--dtype", "float32")
    assert ended.code == 0, ended.err
    checkpoint = find_checkpoint(run)
    llm = load_checkpoint_bundle(checkpoint, checkpoint_recipe(checkpoint, []), CPU).model.llm
    ids = torch.randint(3, 200, (2, 16), generator=torch.Generator().manual_seed(0))
    merged = AutoModelForCausalLM.from_pretrained(out / "llm", dtype=torch.float32)
    bundle = load_checkpoint_bundle(find_checkpoint(out), checkpoint_recipe(find_checkpoint(out), []), CPU)
    with torch.no_grad():
        expected = llm(ids).logits
        with llm.disable_adapter():
            assert not torch.allclose(llm(ids).logits, expected, rtol=1e-2, atol=1e-2)
        for other in (merged, bundle.model.llm):
            torch.testing.assert_close(other(ids).logits, expected, rtol=1e-3, atol=1e-3)
