"""The HTML page of an evaluation, opened in a browser as a file."""

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


def write_predictions(path: Path, pairs: list[tuple[str, str]], has_context: bool = False) -> Path:
    """Predictions of (reference, hypothesis) pairs, seven clips per recording, with a sentence of context or none."""
    rows = []
    for n, (reference, hypothesis) in enumerate(pairs):
        context = [pairs[n - 1][0]] if has_context and n % 7 else []
        rows.append(Prediction(f"r{n // 7}", str(n), n % 7, "translation", reference, hypothesis, context))
    path.write_text("".join(json.dumps(vars(row)) + "\n" for row in rows))
    return path


def make_pairs(count: int, seed: int) -> list[tuple[str, str]]:
    """(reference, hypothesis) pairs; references do not depend on `seed`."""
    rng = np.random.default_rng(seed)
    references = [" ".join(np.random.default_rng(n).choice(WORDS, size=6)) for n in range(count)]
    return [(text, text if rng.random() < 0.3 else " ".join(rng.choice(WORDS, size=5))) for text in references]


@pytest.fixture
def report(signllava: Command, tmp_path: Path) -> Path:
    """A report of a system and two seeds of another on 120 clips; the first hypotheses of the first are hostile."""
    one = make_pairs(120, 1)
    one[: len(HOSTILE)] = [(reference, text) for (reference, _), text in zip(one, HOSTILE, strict=False)]
    seeds = [f"<u>ours={write_predictions(tmp_path / f'{seed}.jsonl', make_pairs(120, seed))}" for seed in (2, 3)]
    files = [write_predictions(tmp_path / "one.jsonl", one, has_context=True), *seeds]
    options = ["--samples", 100, "--trials", 100, "--out", tmp_path / "s.json", "--report", tmp_path / "report.html"]
    process = signllava("eval", *files, *options)
    assert process.code == 0, process.err
    return tmp_path / "report.html"


def page_gains(page: Any) -> list[float]:
    return [float(text.rsplit("(", 1)[1].rstrip(")")) for text in page.locator("#list .meta").all_text_contents()]


@pytest.mark.reliability("Security", "pages show names and texts of data as text; no script in them runs")
@pytest.mark.browser
def test_the_page_sorts_filters_and_searches_and_escapes_hostile_text(report: Path) -> None:
    from playwright.sync_api import expect

    with opened_page(report.as_uri(), viewport={"width": 1100, "height": 900}) as (page, errors, requests):
        expect(page.locator("#count")).to_have_text("120 of 120 clips")
        expect(page.locator("#system")).to_have_value("1")  # the first is the baseline
        page.select_option("#system", "0")
        assert page.locator("#list > li").count() == 50
        assert page.title().startswith("signllava evaluation")
        for text, item in zip(HOSTILE, page.locator("#list > li").all(), strict=False):
            assert text.strip() in item.evaluate("item => item.textContent")
        assert page.locator("#list script, #list img, #list b, main u").count() == 0
        page.select_option("#filter", "exact")
        exact = page.locator("#count").inner_text()
        assert 20 < int(exact.split()[0]) < 60
        page.select_option("#filter", "all")
        page.select_option("#sort", "gain")
        page.select_option("#system", "1")
        assert page_gains(page) == sorted(page_gains(page), reverse=True)
        page.select_option("#filter", "lost")
        assert page_gains(page)[0] < 0
        page.select_option("#filter", "all")
        page.select_option("#sort", "high")
        scores = [float(text.split()[2]) for text in page.locator("#list .meta").all_text_contents()]
        assert len(scores) == 50
        assert scores == sorted(scores, reverse=True)
        for _ in range(3):
            page.press("#after", "Enter")  # once more than there are pages
        expect(page.locator("#page")).to_have_text("page 3 of 3")
        assert page.evaluate("document.activeElement.id") == "after"
        page.fill("#search", "r3/21")
        expect(page.locator("#count")).to_have_text("1 of 120 clips")
        assert page.locator("#list ins, #list del").count() > 0
        page.fill("#search", "")
        page.select_option("#system", "0")
        page.select_option("#filter", "context")
        assert page.locator("#list details > summary").all_text_contents() == ["context, 1 sentence"] * 50
        assert not errors
        assert requests == [report.as_uri()]


