"""The reports of `signllava prepare check`: JSON for programs, one page of HTML for people."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Ended
from corruptions import change_annotation, change_clip
from test_check import check

Command = Callable[..., Ended]


@pytest.fixture
def data(corpus: Path, tmp_path: Path) -> Path:
    """A copy of the toy corpus, to be corrupted."""
    return Path(shutil.copytree(corpus, tmp_path / "data", ignore=shutil.ignore_patterns("index.*")))


def test_an_unknown_report_suffix_is_refused_before_reading(signllava: Command, data: Path) -> None:
    result = signllava("prepare", "check", data, "--report", "report.pdf")
    assert result.code == 2
    assert result.out == ""
    assert "ends in .json or .html" in result.err


@pytest.mark.reliability("Security", "pages show names and texts of data as text; no script in them runs")
def test_hostile_names_are_escaped_everywhere(signllava: Command, data: Path) -> None:
    hostile = '<script>alert("1")</script>\x1b[31m[red]\ud800'
    change_annotation("dev", lambda content: content["dev00"].update({hostile: {"translation": "<b>x</b>"}}))(data)
    page = data.parent / "check.html"
    result, report = check(signllava, data)
    assert any(hostile in name for finding in report["findings"] for name in finding["names"])
    assert "\x1b" not in result.out
    assert r"\x1b[31m[red]\ud800" in result.out
    assert signllava("prepare", "check", data, "--report", page).code == 2
    assert "<script" not in page.read_text()
    assert "&lt;script&gt;alert(&#34;1&#34;)" in page.read_text()


@pytest.mark.reliability("Security", "pages show names and texts of data as text; no script in them runs")
def test_the_page_loads_nothing(signllava: Command, data: Path) -> None:
    change_clip({"translation": "nan"})(data)
    page = data.parent / "check.html"
    assert signllava("prepare", "check", data, "--report", page).code == 2
    content = page.read_text()
    assert not re.search(r"(src|href)=|url\(|@import|<script|https?:", content)
    for part in ("text-nan", "train00/train00-01", "prefers-color-scheme: dark", "width=device-width", "1 error,"):
        assert part in content


def test_the_page_shows_the_sentence_and_the_times_of_a_clip(signllava: Command, data: Path) -> None:
    entry = {"translation": "[Music & more]", "start": 3725.04, "end": 3726.5, "keywords": []}
    change_clip(entry)(data)
    for number in range(2, 9):
        change_clip(entry | {"translation": f"[Sound {number}]", "start": None, "end": None}, number)(data)
    page = data.parent / "check.html"
    signllava("prepare", "check", data, "--report", page)
    items = [
        " ".join(re.sub(r"<[^>]*>", "", item).split()) for item in re.findall(r"<li>.*?</li>", page.read_text(), re.S)
    ]
    assert "train00/train00-01 1:02:05.0-1:02:06.5 [Music &amp; more]" in items
    assert "train00/train00-08 [Sound 8]" in items
    assert any(item.startswith("train10/train10-07 ") for item in items), "also for findings with few names"


def test_the_json_holds_versions_arguments_and_date(signllava: Command, data: Path) -> None:
    _, report = check(signllava, data, "--fast", "--window", "1")
    assert report["versions"]["signllava"]
    assert report["arguments"] == {
        "splits": None,
        "recipe": None,
        "set": None,
        "window": 1,
        "prelude": 2,
        "fps": 25.0,
        "fast": True,
    }
    assert report["counts"] == {"error": 0, "warning": 1, "note": 1}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4}", report["date"])
