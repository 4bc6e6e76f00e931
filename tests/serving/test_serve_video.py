"""The web app translates videos: the sentences of the API, the refusals of `prepare extract`, in a browser too."""

import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from browser import opened_page
from real_clips import CLIPS, FRAMES, clip_file, model_file, needs_samples, write_with_pause
from web_requests import form, send_request, served

from signllava_cli import SignLlava
from signllava_cli.api.video_features import VideoOptions, VideoStreams
from signllava_cli.data.clip_source import UnreadableClip
from signllava_cli.prepare.extract.pose_extractor import PoseSettings
from signllava_cli.prepare.extract.video_cuts import VideoCut, decode_cut
from signllava_cli.serving import video_process
from signllava_cli.serving.video_process import VideoProcess, VideoProgress

UPLOAD_MB, MAX_SECONDS = 2, 6


@pytest.fixture(scope="module")
def address(video_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of the app with stream pose for videos, and two videos to choose from."""
    videos = tmp_path_factory.mktemp("videos")
    write_with_pause(videos / "two.mp4")
    shutil.copy(clip_file(CLIPS[0]), videos / "one.mp4")
    (videos / "notes.txt").write_text("not a video")
    options = ["--beams", 2, "--max-upload-mb", UPLOAD_MB, "--max-video-seconds", MAX_SECONDS]
    options += ["--videos", videos, "--pose-model", model_file(), "--video-streams", "pose"]
    with served("-c", video_run / "run", *options) as (url, _):
        yield url


def video_form(content: bytes | None = None, name: str = "a.mp4", **fields: object) -> dict[str, Any]:
    request = form({} if content is None else {name: content}, **fields)
    request["body"] = request["body"].replace(b'name="uploads"', b'name="upload"')
    return request


@pytest.mark.drill
@needs_samples
def test_a_video_is_translated_as_by_the_api(address: str, video_run: Path) -> None:
    assert send_request(address, "api/videos") == (200, [[{"name": "one.mp4"}, {"name": "two.mp4"}]])
    model = SignLlava.from_pretrained(video_run / "run", num_beams=2)
    content = clip_file(CLIPS[1]).read_bytes()
    for request, cut in (
        (video_form(content, start=0.2, end=0.7), (CLIPS[1], 0.2, 0.7)),
        (video_form(None, name="one.mp4"), (CLIPS[0],)),
    ):
        if len(cut) == 1:
            request = form({}, name="one.mp4")
        expected = model.translate_video(clip_file(cut[0]), *cut[1:], streams=["pose"], pose_model=model_file())
        status, lines = send_request(address, "api/videos/translate", **request)
        assert status == 200, lines
        assert lines[-1]["done"]
        progress = [line for line in lines if "clip" not in line]
        assert (progress[0]["frames"], progress[0]["done"]) == (1, False)
        [line] = [line for line in lines if "clip" in line]
        assert line["text"] == expected.text
        assert line["confidence"] == pytest.approx(np.exp(expected.score), abs=1e-4)
        landmarks = line["landmarks"]
        assert (landmarks["width"], landmarks["height"]) == (1280, 720)
        frames = [frame.time for frame in decode_cut(VideoCut(clip_file(cut[0]), *cut[1:]))]
        assert landmarks["times"] == pytest.approx(frames, abs=1e-3)
        assert [len(points) for points in landmarks["points"]] == [208] * len(frames)


@pytest.mark.drill
@needs_samples
def test_a_video_is_cut_at_pauses_with_context(address: str) -> None:
    status, lines = send_request(address, "api/videos/translate", **form({}, name="two.mp4", cut="pauses", window=1))
    assert status == 200, lines
    first, second = [line for line in lines if "clip" in line]
    assert any("clip" not in line for line in lines[lines.index(first) : lines.index(second)])  # it did not wait
    assert first["text"]
    assert second["context"] == [first["text"]]
    assert first["end"] < second["start"] < second["end"]
    assert (lines[-1]["done"], lines[-1]["frames"], lines[-1]["short_movements"]) == (True, 15 + 36 + 27, 0)


@pytest.mark.drill
@needs_samples
@pytest.mark.parametrize(
    ("content", "fields", "status", "message"),
    [
        (b"no video", {}, 422, "a.mp4: cannot be read as a video"),
        (CLIPS[0], {"start": 7}, 422, "a.mp4: no frame is within the cut from 7 s"),
        (CLIPS[0], {"start": 0.5, "end": 0.2}, 422, "a.mp4: the cut is empty"),
        (None, {"name": "two.mp4", "end": 0.01, "cut": "pauses"}, 200, "two.mp4: no signing found"),
        (None, {"name": "notes.txt"}, 404, "no video 'notes.txt'"),
        (None, {}, 422, "Send either a video"),
        (b"x" * (UPLOAD_MB * 2**20), {}, 413, "larger than"),
    ],
)
def test_refusals_have_one_line(
    address: str, content: bytes | str | None, fields: dict[str, Any], status: int, message: str
) -> None:
    body = clip_file(content).read_bytes() if isinstance(content, str) else content
    request = video_form(body, **fields) if body is not None else form({}, **fields)
    actual_status, answer = send_request(address, "api/videos/translate", **request)
    assert actual_status == status, answer
    detail = answer[-1]["error"] if status == 200 else json.loads(answer)["detail"]
    assert message in detail
    assert "\n" not in detail


@pytest.mark.drill
@needs_samples
def test_a_longer_video_is_refused_unless_it_is_cut(address: str, tmp_path: Path) -> None:
    write_with_pause(tmp_path / "long.mp4", still=200)
    content = (tmp_path / "long.mp4").read_bytes()
    status, answer = send_request(address, "api/videos/translate", **video_form(content))
    assert (status, "10 s are more than 6 s" in answer) == (422, True), answer
    assert send_request(address, "api/videos/translate", **video_form(content, end=0.3))[0] == 200


@pytest.mark.reliability("Security", "a video that crashes its decoder costs the web app that video alone")
@pytest.mark.drill
@needs_samples
def test_a_crash_costs_one_video(monkeypatch: pytest.MonkeyPatch) -> None:
    process = VideoProcess(VideoStreams(PoseSettings(model_file()), "pose"))
    cut = VideoCut(clip_file(CLIPS[0]))
    messages = process.read(cut, False, 1000)
    assert next(messages) == VideoProgress(1)
    os.kill(process._process.pid, 9)
    with pytest.raises(UnreadableClip, match="crashed the process that read it"):
        list(messages)
    with pytest.raises(UnreadableClip, match="has too many frames"):
        list(process.read(cut, False, 10))
    *_, clip, last = process.read(cut, False, FRAMES[CLIPS[0]])
    assert last == VideoProgress(FRAMES[CLIPS[0]])
    assert not isinstance(clip, VideoProgress)
    assert len(clip.times) == FRAMES[CLIPS[0]]
    next(process.read(cut, False, 1000))  # a client that leaves
    assert process._process is None
    monkeypatch.setattr(video_process, "STALL_SECONDS", 0.01)
    with pytest.raises(UnreadableClip, match=r"more than 0\.01 s for a frame"):
        list(process.read(cut, False, 1000))


def test_a_model_of_other_streams_says_why_it_takes_no_video(run: Path) -> None:
    from fastapi.testclient import TestClient

    from signllava_cli.serving.app import make_app
    from signllava_cli.serving.startup import VideoConfig, open_served_model

    served = open_served_model(str(run), None, "dev", 2**20, None, ("*",), {}, VideoConfig(VideoOptions(), 60))
    client = TestClient(make_app(served))
    reason = "Stream sign2vec cannot be made from a video: extract it with its own tool, and translate the features."
    assert client.get("/api/model").json()["no_video"] == reason
    answer = client.post("/api/videos/translate", files={"upload": ("a.mp4", b"")})
    assert (answer.status_code, answer.json()) == (422, {"detail": f"No video can be translated: {reason}"})


def count_drawn_pixels(page: Any) -> int:
    script = """() => {
        const canvas = document.getElementById("landmarks");
        const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
        return pixels.filter((value, index) => index % 4 === 3 && value > 0).length;
    }"""
    return int(page.evaluate(script))


def wait_until(page: Any, expression: str, seconds: float = 60) -> None:
    """`page.wait_for_function` is blocked by the policy of the page."""
    deadline = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < deadline, expression
        page.wait_for_timeout(50)


def write_camera_film(file: Path) -> None:
    """A real clip as motion JPEG, which Chromium plays in a loop as its camera."""
    with av.open(str(file), "w", format="mjpeg") as container:
        stream = container.add_stream("mjpeg", rate=24)
        stream.width, stream.height, stream.pix_fmt = 640, 360, "yuvj420p"
        for frame in decode_cut(VideoCut(clip_file(CLIPS[1]))):
            picture = av.VideoFrame.from_ndarray(frame.image, format="rgb24").reformat(640, 360, "yuvj420p")
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))


@pytest.mark.drill
@needs_samples
@pytest.mark.browser
def test_videos_are_translated_in_chromium(address: str, tmp_path: Path) -> None:
    from playwright.sync_api import expect

    write_camera_film(tmp_path / "camera.mjpeg")
    flags = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    flags.append(f"--use-file-for-fake-video-capture={tmp_path / 'camera.mjpeg'}")
    with opened_page(address, flags, viewport={"width": 1100, "height": 1000}) as (page, messages, requested):
        status, clips = page.locator("#status"), page.locator(".clip")
        expect(page.locator("#listed option")).to_have_count(3)
        expect(page.locator("#cut-choice")).to_be_hidden()
        page.set_input_files("#files", clip_file(CLIPS[1]))
        expect(page.locator("#cut-choice")).to_be_visible()
        page.fill("#start", "0.2")
        page.fill("#end", "0.7")
        page.click("#translate")
        expect(status).to_have_text("1 sentence translated", timeout=120_000)
        expect(clips.locator(".text")).not_to_be_empty()
        assert count_drawn_pixels(page) == 0
        page.locator(".clip .play").click()
        wait_until(page, "document.getElementById('landmarks').dataset.time")
        wait_until(page, "document.getElementById('video').paused")
        page.evaluate("document.getElementById('video').currentTime = 0.5")
        wait_until(page, "Math.abs(document.getElementById('landmarks').dataset.time - 0.5) < 0.05")
        assert count_drawn_pixels(page) > 1000
        if "SIGNLLAVA_VIDEO_SCREENSHOT" in os.environ:  # of a real person, so it is looked at, and not kept
            page.evaluate("scrollTo(0, 0)")
            page.screenshot(path=os.environ["SIGNLLAVA_VIDEO_SCREENSHOT"])
        page.uncheck("#show-landmarks")
        assert count_drawn_pixels(page) == 0

        page.fill("#start", "")
        page.fill("#end", "")
        page.select_option("#listed", "two.mp4")
        page.select_option("#cut", "pauses")
        page.click("#translate")
        expect(status).to_have_text("2 sentences translated", timeout=120_000)
        expect(clips).to_have_count(2)

        (tmp_path / "wrong.mp4").write_bytes(b"no video")
        page.set_input_files("#files", tmp_path / "wrong.mp4")
        page.click("#translate")
        expect(status).to_contain_text("wrong.mp4: cannot be read as a video")

        page.select_option("#cut", "whole")
        page.click("#record")
        expect(page.locator("#record")).to_have_text("Stop recording")
        wait_until(page, "document.getElementById('video').currentTime > 0.8")
        page.click("#record")
        expect(status).to_have_text("recorded")
        assert "recording.webm" in page.locator("#chosen").inner_text()
        page.click("#translate")
        expect(status).to_have_text("1 sentence translated", timeout=120_000)
        expect(clips.locator(".name")).to_have_text("1. recording.webm")
    others = [message for message in messages if "422" not in message and "ERR_" not in message]
    assert not others
    assert all(url.startswith((address, "data:", f"blob:{address}")) for url in requested)


@pytest.mark.drill
@needs_samples
@pytest.mark.browser
def test_the_page_with_a_video_is_accessible_on_a_phone_and_takes_drops(address: str) -> None:
    from axe_playwright_python.sync_playwright import Axe
    from playwright.sync_api import expect

    with opened_page(address, viewport={"width": 380, "height": 800}, bypass_csp=True) as (page, _, _):
        page.evaluate(
            """() => {
                const dataTransfer = new DataTransfer();
                dataTransfer.items.add(new File(["no video"], "dropped.mp4"));
                document.getElementById("drop").dispatchEvent(new DragEvent("drop", { dataTransfer }));
            }"""
        )
        expect(page.locator("#chosen")).to_contain_text("dropped.mp4")
        page.click("#translate")
        expect(page.locator("#status")).to_contain_text("dropped.mp4: cannot be read as a video")
        page.set_input_files("#files", clip_file(CLIPS[1]))
        expect(page.locator("#player")).to_be_visible()
        violations = Axe().run(page).response["violations"]
        serious = [violation["id"] for violation in violations if violation["impact"] in ("serious", "critical")]
        assert not serious, [(violation["id"], violation["nodes"][0]["html"]) for violation in violations]
        assert page.evaluate("document.documentElement.scrollWidth") <= 380
