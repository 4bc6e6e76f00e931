"""The same recipe and seed in two fresh clones of the repository give the same files, byte for byte."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SETTINGS: tuple[str, ...] = ("train.max_steps=6", "train.batch_size=4", "train.micro_batch_size=2")
SETTINGS += (
    "train.save_steps=3",
    "train.eval_steps=6",
    "data.num_workers=1",
    "tasks.paraphrases=0.5",
    "tasks.train.is_reversed=0.3",
)
CHECKPOINT_FILES = ("projector.safetensors", "adapter/*", "resume/*", "config.json")


@dataclass(frozen=True)
class Clone:
    """A clone with folders and variables of its own."""

    folder: Path
    number: int
    llm: Path

    @property
    def work(self) -> Path:
        """The working directory; that of each clone has another name and depth."""
        return self.folder / "/".join(["work"] * (self.number + 1))

    def signllava(self, *words: str) -> None:
        """Run the command of this clone."""
        home, temporary = self.folder / "home", self.folder / "tmp"
        for path in (self.work, home, temporary):
            path.mkdir(parents=True, exist_ok=True)
        environment = {key: value for key, value in os.environ.items() if key not in ("XDG_CACHE_HOME", "HF_HOME")}
        environment |= {"PYTHONPATH": str(self.folder / "clone"), "PYTHONHASHSEED": str(self.number + 1)}
        environment |= {"HOME": str(home), "TMPDIR": str(temporary)}
        command = [sys.executable, "-P", "-m", "signllava_cli", *words]
        ended = subprocess.run(command, cwd=self.work, env=environment, capture_output=True, text=True, timeout=900)
        assert ended.returncode == 0, ended.stdout + ended.stderr

    def run(self, name: str) -> str:
        """The name of the run folder of stage `name`."""
        return f"runs-{self.number}/{name}"

    def train(self, stage: str, name: str, *more: str, projector: str | None = None) -> None:
        settings = [*SETTINGS, *more, f"run.output_dir={self.run(name)}", "data.root=data", f"llm.path={self.llm}"]
        words = [word for setting in settings for word in ("--set", setting)]
        words += ["--projector", self.run(projector)] if projector else []
        self.signllava(stage, "--recipe", f"toy/tiny_{stage}", *words)


def make_all(clone: Clone) -> None:
    """A corpus, its index, three runs and predictions."""
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone.folder / "clone")], check=True)
    clone.signllava("prepare", "toy", "--out", "data")
    for file in (clone.work / "data").rglob("*"):
        os.utime(file, (0, 0))  # the index has the modification times of the files
    clone.signllava("prepare", "index", "data")
    clone.train("pretrain", "pretrained")
    clone.train("finetune", "quantized", projector="pretrained")
    clone.train("finetune", "finetuned", "llm.bits=32", projector="pretrained")
    for name in ("quantized", "finetuned"):
        settings = ("--set", "generate.max_new_tokens=8", "--set", "generate.num_beams=2")
        words = ("--split", "dev", "--context-source", "none", "--context-source", "predicted", *settings)
        clone.signllava("generate", "--checkpoint", clone.run(name), "--out", f"{name}-predictions", *words)


def hashes(clone: Clone) -> dict[str, str]:
    """File -> SHA-256, of the corpus, the checkpoints and the predictions, without the number of the clone."""
    runs = (clone.work / f"runs-{clone.number}").glob("*/step-*")
    files = [file for path in runs for pattern in CHECKPOINT_FILES for file in path.glob(pattern)]
    files += [*(clone.work / "data").rglob("*"), *clone.work.glob("*-predictions/*/predictions.jsonl")]
    return {
        str(file.relative_to(clone.work)).replace(f"runs-{clone.number}", "runs"): hashlib.sha256(
            file.read_bytes()
        ).hexdigest()
        for file in files
        if file.is_file() and file.name != ".lock"
    }


@pytest.mark.drill
@pytest.mark.timeout(3000)
@pytest.mark.reliability("Reproducibility", "two fresh clones give the same corpus, index, weights and predictions")
def test_two_clones_give_the_same_bytes(
    tiny_llm: Path, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """In folders of different names, with other values of PYTHONHASHSEED, TMPDIR and HOME."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("the toolkit is not in a repository")
    clones = [Clone(tmp_path / name, number, tiny_llm) for number, name in enumerate(("first", "the second one"))]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(make_all, clones))
    first, second = map(hashes, clones)
    assert {name for name in first.keys() | second.keys() if first.get(name) != second.get(name)} == set()
    names = [Path(name).name for name in first]
    assert names.count("projector.safetensors") == 3 * 2  # of three runs, with two checkpoints each
    assert names.count("adapter_model.safetensors") == 2 * 2
    assert names.count("optimizer.safetensors") == 3 * 2
    assert names.count("predictions.jsonl") == 2 * 2
    assert sum(name.startswith("index.") for name in names) == 3
    for clone in clones:
        start = json.loads((clone.work / clone.run("pretrained") / "manifest.json").read_text())["starts"][0]
        assert start["environment"]["PYTHONHASHSEED"] == str(clone.number + 1)
        git = ["git", "-C", str(clone.folder / "clone"), "rev-parse", "HEAD"]
        head = subprocess.run(git, capture_output=True, text=True, check=True)
        assert start["toolkit"] == {"commit": head.stdout.strip(), "dirty": False}
    record_property("compared files", len(first))
