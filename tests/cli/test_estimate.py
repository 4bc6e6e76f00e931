"""`--estimate` of pretrain, finetune and generate: from the recipe and the config of the LLM alone."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Ended, sets

Command = Callable[..., Ended]
ROOT = Path(__file__).parents[2]
GIB = 2**30
LLAMA_3_8B = {"hidden_size": 4096, "intermediate_size": 14_336, "num_hidden_layers": 32}
LLAMA_3_2_1B = {
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "head_dim": 64,
    "tie_word_embeddings": True,
}


def write_config(folder: Path, sizes: dict[str, Any]) -> Path:
    """A folder with a config.json and nothing else."""
    from transformers import LlamaConfig

    heads = {"num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128_256}
    LlamaConfig(**heads, **sizes, architectures=["LlamaForCausalLM"]).save_pretrained(folder)
    return folder


def estimate(signllava: Command, stage: str, folder: Path, *words: object, **settings: object) -> dict[str, Any]:
    """The JSON object of an estimate for the shipped recipe of `stage` and the config in `folder`."""
    overrides = [f"llm.path={folder}", *(f"{key.replace('__', '.')}={value}" for key, value in settings.items())]
    ended = signllava(stage, "--recipe", stage, *sets(overrides), "--estimate", "--json", *words)
    assert ended.code == 0, ended.err
    result: dict[str, Any] = json.loads(ended.out)
    return result


@pytest.mark.drill
@pytest.mark.parametrize(("stage", "share"), [("pretrain", "a third more time"), ("finetune", "half more time")])
def test_the_shipped_recipes_fit_80_gb_and_say_what_they_take(
    stage: str, share: str, signllava: Command, tmp_path: Path
) -> None:
    result = estimate(signllava, stage, write_config(tmp_path / "llm", LLAMA_3_8B))
    assert result["gpu"] == "h100-80gb"
    assert result["llm_parameters"] == 8_030_261_248
    stored, checkpointed = result["memory"]
    assert (stored["gradient_checkpointing"], checkpointed["gradient_checkpointing"]) == (False, True)
    assert stored["fits"]
    assert checkpointed["peak"] < stored["peak"] < 0.8 * result["gpu_memory"]  # with the memory of several ranks
    text = (ROOT / "recipes" / f"{stage}.yaml").read_text()
    comment = re.search(r"gradient_checkpointing: false # takes (\d+) GiB .*; true: (\d+) GiB, and (.*)", text)
    assert comment, text
    assert [int(figure) for figure in comment.groups()[:2]] == [
        round(each["peak"] / GIB) for each in (stored, checkpointed)
    ]
    assert comment[3] == share
    more = result["recomputed_flops_per_token"] / result["flops_per_token"] - 1
    assert more == pytest.approx({"a third more time": 1 / 3, "half more time": 1 / 2}[share], abs=0.05)


@pytest.mark.drill
def test_the_largest_budget_fits_and_a_clip_more_does_not(signllava: Command, tmp_path: Path) -> None:
    llm = write_config(tmp_path / "llm", LLAMA_3_2_1B)
    for index in (0, 1):  # without and with gradient checkpointing
        first = estimate(signllava, "pretrain", llm, "--gpu", "rtx-4090-24gb", train__batch_size=10_000)
        budget = first["memory"][index]["max_tokens_per_batch"]
        assert budget > 2 * 2048
        for tokens, fits in ((budget, True), (budget + 2048, False)):
            settings = {"train__batch_size": 10_000, "train__max_tokens_per_batch": tokens}
            again = estimate(signllava, "pretrain", llm, "--gpu", "rtx-4090-24gb", **settings)
            assert again["batch_clips"] * again["batch_len"] == tokens
            assert again["memory"][index]["fits"] is fits
            assert again["memory"][index]["max_tokens_per_batch"] == budget


@pytest.mark.drill
def test_the_kinds_of_memory_add_up_to_the_peak(signllava: Command, tmp_path: Path) -> None:
    llm = write_config(tmp_path / "llm", LLAMA_3_2_1B)
    one, eight = (
        estimate(signllava, "finetune", llm, launch__num_processes=processes)["memory"][0] for processes in (1, 8)
    )
    for memory in (one, eight):
        kinds = ("llm", "trained", "gradients", "optimizer", "buckets", "prefix", "activations", "working")
        assert sum(memory[kind] for kind in kinds) == pytest.approx(memory["peak"])
        assert memory["optimizer"] == 2 * memory["gradients"] == 2 * memory["trained"]
    assert eight["peak"] - one["peak"] == eight["buckets"] == eight["gradients"]


@pytest.mark.drill
def test_an_estimate_reads_and_writes_nothing_else(signllava: Command, tmp_path: Path) -> None:
    """No weights, no dataset, no run folder; the assumptions are printed."""
    llm = write_config(tmp_path / "llm", LLAMA_3_2_1B)
    settings = [f"llm.path={llm}", f"data.root={tmp_path / 'data'}", f"run.output_dir={tmp_path / 'run'}"]
    ended = signllava("pretrain", "--recipe", "pretrain", *sets(settings), "--estimate", "--gpu", "24GiB")
    assert ended.code == 0, ended.err
    assert [path.name for path in tmp_path.iterdir()] == ["llm"]
    assert [path.name for path in llm.iterdir()] == ["config.json"]
    assert "Estimate for 24GiB" in ended.out
    assert "sequences: assumed: 31,000 clips of 1,000 tokens, the longest 2,048 (there is no index" in ended.out
    for row in ("activations", "AdamW's state", "prefix cache", "largest max_tokens_per_batch", "FLOPs per token"):
        assert row in ended.out
    assert re.search(r"hours, assumed\W+unknown", ended.out)  # the speed of such a GPU is unknown


@pytest.mark.drill
def test_an_estimate_takes_the_lengths_of_an_index(signllava: Command, settings: list[str], corpus: Path) -> None:
    assert signllava("prepare", "index", corpus, "--split", "train").code == 0
    common = ["pretrain", "-r", "toy/tiny_pretrain", *sets(settings), "--estimate", "--json"]
    random = json.loads(signllava(*common).out)
    assert random["workload"] == f"from the index of split train of {corpus}"
    assert random["num_steps"] == 6  # train.max_steps
    assert random["batch_clips"] == 4
    assert random["mean_len"] < random["batch_len"] <= 512
    grouped = json.loads(signllava(*common, *sets(["train.max_tokens_per_batch=400", "train.batch_size=16"])).out)
    assert grouped["batch_clips"] * grouped["batch_len"] <= 400
    assert 0 <= grouped["padding"] < random["padding"] < 0.6


@pytest.mark.drill
def test_an_estimate_of_generation(signllava: Command, run: Path, tmp_path: Path) -> None:
    common = ["generate", "--checkpoint", run, "--estimate", "--json"]
    toy = json.loads(signllava(*common).out)
    assert toy["fits"]
    assert toy["kv_bytes_per_token"] == 4 * 2 * 2 * 32 * 4  # layers, keys and values, heads, width, float32
    llm = write_config(tmp_path / "llm", LLAMA_3_8B)
    settings = [f"llm.path={llm}", "llm.bits=16", "llm.dtype=bfloat16", "data.max_seq_len=2048"]
    settings += ["generate.split=none", "generate.num_beams=5", "generate.max_new_tokens=100"]
    common += [*sets(settings), "--gpu", "h100-80gb", "--batch-size", "64"]
    bounded = json.loads(signllava(*common, *sets(["generate.max_tokens_per_batch=65536"])).out)
    assert (bounded["batch_clips"], bounded["prompt_len"]) == (65_536 // 2048, 1948)
    assert bounded["kv_bytes_per_token"] == 32 * 2 * 8 * 128 * 2
    memory = bounded["memory"]
    assert memory["prompt_kv"] == 32 * 1948 * bounded["kv_bytes_per_token"]
    assert memory["token_kv"] == pytest.approx(32 * 5 * 100 * bounded["kv_bytes_per_token"])  # of each beam
    assert bounded["fits"]
    most = bounded["max_batch_size"]
    for clips, fits in ((most, True), (most + 1, False)):
        again = json.loads(signllava(*common[:-1], str(clips), *sets(["generate.max_tokens_per_batch=null"])).out)
        assert (again["batch_clips"], again["fits"]) == (clips, fits)
    quantized = [*common, "--set", "llm.bits=4", "--set", "generate.max_tokens_per_batch=4096"]
    converted = json.loads(signllava(*quantized).out)["memory"]["llm"]
    stored = json.loads(signllava(*quantized, "--gpu", "16GiB").out)["memory"]["llm"]
    assert converted == pytest.approx(memory["llm"], rel=0.001)  # as in 16 bits, on a GPU with the memory for it
    assert stored < 0.4 * memory["llm"]
    ended = signllava(*(word for word in common if word != "--json"))
    assert ended.code == 0
    for row in ("KV cache of prompts", "KV cache of new tokens", "largest generate.batch_size"):
        assert row in ended.out
    assert not (run / "predictions").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--estimate", "--gpu", "h1000"], "--gpu h1000: unknown; use one of a100-40gb"),
        (["--estimate", "--gpu", "0GiB"], "--gpu 0GiB: unknown"),
        (["--gpu", "h100-80gb"], "--gpu has no effect without --estimate"),
        (["--estimate", "--set", "llm.path=/nowhere"], "llm.path: no folder at /nowhere"),
        (["--estimate", "--set", "lora.enabled=true"], "lora.enabled: pretrain trains projectors only"),
    ],
)
def test_bad_input_of_an_estimate_is_one_line(words: list[str], message: str, signllava: Command) -> None:
    ended = signllava("pretrain", "--recipe", "pretrain", *words)
    assert ended.code == 2
    assert message in ended.err
    assert len(ended.err.strip().splitlines()) == 1


def test_an_estimate_says_first_what_it_does(signllava: Command, tmp_path: Path) -> None:
    ended = signllava("pretrain", "--recipe", "pretrain", "--set", f"llm.path={tmp_path}", "--estimate")
    assert ended.code == 2  # the folder is no LLM
    assert ended.out.startswith("estimating pretrain on h100-80gb: counts the operations of a step")
