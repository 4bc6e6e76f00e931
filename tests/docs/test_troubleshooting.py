"""Every message that docs/troubleshooting.md explains is one of the package."""

import ast
import re
from functools import cache

from doc_pages import ROOT

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text()
PLACEHOLDER = "..."


@cache
def templates() -> list[str]:
    """Every text of the package, with `...` for what is filled in."""
    found = []
    for file in (ROOT / "signllava_cli").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.JoinedStr | ast.Constant | ast.BinOp) and (text := text_of(node)):
                found.append(text)
    return found


def text_of(node: ast.AST) -> str:
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part) if isinstance(part, ast.Constant) else PLACEHOLDER for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return (text_of(node.left) or PLACEHOLDER) + (text_of(node.right) or PLACEHOLDER)
    return ""


def messages() -> list[str]:
    return re.findall(r"^\| `([^`]+)` \| ", PAGE, re.MULTILINE)


def is_printed(message: str) -> bool:
    """Whether a text of the package has all words of `message`, in this order, with anything at its placeholders."""
    pieces = [piece for piece in re.split(r"\.{3,}", message) if piece.strip(" .:;,()")]
    return any(has_in_order(text, pieces) for text in templates())


def has_in_order(text: str, pieces: list[str]) -> bool:
    at = 0
    for piece in pieces:
        found = text.find(piece, at)
        if found < 0:
            return False
        at = found + len(piece)
    return True


def test_every_message_of_the_page_is_in_the_package() -> None:
    assert len(messages()) > 60
    assert not [message for message in messages() if not is_printed(message)]


def test_every_row_of_a_table_begins_with_a_message() -> None:
    rows = [
        line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith(("| ---", "| message"))
    ]
    assert len(rows) == len(messages())
    assert all(len(re.sub(r"\W|\.\.\.", "", message)) >= 9 for message in messages())


def test_a_message_that_nothing_prints_is_found() -> None:
    assert not is_printed("No data folder at ...: set data.folder, or create one with ...")
    assert not is_printed("set data.root ... No data folder at")
