"""A cut of a video is decoded exactly: no frame too many, none too few, each upright."""

import math
import random
import re
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from conftest import MadeOnce
from videos_of_numbers import constant_rate, numbered_image, read_number, variable_rate, write_video

from signllava_cli.data.clip_source import UnreadableClip
from signllava_cli.prepare.extract.video_cuts import VideoCut, decode_cut, read_video_info

FRAMES = 240
RATES: dict[str, Callable[[int], list[Fraction]]] = {"constant": constant_rate, "variable": variable_rate}
B_FRAMES = {"bf": "4", "preset": "ultrafast", "x264-params": "bframes=4:b-adapt=0:b-pyramid=2:scenecut=0:keyint=40"}
KINDS = {
    "constant": ("constant", "mp4", "libx264", 0, B_FRAMES),
    "variable": ("variable", "mp4", "libx264", 0, B_FRAMES),
    "constant, turned by 90": ("constant", "mp4", "libx264", 90, B_FRAMES),
    "variable, turned by 180": ("variable", "mov", "libx264", 180, B_FRAMES),
    "variable, turned by -90": ("variable", "mp4", "libx264", -90, B_FRAMES),
    "open GOP": (
        "variable",
        "mp4",
        "libx264",
        0,
        {**B_FRAMES, "x264-params": B_FRAMES["x264-params"] + ":open-gop=1:min-keyint=5"},
    ),
    "Matroska": ("variable", "mkv", "libx264", 0, B_FRAMES),
    "WebM": ("variable", "webm", "libvpx", 0, {"deadline": "realtime", "cpu-used": "8"}),
    "MPEG transport stream": ("variable", "ts", "libx264", 0, B_FRAMES),
}


@pytest.fixture(scope="session")
def numbered(made_once: MadeOnce) -> Path:
    """A folder with a video of each kind."""

    def make(folder: Path) -> None:
        folder.mkdir()
        for number, (rate, suffix, codec, rotation, options) in enumerate(KINDS.values()):
            write_video(
                folder / f"{number}.{suffix}", RATES[rate](FRAMES), codec=codec, rotation=rotation, options=options
            )

    return made_once("numbered", make)


def video_of(kind: str, folder: Path) -> tuple[Path, list[float]]:
    """The video of a kind, and the time of each frame as a player shows it."""
    number, (rate, suffix, *_) = list(KINDS).index(kind), KINDS[kind]
    times = [float(time) for time in RATES[rate](FRAMES)]
    if suffix in ("mkv", "webm"):  # milliseconds
        times = [math.floor(1000 * time + 0.5) / 1000 for time in times]
    return folder / f"{number}.{suffix}", times


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[] if kind == "variable" else pytest.mark.drill) for kind in KINDS]
)
def test_no_cut_is_off_by_a_frame(kind: str, numbered: Path) -> None:
    """Random cuts, and cuts whose bounds are the times of frames."""
    file, times = video_of(kind, numbered)
    rng = random.Random(kind)
    bounds = [sorted(rng.uniform(-0.1, times[-1] + 0.1) for _ in range(2)) for _ in range(24)]
    bounds += [sorted(rng.sample(times, 2)) for _ in range(3)]
    for start, end in bounds:
        expected = [number for number, time in enumerate(times) if start <= time < end]
        if expected:
            frames = list(decode_cut(VideoCut(file, max(start, 0), end)))
            assert [read_number(frame.image) for frame in frames] == expected
            assert [frame.time for frame in frames] == pytest.approx([times[number] for number in expected])
            assert {frame.rotation for frame in frames} == {KINDS[kind][3] % 360}


@pytest.mark.parametrize("kind", KINDS)
def test_adjacent_cuts_share_no_frame_and_lose_none(kind: str, numbered: Path) -> None:
    file, times = video_of(kind, numbered)
    edges = [None, times[50], times[51] - 1e-4, times[130], None]
    parts = [list(decode_cut(VideoCut(file, start, end))) for start, end in pairwise(edges)]
    assert [read_number(frame.image) for part in parts for frame in part] == list(range(FRAMES))


def test_time_counts_from_the_start_of_the_file(tmp_path: Path) -> None:
    """As in players, and in FFmpeg's -ss: a transport stream, and a file cut out of another, start late."""
    times = [time + 100 for time in constant_rate(60)]
    write_video(tmp_path / "late.ts", times)
    frames = list(decode_cut(VideoCut(tmp_path / "late.ts", 0.5, 1.0)))
    assert [read_number(frame.image) for frame in frames] == list(range(15, 30))


