"""The HTML page of an evaluation, opened in a browser from a file."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import opened_page
from conftest import Ended

from signllava_cli.generation.prediction import Prediction

Command = Callable[..., Ended]
HOSTILE = [
    "<script>document.title = 'taken'</script>",
    "</script><img src=x onerror=\"document.title='taken'\">",
    'it\'s "quoted" & <b>bold</b>',
    "مرحبا بالعالم \u202egnidaer",
    "👩🏽‍🔬 tests the 🧪",
    "long " * 2000,
    "{{ 7 * 7 }} {% raw %}",
]
WORDS = ["the", "doctor", "hides", "a", "coat", "in", "winter", "sister", "buys", "lamp"]


def file_of(path: Path, pairs: list[tuple[str, str]], context: bool = False) -> Path:
    rows = [
        Prediction(
            f"r{n // 7}", str(n), n % 7, "translation", meant, said, [pairs[n - 1][0]] if context and n % 7 else []
        )
        for n, (meant, said) in enumerate(pairs)
    ]
    path.write_text("".join(json.dumps(vars(row)) + "\n" for row in rows))
    return path


def pairs(count: int, seed: int) -> list[tuple[str, str]]:
    rng = np.random.default_rng(seed)
    meant = [" ".join(np.random.default_rng(n).choice(WORDS, size=6)) for n in range(count)]
    return [(text, text if rng.random() < 0.3 else " ".join(rng.choice(WORDS, size=5))) for text in meant]


@pytest.fixture
def report(signllava: Command, tmp_path: Path) -> Path:
    """A system and two seeds of another on 120 clips; the hypotheses of the first begin with hostile ones."""
    one = pairs(120, 1)
    one[: len(HOSTILE)] = [(meant, bad) for (meant, _), bad in zip(one, HOSTILE, strict=False)]
    seeds = [f"<u>ours={file_of(tmp_path / f'{seed}.jsonl', pairs(120, seed))}" for seed in (2, 3)]
    files = [file_of(tmp_path / "one.jsonl", one, context=True), *seeds]
    options = ["--samples", 100, "--trials", 100, "--out", tmp_path / "s.json", "--report", tmp_path / "report.html"]
    ended = signllava("eval", *files, *options)
    assert ended.code == 0, ended.err
    return tmp_path / "report.html"


def gains_shown(page: Any) -> list[float]:
    return [float(text.rsplit("(", 1)[1].rstrip(")")) for text in page.locator("#list .meta").all_text_contents()]


@pytest.mark.browser
def test_the_page_sorts_filters_and_searches_and_shows_hostile_text_as_text(report: Path) -> None:
    from playwright.sync_api import expect

    with opened_page(report.as_uri(), viewport={"width": 1100, "height": 900}) as (page, complaints, requested):
        expect(page.locator("#count")).to_have_text("120 of 120 clips")
        expect(page.locator("#system")).to_have_value("1")  # the first is what it is compared with
        page.select_option("#system", "0")
        assert page.locator("#list > li").count() == 50
        assert page.title().startswith("signllava evaluation")
        for bad, item in zip(HOSTILE, page.locator("#list > li").all(), strict=False):
            assert bad.strip() in item.evaluate("each => each.textContent")
        assert page.locator("#list script, #list img, #list b, main u").count() == 0
        page.select_option("#filter", "exact")
        exact = page.locator("#count").inner_text()
        assert 20 < int(exact.split()[0]) < 60
        page.select_option("#filter", "all")
        page.select_option("#sort", "gain")
        page.select_option("#system", "1")
        assert gains_shown(page) == sorted(gains_shown(page), reverse=True)
        page.select_option("#filter", "lost")
        assert gains_shown(page)[0] < 0
        page.select_option("#filter", "all")
        page.select_option("#sort", "high")
        scores = [float(text.split()[2]) for text in page.locator("#list .meta").all_text_contents()]
        assert len(scores) == 50
        assert scores == sorted(scores, reverse=True)
        for _ in range(3):
            page.press("#after", "Enter")  # and once more than there are pages
        expect(page.locator("#page")).to_have_text("page 3 of 3")
        assert page.evaluate("document.activeElement.id") == "after"
        page.fill("#search", "r3/21")
        expect(page.locator("#count")).to_have_text("1 of 120 clips")
        assert page.locator("#list ins, #list del").count() > 0
        page.fill("#search", "")
        page.select_option("#system", "0")
        page.select_option("#filter", "context")
        assert page.locator("#list details").count() == 50
        assert not complaints
        assert requested == [report.as_uri()]


@pytest.mark.browser
@pytest.mark.parametrize(("width", "scheme"), [(1100, "light"), (380, "dark")])
def test_the_page_is_accessible_on_a_desk_and_on_a_phone(report: Path, width: int, scheme: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    options = {"viewport": {"width": width, "height": 800}, "color_scheme": scheme, "bypass_csp": True}
    with opened_page(report.as_uri(), **options) as (page, _, _):
        found = Axe().run(page).response["violations"]
        serious = [each["id"] for each in found if each["impact"] in ("serious", "critical")]
        assert not serious, [(each["id"], each["nodes"][0]["html"]) for each in found]
        assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.browser
@pytest.mark.drill
def test_a_page_of_twenty_thousand_clips_is_painted_and_searched(signllava: Command, tmp_path: Path) -> None:
    file = file_of(tmp_path / "many.jsonl", pairs(20_000, 1))
    options = ["--samples", 0, "--out", tmp_path / "s.json", "--report", tmp_path / "report.html"]
    assert signllava("eval", file, *options).code == 0
    with opened_page((tmp_path / "report.html").as_uri()) as (page, complaints, _):
        painted = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
        print(f"first paint after {painted:.0f} ms")
        page.fill("#search", "coat in winter")
        assert int(page.locator("#count").inner_text().split()[0]) > 0
        assert not complaints


@pytest.mark.browser
@pytest.mark.parametrize(("systems", "width"), [(3, 1300), (5, 1300), (2, 1024)])
def test_no_column_of_a_system_is_cut_off(signllava: Command, tmp_path: Path, systems: int, width: int) -> None:
    """Names as `generate` makes them: every table that sets systems side by side fits, each column within its box."""
    files = [
        f"step-004000.test.predicted-{n}={file_of(tmp_path / f'{n}.jsonl', pairs(120, n), context=n > 0)}"
        for n in range(systems)
    ]
    options = ["--samples", 50, "--trials", 50, "--out", tmp_path / "s.json", "--report", tmp_path / "r.html"]
    assert signllava("eval", *files, *options).code == 0
    with opened_page((tmp_path / "r.html").as_uri(), viewport={"width": width, "height": 900}) as (page, _, _):
        page.evaluate("document.querySelectorAll('details').forEach((each) => (each.open = true))")
        cut = """[...document.querySelectorAll('.wide')].filter((each) => each.scrollWidth > each.clientWidth)
                 .map((each) => each.getAttribute('aria-label') || each.getAttribute('aria-labeledby'))"""
        kinds = [name for name in page.evaluate(cut) if name.startswith("By ")]
        assert not kinds
        if width >= 1300:
            assert not page.evaluate(cut)
        narrow = """[...document.querySelectorAll('.bars th, .bars td')]
                    .filter((each) => each.scrollWidth > each.clientWidth).map((each) => each.textContent)"""
        assert not page.evaluate(narrow)
        assert page.locator(".bars thead tr").first.locator("th").all_text_contents()[1:] == [
            f"step-004000.test.predicted-{n}" for n in range(systems)
        ]


def test_the_page_refers_to_nothing_outside_itself(report: Path) -> None:
    html = report.read_text()
    assert "default-src 'none'" in html
    for outside in ('src="http', "src='http", 'href="http', "@import", "url("):
        assert outside not in html


def test_a_report_of_answers_tells_accuracy_clip_by_clip(signllava: Command, tmp_path: Path) -> None:
    rows = [
        Prediction("r", str(n), n, "multi_word_present", "yes, no", said, question="coat, lamp")
        for n, said in enumerate(["yes, no", "yes, yes", "perhaps"])
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(vars(row)) + "\n" for row in rows))
    options = ["--resample", "clips", "--report", tmp_path / "report.html", "--charts", tmp_path / "charts"]
    ended = signllava("eval", tmp_path / "a.jsonl", *options)
    assert ended.code == 0, ended.err
    html = (tmp_path / "report.html").read_text()
    data = json.loads(html.split('id="data">')[1].split("</script>")[0])
    assert (data["score"], [clip["score"] for clip in data["clips"]]) == ("accuracy", [[100.0], [50.0], [0.0]])
    assert data["clips"][0]["asked"] == "coat, lamp"
    assert 'id="charts"' not in html
    assert [file.name for file in (tmp_path / "charts").iterdir()] == ["scores.png"]


def test_charts_are_drawn_and_kinds_of_clip_are_those_of_all_systems(signllava: Command, tmp_path: Path) -> None:
    from matplotlib.image import imread

    files = [
        file_of(tmp_path / "none.jsonl", pairs(60, 1)),
        file_of(tmp_path / "gold.jsonl", pairs(60, 2), context=True),
    ]
    options = ["--samples", 50, "--trials", 50, "--charts", tmp_path / "charts", "--report", tmp_path / "r.html"]
    ended = signllava("eval", *files, *options)
    assert ended.code == 0, ended.err
    drawn = sorted(file.name for file in (tmp_path / "charts").iterdir())
    assert drawn == ["by-context-sentences.png", "by-position.png", "gains.png", "scores.png"]
    for name in drawn:
        picture = imread(tmp_path / "charts" / name)
        assert picture.shape[0] > 300
        assert picture[..., :3].std() > 0.01
    table = (
        (tmp_path / "r.html").read_text().split("<caption>By sentences of context</caption>")[1].split("</table>")[0]
    )
    assert [part.split("<")[0] for part in table.split('<th scope="row">')[1:]] == ["0", "1"]


@pytest.mark.parametrize("option", ["--report", "--latex", "--charts", "--out"])
def test_nothing_that_is_scored_is_written_over(signllava: Command, tmp_path: Path, option: str) -> None:
    file = file_of(tmp_path / "one.jsonl", pairs(3, 1))
    before = file.read_text()
    ended = signllava("eval", file, "--samples", 0, option, file)
    assert (ended.code, file.read_text()) == (2, before), ended.err
    assert not (tmp_path / "scores.json").exists()
