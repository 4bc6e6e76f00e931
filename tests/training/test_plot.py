"""`signllava plot` draws what the runs recorded, whatever state their metrics are in."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from conftest import Ended, sets
from matplotlib.colors import to_rgb
from PIL import Image

from signllava_cli.plotting import COLORS
from signllava_cli.training.metrics_log import exponential_moving_average

Command = Callable[..., Ended]


def recorded(folder: Path, lines: list[Mapping[str, object] | str]) -> Path:
    """A run folder with these lines in its metrics.jsonl."""
    folder.mkdir(parents=True)
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text)
    return folder


def steps(loss: float, count: int = 50) -> list[Mapping[str, object] | str]:
    return [
        {"step": step, "loss": loss / step, "gradient_norm": 1.0, "learning_rate": 0.1, "tokens_per_second": 900.0}
        for step in range(1, count + 1)
    ]


def rows(out: str) -> dict[str, list[str]]:
    """The table of runs: first cell -> the others."""
    cells = [[cell.strip() for cell in line.strip("│").split("│")] for line in out.splitlines() if line[:1] == "│"]
    return {row[0]: row[1:] for row in cells}


def colors(picture: Path) -> set[tuple[int, ...]]:
    found = Image.open(picture).convert("RGB").getcolors(1 << 24)
    assert found
    return {color for _, color in found if isinstance(color, tuple)}


def test_a_real_run_is_drawn(signllava: Command, settings: list[str], tmp_path: Path) -> None:
    assert signllava("pretrain", "--recipe", "toy/tiny_pretrain", *sets(settings)).code == 0
    ended = signllava("plot", tmp_path / "run", "--out", tmp_path / "plot.png")
    assert ended.code == 0, ended.err
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    dev = {line["dev_loss"]: line["step"] for line in lines if "dev_loss" in line}
    row = rows(ended.out)["run"]
    assert row[:3] == ["6", f"{losses[-1]:.4f}", f"{min(dev):.4f} at {dev[min(dev)]}"]
    assert "run: loss, smoothed" in ended.out
    assert Image.open(tmp_path / "plot.png").format == "PNG"


def test_the_first_and_the_last_step_stand_apart(signllava: Command, tmp_path: Path) -> None:
    """... also below a curve of two columns."""
    run = recorded(tmp_path / "run", [{"step": 10, "loss": 2.0}, {"step": 20, "loss": 1.0}])
    ended = signllava("plot", run, "--out", tmp_path / "plot.png")
    assert ["10", "20"] in [line.split() for line in ended.out.splitlines()]


def test_each_run_has_its_color_and_what_is_not_recorded_no_panel(signllava: Command, tmp_path: Path) -> None:
    one = recorded(tmp_path / "one", steps(5.0))
    two = recorded(tmp_path / "two", [*steps(3.0), {"step": 50, "dev_loss": 0.5, "dev_bleu": 20.0, "best": True}])
    heights = {}
    for runs in ([one], [one, two]):
        picture = tmp_path / f"{len(runs)}.png"
        ended = signllava("plot", *runs, "--out", picture)
        assert ended.code == 0, ended.err
        in_picture = colors(picture)
        drawn = [tuple(round(255 * part) for part in to_rgb(color)) in in_picture for color in COLORS]
        assert drawn == [number < len(runs) for number in range(len(COLORS))]
        heights[len(runs)] = Image.open(picture).height
    assert heights[1] < heights[2]  # dev loss and dev BLEU are a row more
    assert rows(ended.out)["one"][2:4] == ["-", "-"]
    assert rows(ended.out)["two"][2:4] == ["0.5000 at 50", "20.0 at 50"]


def test_damaged_lines_are_counted_and_the_later_of_two_values_stands(signllava: Command, tmp_path: Path) -> None:
    damaged: list[str] = ['{"step": 51, "lo', "", "[1]", '{"loss": 1.0}', '{"step": "x"}']
    again: list[Mapping[str, object]] = [{"step": 50, "loss": 7.0}, {"step": 20, "loss": float("nan"), "note": "x"}]
    run = recorded(tmp_path / "run", [*steps(5.0), *damaged, *again])
    ended = signllava("plot", run, "--out", tmp_path / "plot.png")
    assert ended.code == 0, ended.err
    assert "warning: run: damaged lines of its metrics, left out: 5" in ended.out
    assert rows(ended.out)["run"][:2] == ["50", "7.0000"]


def test_runs_of_one_name_are_told_apart(signllava: Command, tmp_path: Path) -> None:
    runs = [recorded(tmp_path / seed / "_a$b$", steps(5.0, 1)) for seed in ("1", "2")]
    ended = signllava("plot", *runs, "--out", tmp_path / "plot.png")
    assert ended.code == 0, ended.err
    assert set(rows(ended.out)) == {str(run) for run in runs}


@pytest.mark.parametrize(
    ("make", "options", "says"),
    [
        (lambda folder: folder.mkdir(), (), "is not a run folder: there is no metrics.jsonl"),
        (lambda folder: recorded(folder, ["{"]), (), "holds no step yet"),
        (lambda folder: recorded(folder, steps(1.0)), ("--out", "plot.pdf"), "ends in .png"),
        (lambda folder: recorded(folder, steps(1.0)), ("--smooth", "1"), "--smooth"),
    ],
)
def test_faults_end_in_one_line_and_leave_the_old_picture(
    signllava: Command, tmp_path: Path, make: Callable[[Path], object], options: tuple[str, ...], says: str
) -> None:
    make(tmp_path / "run")
    picture = tmp_path / "plot.png"
    picture.write_bytes(b"old")
    ended = signllava("plot", tmp_path / "run", "--out", picture, *options)
    assert ended.code == 2
    assert says in ended.err
    assert picture.read_bytes() == b"old"


def test_smoothing_starts_at_the_first_value_and_passes_over_nan() -> None:
    assert exponential_moving_average([4.0, float("nan"), 4.0, 4.0], 0.9) == pytest.approx([4.0] * 4)
    assert exponential_moving_average([1.0, 2.0, 3.0], 0.0) == [1.0, 2.0, 3.0]
    assert exponential_moving_average([1.0, 2.0], 0.5) == pytest.approx([1.0, 5 / 3])
