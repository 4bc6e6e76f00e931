"""A launch profile that contradicts the recipe is refused before anything is loaded, with all contradictions."""

import json
from pathlib import Path

import pytest

from signllava_cli.errors import UserError
from signllava_cli.recipe import read_recipe
from signllava_cli.training.accelerator import start_accelerator


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        (
            "ACCELERATE_MIXED_PRECISION",
            "fp16",
            "The profile sets mixed_precision: fp16, but the recipe sets llm.dtype: float32",
        ),
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4", "The profile sets gradient_accumulation_steps: 4, but"),
    ],
)
def test_a_profile_does_not_set_what_the_recipe_sets(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, message: str
) -> None:
    monkeypatch.setenv(variable, value)  # as `accelerate launch` does
    with pytest.raises(UserError) as refused:
        start_accelerator(read_recipe("toy/tiny_pretrain"))
    assert str(refused.value).startswith(message)


def test_all_contradictions_of_a_deepspeed_config_are_named_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = {
        "train_micro_batch_size_per_gpu": 1,
        "fp16": {"enabled": True},
        "optimizer": {"type": "Adam"},
        "gradient_accumulation_steps": 4,
        "gradient_clipping": 0.5,
        "zero_optimization": {"stage": 3, "offload_optimizer": {"device": "cpu"}},
    }
    (tmp_path / "ds.json").write_text(json.dumps(config))
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_CONFIG_FILE", str(tmp_path / "ds.json"))
    with pytest.raises(UserError) as refused:
        start_accelerator(read_recipe("toy/tiny_finetune", ["llm.bits=4", "llm.dtype=bfloat16"]))
    for contradiction in (
        "fp16 is enabled, but llm.dtype sets the precision: disable it",
        "`optimizer` is set, but the recipe's section train sets it: remove it",
        "gradient_accumulation_steps is 4, but train.batch_size and train.micro_batch_size set it: remove it",
        "gradient_clipping is 0.5, but train.max_grad_norm is 1.0: remove it",
        "offload_optimizer_device is set, but the optimizer state covers only the trained parameters",
        "ZeRO-3 cannot partition the quantized weights of llm.bits=4 over the ranks",
    ):
        assert contradiction in str(refused.value)
