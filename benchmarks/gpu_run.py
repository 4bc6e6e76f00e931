"""What the stages of gpu.py share: the sizes, the run of one stage, and the LLM, the corpus and the recipes."""

import gc
import json
import resource
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from train import write_corpus
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from signllava_cli.data.examples import ExampleBuilder
from signllava_cli.data.training_set import TrainingSet
from signllava_cli.model.loading import ModelBundle
from signllava_cli.model.tiny_llm import save_tiny_llm
from signllava_cli.prepare.indexing import open_split
from signllava_cli.recipe import Recipe, build_recipe

BEGIN_TOKEN = 1  # of the tiny LLM's tokenizer: the first token of every prompt
OUTLIER_FACTOR, LOUD_FACTOR = 30, 500
Values = dict[str, Any]


@dataclass(frozen=True)
class Size:
    """The sizes of a run: `llm` of the LLM's config, `widths` of the streams, `num_frames` of a clip's stream in the
    median, `budgets` in tokens of a micro-batch, `clips` decoded together, and how often things are measured."""

    llm: dict[str, int]
    widths: dict[str, int]
    num_frames: int
    budgets: dict[str, int]
    batch_size: int
    clips: tuple[int, ...]
    new_tokens: int
    timed_steps: int
    matrix: int
    copy_bytes: int
    shapes: int


FULL = Size(
    llm={
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128_256,
    },
    widths={"sign2vec": 768, "mae": 768, "dino": 1152, "pose": 208},
    num_frames=50,
    budgets={"1.6k": 1638, "8k": 8192},
    batch_size=64,
    clips=(8, 64),
    new_tokens=32,
    timed_steps=5,
    matrix=8192,
    copy_bytes=2**32,
    shapes=20,
)
TINY = Size(
    llm={
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 1024,
    },
    widths={"sign2vec": 8, "mae": 8, "dino": 12, "pose": 4},
    num_frames=8,
    budgets={"8k": 400},
    batch_size=2,
    clips=(2,),
    new_tokens=3,
    timed_steps=1,
    matrix=64,
    copy_bytes=2**16,
    shapes=2,
)


@dataclass(frozen=True)
class Run:
    """One stage in its process. `deadline`: the time.time() after which nothing new is begun."""

    stage: str
    device: torch.device
    is_tiny: bool
    is_quick: bool
    folder: Path
    out: Path
    deadline: float

    @property
    def size(self) -> Size:
        return TINY if self.is_tiny else FULL

    @property
    def has_gpu(self) -> bool:
        return self.device.type == "cuda"

    def report(self, name: str, figure: str = "", limit: str = "", **values: Any) -> None:
        """Print a result, and append it to the file of results. `figure`, `limit`: what the table shows."""
        line = json.dumps({"stage": self.stage, "name": name, "figure": figure, "limit": limit, **values})
        print(line, flush=True)
        with self.out.open("a") as file:
            file.write(line + "\n")

    def attempt(self, name: str, seconds: float, measure: Callable[[], Values]) -> bool:
        """Report what `measure` returns, or why it failed; skipped if less than `seconds` are left.

        Returns whether it was measured.
        """
        left = self.deadline - time.time()
        if left < seconds:
            self.report(name, figure="skipped", skipped=f"{left:.0f} s are left, {seconds:.0f} are needed")
            return False
        start_time = time.monotonic()
        try:
            values = measure()
        except Exception as error:
            traceback.print_exc()
            message = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            self.report(name, figure=message[:90], error=message, seconds=round(time.monotonic() - start_time, 1))
            return False
        finally:
            self.free()
        self.report(name, **values, seconds=round(time.monotonic() - start_time, 1))
        return True

    def free(self) -> None:
        """Return the memory of what is no longer used."""
        if self.has_gpu:
            gc.collect()
            torch.cuda.empty_cache()

    def synchronize(self) -> None:
        if self.has_gpu:
            torch.cuda.synchronize()

    def time_ms(self, function: Callable[[], object], repeats: int = 1) -> float:
        """The mean duration of `function` in ms, the work of the GPU included."""
        self.synchronize()
        start_time = time.perf_counter()
        for _ in range(repeats):
            function()
        self.synchronize()
        return 1e3 * (time.perf_counter() - start_time) / repeats

    def reset_peak(self) -> None:
        self.free()
        if self.has_gpu:
            torch.cuda.reset_peak_memory_stats()

    def peak_gb(self) -> float:
        """Peak memory in GB since `reset_peak`: of the GPU, or of this process without one."""
        return round(torch.cuda.max_memory_allocated() / 1e9, 2) if self.has_gpu else host_peak_gb()

    def limits(self) -> Values:
        """What stage `limits` has measured, or nothing."""
        lines = self.out.read_text().splitlines() if self.out.is_file() else []
        records = [record for record in map(json.loads, lines) if record["name"] == "limits" and "tflops" in record]
        return records[-1] if records else {}


def host_peak_gb() -> float:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 2)