def reason(file: Path, start: float | None = None, end: float | None = None) -> str:
    with pytest.raises(UnreadableClip) as refused:
        for _ in decode_cut(VideoCut(file, start, end)):
            pass
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_damaged_videos_are_named_with_a_reason(tmp_path: Path) -> None:
    file = tmp_path / "v.mp4"
    write_video(file, constant_rate(90))
    assert "No such file" in reason(tmp_path / "missing.mp4")
    (tmp_path / "empty.mp4").write_bytes(b"")
    assert "cannot be read as a video" in reason(tmp_path / "empty.mp4")
    (tmp_path / "text.mp4").write_text("not a video\n" * 100)
    assert "cannot be read as a video" in reason(tmp_path / "text.mp4")
    (tmp_path / "random.mp4").write_bytes(random.Random(0).randbytes(20_000))
    assert "cannot be read as a video" in reason(tmp_path / "random.mp4")
    (tmp_path / "list.mp4").write_text(f"#EXTM3U\n#EXTINF:3,\n{file}\n#EXT-X-ENDLIST\n")
    assert "cannot be read as a video" in reason(tmp_path / "list.mp4")
    assert "cannot be read as a video" in reason(tmp_path)
    write_video(tmp_path / "v2.mp4", constant_rate(90))  # its index is at the end
    (tmp_path / "cut.mp4").write_bytes((tmp_path / "v2.mp4").read_bytes()[:-2000])
    assert "cannot be read as a video" in reason(tmp_path / "cut.mp4")
    assert "no frame is within the cut from 50 s to 60 s; the last frame is at 2.970 s" in reason(file, 50, 60)
    assert "the cut is empty: it starts at 2 s and ends at 1 s" in reason(file, 2, 1)


def test_a_cut_that_ends_long_after_its_video_is_left_out(tmp_path: Path) -> None:
    """Times in another unit, or of another video; a second may be lost where a recording was converted."""
    file = tmp_path / "short.mp4"
    write_video(file, constant_rate(50, Fraction(25)))
    assert len(list(decode_cut(VideoCut(file, 1, 2.9)))) == 25
    with pytest.raises(UnreadableClip, match=r"ends at 1\.960 s, but the cut at 100 s"):
        list(decode_cut(VideoCut(file, 1, 100)))


def test_a_video_that_ends_early_is_truncated(tmp_path: Path) -> None:
    file = tmp_path / "v.mp4"
    write_video(file, constant_rate(300), options={"preset": "ultrafast"}, is_index_first=True)
    content = file.read_bytes()
    with av.open(str(file)) as container:
        packets = sorted(packet.pos for packet in container.demux(video=0) if packet.pos)
    half = tmp_path / "half.mp4"
    half.write_bytes(content[: packets[160]])
    assert re.fullmatch(r"is truncated: its frames end at 5\.\d+ s, .* declares 10\.0\d\d s", reason(half))
    assert "is truncated" in reason(half, 5, 9)
    assert [read_number(frame.image) for frame in decode_cut(VideoCut(half, 0, 1))] == list(range(30))
    half.write_bytes(content[: packets[160] - 5])
    assert re.match(r"is damaged or truncated after 5\.\d+ s", reason(half, 5, 9))


def test_damaged_bits_in_the_middle_are_named(tmp_path: Path) -> None:
    file = tmp_path / "v.mp4"
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 256, (96, 96, 3), dtype=np.uint8) for _ in range(60)]
    write_video(file, constant_rate(60), images=noise, gop=10, is_index_first=True)
    content = bytearray(file.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 3000] = rng.bytes(3000)
    file.write_bytes(content)
    assert "damaged" in reason(file)


def test_a_video_without_pictures_is_named(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=16_000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.rate = 16_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert reason(tmp_path / "sound.mp4") == "has no video stream"
    with pytest.raises(UnreadableClip, match="no video stream"):
        read_video_info(tmp_path / "sound.mp4")


def test_the_header_gives_length_rate_and_size(tmp_path: Path) -> None:
    write_video(tmp_path / "v.mp4", constant_rate(60, Fraction(25)))
    info = read_video_info(tmp_path / "v.mp4")
    assert info.seconds == pytest.approx(2.4, abs=0.05)
    assert info.fps == pytest.approx(25, rel=0.05)
    assert (info.width, info.height) == numbered_image(0).shape[1::-1]
