"""The web app: used in a browser until a recording is translated, and fuzzed with its own schema."""

import asyncio
import http.client
import json
import os
import re
import socket
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from browser import opened_page
from conftest import open_recipe_split
from web_requests import form, npy, npz, send_request, served

from signllava_cli import SignLlava
from signllava_cli.data.annotations import Clip
from signllava_cli.data.split import Split
from signllava_cli.errors import UserError
from signllava_cli.model.checkpoint import checkpoint_recipe, find_checkpoint
from signllava_cli.serving import limits, recent_clips
from signllava_cli.serving.uploads import read_uploads
from signllava_cli.serving.videos import Videos

STREAMS = {"sign2vec": 48, "mae": 64}
CLIP_WITH_VIDEO = "dev00-01"  # a clip of dev00, which has no video of its own
UPLOAD_MB = 1
PAINTED = """(canvas) => {
  const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  return pixels.filter((value, index) => index % 4 === 3 && value > 0).length;
}"""
IMAGES = Path(__file__).parents[2] / "docs" / "images"


@pytest.fixture(scope="module")
def split(run: Path) -> Split:
    return open_recipe_split(checkpoint_recipe(find_checkpoint(run), []), "dev")


@pytest.fixture(scope="module")
def address(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of the app, served on loopback by the real command; one recording has a video."""
    videos = tmp_path_factory.mktemp("videos")
    (videos / "dev02.mp4").write_bytes(b"frames")
    (videos / "secret.mp4").write_bytes(b"not of a recording")
    (videos / f"{CLIP_WITH_VIDEO}.mp4").write_bytes(b"of a clip")
    options = ["--split", "dev", "--beams", 2, "--max-upload-mb", UPLOAD_MB, "--videos", videos]
    with served("-c", run, *options) as (url, _):
        yield url


def test_a_recording_of_the_dataset_is_translated_as_by_the_api(address: str, run: Path, split: Split) -> None:
    status, lines = send_request(address, "api/recordings/translate?recording=dev00&window=2&prelude=1", b"")
    assert status == 200
    model = SignLlava.from_pretrained(run, num_beams=2)
    clips = [clip for clip in split.clips if clip.recording == "dev00"]
    translations = list(model.translate_recording([split.read(clip) for clip in clips], context=2, prelude=1))
    for line, translation in zip(lines, translations, strict=True):
        assert (line["text"], line["context"]) == (translation.text, list(translation.context))
        assert line["confidence"] == pytest.approx(np.exp(translation.score), abs=1e-4)
    assert [line["reference"] for line in lines] == [clip.translation for clip in clips]
    _, gold = send_request(address, "api/recordings/translate?recording=dev00&window=1&source=gold", b"")
    assert [line["context"] for line in gold] == [[], *([clip.translation] for clip in clips[:-1])]


def test_the_memory_to_read_an_upload_grows_with_its_size_whatever_its_name_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("signllava_cli.processes.READING_BYTES", 2**20)
    (tmp_path / "stored").write_bytes(npy(np.zeros((2**16, 64), np.float32)))
    (clip,) = read_uploads([("a.mae.npy", tmp_path / "stored")], {"mae": 64}, 2**26)
    assert len(clip.features["mae"]) == 2**16
    (clip,) = read_uploads([(f"{'a' * 300}.npy", tmp_path / "stored")], {"mae": 64}, 2**26)
    assert clip.name == "a" * 300


def test_uploads_of_every_format_give_the_same_translations(address: str, split: Split, tmp_path: Path) -> None:
    clips = [split.read(clip) for clip in split.clips[:3]]
    for stream in STREAMS:
        with h5py.File(tmp_path / f"{stream}.h5", "w") as file:
            for number, clip in enumerate(clips):
                file[f"rec/{number + 9}"] = clip[stream]
    files_by_format = {
        "npz": {f"{n}.npz": npz(**clip) for n, clip in enumerate(clips)},
        "npy": {f"{n}.{stream}.npy": npy(frames) for n, clip in enumerate(clips) for stream, frames in clip.items()},
        "h5": {f"{stream}.dev.0.h5": (tmp_path / f"{stream}.h5").read_bytes() for stream in STREAMS},
    }
    translations = {}
    for file_format, files in files_by_format.items():
        status, lines = send_request(address, "api/uploads/translate", **form(files, window=1))
        assert status == 200, lines
        translations[file_format] = [(line["text"], line["context"]) for line in lines]
    assert translations["npz"] == translations["npy"] == translations["h5"]
    assert len(translations["npz"]) == 3


def test_the_frames_read_for_each_word_are_those_of_the_api(address: str, run: Path, split: Split) -> None:
    model = SignLlava.from_pretrained(run, num_beams=2)
    clip = [clip for clip in split.clips if clip.recording == "dev00"][2]
    _, lines = send_request(address, "api/recordings/translate?recording=dev00&window=2&prelude=1", b"")
    attention = model.attention(split.read(clip), lines[2]["text"], lines[2]["context"], 1)
    status, [answer] = send_request(address, f"api/attention?key={lines[2]['attention']}", b"")
    assert status == 200
    assert answer["words"] == list(attention.words)
    for shown, (name, stream) in zip(answer["streams"], attention.streams.items(), strict=True):
        assert shown["name"] == name
        assert shown["edges"] == [*range(stream.num_frames + 1)]
        np.testing.assert_allclose(shown["weights"], stream.weights, atol=1e-5)
    np.testing.assert_allclose(list(answer["shares"].values()), list(attention.shares.values()), atol=1e-5)
    _, [uploaded] = send_request(address, "api/uploads/translate", **form({"01.npz": npz(**split.read(clip))}))
    _, [of_upload] = send_request(address, f"api/attention?key={uploaded['attention']}", b"")
    expected = model.attention(split.read(clip), uploaded["text"])
    np.testing.assert_allclose(of_upload["streams"][0]["weights"], expected.streams["sign2vec"].weights, atol=1e-5)
    status, text = send_request(address, "api/attention?key=unknown", b"")
    assert (status, "translate it again" in text) == (404, True)


def test_the_oldest_clips_are_dropped_above_the_limits(run: Path, split: Split, monkeypatch: Any) -> None:
    clip = split.read(split.clips[0])
    translation = SignLlava.from_pretrained(run, num_beams=1, max_new_tokens=2).translate(clip)
    recent, num_bytes = recent_clips.RecentClips(), sum(frames.nbytes for frames in clip.values())
    monkeypatch.setattr(recent_clips, "MAX_BYTES", 3 * num_bytes)
    keys = [recent.add_features(clip, translation, 0) for _ in range(5)]
    assert [recent.get(key) is not None for key in keys] == [False, False, True, True, True]
    monkeypatch.setattr(recent_clips, "MAX_CLIPS", 2)
    keys.append(recent.add(recent_clips.RecentClip(lambda: clip, 0, "It rains.", (), 0)))
    assert [recent.get(key) is not None for key in keys] == [False] * 4 + [True] * 2
    assert len(set(keys)) == 6


@pytest.mark.reliability("Security", "the web app limits size, rate and number of requests, and goes on")
@pytest.mark.parametrize(
    ("files", "status", "message"),
    [
        ({"a.npy": npy(np.ones((3, 5)))}, 422, "has width 5; the model takes sign2vec (48), mae (64)"),
        ({"a.npy": b"\x93NUMPY rubbish"}, 422, "a.npy: cannot be read"),
        ({"a.npy": npy(np.array([{"an": "object"}]))}, 422, "contains Python objects"),
        ({"a.h5": b"rubbish"}, 422, "cannot be read as HDF5"),
        ({"a.npz": b"rubbish"}, 422, "a.npz: cannot be read"),
        ({"a.pose": b"rubbish"}, 422, "is not a valid .pose file"),
        ({"a.pkl": b"rubbish"}, 422, "not a file of a known format (.npy"),
        ({"a.npy": npy(np.full((3, 64), np.nan))}, 422, "nan at frame 0"),
        ({"a.mae.npy": npy(np.ones((3, 64))), "mae.a.npy": npy(np.ones((3, 64)))}, 422, "has stream mae twice"),
        ({"a.npy": b"x" * (UPLOAD_MB * 2**20)}, 413, "larger than"),
    ],
)
def test_invalid_files_are_rejected_with_one_line(
    address: str, files: dict[str, bytes], status: int, message: str
) -> None:
    actual_status, text = send_request(address, "api/uploads/translate", **form(files))
    assert actual_status == status, text
    detail = json.loads(text)["detail"]
    assert message in detail
    assert "\n" not in detail


@pytest.mark.reliability("Security", "the web app limits size, rate and number of requests, and goes on")
@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_client_that_sends_all_of_a_large_upload_before_it_reads_gets_the_413(
    address: str, is_chunked: bool
) -> None:
    """urllib is such a client: without the discarding it reports a broken connection instead of the answer."""
    blocks, block = 12 * UPLOAD_MB, b"x" * 2**20
    host, port = re.findall(r"//(.+):([0-9]+)/", address)[0]
    length = "Transfer-Encoding: chunked" if is_chunked else f"Content-Length: {blocks * len(block)}"
    head = f"POST /api/uploads/translate HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{length}\r\n"
    head += "Content-Type: multipart/form-data; boundary=b\r\n\r\n"
    with socket.create_connection((host, int(port)), timeout=60) as client:
        client.sendall(head.encode())
        time.sleep(0.5)  # a server that closes at once has closed by now
        for number in range(blocks):
            part = form({"a.npy": b""})["body"][:80] if number == 0 else block
            client.sendall(b"%x\r\n%b\r\n" % (len(part), part) if is_chunked else block)
            if number == 3:
                time.sleep(0.5)
        client.sendall(b"0\r\n\r\n" if is_chunked else b"")
        answer = http.client.HTTPResponse(client)
        answer.begin()
        assert answer.status == 413
        assert "larger than" in json.loads(answer.read())["detail"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.reliability("Security", "the web app limits size, rate and number of requests, and goes on")
@pytest.mark.parametrize("is_slow", [False, True])
def test_an_endless_body_is_not_read_forever(monkeypatch: pytest.MonkeyPatch, is_slow: bool) -> None:
    monkeypatch.setattr(limits, "DISCARD_SECONDS", 0.2 if is_slow else 60.0)
    num_read, sent = [0], []

    async def receive() -> dict[str, Any]:
        if is_slow:
            await asyncio.sleep(60)
        num_read[0] += 1000
        return {"type": "http.request", "body": b"x" * 1000, "more_body": True}

    async def send(message: Any) -> None:
        sent.append(message)

    async def app(*_: object) -> None:
        raise AssertionError("the request was forwarded")

    scope = {"type": "http", "headers": [(b"content-length", b"999999999999")]}
    asyncio.run(asyncio.wait_for(limits.UploadLimit(app, 10_000)(scope, receive, send), 10))
    assert sent[0]["status"] == 413
    assert [message.get("more_body", False) for message in sent[1:]][-1] is False
    assert 0 <= num_read[0] <= limits.DISCARD_FACTOR * 10_000 + 1000


@pytest.mark.reliability("Security", "names and links in data never lead out of their folder")
def test_a_file_cannot_refer_to_other_files_of_the_machine(tmp_path: Path) -> None:
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["frames"] = np.ones((4, 64), np.float16)
    with h5py.File(tmp_path / "link.h5", "w") as file:
        file["a"] = h5py.ExternalLink(str(secret), "frames")
    with pytest.raises(UserError, match="have no clip"):
        read_uploads([("link.h5", tmp_path / "link.h5")], STREAMS, 2**20)
    with h5py.File(tmp_path / "virtual.h5", "w") as file:
        layout = h5py.VirtualLayout((4, 64), np.float16)
        layout[:] = h5py.VirtualSource(str(secret), "frames", (4, 64))
        file.create_virtual_dataset("a", layout)
    with pytest.raises(UserError, match="refers to other files"):
        read_uploads([("virtual.h5", tmp_path / "virtual.h5")], STREAMS, 2**20)
    with h5py.File(tmp_path / "bomb.h5", "w") as file:
        file.create_dataset("a", (10**6, 64), np.float16, chunks=True, compression="gzip")
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("mae.npy", b"\0" * 2**25)
    for bomb in ("bomb.h5", "bomb.npz"):
        with pytest.raises(UserError, match="above the limit"):
            read_uploads([(bomb, tmp_path / bomb)], STREAMS, 2**20)


@pytest.mark.reliability("Security", "the web app listens on loopback, and answers its own host and site alone")
def test_requests_for_other_hosts_and_unknown_recordings_are_rejected(address: str) -> None:
    assert send_request(address, "api/model")[0] == 200
    assert send_request(address, "api/model", None, Host="evil.example")[0] == 400
    assert send_request(address, "api/recordings/translate?recording=nobody", b"")[0] == 404
    assert send_request(address, "api/video?recording=../../etc/passwd")[0] == 404


@pytest.mark.reliability("Security", "names and links in data never lead out of their folder")
def test_a_recording_has_only_its_own_video(address: str) -> None:
    _, (recordings,) = send_request(address, "api/recordings")
    assert [recording["video"] for recording in recordings] == [False, False, True]
    with urllib.request.urlopen(address + "api/video?recording=dev02", timeout=60) as response:
        assert (response.headers["Content-Type"], response.read()) == ("video/mp4", b"frames")
    for name in ("dev00", "secret", "../videos0/dev02"):
        assert send_request(address, f"api/video?recording={name}")[0] == 404


def test_a_clip_may_have_its_own_video(address: str, split: Split) -> None:
    _, lines = send_request(address, "api/recordings/translate?recording=dev00", b"")
    assert [line["clip"] for line in lines if line["video"]] == [CLIP_WITH_VIDEO]
    query = f"api/video?recording=dev00&clip={CLIP_WITH_VIDEO}"
    with urllib.request.urlopen(address + query, timeout=60) as response:
        assert (response.headers["Content-Type"], response.read()) == ("video/mp4", b"of a clip")
    for other_query in (
        f"recording=dev01&clip={CLIP_WITH_VIDEO}",
        "recording=dev00&clip=secret",
        "recording=dev00&clip=dev02",
    ):
        assert send_request(address, f"api/video?{other_query}")[0] == 404


def test_clips_that_share_a_name_have_no_video(tmp_path: Path) -> None:
    (tmp_path / "01.mp4").write_bytes(b"of clip a or b")
    (tmp_path / "02.mp4").write_bytes(b"of clip b")
    clips = [Clip("a", "01", 0, "A."), Clip("b", "01", 0, "B."), Clip("b", "02", 1, "C.")]
    videos = Videos(tmp_path, clips)
    assert [videos.of_clip(clip) for clip in clips] == [None, None, tmp_path / "02.mp4"]


@pytest.mark.drill
def test_fuzzing_with_the_schema_of_the_app_finds_no_server_error(address: str) -> None:
    """Requests that /openapi.json allows, and others."""
    import schemathesis
    from hypothesis import HealthCheck, given, settings
    from schemathesis.checks import not_a_server_error

    counts: dict[str, int] = {}
    for result in schemathesis.openapi.from_url(f"{address}openapi.json").get_all_operations():
        operation: Any = result.ok()  # type: ignore[union-attr]

        @settings(
            max_examples=12, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
        )
        @given(case=operation.as_strategy())
        def fuzz(case: Any) -> None:
            counts[case.operation.label] = counts.get(case.operation.label, 0) + 1
            case.call_and_validate(checks=[not_a_server_error], timeout=60)

        fuzz()
    assert len(counts) == 9
    assert sum(counts.values()) > 30


@pytest.mark.browser
def test_a_recording_is_translated_in_chromium(address: str, split: Split, tmp_path: Path) -> None:
    from playwright.sync_api import expect

    with opened_page(address, viewport={"width": 1100, "height": 800}) as (page, messages, requested):
        expect(page.locator("#recording option")).to_have_count(4)
        page.select_option("#recording", "dev01")
        page.select_option("#source", "predicted")
        page.fill("#window", "2")
        page.fill("#prelude", "1")
        page.click("#translate")
        expect(page.locator("#status")).to_have_text("11 clips translated", timeout=60_000)
        expect(page.locator(".clip")).to_have_count(11)
        clips = [clip for clip in split.clips if clip.recording == "dev01"]
        assert page.locator(".reference dd").all_inner_texts() == [clip.translation for clip in clips]
        texts = page.locator(".clip .text").all_inner_texts()
        assert all(texts)
        assert page.locator(".clip .play:visible").count() == 0
        page.locator(".clip .context summary").nth(4).click()
        assert page.locator(".clip").nth(4).locator(".context li").all_inner_texts() == [texts[0], *texts[2:4]]
        if "SIGNLLAVA_SCREENSHOTS" in os.environ:  # the picture in docs/serving.md
            page.screenshot(path=IMAGES / "serve.png")
        page.select_option("#recording", "dev00")
        page.click("#translate")
        expect(page.locator("#status")).to_contain_text("clips translated", timeout=60_000)
        play = page.locator(".clip .play:visible")  # the only clip with a video
        expect(play).to_have_count(1)
        play.click()
        expect(page.locator("#video")).to_be_visible()
        assert (page.locator("#video").get_attribute("src") or "").endswith(f"recording=dev00&clip={CLIP_WITH_VIDEO}")
        (tmp_path / "01.npz").write_bytes(npz(**split.read(clips[0])))
        page.set_input_files("#files", tmp_path / "01.npz")
        page.click("#translate")
        expect(page.locator("#status")).to_have_text("1 clip translated", timeout=60_000)
        assert page.locator(".clip .text").all_inner_texts() == [texts[0]]
        (tmp_path / "wrong.npy").write_bytes(npy(np.ones((3, 5))))
        page.set_input_files("#files", tmp_path / "wrong.npy")
        page.click("#translate")
        expect(page.locator("#status")).to_contain_text("wrong.npy: has width 5")
    assert not [message for message in messages if "422" not in message]  # the browser logs the rejected upload
    assert all(url.startswith((address, "data:")) for url in requested)


@pytest.mark.drill
@pytest.mark.browser
def test_the_frames_of_a_word_are_shown_in_chromium(address: str, split: Split) -> None:
    from axe_playwright_python.sync_playwright import Axe
    from playwright.sync_api import expect

    with opened_page(address, viewport={"width": 1100, "height": 900}) as (page, messages, requested):
        page.select_option("#recording", "dev00")
        page.click("#translate")
        expect(page.locator("#status")).to_contain_text("clips translated", timeout=60_000)
        assert not [url for url in requested if "attention?" in url]  # computed when it is asked for
        clip = page.locator(".clip").nth(2)
        clip.locator(".attention summary").first.click()
        words = clip.locator(".words button")
        expect(words.first).to_be_visible(timeout=60_000)
        assert words.all_inner_texts() == clip.locator(".text").inner_text().split()
        canvases = clip.locator(".heat canvas")
        expect(canvases).to_have_count(len(STREAMS))
        drawn = canvases.first.evaluate(PAINTED)
        assert drawn > 0
        words.nth(1).click()
        expect(words.nth(1)).to_have_attribute("aria-pressed", "true")
        word = words.nth(1).inner_text()
        frames = clip.locator(".frames-read")
        expect(frames).to_contain_text(f"{word}: sign2vec frame")
        page.mouse.move(0, 0)  # the chosen word stays
        expect(frames).to_contain_text(f"{word}: sign2vec frame")
        assert canvases.first.get_attribute("data-word") == word
        if "SIGNLLAVA_SCREENSHOTS" in os.environ:  # the picture in docs/serving.md
            clip.screenshot(path=IMAGES / "serve-attention.png")
        canvases.nth(1).hover(position={"x": 5, "y": 5})  # the row of the first word
        expect(frames).to_contain_text(words.first.inner_text() + ": ")
        clip.locator(".numbers summary").click()
        rows = clip.locator(".numbers tbody tr")
        expect(rows).to_have_count(words.count())
        shares = [float(text.removesuffix(" %")) for text in rows.first.locator("td").all_inner_texts()[:-1]]
        assert sum(shares) == pytest.approx(100, abs=0.5)
        results = Axe().run(page)
        assert not results.violations_count, results.generate_report()
        words.nth(1).focus()
        page.keyboard.press("Enter")
        expect(words.nth(1)).to_have_attribute("aria-pressed", "false")
        page.route("**/api/attention?*", lambda route: route.fulfill(status=404, json={"detail": "too long ago"}))
        other = page.locator(".clip").nth(3).locator(".attention")
        other.locator("summary").first.click()
        expect(other.locator(".error")).to_have_text("too long ago")
    assert not [message for message in messages if "404" not in message]
    assert len([url for url in requested if "attention?" in url]) == 2
    assert all(url.startswith((address, "data:")) for url in requested)
