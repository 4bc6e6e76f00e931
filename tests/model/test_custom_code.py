"""Python files that lie in the folder of an LLM are not run, whatever is answered to transformers' question."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Ended, sets

CODE = "from pathlib import Path\nPath({ran!r}).touch()\n"


@pytest.fixture
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that the code of the LLM in tmp_path/llm makes when it is run; all questions are answered with yes."""
    llm, ran = tmp_path / "llm", tmp_path / "ran"
    llm.mkdir()
    (llm / "stranger.py").write_text(CODE.format(ran=str(ran)))
    names = {"AutoConfig": "stranger.Config", "AutoModelForCausalLM": "stranger.Model"}
    (llm / "config.json").write_text(json.dumps({"model_type": "stranger", "auto_map": names}))
    tokenizer = {"tokenizer_class": "Stranger", "auto_map": {"AutoTokenizer": ["stranger.Tokenizer", None]}}
    (llm / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    monkeypatch.setattr("builtins.input", lambda question: "y")
    return ran


@pytest.mark.parametrize("command", ["prepare llm", "pretrain"])
def test_a_command_refuses_an_llm_that_needs_code_of_its_own(
    command: str, ran: Path, corpus: Path, signllava: Callable[..., Ended], tmp_path: Path
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
    assert not ran.exists()
