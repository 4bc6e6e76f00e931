"""What `mkdocs build` changes, so that the pages can stay plain Markdown that is also readable on GitHub."""

import posixpath
import re
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

REPOSITORY = "https://github.com/signllava/signllava/blob/main"  # pyproject.toml has the same
LINK = re.compile(r"(\]\()(\.\./[^)\s]*)(\))")
CODE = re.compile(r"`[^`]+`")
# Blocks of mkdocstrings are no Markdown, so this page exists on the site alone; api.md is the page to read.
PYTHON_API = """# Python API

Every public name, from its docstrings. [In Python](api.md) is the page to read first.

::: signllava_cli.api.translator.SignLlava

::: signllava_cli.api.translator.Translation

::: signllava_cli.api.answer_attention.AnswerAttention

::: signllava_cli.api.answer_attention.StreamAttention

::: signllava_cli.api.dataset_split.open_model_split

::: signllava_cli.api.inputs.InvalidInput

::: signllava_cli.errors.UserError
"""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the page of the Python API."""
    files.append(File.generated(config, "python-api.md", content=PYTHON_API))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Point links to files outside of docs/ to the repository, and unescape `|` in the code of tables."""

    def to_repository(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page.file.src_uri), link[2]))
        return f"{link[1]}{REPOSITORY}/{target}{link[3]}"

    lines = LINK.sub(to_repository, markdown).split("\n")
    return "\n".join(unescape_pipes(line) if line.startswith("|") else line for line in lines)


def unescape_pipes(row: str) -> str:
    r"""A row of a table whose code has `|`, which GitHub needs as `\|`, and Python-Markdown would show as such."""
    return CODE.sub(lambda code: code[0].replace("\\|", "|"), row)
