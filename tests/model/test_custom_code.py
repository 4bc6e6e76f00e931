"""Python files in the folder of an LLM are not run, even if the prompt of transformers is answered with yes."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Ended, sets

CODE = "from pathlib import Path\nPath({marker!r}).touch()\n"


@pytest.fixture
def marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that the code of the LLM in tmp_path/llm creates when it runs; all prompts are answered with yes."""
    llm, marker = tmp_path / "llm", tmp_path / "marker"
    llm.mkdir()
    (llm / "custom.py").write_text(CODE.format(marker=str(marker)))
    names = {"AutoConfig": "custom.Config", "AutoModelForCausalLM": "custom.Model"}
    (llm / "config.json").write_text(json.dumps({"model_type": "custom", "auto_map": names}))
    tokenizer = {"tokenizer_class": "Custom", "auto_map": {"AutoTokenizer": ["custom.Tokenizer", None]}}
    (llm / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    monkeypatch.setattr("builtins.input", lambda question: "y")
    return marker


@pytest.mark.reliability("Security", "data is never run as code: no pickle, no eval, safe YAML")
@pytest.mark.parametrize("command", ["prepare llm", "pretrain"])
def test_a_command_refuses_an_llm_that_needs_code_of_its_own(
    command: str, marker: Path, corpus: Path, signllava: Callable[..., Ended], tmp_path: Path
) -> None:
    llm = tmp_path / "llm"
    options = ["--out", tmp_path / "out", llm]
    settings = [f"llm.path={llm}", f"data.root={corpus}", f"run.output_dir={tmp_path / 'run'}"]
    if command == "pretrain":
        options = ["--recipe", "toy/tiny_pretrain", *sets(settings)]
    ended = signllava(*command.split(), *options)
    assert ended.code == 2, ended.err
    assert "custom code" in ended.err
    assert len(ended.err.splitlines()) == 1
    assert not marker.exists()
