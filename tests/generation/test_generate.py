"""`generate` against the slow reference, which decodes one clip at a time, in signing order."""

import contextlib
import functools
import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import psutil
import pytest
from conftest import Ended, interrupted, sets, subprocess_command
from slow_reference import slow_predictions

from signllava_cli.data.annotations import read_annotations
from signllava_cli.generation.prediction import Prediction
from signllava_cli.generation.predictions_folder import read_predictions
from signllava_cli.generation.scheduling import ReadyQueue
from signllava_cli.model.checkpoint import checkpoint_recipe, find_checkpoint

Command = Callable[..., Ended]


@pytest.fixture(scope="module")
def reference(run: Path) -> Callable[[str, int, int, int], dict[str, tuple[str, list[str]]]]:
    """`slow_predictions` of the run, computed once for each set of arguments."""
    return functools.cache(functools.partial(slow_predictions, run))


def read_folders(out: Path, sources: Sequence[str]) -> dict[str, dict[str, tuple[str, list[str]]]]:
    """Source -> clip id -> hypothesis and context, from the predictions folders in `out`."""
    predictions = {}
    for source in sources:
        (file,) = [file for file in out.glob("*/predictions.jsonl") if file.parent.name.startswith(source)]
        predictions[source] = {row.id: (row.hypothesis, row.context) for row in read_predictions(file)}
    return predictions


SOURCES = ("none", "gold", "predicted")


def options(run: Path, out: Path, beams: int, batch_size: int) -> list[object]:
    return [
        *(
            "generate",
            "-c",
            run,
            "--split",
            "dev",
            "--max-new-tokens",
            8,
            "--beams",
            beams,
            "--batch-size",
            batch_size,
        ),
        *("--context", 2, "--prelude", 2, "--out", out),
        *(word for source in SOURCES for word in ("--context-source", source)),
    ]


@pytest.mark.parametrize(
    ("beams", "batch_size"),
    [
        (4, 3),
        *(pytest.param(*pair, marks=pytest.mark.drill) for pair in ((1, 1), (1, 3), (1, 16), (4, 1), (4, 16))),
    ],
)
def test_generate_equals_one_clip_at_a_time(
    signllava: Command, run: Path, tmp_path: Path, reference: Any, beams: int, batch_size: int
) -> None:
    ended = signllava(*options(run, tmp_path, beams, batch_size))
    assert ended.code == 0, ended.err
    predictions = read_folders(tmp_path, SOURCES)
    for source in SOURCES:
        expected = reference(source, 2, 2, beams)
        assert predictions[source] == expected
        assert list(predictions[source]) == list(expected)  # in dataset order


@pytest.mark.drill
@pytest.mark.parametrize(
    ("beams", "batch_size"),
    [
        (4, 3),
        *(
            pytest.param(beams, batch_size, marks=pytest.mark.drill)
            for beams, batch_size in ((1, 1), (1, 3), (1, 16), (4, 1), (4, 16))
        ),
    ],
)
def test_two_ranks_give_the_same_hypotheses(
    run: Path, tmp_path: Path, reference: Any, beams: int, batch_size: int
) -> None:
    process = subprocess_command(*options(run, tmp_path, beams, batch_size), "--launch", "multi_cpu")
    out = process.communicate(timeout=300)[0]
    assert process.returncode == 0, out
    assert out.count("predictions.jsonl") == 3  # the last rank prints it, once per source
    assert read_folders(tmp_path, SOURCES) == {source: reference(source, 2, 2, beams) for source in SOURCES}
    assert not list(tmp_path.glob("*/parts/*.jsonl"))


@pytest.mark.drill
@pytest.mark.parametrize(("window", "prelude"), [(1, 0), (0, 2)])
def test_predicted_context_with_a_window_or_a_prelude_alone(
    signllava: Command, run: Path, tmp_path: Path, reference: Any, window: int, prelude: int
) -> None:
    words = [*options(run, tmp_path, 1, 5), "--context", window, "--prelude", prelude]
    assert signllava(*words).code == 0
    assert read_folders(tmp_path, ["predicted"])["predicted"] == reference("predicted", window, prelude, 1)


def test_prepared_context_is_read_from_the_file(signllava: Command, run: Path, tmp_path: Path, corpus: Path) -> None:
    file = tmp_path / "prepared.jsonl"
    clips = [clip for recording in read_annotations(corpus, "dev") for clip in recording.clips]
    rows = [Prediction(c.recording, c.name, c.position, "translation", "", f"Text of {c.name}.") for c in clips]
    file.write_text("".join(json.dumps(vars(row)) + "\n" for row in rows))
    options = ["--split", "dev", "--max-new-tokens", 2, "--context", 1, "--prelude", 1]
    ended = signllava(
        "generate", "-c", run, *options, "--context-source", f"prepared:{file}", "--out", tmp_path / "o"
    )
    assert ended.code == 0, ended.err
    for row in read_predictions(tmp_path / "o" / "predictions.jsonl"):
        positions = [] if row.position == 0 else sorted({0, row.position - 1})
        assert row.context == [f"Text of {row.recording}-{p:02d}." for p in positions]
    file.write_text("".join(json.dumps(vars(row)) + "\n" for row in rows[1:]))
    ended = signllava(
        "generate", "-c", run, *options, "--context-source", f"prepared:{file}", "--out", tmp_path / "p"
    )
    assert ended.code == 2
    assert f"lacks 1 sentence of split dev ({clips[0].id})" in ended.err


