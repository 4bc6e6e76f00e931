"""`signllava plot` draws the metrics of runs, also when metrics.jsonl is damaged or incomplete."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from conftest import Ended, sets
from matplotlib.colors import to_rgb
from PIL import Image

from signllava_cli.plotting import COLORS
from signllava_cli.training.metrics_log import exponential_moving_average

Command = Callable[..., Ended]


def write_run(folder: Path, lines: list[Mapping[str, object] | str]) -> Path:
    """Make a run folder with these lines in its metrics.jsonl."""
    folder.mkdir(parents=True)
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text)
    return folder


def step_metrics(loss: float, count: int = 50) -> list[Mapping[str, object] | str]:
    return [
        {"step": step, "loss": loss / step, "gradient_norm": 1.0, "learning_rate": 0.1, "tokens_per_second": 900.0}
        for step in range(1, count + 1)
    ]


def read_table(out: str) -> dict[str, list[str]]:
    """The printed table of runs: name -> the other cells."""
    cells = [[cell.strip() for cell in line.strip("│").split("│")] for line in out.splitlines() if line[:1] == "│"]
    return {row[0]: row[1:] for row in cells}


def read_colors(picture: Path) -> set[tuple[int, ...]]:
    counts_and_colors = Image.open(picture).convert("RGB").getcolors(1 << 24)
    assert counts_and_colors
    return {color for _, color in counts_and_colors if isinstance(color, tuple)}


def test_a_real_run_is_drawn(signllava: Command, settings: list[str], tmp_path: Path) -> None:
    assert signllava("pretrain", "--recipe", "toy/tiny_pretrain", *sets(settings)).code == 0
    ended = signllava("plot", tmp_path / "run", "--out", tmp_path / "plot.png")
    assert ended.code == 0, ended.err
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    dev = {line["dev_loss"]: line["step"] for line in lines if "dev_loss" in line}
    row = read_table(ended.out)["run"]
    assert row[:3] == ["6", f"{losses[-1]:.4f}", f"{min(dev):.4f} at {dev[min(dev)]}"]
    assert "run: loss, smoothed" in ended.out
    assert Image.open(tmp_path / "plot.png").format == "PNG"


def test_first_and_last_step_are_printed_apart(signllava: Command, tmp_path: Path) -> None:
    """Also below a chart of two columns."""
    run = write_run(tmp_path / "run", [{"step": 10, "loss": 2.0}, {"step": 20, "loss": 1.0}])
    ended = signllava("plot", run, "--out", tmp_path / "plot.png")
    assert ["10", "20"] in [line.split() for line in ended.out.splitlines()]


def test_each_run_has_its_color_and_metrics_without_values_have_no_panel(signllava: Command, tmp_path: Path) -> None:
    one = write_run(tmp_path / "one", step_metrics(5.0))
    two = write_run(
        tmp_path / "two", [*step_metrics(3.0), {"step": 50, "dev_loss": 0.5, "dev_bleu": 20.0, "best": True}]
    )
    heights = {}
    for runs in ([one], [one, two]):
        picture = tmp_path / f"{len(runs)}.png"
        ended = signllava("plot", *runs, "--out", picture)
        assert ended.code == 0, ended.err
        picture_colors = read_colors(picture)
        is_drawn = [tuple(round(255 * part) for part in to_rgb(color)) in picture_colors for color in COLORS]
        assert is_drawn == [number < len(runs) for number in range(len(COLORS))]
        heights[len(runs)] = Image.open(picture).height
    assert heights[1] < heights[2]  # dev loss and dev BLEU need a second row
    assert read_table(ended.out)["one"][2:4] == ["-", "-"]
    assert read_table(ended.out)["two"][2:4] == ["0.5000 at 50", "20.0 at 50"]


def test_damaged_lines_are_counted_and_the_later_of_two_values_counts(signllava: Command, tmp_path: Path) -> None:
    damaged = ['{"step": 51, "lo', "", "[1]", '{"loss": 1.0}', '{"step": "x"}']
    repeated: list[Any] = [{"step": 50, "loss": 7.0}, {"step": 20, "loss": float("nan"), "note": "x"}]
    run = write_run(tmp_path / "run", [*step_metrics(5.0), *damaged, *repeated])
    ended = signllava("plot", run, "--out", tmp_path / "plot.png")
    assert ended.code == 0, ended.err
    assert "warning: run: skipped damaged lines of metrics.jsonl: 5" in ended.out
    assert read_table(ended.out)["run"][:2] == ["50", "7.0000"]


def test_runs_with_the_same_name_are_shown_by_path(signllava: Command, tmp_path: Path) -> None:
    runs = [write_run(tmp_path / seed / "_a$b$", step_metrics(5.0, 1)) for seed in ("1", "2")]
    ended = signllava("plot", *runs, "--out", tmp_path / "plot.png")
    assert ended.code == 0, ended.err
    assert set(read_table(ended.out)) == {str(run) for run in runs}


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (lambda folder: folder.mkdir(), (), "is not a run folder: it has no metrics.jsonl"),
        (lambda folder: write_run(folder, ["{"]), (), "holds no step yet"),
        (lambda folder: write_run(folder, step_metrics(1.0)), ("--out", "plot.pdf"), "ends in .png"),
        (lambda folder: write_run(folder, step_metrics(1.0)), ("--smooth", "1"), "--smooth"),
    ],
)
def test_errors_are_one_line_and_do_not_change_the_old_picture(
    signllava: Command, tmp_path: Path, make: Callable[[Path], object], options: tuple[str, ...], message: str
) -> None:
    make(tmp_path / "run")
    picture = tmp_path / "plot.png"
    picture.write_bytes(b"old")
    ended = signllava("plot", tmp_path / "run", "--out", picture, *options)
    assert ended.code == 2
    assert message in ended.err
    assert picture.read_bytes() == b"old"


def test_the_moving_average_starts_at_the_first_value_and_skips_nan() -> None:
    assert exponential_moving_average([4.0, float("nan"), 4.0, 4.0], 0.9) == pytest.approx([4.0] * 4)
    assert exponential_moving_average([1.0, 2.0, 3.0], 0.0) == [1.0, 2.0, 3.0]
    assert exponential_moving_average([1.0, 2.0], 0.5) == pytest.approx([1.0, 5 / 3])
