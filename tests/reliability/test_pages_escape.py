"""Names and texts of data are shown as text on every page, in a real Chromium: no script in them runs."""

import json
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from browser import opened_page
from conftest import Ended
from web_requests import npy, served

from signllava_cli.data.annotations import Clip, Recording
from signllava_cli.generation.prediction import Prediction
from signllava_cli.prepare.dataset_writer import write_annotations, write_stream
from signllava_cli.prepare.extract.contact_sheet import SheetClip, write_contact_sheet
from signllava_cli.prepare.extract.pose_quality import NAMES as PARTS
from signllava_cli.prepare.extract.pose_quality import PoseQuality
from signllava_cli.prepare.extract.video_cuts import VideoCut

Command = Callable[..., Ended]
SCRIPT = "window.planted=1"
HOSTILE = (
    f'<img src=x onerror="{SCRIPT}">',
    f"</script><script>{SCRIPT}</script>",
    f"<!--<script>{SCRIPT}//",
    f'"><svg onload={SCRIPT}>',
    f"' onfocus='{SCRIPT}' autofocus='",
    f"\u2028{SCRIPT}\u2029",
    f"{{{{ {SCRIPT} }}}}<iframe srcdoc='<script>parent.{SCRIPT}</script>'>",
)
NAMES = [text.replace("/", "") for text in HOSTILE]  # of recordings, clips and files
ESCAPED = pytest.mark.reliability("Security", "pages show names and texts of data as text; no script in them runs")


def write_evaluation(signllava: Command, folder: Path) -> Path:
    """A report whose systems, clips and texts are hostile."""
    files = []
    for number, name in enumerate(NAMES[:3]):
        rows = [
            Prediction(
                NAMES[n % 7], f"{n}{NAMES[n // 7]}", n, "translation", HOSTILE[n % 7], text, [text] if n else []
            )
            for n, text in enumerate(HOSTILE * 2)
        ]
        file = folder / f"{number}.jsonl"
        file.write_text("".join(json.dumps(vars(row)) + "\n" for row in rows))
        files.append(f"{name.replace('=', '')}={file}")
    ended = signllava("eval", *files, "--samples", 20, "--trials", 20, "--report", folder / "eval.html")
    assert ended.code == 0, ended.err
    return folder / "eval.html"


def write_data(folder: Path) -> Path:
    """A dataset whose folder, recordings, clips and sentences are hostile."""
    data = folder / NAMES[0]
    recordings = [
        Recording(name, tuple(Clip(name, f"{n}{NAMES[n]}", n, text) for n, text in enumerate(HOSTILE)))
        for name in NAMES
    ]
    write_annotations(data, "dev", recordings)
    for stream, width in (("sign2vec", 48), ("mae", 64)):
        frames = {r.name: {clip.name: np.ones((4, width)) for clip in r.clips} for r in recordings}
        write_stream(data, "dev", stream, frames, 1)
    return data


def write_check(signllava: Command, folder: Path) -> Path:
    """A report of `prepare check` with many findings."""
    data = write_data(folder)
    content = json.loads((data / "annotation.dev.json").read_text())
    for name in NAMES:
        content[name][name] = {"translation": name}  # not in clip_order, and without features
        content[name]["clip_order"].append(f"missing {name}")
    (data / "annotation.dev.json").write_text(json.dumps(content))
    ended = signllava("prepare", "check", data, "--report", folder / "check.html")
    assert ended.code == 2, ended.out
    return folder / "check.html"


def write_sheet(signllava: Command, folder: Path) -> Path:
    """A contact sheet of clips with hostile names, whose videos, of hostile names, cannot be read."""
    with h5py.File(folder / "arrays.h5", "w") as file:
        for name in NAMES:
            file[f"{name}/boxes"] = np.zeros((3, 3, 3))
    parts = dict.fromkeys(PARTS.values(), 1)
    quality = PoseQuality(3, 25.0, parts, parts, 0, 0, 0, 0, (8, 8))
    arrays = folder / "arrays.h5"
    clips = [SheetClip(f"rec/{name}", VideoCut(folder / name), quality, arrays, arrays) for name in NAMES]
    write_contact_sheet(folder / "sheet.html", HOSTILE[0], clips)
    return folder / "sheet.html"


@ESCAPED
@pytest.mark.browser
@pytest.mark.drill
@pytest.mark.parametrize("write_page", [write_evaluation, write_check, write_sheet])
def test_hostile_names_and_texts_run_no_script_in_a_report(
    signllava: Command,
    tmp_path: Path,
    write_page: Callable[[Command, Path], Path],
    record_property: Callable[[str, object], None],
) -> None:
    """Without the page's policy too, which alone would stop the scripts."""
    page_file = write_page(signllava, tmp_path)
    for options in ({"bypass_csp": True}, {}):
        with opened_page(page_file.as_uri(), **options) as (page, errors, requested):
            page.evaluate("document.querySelectorAll('details').forEach((details) => (details.open = true))")
            page.wait_for_timeout(300)
            assert page.evaluate("window.planted") is None
            assert not errors
            assert [address for address in requested if not address.startswith("data:")] == [page_file.as_uri()]
            assert SCRIPT in page.evaluate("document.body.innerText")
            assert page.locator("svg, iframe, [onerror], [onload], [onfocus], [srcdoc]").count() == 0
    assert is_stopped_by_policy(page_file.as_uri())
    record_property("hostile names and texts", len(NAMES) + len(HOSTILE))


def is_stopped_by_policy(address: str) -> bool:
    """Whether the policy of a page would stop a script in an attribute, if one were not escaped."""
    with opened_page(address) as (page, errors, _):
        page.evaluate(f"document.body.insertAdjacentHTML('beforeend', '<img src=x onerror={SCRIPT}>')")
        page.wait_for_timeout(300)
        return page.evaluate("window.planted") is None and any("Content Security Policy" in text for text in errors)


@ESCAPED
@pytest.mark.browser
@pytest.mark.drill
def test_hostile_names_and_texts_run_no_script_in_the_web_app(
    run: Path, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    from playwright.sync_api import expect

    data = write_data(tmp_path)
    upload = tmp_path / f"{NAMES[0]}.npy"
    upload.write_bytes(npy(np.ones((3, 5))))
    with served("-c", run, "--data", data, "--split", "dev", "--beams", 1) as (address, _):
        with opened_page(address, bypass_csp=True) as (page, _, _):
            expect(page.locator("#recording option")).to_have_count(len(NAMES) + 1)
            page.select_option("#recording", NAMES[0])
            page.select_option("#source", "gold")
            page.fill("#window", "2")
            page.click("#translate")
            expect(page.locator("#status")).to_have_text(f"{len(NAMES)} clips translated", timeout=120_000)
            references = page.locator(".reference dd").evaluate_all("items => items.map((item) => item.textContent)")
            assert references == list(HOSTILE)
            assert NAMES[0] in page.locator(".clip .name").first.inner_text()
            page.set_input_files("#files", upload)
            page.click("#translate")
            expect(page.locator("#status")).to_contain_text("has width 5", timeout=60_000)
            assert "<img src=x onerror=" in page.locator("#status").inner_text()  # browsers send a quote as %22
            assert page.evaluate("window.planted") is None
            assert page.locator("svg, iframe, [onerror], [onload], [onfocus], [srcdoc]").count() == 0
        assert is_stopped_by_policy(address)
    record_property("hostile names and texts", 2 * len(NAMES) + len(HOSTILE))
