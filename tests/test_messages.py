"""Messages are grammatical whatever they count."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "signllava_cli"
# Nouns that a message may count one of. Not found: `{number} of {total} clips`, `{rate} clips/s`, and large numbers
# with separators (`{number:,} clips`).
COUNTED = re.compile(
    r" (more )?(clips|recordings|sentences|rows|shards|keys|settings|tensors|paraphrases|pairs|jumps|frames)\b(?!/)"
)


def plural_counts(file: Path) -> Iterator[int]:
    """The lines of f-strings with `{count} clips` or the like."""
    strings = [node.values for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.JoinedStr)]
    for before, value, after in (
        each for parts in strings for each in zip([None, *parts], parts, parts[1:], strict=False)
    ):
        if isinstance(value, ast.FormattedValue) and isinstance(after, ast.Constant) and not value.format_spec:
            if isinstance(value.value, ast.Name) and value.value.id.isupper():  # a constant, which is not 1
                continue
            is_total = isinstance(before, ast.Constant) and re.search(r"of (the )?$", str(before.value))
            if COUNTED.match(str(after.value)) and not is_total:
                yield value.lineno


def test_counts_of_one_are_in_the_singular() -> None:
    """Messages count with `format_count`."""
    found = {f"{file.relative_to(PACKAGE)}:{line}" for file in PACKAGE.rglob("*.py") for line in plural_counts(file)}
    assert not found
