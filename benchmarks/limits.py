"""What must stay fast: seconds of a core beside the limit that a person at the terminal would put up with.

    python benchmarks/limits.py

It ends with exit code 1 if a limit is exceeded. What exceeds its limit is tried up to three times, so that other work
on the machine counts little. Not a test: a busy machine must not fail one.
"""

import platform
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from typer.main import get_command

from signllava_cli.cli.main import app
from signllava_cli.data.annotations import Clip, Recording
from signllava_cli.evaluation.metrics.all_metrics import METRICS
from signllava_cli.evaluation.metrics.base import MetricStatistics, TextMetric
from signllava_cli.evaluation.metrics.text_metrics import Ter
from signllava_cli.evaluation.resampling import ResamplingUnits, compute_bootstrap_intervals
from signllava_cli.model.tiny_llm import save_tiny_llm
from signllava_cli.prepare.dataset_writer import write_annotations
from signllava_cli.prepare.toy_corpus import write_toy_corpus
from signllava_cli.recipe import read_recipe

NUM_REPEATS, TEST_SET_CLIPS, STEPS = 3, 2357, 6  # 2,357 clips are the test set of How2Sign
Row = tuple[str, float, float]  # what, measured, limit


def cpu_seconds(work: Callable[[], object], limit: float, who: int = resource.RUSAGE_SELF) -> float:
    """Seconds of a core that `work` takes in this process, or in its children."""

    def used() -> float:
        usage = resource.getrusage(who)
        return usage.ru_utime + usage.ru_stime

    seconds = []
    for _ in range(NUM_REPEATS):
        start_time = used()
        work()
        seconds.append(used() - start_time)
        if seconds[-1] <= limit:
            break
    return min(seconds)


def command_seconds(limit: float, *words: object) -> float:
    """Seconds of a core of a `signllava` command in a process of its own."""
    command = [sys.executable, "-m", "signllava_cli", *map(str, words)]
    return cpu_seconds(
        lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL), limit, resource.RUSAGE_CHILDREN
    )


def help_pages() -> Iterator[Row]:
    commands: list[tuple[str, ...]] = [()]
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        commands += [(name,), *((name, below) for below in getattr(command, "commands", {}))]
    seconds = {words: command_seconds(1, *words, "--help") for words in commands}
    slowest = max(seconds, key=lambda words: seconds[words])
    yield f"`signllava {' '.join(slowest)} --help`, the slowest of {len(commands)}", seconds[slowest], 1


def small_evaluation(folder: Path) -> Iterator[Row]:
    references = [f"the cat sat on mat {number}" for number in range(20)]
    (folder / "ref.txt").write_text("\n".join(references) + "\n")
    (folder / "hyp.txt").write_text("mat on sat cat the\n" * len(references))
    outputs = ["--out", folder / "s.json", "--latex", folder / "t.tex", "--report", folder / "r.html"]
    words = ["eval", "--hyp", folder / "hyp.txt", "--ref", folder / "ref.txt", *outputs]
    yield "`signllava eval` of 20 clips, with LaTeX and page", command_seconds(2, *words), 2


def long_ter() -> Iterator[Row]:
    for vocabulary in (50, 5000):
        rng = np.random.default_rng(0)
        pair = [" ".join(map(str, rng.integers(vocabulary, size=2000))) for _ in range(2)]
        seconds = cpu_seconds(lambda pair=pair: Ter().extract_statistics(pair[:1], pair[1:]), 10)  # type: ignore[misc]
        yield f"TER of 2,000 random words, vocabulary {vocabulary:,}", seconds, 10


def resampling() -> Iterator[Row]:
    rng = np.random.default_rng(3)
    words = [f"word{number}" for number in range(15)]
    references, hypotheses = (
        [" ".join(rng.choice(words, size=int(rng.integers(1, 12)))) for _ in range(TEST_SET_CLIPS)] for _ in range(2)
    )
    units = ResamplingUnits([f"r{number // 12}" for number in range(TEST_SET_CLIPS)])

    def resample() -> None:
        for entry in METRICS.values():
            if entry.option is None and entry.input_kind == "translations" and issubclass(entry.metric, TextMetric):
                metric = entry.metric()
                statistics = MetricStatistics(metric, metric.extract_statistics(hypotheses, references))
                compute_bootstrap_intervals(statistics, units, 1000)

    yield f"1,000 resamples of {TEST_SET_CLIPS:,} clips, every metric of texts", cpu_seconds(resample, 10), 10


def tiny_llm(folder: Path) -> Iterator[Row]:
    """Own text takes no longer than the toy corpus: the limit is four times that, measured here."""
    toy, tasks = folder / "toy", read_recipe("toy/tiny_pretrain").tasks
    write_toy_corpus(toy)
    save_tiny_llm(folder / "warm-up", toy, tasks, steps=1)
    of_toy = cpu_seconds(lambda: save_tiny_llm(folder / "toy-llm", toy, tasks, steps=STEPS), limit=0)
    for num_clips, num_words in ((200, 25), (20_000, 12)):
        own = write_text(folder / f"own{num_clips}", num_clips, num_words)
        seconds = cpu_seconds(lambda own=own: save_tiny_llm(folder / "own-llm", own, tasks, steps=STEPS), 4 * of_toy)  # type: ignore[misc]
        yield f"{STEPS} steps of the tiny LLM on {num_clips:,} clips of {num_words} words", seconds, 4 * of_toy


def write_text(root: Path, num_clips: int, num_words: int) -> Path:
    """Recordings of 20 clips, each a sentence of so many words of a vocabulary of 4,000."""
    rng = random.Random(0)
    vocabulary = ["".join(rng.choices("etaoinshrdlucmfw", k=rng.randint(2, 10))) for _ in range(4000)]
    recordings = []
    for number in range(num_clips // 20):
        name = f"r{number}"
        texts = [" ".join(rng.choices(vocabulary, k=num_words)) for _ in range(20)]
        clips = [Clip(name, f"{index:03d}", index, text) for index, text in enumerate(texts)]
        recordings.append(Recording(name, tuple(clips)))
    write_annotations(root, "train", recordings)
    return root


def main() -> None:
    start_time = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        rows = [*help_pages(), *small_evaluation(root), *long_ter(), *resampling(), *tiny_llm(root)]
    title = f"{platform.machine()}, Python {platform.python_version()}, {time.monotonic() - start_time:.0f} s in all"
    table = Table("what", title=title)
    for column in ("seconds of a core", "limit", "share of the limit"):
        table.add_column(column, justify="right")
    for what, seconds, limit in rows:
        table.add_row(what, f"{seconds:.2f}", f"{limit:.2f}", f"{seconds / limit:.0%}")
    Console().print(table)
    sys.exit(any(seconds > limit for _, seconds, limit in rows))


if __name__ == "__main__":
    main()
