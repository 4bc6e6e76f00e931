"""`benchmarks/gpu.py` on a tiny LLM without a GPU, so that it runs when a GPU is at hand."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parent.parent
sys.path.append(str(ROOT / "benchmarks"))
pytestmark = pytest.mark.command
SKIPPED = {"recipes", "sdpa", "commands", "ranks"}  # need a GPU, or take minutes


@pytest.mark.drill
def test_every_stage_measures(tmp_path: Path) -> None:
    out = tmp_path / "gpu.jsonl"
    words = ["--tiny", "--device", "cpu", "--in-process", "--seconds", "300", "--out", str(out)]
    ended = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), *words], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    records = [json.loads(line) for line in out.read_text().splitlines()]
    assert not [record for record in records if "error" in record]
    stages = ["limits", "setup", "decode-bf16", "train-bf16", "train-nf4", "decode-nf4", "parity"]
    assert [stage for stage in dict.fromkeys(record["stage"] for record in records) if stage not in SKIPPED] == stages
    assert {record["stage"] for record in records if "skipped" in record} == SKIPPED
    speeds = [record["tokens_per_second"] for record in records if "tokens_per_second" in record]
    assert len(speeds) == 5
    assert all(speed > 0 for speed in speeds)
    assert all(record["is_finite"] for record in records if "is_finite" in record)
    steps = [record for record in records if "step_ms" in record]
    assert [(record["decoder"], record["steps"]) for record in steps] == [("SharedPrefixDecoder", 2)] * 2
    assert all(0 < record["memory_bound_ms"] < record["step_ms"] for record in steps)


@pytest.mark.drill
@pytest.mark.parametrize("lora", [False, True])
def test_model_flops_are_those_that_torch_counts(tmp_path: Path, lora: bool) -> None:
    """Linear layers forward and backward: with an adapter, and with gradients of the input alone."""
    from gpu_run import Run, make_recipe, open_examples, write_llm_and_corpus
    from gpu_train import training_flops
    from torch.utils.flop_counter import FlopCounterMode

    from signllava_cli.data.batches import training_collator
    from signllava_cli.model.loading import load_model_bundle

    run = Run("test", torch.device("cpu"), True, False, tmp_path, tmp_path / "out.jsonl", time.time() + 600)
    write_llm_and_corpus(run)
    recipe = make_recipe(run, 16, lora)
    bundle = load_model_bundle(recipe, run.device)
    model = bundle.model.train()
    batch = training_collator(recipe, bundle.pad_id)([open_examples(bundle, recipe)[0]])
    with FlopCounterMode(display=False) as counter:
        hidden = model.llm_forward.decoder(inputs_embeds=model.embed(batch), use_cache=False).last_hidden_state
        hidden.sum().backward()
    counts = counter.get_flop_counts()["Global"]
    counted = sum(count for operator, count in counts.items() if "attention" not in str(operator))
    length, targets = batch.attention_mask.numel(), len(batch.targets)
    attention = 12 * 64 * 2 * length * (length + 1) / 2
    head, projectors = 4 * 64 * 1024 * targets, projector_flops(model, batch)
    assert training_flops(model.llm, batch) - attention - head + projectors == pytest.approx(counted, rel=1e-3)


def projector_flops(model: Any, batch: Any) -> int:
    """Forward, and the gradients of weights and inputs; the input of the first layer is that of a norm."""
    linear = {
        name: [module for module in projector.modules() if isinstance(module, torch.nn.Linear)]
        for name, projector in model.projectors.items()
    }
    return sum(
        6 * len(batch.streams[name].frames) * module.weight.numel()
        for name, modules in linear.items()
        for module in modules
    )
