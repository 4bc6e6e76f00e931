"""Links between the pages of the documentation, and the navigation of the site."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from doc_pages import PAGES, ROOT, anchors, links, name_of


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_to_a_file_and_to_one_of_its_headings(page: Path) -> None:
    broken = []
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert not broken


def test_links_are_found() -> None:
    """That the test above looks at links, pictures and anchors."""
    found = {name_of(page): links(page) for page in PAGES}
    assert sum(map(len, found.values())) > 150
    assert any("#" in link for link in found["README.md"])
    assert any(link.endswith(".png") for link in found["README.md"])


def site_config() -> dict[str, Any]:
    text = re.sub(r"!!python/\S+ \{.*?\}\}", "null", (ROOT / "mkdocs.yml").read_text())
    return yaml.safe_load(text)


def pages_of(entry: Any) -> list[str]:
    if isinstance(entry, str):
        return [entry]
    below = entry.values() if isinstance(entry, dict) else entry
    return [page for each in below for page in pages_of(each)]


def test_the_navigation_has_every_page_once() -> None:
    pages = pages_of(site_config()["nav"])
    assert len(set(pages)) == len(pages)
    assert set(pages) == {page.name for page in (ROOT / "docs").glob("*.md")} | {"python-api.md"}


def test_broken_links_and_anchors_of_the_site_are_warnings() -> None:
    validation = site_config()["validation"]
    assert validation["links"]["anchors"] == validation["links"]["not_found"] == "warn"
    assert validation["nav"]["omitted_files"] == "warn"
    assert "mkdocs build --strict" in (ROOT / "Makefile").read_text()


@pytest.mark.drill
@pytest.mark.skipif(importlib.util.find_spec("mkdocs") is None, reason="the extra `docs` is not installed")
def test_the_site_is_built_without_a_warning_and_loads_nothing_from_other_sites(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    ended = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    loaded = {
        url
        for file in tmp_path.rglob("*.html")
        for tag in re.findall(r"<(?:script|link|img|iframe)\b[^>]*>", file.read_text())
        for url in re.findall(r"(?:src|href)=[\"']?((?:https?:)?//[^\"'> ]+)", tag)
        if 'rel="canonical"' not in tag
    }
    assert not loaded
    python_api = (tmp_path / "python-api.html").read_text()
    assert "translate_recording" in python_api
    overview = (tmp_path / "cli.html").read_text()
    assert "auto|never|DIR" in overview
