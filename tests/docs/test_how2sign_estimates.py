"""The hours and the memory on docs/how2sign.md are those that `--estimate` prints today."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Ended
from doc_pages import ROOT

PAGE = (ROOT / "docs" / "how2sign.md").read_text()
LLAMA = {"num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128_256, "num_hidden_layers": 32}
LLAMA |= {"hidden_size": 4096, "intermediate_size": 14_336}  # of Llama-3-8B, as published


@pytest.mark.drill
@pytest.mark.timeout(1800)
def test_hours_and_memory_of_the_shipped_recipes(signllava: Callable[..., Ended], tmp_path: Path) -> None:
    from transformers import AutoConfig

    AutoConfig.for_model("llama", **LLAMA).save_pretrained(tmp_path / "llm")
    cells = []
    for stage in ("pretrain", "finetune"):
        words = ["--recipe", stage, "--estimate", "--gpu", "h100-80gb", "--json", "--set", f"llm.path={tmp_path}/llm"]
        ended = signllava(stage, *words, "--set", f"data.root={tmp_path}")
        assert ended.code == 0, ended.err
        estimate = json.loads(ended.out)
        stored, checkpointed = (each["peak"] / 2**30 for each in estimate["memory"])
        cells.append(f"{estimate['hours']:.1f} h, {stored:.1f} GiB")
        row = rf"^\| `{stage}`.* \| {estimate['hours']:.1f} hours \| {stored:.1f} GiB, or {checkpointed:.1f} with"
        assert re.search(row, PAGE, re.MULTILINE), row
    assert f"| Llama-3-8B | H100, 80 GB | {cells[0]} | {cells[1]} |" in PAGE
