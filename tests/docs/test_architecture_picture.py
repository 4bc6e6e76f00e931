"""The picture of docs/design.md has the folders of the package."""

import re
from xml.etree import ElementTree

from doc_pages import ROOT

PICTURE = ROOT / "docs" / "images" / "architecture.svg"


def test_the_picture_names_every_folder_of_the_package() -> None:
    texts = list(ElementTree.parse(PICTURE).iter("{http://www.w3.org/2000/svg}text"))
    shown = {text.text for text in texts if text.get("class") == "folder"}
    folders = {f"{file.parent.name}/" for file in (ROOT / "signllava_cli").glob("*/__init__.py")}
    assert shown == folders


def test_files_in_the_picture_are_those_of_the_docs() -> None:
    names = set(re.findall(r"[\w.]+\.(?:safetensors|jsonl|json|html|yaml|arrow)", PICTURE.read_text()))
    pages = "".join(page.read_text() for page in (ROOT / "docs").glob("*.md")).replace("{split}", "SPLIT")
    assert names >= {"projector.safetensors", "predictions.jsonl", "scores.json"}
    assert not [name for name in names if name not in pages]


def test_pages_show_it() -> None:
    assert "images/architecture.svg" in (ROOT / "docs" / "design.md").read_text()
    assert "docs/images/architecture.svg" in (ROOT / "README.md").read_text()
