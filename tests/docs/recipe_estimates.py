"""The estimates in the first comment of a study recipe or variant, and the configs of the LLMs that they are of."""

import functools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from doc_pages import ROOT

GPU = "h100-80gb"
LLAMA = {"num_key_value_heads": 8, "vocab_size": 128_256, "head_dim": 128}
TIED = {"tie_word_embeddings": True}
# As published in the config.json of each LLM: the sizes that its parameters and FLOPs follow from.
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "meta-llama/Meta-Llama-3-8B-Instruct": (
        "llama",
        {"hidden_size": 4096, "intermediate_size": 14_336, "num_hidden_layers": 32, "num_attention_heads": 32}
        | LLAMA,
    ),
    "meta-llama/Llama-3.2-1B-Instruct": (
        "llama",
        {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32}
        | LLAMA
        | TIED
        | {"head_dim": 64},
    ),
    "meta-llama/Llama-3.2-3B-Instruct": (
        "llama",
        {"hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 28, "num_attention_heads": 24}
        | LLAMA
        | TIED,
    ),
    "Qwen/Qwen3-8B": (
        "qwen3",
        {"hidden_size": 4096, "intermediate_size": 12_288, "num_hidden_layers": 36, "num_attention_heads": 32}
        | LLAMA
        | {"vocab_size": 151_936, "tie_word_embeddings": False},
    ),
    "google/gemma-3-4b-it": (
        "gemma3",
        {
            "text_config": {
                "hidden_size": 2560,
                "intermediate_size": 10_240,
                "num_hidden_layers": 34,
                "num_attention_heads": 8,
                "num_key_value_heads": 4,
                "head_dim": 256,
                "vocab_size": 262_208,
                "sliding_window": 1024,
            },
            "vision_config": {
                "hidden_size": 1152,
                "intermediate_size": 4304,
                "num_hidden_layers": 27,
                "num_attention_heads": 16,
                "image_size": 896,
                "patch_size": 14,
                "vision_use_head": False,
            },
        },
    ),
}
# As published; of Gemma-3 with its vision tower.
PARAMETERS = {
    "meta-llama/Meta-Llama-3-8B-Instruct": 8_030_261_248,
    "meta-llama/Llama-3.2-1B-Instruct": 1_235_814_400,
    "meta-llama/Llama-3.2-3B-Instruct": 3_212_749_824,
    "Qwen/Qwen3-8B": 8_190_735_360,
    "google/gemma-3-4b-it": 4_300_079_472,
}


@dataclass(frozen=True)
class Stated:
    """What the first comment of a file says: the assumed clips and tokens, and the line of each recipe."""

    num_clips: int
    mean_len: int
    lines: dict[str, str]


HEAD = re.compile(r"^# Estimate for one H100 or H200, of ([\d,]+) clips of ([\d,]+) tokens", re.MULTILINE)
LINE = re.compile(r"^#   (\S+) takes (.* hours, .*)$", re.MULTILINE)


def read_estimates(file: Path) -> Stated:
    """The estimates that the comment of a recipe or a variant states."""
    comment = file.read_text(encoding="utf-8").partition("\n\n")[0]
    head = HEAD.search(comment)
    assert head, f"{file}: no line of its estimate"
    num_clips, mean_len = (int(number.replace(",", "")) for number in head.groups())
    return Stated(num_clips, mean_len, dict(LINE.findall(comment)))


def write_config(llm: str, folder: Path) -> Path:
    """The config.json of an LLM, and nothing else."""
    from transformers import AutoConfig

    model_type, sizes = CONFIGS[llm]
    AutoConfig.for_model(model_type, **sizes).save_pretrained(folder)
    return folder


def compute_line(recipe_name: str, llm: Path, num_clips: int) -> tuple[str, Any]:
    """The line of a recipe in such a comment, as `--estimate` has it without an index, and the estimate."""
    from signllava_cli.model.gpus import find_gpu
    from signllava_cli.prepare import workload
    from signllava_cli.recipe import read_recipe
    from signllava_cli.training import training_estimate

    recipe = read_recipe(recipe_name, [f"llm.path={llm}", f"data.root={llm}"])
    find = functools.partial(workload.find_workload, num_assumed=num_clips)
    original, training_estimate.find_workload = training_estimate.find_workload, find
    try:
        estimate = training_estimate.estimate_training(recipe, find_gpu(GPU), None)
    finally:
        training_estimate.find_workload = original
    stored, checkpointed = (memory.peak / 2**30 for memory in estimate.memory)
    return (
        f"{estimate.hours:.1f} hours, {stored:.1f} GiB ({checkpointed:.1f} with checkpointing), "
        f"{estimate.tokens_per_second:,.0f} tokens/s"
    ), estimate


STUDY_FILES = [
    *sorted((ROOT / "recipes" / "variants").glob("*.yaml")),
    *(ROOT / "recipes" / f"{stage}.yaml" for stage in ("pretrain", "finetune")),
]