def write_llm(folder: Path, config: LlamaConfig, tokenizer: Any, device: torch.device) -> int:
    """Write a Llama of random bfloat16 weights with outliers as real LLMs have; the number of parameters.

    Four channels of the embeddings, and of what the second layer adds, are 30 times as large as the others, and the
    vector of the first token 500 times as large as those of other tokens.
    """
    folder.mkdir(parents=True)
    with torch.device("meta"):
        shapes = {name: tuple(weight.shape) for name, weight in LlamaForCausalLM(config).state_dict().items()}
    generator = torch.Generator(device).manual_seed(0)
    hidden = config.hidden_size
    weight_map: dict[str, str] = {}
    channels = torch.tensor([hidden // 9, hidden // 3, hidden // 2 + 1, hidden - 2], device=device)

    def make(name: str) -> torch.Tensor:
        if name.endswith("norm.weight"):
            return torch.ones(shapes[name], dtype=torch.bfloat16)
        weight = torch.empty(shapes[name], dtype=torch.bfloat16, device=device).normal_(0, 0.02, generator=generator)
        if name == "model.embed_tokens.weight":
            weight[:, channels] *= OUTLIER_FACTOR
            weight[BEGIN_TOKEN] *= LOUD_FACTOR
        elif name == "model.layers.1.mlp.down_proj.weight":
            weight[channels] *= OUTLIER_FACTOR
        return weight.cpu()

    shards: dict[str, list[str]] = {}
    for name in shapes:
        part = name.split(".")
        shards.setdefault(f"layer{int(part[2]) // 4}" if "layers" in part else "others", []).append(name)
    with ThreadPoolExecutor(4) as pool:
        saved = []
        for shard, names in shards.items():
            file = f"model-{shard}.safetensors"
            weight_map |= dict.fromkeys(names, file)
            tensors = {name: make(name) for name in names}
            saved.append(pool.submit(save_file, tensors, folder / file, {"format": "pt"}))
            if len(saved) > 4:
                saved.pop(0).result()  # bounds the memory of shards that wait for their writing
        for each in saved:
            each.result()
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return sum(torch.Size(shape).numel() for shape in shapes.values())


def llama_config(shape: dict[str, int]) -> LlamaConfig:
    """The config of a Llama 3 of this shape, for the tokenizer of the tiny LLM."""
    return LlamaConfig(
        **shape,
        max_position_embeddings=8192,
        rope_parameters={"rope_type": "default", "rope_theta": 500_000.0},
        bos_token_id=None,
        eos_token_id=2,
        pad_token_id=0,
        tie_word_embeddings=False,
        dtype="bfloat16",
    )


def write_llm_and_corpus(run: Run) -> None:
    """Write the corpus, and the LLM that other stages load."""
    run.attempt("LLM and corpus", 5, lambda: _write_llm_and_corpus(run))


def _write_llm_and_corpus(run: Run) -> Values:
    corpus = run.folder / "corpus"
    write_corpus(corpus, run.size.widths, run.size.num_frames)
    save_tiny_llm(run.folder / "tokenizer", corpus, build_recipe({}).tasks, steps=1)
    tokenizer = AutoTokenizer.from_pretrained(run.folder / "tokenizer")
    parameters = write_llm(run.folder / "llm", llama_config(run.size.llm), tokenizer, run.device)
    return {"figure": f"{parameters / 1e9:.2f} B parameters in {run.folder}", "parameters": parameters}


def make_recipe(run: Run, bits: int, lora: bool = False, **sections: Values) -> Recipe:
    """The recipe of a stage, with the LLM and the corpus of `write_llm_and_corpus`."""
    return build_recipe(
        {
            "llm": {"path": str(run.folder / "llm"), "bits": bits, "dtype": "bfloat16"},
            "streams": {name: {"width": width} for name, width in run.size.widths.items()},
            "data": {"root": str(run.folder / "corpus"), "max_seq_len": 2048},
            "context": {"window": 2, "prelude": 2},
            "lora": {"enabled": lora},
            **sections,
        }
    )


def open_examples(bundle: ModelBundle, recipe: Recipe) -> TrainingSet:
    """The training set of a recipe."""
    builder = ExampleBuilder(
        bundle.prompts, recipe.streams, recipe.data.max_seq_len, recipe.data.min_frames, recipe.context.prelude
    )
    return TrainingSet(recipe, open_split(recipe.data, recipe.streams, "train"), builder)


def count_gpu_work(function: Callable[[], object]) -> Values:
    """How many kernels and copies `function` runs on the GPU, how many launches it takes, and the longest kernels."""
    try:
        return _count_gpu_work(function)
    except Exception as error:  # the times are more important than the profile
        traceback.print_exc()
        return {"profile_error": f"{type(error).__name__}: {error}"[:300]}


def _count_gpu_work(function: Callable[[], object]) -> Values:
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        start_time = time.perf_counter()
        function()
        torch.cuda.synchronize()
        wall_us = 1e6 * (time.perf_counter() - start_time)
    kernels, copies, launches, busy_us = 0, 0, 0, 0.0
    by_name: dict[str, list[float]] = {}
    for event in profiler.events():
        if event.device_type == DeviceType.CUDA:
            is_copy = event.name.startswith(("Memcpy", "Memset"))
            kernels, copies = kernels + (not is_copy), copies + is_copy
            duration = float(event.time_range.elapsed_us())
            busy_us += duration
            by_name.setdefault(event.name[:80], []).append(duration)
        elif "Launch" in event.name:
            launches += 1
    longest = sorted(by_name.items(), key=lambda item: -sum(item[1]))[:20]
    return {
        "kernels": kernels,
        "copies": copies,
        "launches": launches,
        "gpu_busy_ms": round(busy_us / 1e3, 2),
        "profiled_ms": round(wall_us / 1e3, 2),
        "longest_kernels": [[name, len(times), round(sum(times) / 1e3, 3)] for name, times in longest],
    }
