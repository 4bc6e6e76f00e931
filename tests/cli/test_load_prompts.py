"""Commands that can do without prompts say in lines why they have none."""

import pytest

from signllava_cli.cli.prompts import load_prompts
from signllava_cli.errors import UserError
from signllava_cli.recipe import Recipe, build_recipe


def test_the_consequence_follows_the_last_line_of_the_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(config: Recipe) -> None:
        raise UserError("The tokenizer has 2 errors:", "  one", "  two")

    monkeypatch.setattr("signllava_cli.model.llm.load_tokenizer", fail)
    recipe = build_recipe({"streams": {"mae": {"width": 3}}})
    assert load_prompts(recipe, "lengths are assumed") is None
    printed = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert printed == ["warning: The tokenizer has 2 errors:", "  one", "  two (so lengths are assumed)"]
