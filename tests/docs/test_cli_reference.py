"""docs/cli.md is what its script writes, from the commands themselves."""

import importlib.util

from doc_pages import ROOT

SCRIPT = ROOT / "docs" / "site" / "cli_reference.py"


def test_the_page_of_the_commands_is_current() -> None:
    spec = importlib.util.spec_from_file_location("cli_reference", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    page = module.reference()
    assert "| `--context-source` | `SOURCE` |" in page
    assert (ROOT / "docs" / "cli.md").read_text() == page, "python docs/site/cli_reference.py > docs/cli.md"
