"""The HTML page of an evaluation, opened in a browser from a file."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import needs_chromium, opened_page
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
    draw = np.random.default_rng(seed)
    meant = [" ".join(np.random.default_rng(n).choice(WORDS, size=6)) for n in range(count)]
    return [(text, text if draw.random() < 0.3 else " ".join(draw.choice(WORDS, size=5))) for text in meant]


@pytest.fixture
def report(signllava: Command, tmp_path: Path) -> Path:
    """Two systems on 120 clips; the hypotheses of the first begin with hostile ones."""
    one, two = pairs(120, 1), pairs(120, 2)
    one[: len(HOSTILE)] = [(meant, bad) for (meant, _), bad in zip(one, HOSTILE, strict=False)]
    files = [file_of(tmp_path / "one.jsonl", one, context=True), file_of(tmp_path / "two.jsonl", two)]
    options = ["--samples", 100, "--trials", 100, "--out", tmp_path / "s.json", "--report", tmp_path / "report.html"]
    ended = signllava("eval", *files, *options)
    assert ended.code == 0, ended.err
    return tmp_path / "report.html"


@needs_chromium
def test_the_page_sorts_filters_and_searches_and_shows_hostile_text_as_text(report: Path) -> None:
    from playwright.sync_api import expect

    with opened_page(report.as_uri(), viewport={"width": 1100, "height": 900}) as (page, complaints, requested):
        page: Any
        expect(page.locator("#count")).to_have_text("120 of 120 clips")
        assert page.locator("#list > li").count() == 50
        assert page.title().startswith("signllava evaluation")
        for bad, item in zip(HOSTILE, page.locator("#list > li").all(), strict=False):
            assert bad.strip() in item.evaluate("each => each.textContent")
        assert page.locator("#list script, #list img, #list b").count() == 0
        page.select_option("#filter", "exact")
        exact = page.locator("#count").inner_text()
        assert 20 < int(exact.split()[0]) < 60
        page.select_option("#filter", "all")
        page.select_option("#sort", "gain")
        page.select_option("#system", "1")
        scores = [float(text.rsplit(" ", 1)[1]) for text in page.locator("#list .meta").all_text_contents()]
        assert len(scores) == 50
        page.select_option("#sort", "high")
        scores = [float(text.rsplit(" ", 1)[1]) for text in page.locator("#list .meta").all_text_contents()]
        assert scores == sorted(scores, reverse=True)
        page.click("#after")
        expect(page.locator("#page")).to_have_text("page 2 of 3")
        page.fill("#search", "r3/21")
        expect(page.locator("#count")).to_have_text("1 of 120 clips")
        assert page.locator("#list ins, #list del").count() > 0
        page.fill("#search", "")
        page.select_option("#system", "0")
        page.select_option("#filter", "context")
        assert page.locator("#list details").count() == 50
        assert not complaints
        assert requested == [report.as_uri()]


@needs_chromium
@pytest.mark.parametrize(("width", "scheme"), [(1100, "light"), (380, "dark")])
def test_the_page_is_accessible_on_a_desk_and_on_a_phone(report: Path, width: int, scheme: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    options = {"viewport": {"width": width, "height": 800}, "color_scheme": scheme, "bypass_csp": True}
    with opened_page(report.as_uri(), **options) as (page, _, _):
        found = Axe().run(page).response["violations"]
        serious = [each["id"] for each in found if each["impact"] in ("serious", "critical")]
        assert not serious, [(each["id"], each["nodes"][0]["html"]) for each in found]
        assert page.evaluate("document.documentElement.scrollWidth") <= width  # type: ignore[attr-defined]


@needs_chromium
@pytest.mark.slow
def test_twenty_thousand_clips_are_painted_in_two_seconds(signllava: Command, tmp_path: Path) -> None:
    file = file_of(tmp_path / "many.jsonl", pairs(20_000, 1))
    options = ["--samples", 0, "--out", tmp_path / "s.json", "--report", tmp_path / "report.html"]
    assert signllava("eval", file, *options).code == 0
    with opened_page((tmp_path / "report.html").as_uri()) as (page, complaints, _):
        page: Any
        painted = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
        assert painted < 2000
        page.fill("#search", "coat in winter")
        assert int(page.locator("#count").inner_text().split()[0]) > 0
        assert not complaints


def test_the_page_refers_to_nothing_outside_itself(report: Path) -> None:
    html = report.read_text()
    assert "default-src 'none'" in html
    for outside in ('src="http', "src='http", 'href="http', "@import", "url("):
        assert outside not in html
