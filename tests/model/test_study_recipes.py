"""The study recipes and their variants, run on tiny LLMs of the families that they name."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import Ended, MadeOnce, sets
from families import write_family

from signllava_cli.files import write_json
from signllava_cli.prepare.dataset_writer import write_stream
from signllava_cli.recipe import read_recipe, shipped_variants

Command = Callable[..., Ended]
FAMILIES = {"Meta-Llama": "llama", "Llama": "llama", "Qwen3": "qwen3", "gemma": "gemma3_multimodal"}
# Sizes for a CPU; what the recipes are about stays.
SMALL = ["data.max_seq_len=512", "data.num_workers=0", "train.max_steps=2", "train.batch_size=4"]
SMALL += ["train.micro_batch_size=2", "train.torch_compile=false", "llm.dtype=float32"]
SMALL += ["generate.max_new_tokens=4", "generate.num_beams=2"]
VARIANTS = ["", *(f"+{name}" for name in shipped_variants())]


def small_settings(recipe: str, made_once: MadeOnce) -> list[str]:
    """The options with which `recipe` runs here: a tiny LLM of its family instead of its LLM."""
    name = read_recipe(recipe).llm.path.rpartition("/")[2].partition("-")
    family = FAMILIES["Meta-Llama" if name[0] == "Meta" else name[0]]
    llm = made_once(f"study-{family}", lambda folder: write_family(family, folder))
    bits = ["llm.bits=32"] if recipe.startswith("pretrain") else []
    return sets([*SMALL, *bits, f"llm.path={llm}"])


def write_dataset(root: Path, streams: dict[str, int]) -> None:
    rng = np.random.default_rng(0)
    for split in ("train", "dev", "test"):
        clips = [f"{split}{number}" for number in range(4)]
        texts = {clip: {"translation": f"The cat sits {number}."} for number, clip in enumerate(clips)}
        write_json(root / f"annotation.{split}.json", {"video": {"clip_order": clips, **texts}})
        for name, width in streams.items():
            frames = {clip: rng.standard_normal((20, width)).astype(np.float16) for clip in clips}
            write_stream(root, split, name, {"video": frames}, 1)


@pytest.fixture
def study_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with made datasets where the recipes look for them."""
    widths = {name: stream.width for name, stream in read_recipe("pretrain").streams.items()}
    for name in ("how2sign", "youtube_asl", "phoenix14t"):
        write_dataset(tmp_path / "data" / name, widths)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "variant", [pytest.param(each, marks=() if each == "+qwen3-8b" else pytest.mark.drill) for each in VARIANTS]
)
@pytest.mark.timeout(900)
def test_both_stages_of_a_study_train_and_translate(
    signllava: Command, made_once: MadeOnce, study_folder: Path, variant: str
) -> None:
    if variant == "+mixed-context":  # the hypotheses that its first comment makes
        assert signllava("pretrain", "-r", "pretrain", *small_settings("pretrain", made_once)).code == 0
        words = ["--split", "train", "--beams", "1", "--context-source", "predicted"]
        folder = Path("runs/pretrain/predictions/train")
        assert signllava("generate", "--checkpoint", "runs/pretrain", *words, "--out", folder).code == 0
    for stage in ("pretrain", "finetune"):
        recipe = stage + variant
        ended = signllava(stage, "-r", recipe, *small_settings(recipe, made_once))
        assert ended.code == 0, ended.err
        assert read_recipe(Path("runs") / recipe / "recipe.yaml").run.output_dir == f"runs/{recipe}"
    ended = signllava("generate", "--checkpoint", f"runs/finetune{variant}")
    assert ended.code == 0, ended.err
    (file,) = Path(f"runs/finetune{variant}/predictions").glob("*/predictions.jsonl")
    assert len(file.read_text().splitlines()) == 4