def test_under_predicted_context_batches_are_full_and_recordings_in_order() -> None:
    ids = [f"r{r}/{p}" for r, length in enumerate((3, 5, 2)) for p in range(length)]
    rows = np.arange(10) + 5  # not all rows of the split
    queue, batches = ReadyQueue(rows, np.ones(10), np.repeat([1, 3, 4], (3, 5, 2))), []
    while batch := queue.take(2):
        batches.append([ids[row - 5] for row in batch])
        for row in batch:
            queue.mark_decoded(row)
    assert batches == [["r1/0", "r0/0"], ["r1/1", "r0/1"], ["r1/2", "r2/0"], ["r1/3", "r0/2"], ["r1/4", "r2/1"]]
    assert not queue
    queue = ReadyQueue(rows, np.arange(10))
    assert queue.take(20) == rows[::-1].tolist()
    assert not queue


@pytest.mark.drill
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.reliability(
    "Faults", "a killed pack, extract, index or generate continues, and ends with the same bytes"
)
def test_a_killed_generation_continues_where_it_stopped(
    signllava: Command, run: Path, tmp_path: Path, number: signal.Signals
) -> None:
    options = ["generate", "-c", run, "--split", "dev", "--batch-size", 1, "--context-source", "predicted"]
    options += ["--max-new-tokens", 8]
    uninterrupted, killed = tmp_path / "uninterrupted", tmp_path / "killed"
    assert signllava(*options, "--out", uninterrupted).code == 0
    part = killed / "parts" / "1-of-1.jsonl"
    process = subprocess_command(*options, "--out", killed, env=interrupted(part.name, 6, number))
    process.communicate(timeout=200)
    assert process.returncode == (75 if number == signal.SIGTERM else -signal.SIGKILL)
    with open(part, "a") as file:
        file.write('{"recording": "dev0')  # half a line
    num_done = part.read_text().count("\n")
    assert 5 <= num_done < (uninterrupted / "predictions.jsonl").read_text().count("\n")
    ended = signllava("eval", killed)
    assert ended.code == 2
    assert "not finished" in ended.err
    ended = signllava(*options, "--out", killed)
    assert ended.code == 0, ended.err
    assert f"{num_done} clips were done before" in ended.out
    rows, expected = (read_predictions(folder / "predictions.jsonl") for folder in (killed, uninterrupted))
    assert [(row.id, row.hypothesis, row.context) for row in rows] == [
        (row.id, row.hypothesis, row.context) for row in expected
    ]
    beams = checkpoint_recipe(find_checkpoint(run), []).generate.num_beams
    ended = signllava(*options, "--out", killed, "--beams", beams + 1)
    assert ended.code == 2
    assert f"holds predictions made with generate.num_beams {beams}, not {beams + 1}; name another --out" in ended.err


@pytest.mark.drill
@pytest.mark.parametrize("ranks", [1, 2])
def test_ten_kills_at_random_moments_change_no_hypothesis(
    run: Path, tmp_path: Path, reference: Any, ranks: int
) -> None:
    rng = random.Random(ranks)
    options = ["generate", "-c", run, "--split", "dev", "--max-new-tokens", 8, "--beams", 4, "--batch-size", 2]
    options += ["--context", 2, "--prelude", 2, "--context-source", "predicted", "--out", tmp_path / "out"]
    options += ["--launch", "multi_cpu", "--num-processes", ranks] if ranks > 1 else []

    def count_done() -> int:
        return sum(file.read_bytes().count(b"\n") for file in (tmp_path / "out" / "parts").glob("*.jsonl"))

    for _ in range(10):
        process = subprocess_command(*options, start_new_session=True)
        target = count_done() + rng.randint(0, 3)
        while process.poll() is None and count_done() < target:
            time.sleep(0.001)
        time.sleep(rng.random() * 0.02)
        if process.poll() is None:  # otherwise it ended before the kill
            for child in [*psutil.Process(process.pid).children(recursive=True), process]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child.pid, signal.SIGKILL)
        process.communicate()
    process = subprocess_command(*options)
    out = process.communicate(timeout=300)[0]
    assert process.returncode == 0, out
    rows = read_predictions(tmp_path / "out" / "predictions.jsonl")
    assert {row.id: (row.hypothesis, row.context) for row in rows} == reference("predicted", 2, 2, 4)


def test_a_clip_without_features_is_reported_and_adds_no_context(
    signllava: Command, run: Path, tmp_path: Path, corpus: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(corpus, data)
    with h5py.File(data / "mae" / "mae.dev.0.h5", "a") as file:
        del file["dev00/dev00-01"]
    options = ["generate", "-c", run, "--split", "dev", "--max-new-tokens", 4, "--context-source", "predicted"]
    options += ["--out", tmp_path / "out", *sets([f"data.root={data}"])]
    ended = signllava(*options)
    assert ended.code == 2
    assert "1 of 38 clips have no features (dev00/dev00-01 in mae)" in ended.err
    ended = signllava(*options, "--set", "data.missing=skip")
    assert ended.code == 0, ended.err
    rows = {row.id: row for row in read_predictions(tmp_path / "out" / "predictions.jsonl")}
    assert len(rows) == 38
    assert (rows["dev00/dev00-01"].hypothesis, rows["dev00/dev00-01"].missing) == ("", "mae")
    assert rows["dev00/dev00-02"].context == [rows["dev00/dev00-00"].hypothesis]
    assert "1 clip has no hypothesis, scored as empty" in signllava("eval", tmp_path / "out").out
