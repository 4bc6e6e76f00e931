"""Tokens, keys and passwords reach no file and no message, wherever they are given."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Ended, sets

from signllava_cli.api.hub import save_checkpoint
from signllava_cli.model.checkpoint import find_checkpoint
from signllava_cli.redaction import redact
from signllava_cli.training import trackers

Command = Callable[..., Ended]
SECRETS_ARE_SAFE = pytest.mark.reliability("Security", "secrets are in no log, checkpoint, model card or report")
VARIABLES = {
    "HF_TOKEN": "hf_AbCdEfGhIjKlMnOpQrStUvWx",
    "WANDB_API_KEY": "0123456789abcdef0123456789abcdef01234567",
    "MLFLOW_TRACKING_PASSWORD": "correct-horse-battery",
    "LAB_API_KEY": "plain words as a key",
}
URLS = (
    "https://ann:s3cr3tpass@example.org/llm",
    "https://example.org/llm?token=s3cr3tpass",
    "hf_ZyXwVuTsRqPoNmLkJiHgFeDc",
)


def words_of(value: str) -> list[str]:
    return [word for word in ("s3cr3tpass", "hf_ZyXwVuTsRqPoNmLkJiHgFeDc") if word in value]


@SECRETS_ARE_SAFE
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("GET https://a:b@h/x?a=1&token=c#d", "GET https://***@h/x?a=1&token=***#d"),
        ("Authorization: Bearer abcdefgh1234", "Authorization: Bearer ***"),
        ("password=abc and WANDB_API_KEY=0123", "password=*** and WANDB_API_KEY=***"),
        ("cloned from https://ghp_AbCdEfGhIjKlMnOpQrSt@github.com/a/b", "cloned from https://***@github.com/a/b"),
        ("2 tokens; --set key=value; a@b.org; hf_transfer; s3://bucket/key", None),
        ("data/sk-slovak-sign-language-of-2023, runs/hf_Llama3Instruct8B, runs/token=bpe,lr=1e-3", None),
    ],
)
def test_secrets_are_recognized(text: str, expected: str | None) -> None:
    assert redact(text) == (text if expected is None else expected)


def test_the_search_for_secrets_in_a_long_word_is_fast() -> None:
    start = time.process_time()
    redact("a" * 40_000)
    assert time.process_time() - start < 2  # in quadratic time 20 s


@SECRETS_ARE_SAFE
def test_a_recipe_with_a_secret_is_refused_without_showing_it(
    signllava: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
) -> None:
    """Recipes are stored in run folders, checkpoints, model cards, predictions and trackers."""
    monkeypatch.setenv("LAB_API_KEY", VARIABLES["LAB_API_KEY"])
    monkeypatch.chdir(tmp_path)
    places = ("llm.path", "llm.revision", "data.root", "run.output_dir", "track.project", "tasks.system")
    values = (*URLS, VARIABLES["LAB_API_KEY"])
    for place in places:
        for value in values:
            for command in ("pretrain", "finetune"):
                ended = signllava(command, "--recipe", "toy/tiny_pretrain", "--set", f"{place}={json.dumps(value)}")
                assert ended.code == 2, ended.out
                assert f"{place}: contains a token, key or password" in ended.err
                assert not [word for word in (*words_of(value), VARIABLES["LAB_API_KEY"]) if word in ended.err]
    (tmp_path / "recipe.yaml").write_text(f"llm: {{path: {json.dumps(URLS[0])}}}\nstreams: {{mae: {{width: 3}}}}\n")
    ended = signllava("recipes", "validate", "recipe.yaml")
    assert (ended.code, "s3cr3tpass" in ended.err + ended.out) == (2, False)
    wrong_value = signllava("pretrain", "--recipe", "toy/tiny_pretrain", "--set", f"train.max_steps={URLS[0]}")
    assert (wrong_value.code, "s3cr3tpass" in wrong_value.err) == (2, False)
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.yaml"]
    record_property("planted secrets", 2 * len(places) * len(values) + 2)


@pytest.fixture
def variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of a user who is logged in, and a tracker whose errors show what it was given."""
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)

    def fail(*args: Any, **options: Any) -> None:
        raise ConnectionError(f"POST {URLS[0]} with key {VARIABLES['LAB_API_KEY']}: refused")

    monkeypatch.setattr(trackers.TensorBoardTracker, "start", fail)


@pytest.mark.drill
@SECRETS_ARE_SAFE
def test_no_output_of_a_study_holds_a_secret(
    signllava: Command,
    settings: list[str],
    variables: None,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    run = tmp_path / "run"
    study = [*settings, "train.max_steps=2", "track.report_to=[tensorboard]", "data.num_workers=0"]
    outputs = [signllava("pretrain", "--recipe", "toy/tiny_pretrain", *sets(study))]
    outputs.append(signllava("generate", "-c", run, "--split", "dev", "--set", "generate.max_new_tokens=4"))
    files = sorted((run / "predictions").glob("*"))
    outputs.append(signllava("eval", *files, "--samples", 0, "--report", tmp_path / "report.html"))
    outputs.append(signllava("checkpoint", "push", run, "owner/name"))  # there is no network
    outputs += [
        signllava("checkpoint", "inspect", run),
        signllava("env"),
        signllava("recipes", "show", run / "recipe.yaml"),
    ]
    save_checkpoint(find_checkpoint(run), tmp_path / "saved", None)
    assert [output.code for output in outputs] == [0, 0, 0, 2, 0, 0, 0], [output.err for output in outputs]
    assert "the tracker tensorboard failed" in outputs[0].out
    contents = {str(path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    contents |= {f"output {number}": (output.out + output.err).encode() for number, output in enumerate(outputs)}
    secrets = [*VARIABLES.values(), "s3cr3tpass"]
    assert not {name for name, content in contents.items() if any(secret.encode() in content for secret in secrets)}
    assert {"README.md", "log.txt", "metrics.jsonl", "report.html"} <= {Path(name).name for name in contents}
    record_property("files and outputs without a secret", len(contents))
