"""Damaged requests to the web app: each is answered, and never with an error of the server."""

import asyncio
import random
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fuzzing
import pytest
from binary_mutations import MakeInput, mutate_binary
from binary_seeds import npy_seeds, npz_seeds
from fuzzing import Reader, fuzz_reader, scaled

from signllava_cli import processes
from signllava_cli.errors import UserError
from signllava_cli.recipe import build_recipe
from signllava_cli.serving.app import ServedModel, make_app

PROMISE = pytest.mark.reliability(
    "Bad input", "the web app answers every damaged request, and none with a server error"
)
PATHS = ("/api/uploads/translate", "/api/videos/translate")
NUMBER = 2000
Record = Callable[[str, object], None]


def translate(*args: object) -> None:
    raise UserError("this model translates nothing")


def make_requests() -> tuple[bytes, ...]:
    """Lines of path and Content-Type, then a body."""
    parts = [
        b'Content-Disposition: form-data; name="uploads"; filename="1.mae.npy"\r\n\r\n' + npy_seeds()[0],
        b'Content-Disposition: form-data; name="uploads"; filename="2.npz"\r\nContent-Type: x/y\r\n\r\n'
        + npz_seeds()[1],
        b'Content-Disposition: form-data; name="window"\r\n\r\n2',
        b'Content-Disposition: form-data; name="source"\r\n\r\npredicted',
    ]
    body = b"".join(b"--b\r\n" + part + b"\r\n" for part in parts) + b"--b--\r\n"
    video = b'--b\r\nContent-Disposition: form-data; name="start"\r\n\r\n1e3\r\n--b--\r\n'
    return (
        PATHS[0].encode() + b"\nmultipart/form-data; boundary=b\n" + body,
        PATHS[1].encode() + b"\nmultipart/form-data; boundary=b\n" + video,
        PATHS[0].encode() + b"\napplication/json\n" + b'{"uploads": [' * 1000,
        b"/api/recordings/translate?recording=x&window=1&prelude=2\ntext/plain\n",
        PATHS[0].encode() + b"\napplication/x-www-form-urlencoded\nuploads=1&window=2" + b"&a=b" * 2000,
    )


def inputs(seeds: tuple[bytes, ...]) -> MakeInput:
    """Three of four change the body alone."""

    def make(number: int) -> bytes:
        rng = random.Random(number)
        content = rng.choice((seeds[0], *seeds))
        if rng.random() < 0.25:
            return mutate_binary(content, rng, seeds)
        path, kind, body = content.split(b"\n", 2)
        return b"\n".join((path, kind, mutate_binary(body, rng, seeds)))

    return make


def send_requests() -> Callable[[Path], None]:
    """Sends the request in a file to the app, without a network."""
    recipe = build_recipe({"streams": {"mae": {"width": 4}}})
    model: Any = SimpleNamespace(
        streams={"mae": 4}, layouts={}, recipe=recipe, checkpoint=Path(), translate=translate
    )
    app = make_app(ServedModel(model, None, None, 1 << 16, ("127.0.0.1",), "no video", 10))

    def send(file: Path) -> None:
        first, second, body = (*file.read_bytes().split(b"\n", 2), b"", b"")[:3]
        path, _, query = first.partition(b"?")
        scope = {
            **{"type": "http", "method": "POST", "scheme": "http", "http_version": "1.1", "asgi": {"version": "3.0"}},
            **{"path": path.decode("latin1"), "raw_path": path, "query_string": query, "root_path": ""},
            "headers": [(b"host", b"127.0.0.1"), (b"content-type", second), (b"content-length", b"%d" % len(body))],
            **{"client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80)},
        }
        messages = [{"type": "http.request", "body": body[:100], "more_body": True}]
        messages.append({"type": "http.request", "body": body[100:], "more_body": False})
        statuses: list[int] = []

        async def receive() -> Any:
            if messages:
                return messages.pop(0)
            await asyncio.sleep(60)

        async def answer(message: Any) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        asyncio.run(asyncio.wait_for(app(scope, receive, answer), 30))
        assert len(statuses) == 1
        assert statuses[0] < 500

    return send


@pytest.fixture(autouse=True)
def short_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "MAX_CPU_SECONDS", 2.0)
    monkeypatch.setattr(fuzzing, "WALL_SECONDS", 60.0)


def fuzz(number: int, folder: Path, record_property: Record) -> None:
    reader = Reader("requests", send_requests(), make_requests(), memory=512 << 20)
    record_property("inputs", fuzz_reader(reader, inputs(reader.seeds), number, folder))


@PROMISE
def test_damaged_requests_are_answered(tmp_path: Path, record_property: Record) -> None:
    fuzz(NUMBER // 100, tmp_path, record_property)


@PROMISE
@pytest.mark.drill
def test_many_damaged_requests_are_answered(tmp_path: Path, record_property: Record) -> None:
    fuzz(scaled(NUMBER), tmp_path, record_property)
