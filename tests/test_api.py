"""The Python API gives what the command line gives, and refuses what it cannot use."""

import doctest
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Ended

from signllava_cli import SignLlava
from signllava_cli.api.features import BadInput
from signllava_cli.data.split import Split
from signllava_cli.errors import UserError
from signllava_cli.generation.predictions import read_predictions
from signllava_cli.model.checkpoint import find_checkpoint, recipe_of

Command = Callable[..., Ended]
SETTINGS: dict[str, Any] = {"beams": 2, "max_new_tokens": 8}


@pytest.fixture(scope="module")
def model(run: Path) -> SignLlava:
    return SignLlava.from_pretrained(run, **SETTINGS)


@pytest.fixture(scope="module")
def split(run: Path) -> Split:
    return Split(recipe_of(find_checkpoint(run), []), "dev")


def test_the_documented_examples_run(run: Path, split: Split, tmp_path: Path) -> None:
    recording = [split.read(clip) for clip in split.clips if clip.recording == "dev00"]
    names = {"run": run, "recording": recording, "frames": recording[0], "folder": tmp_path / "saved"}
    file = Path(__file__).parent.parent / "docs" / "api.md"
    failed, tried = doctest.testfile(str(file), module_relative=False, globs=names, optionflags=doctest.ELLIPSIS)
    assert tried > 15
    assert not failed


def test_a_recording_is_translated_as_by_the_command(
    model: SignLlava, split: Split, signllava: Command, run: Path, tmp_path: Path
) -> None:
    options = ["--split", "dev", "--beams", 2, "--max-new-tokens", 8, "--context", 2, "--prelude", 1]
    ended = signllava("generate", "-c", run, *options, "--context-source", "predicted", "--out", tmp_path)
    assert ended.code == 0, ended.err
    rows = [row for row in read_predictions(tmp_path / "predictions.jsonl") if row.recording == "dev00"]
    recording = [split.read(clip) for clip in split.clips if clip.recording == "dev00"]
    said = list(model.translate_recording(recording, context=2, prelude=1))
    assert [(each.text, list(each.context)) for each in said] == [(row.hypothesis, row.context) for row in rows]
    assert [each.score for each in said] == pytest.approx([row.score for row in rows], abs=1e-4)