@pytest.mark.browser
@pytest.mark.parametrize(("width", "scheme"), [pytest.param(1100, "light", marks=pytest.mark.drill), (380, "dark")])
def test_the_page_is_accessible_on_a_desktop_and_on_a_phone(report: Path, width: int, scheme: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    options = {"viewport": {"width": width, "height": 800}, "color_scheme": scheme, "bypass_csp": True}
    with opened_page(report.as_uri(), **options) as (page, _, _):
        violations = Axe().run(page).response["violations"]
        serious = [violation["id"] for violation in violations if violation["impact"] in ("serious", "critical")]
        assert not serious, [(violation["id"], violation["nodes"][0]["html"]) for violation in violations]
        assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.browser
@pytest.mark.drill
def test_a_page_of_twenty_thousand_clips_is_painted_and_searched(signllava: Command, tmp_path: Path) -> None:
    file = write_predictions(tmp_path / "many.jsonl", make_pairs(20_000, 1))
    options = ["--samples", 0, "--out", tmp_path / "s.json", "--report", tmp_path / "report.html"]
    assert signllava("eval", file, *options).code == 0
    with opened_page((tmp_path / "report.html").as_uri()) as (page, errors, _):
        painted = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
        print(f"first paint after {painted:.0f} ms")
        page.fill("#search", "coat in winter")
        assert int(page.locator("#count").inner_text().split()[0]) > 0
        assert not errors


@pytest.mark.drill
@pytest.mark.browser
@pytest.mark.parametrize(("systems", "width"), [(3, 1300), (5, 1300), (2, 1024)])
def test_every_column_of_a_system_fits_the_page(signllava: Command, tmp_path: Path, systems: int, width: int) -> None:
    """With folder names of `generate`, every table with a column per system fits, and so does each cell."""
    files = []
    for n in range(systems):
        file = write_predictions(tmp_path / f"{n}.jsonl", make_pairs(120, n), has_context=n > 0)
        files.append(f"step-004000.test.predicted-{n}={file}")
    options = ["--samples", 50, "--trials", 50, "--out", tmp_path / "s.json", "--report", tmp_path / "r.html"]
    assert signllava("eval", *files, *options).code == 0
    with opened_page((tmp_path / "r.html").as_uri(), viewport={"width": width, "height": 900}) as (page, _, _):
        page.evaluate("document.querySelectorAll('details').forEach((details) => (details.open = true))")
        overflowing_tables = page.evaluate("""[...document.querySelectorAll('.wide')]
            .filter((table) => table.scrollWidth > table.clientWidth)
            .map((table) => table.getAttribute('aria-label') || table.getAttribute('aria-labelledby'))""")
        assert not [name for name in overflowing_tables if name.startswith("By ")]
        if width >= 1300:
            assert not overflowing_tables
        overflowing_cells = page.evaluate("""[...document.querySelectorAll('.bars th, .bars td')]
            .filter((cell) => cell.scrollWidth > cell.clientWidth).map((cell) => cell.textContent)""")
        assert not overflowing_cells
        assert page.locator(".bars thead tr").first.locator("th").all_text_contents()[1:] == [
            f"step-004000.test.predicted-{n}" for n in range(systems)
        ]


@pytest.mark.reliability("Security", "pages show names and texts of data as text; no script in them runs")
def test_the_page_loads_nothing_from_outside(report: Path) -> None:
    html = report.read_text()
    assert "default-src 'none'" in html
    for reference in ('src="http', "src='http", 'href="http', "@import", "url("):
        assert reference not in html


def test_a_report_of_answers_has_the_accuracy_of_each_clip(signllava: Command, tmp_path: Path) -> None:
    rows = [
        Prediction("r", str(n), n, "multi_word_present", "yes, no", answer, question="coat, lamp")
        for n, answer in enumerate(["yes, no", "yes, yes", "perhaps"])
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(vars(row)) + "\n" for row in rows))
    options = ["--resample", "clips", "--report", tmp_path / "report.html", "--charts", tmp_path / "charts"]
    process = signllava("eval", tmp_path / "a.jsonl", *options)
    assert process.code == 0, process.err
    html = (tmp_path / "report.html").read_text()
    data = json.loads(html.split('id="data">')[1].split("</script>")[0])
    assert (data["score_label"], [clip["scores"] for clip in data["clips"]]) == ("accuracy", [[100.0], [50.0], [0.0]])
    assert data["clips"][0]["question"] == "coat, lamp"
    assert 'id="charts"' not in html
    assert [file.name for file in (tmp_path / "charts").iterdir()] == ["scores.png"]


def test_charts_are_drawn_and_bucket_tables_have_the_buckets_of_all_systems(
    signllava: Command, tmp_path: Path
) -> None:
    from matplotlib.image import imread

    files = [
        write_predictions(tmp_path / "none.jsonl", make_pairs(60, 1)),
        write_predictions(tmp_path / "gold.jsonl", make_pairs(60, 2), has_context=True),
    ]
    options = ["--samples", 50, "--trials", 50, "--charts", tmp_path / "charts", "--report", tmp_path / "r.html"]
    process = signllava("eval", *files, *options)
    assert process.code == 0, process.err
    charts = sorted(file.name for file in (tmp_path / "charts").iterdir())
    assert charts == ["by-context-sentences.png", "by-position.png", "gains.png", "scores.png"]
    for name in charts:
        picture = imread(tmp_path / "charts" / name)
        assert picture.shape[0] > 300
        assert picture[..., :3].std() > 0.01
    table = (
        (tmp_path / "r.html").read_text().split("<caption>By sentences of context</caption>")[1].split("</table>")[0]
    )
    assert [part.split("<")[0] for part in table.split('<th scope="row">')[1:]] == ["0", "1"]


@pytest.mark.parametrize("option", ["--report", "--latex", "--charts", "--out"])
def test_an_input_is_never_overwritten(signllava: Command, tmp_path: Path, option: str) -> None:
    file = write_predictions(tmp_path / "one.jsonl", make_pairs(3, 1))
    before = file.read_text()
    process = signllava("eval", file, "--samples", 0, option, file)
    assert (process.code, file.read_text()) == (2, before), process.err
    assert not (tmp_path / "scores.json").exists()