def test_clips_together_and_alone_numpy_and_torch(model: SignLlava, split: Split) -> None:
    clips = [split.read(clip) for clip in split.clips[:11]]
    contexts = [split.gold_context(clip, 2, 0) for clip in split.clips[:11]]
    together = model.translate_batch(clips, contexts)
    for clip, context, expected in zip(clips, contexts, together, strict=True):
        other = {name: torch.from_numpy(frames.astype(np.float32)) for name, frames in clip.items()}
        alone = model.translate(dict(reversed(other.items())), context)  # the order of streams is the model's
        assert (alone.text, alone.context) == (expected.text, expected.context)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ({}, "expected a dict"),
        ([1], "expected a dict"),
        ({"video": np.ones((3, 64))}, "knows no stream video"),
        ({"mae": np.ones((3, 65))}, r"shape \(3, 65\)"),
        ({"mae": np.ones(64)}, r"shape \(64,\)"),
        ({"mae": np.ones((0, 64))}, r"shape \(0, 64\)"),
        ({"mae": np.full((3, 64), np.nan)}, "holds NaN"),
        ({"mae": np.full((3, 64), 1e6)}, "float16 cannot hold"),
        ({"mae": np.full((3, 64), "x")}, "expected numbers"),
        ({"mae": None}, "expected numbers"),
    ],
)
def test_features_that_cannot_be_used_are_refused(model: SignLlava, features: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model.translate(features)


def test_other_input_that_cannot_be_used(model: SignLlava, run: Path) -> None:
    frames = {"mae": np.ones((20, 64))}
    for call in (
        lambda: model.translate(frames, context="a sentence"),
        lambda: model.ask(frames, " "),
        lambda: model.translate_batch([frames], [[], []]),
        lambda: list(model.translate_recording([frames], context=-1)),
    ):
        with pytest.raises(BadInput):
            call()
    with pytest.raises(UserError, match="beans: unknown key; did you mean `beams`"):
        SignLlava.from_pretrained(run, beans=3)
    with pytest.raises(UserError, match="No checkpoint at"):
        SignLlava.from_pretrained("/nowhere/at/all")


def test_the_nearest_token_of_a_word_is_the_word(model: SignLlava, split: Split) -> None:
    """Projected frames that are made words themselves."""
    table = model._assembled.model.llm.get_input_embeddings().weight
    nearest = model.nearest_tokens("mae", split.read(split.clips[0])["mae"], k=4)
    embedded = model.translate(split.read(split.clips[0])).stream_embeddings["mae"]
    cosines = torch.nn.functional.cosine_similarity(torch.from_numpy(embedded)[:, None], table[None], dim=-1)
    best, ids = cosines.topk(4)
    decode = model._assembled.prompts.tokenizer.decode
    for frame, each in enumerate(nearest):
        assert [token for token, _ in each] == [decode([id_]) for id_ in ids[frame].tolist()]
        assert [cosine for _, cosine in each] == pytest.approx(best[frame].tolist(), abs=1e-5)


def test_threads_wait_for_each_other(model: SignLlava, split: Split) -> None:
    clips = [split.read(clip) for clip in split.clips[:6]]
    expected = [model.translate(clip).text for clip in clips]
    found: dict[int, str] = {}
    threads = [
        threading.Thread(target=lambda n=n: found.update({n: model.translate(clips[n]).text})) for n in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[n] for n in range(6)] == expected


def test_importing_the_package_brings_no_torch() -> None:
    code = "import sys, signllava_cli; assert 'torch' not in sys.modules; print(signllava_cli.__version__)"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


class Hub(BaseHTTPRequestHandler):
    """The far side of the network: takes what a push sends, and remembers it."""

    asked: list[tuple[str, str, bytes]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.asked.append((self.command, self.path, body))  # type: ignore[attr-defined]
        address = f"http://{self.headers['Host']}/lab/signs"
        answer: dict[str, Any] = {"url": address}
        if self.path.endswith("/preupload/main"):
            answer = {
                "files": [
                    {**file, "uploadMode": "regular", "shouldIgnore": False} for file in json.loads(body)["files"]
                ]
            }
        if "/commit/" in self.path:
            answer = {"commitUrl": f"{address}/commit/{'0' * 40}", "commitOid": "0" * 40, "success": True}
        self._answer(answer)

    def do_GET(self) -> None:
        self._answer({"sha": "0" * 40, "siblings": [], "id": "lab/signs"})

    def log_message(self, *_: object) -> None:
        """Nothing on the screen."""

    def _answer(self, content: dict[str, Any]) -> None:
        text = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


@pytest.fixture
def hub() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.asked = []  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


def test_push_uploads_weights_config_recipe_and_card_and_no_path_of_this_machine(
    hub: ThreadingHTTPServer, signllava: Command, run: Path, tmp_path: Path
) -> None:
    options = ["--split", "dev", "--beams", 1, "--max-new-tokens", 4, "--context-source", "none"]
    out = run / "predictions" / "for-the-card"
    assert signllava("generate", "-c", run, *options, "--out", out, "--overwrite").code == 0
    assert signllava("eval", out).code == 0
    code = "from signllava_cli.__main__ import run; run()"
    environment = {"HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}", "HF_TOKEN": "hf_x", "HF_HUB_OFFLINE": "0"}
    ended = subprocess.run(
        [sys.executable, "-c", code, "checkpoint", "push", str(run), "lab/signs", "--llm", "lab/llm"],
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    commit = next(body for _, path, body in hub.asked if "/commit/" in path)  # type: ignore[attr-defined]
    lines = [json.loads(line) for line in commit.splitlines()]
    sent = {line["value"]["path"]: line["value"]["content"] for line in lines if line["key"] == "file"}
    assert sent.keys() == {"README.md", "config.json", "recipe.yaml", "projector.safetensors"}
    import base64

    texts = {name: base64.b64decode(content) for name, content in sent.items() if name != "projector.safetensors"}
    assert all(str(run.parent).encode() not in text for text in texts.values())
    card = texts["README.md"].decode()
    assert "base_model: lab/llm" in card
    assert "| dev | none | 38 |" in card
    assert "metrics:" in card


def test_a_hub_out_of_reach_is_one_line(signllava: Command, run: Path) -> None:
    ended = signllava("checkpoint", "push", run, "lab/signs")  # the tests are offline
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    with pytest.raises(UserError, match="lab/signs is no folder here"):
        SignLlava.from_pretrained("lab/signs")
