"""`prepare extract`: a clip gets the frames of its cut; what cannot be read is named, and stops no other clip."""

import base64
import io
import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import av
import h5py
import numpy as np
import pytest
from conftest import Ended, MadeOnce
from numbers_extractor import NumbersSettings, write_numbered
from real_clips import CLIPS, FRAMES, SAMPLES, clip_file, model_file, needs_samples
from videos_of_numbers import constant_rate, write_video

from signllava_cli.data.work_shard import WorkShard
from signllava_cli.errors import UserError
from signllava_cli.prepare.extract.extract import ExtractRequest, extract
from signllava_cli.prepare.extract.landmarks import LandmarkFinder
from signllava_cli.prepare.extract.pose_extractor import PoseSettings
from signllava_cli.prepare.extract.pose_features import extract_pose
from signllava_cli.prepare.extract.video_cuts import VideoCut, decode_cut

Command = Callable[..., Ended]
Cuts = Mapping[str, tuple[float, float] | None]


def annotate(root: Path, cuts_of: Mapping[str, Cuts], split: str = "train") -> Path:
    """A dataset folder with an annotation: recording -> clip -> its start and end, if any."""
    content: dict[str, dict[str, Any]] = {}
    for recording, cuts in cuts_of.items():
        content[recording] = {"clip_order": list(cuts)}
        for clip, cut in cuts.items():
            content[recording][clip] = {"translation": "Hello."}
            if cut is not None:
                content[recording][clip] |= {"start": cut[0], "end": cut[1]}
    root.mkdir(parents=True, exist_ok=True)
    (root / f"annotation.{split}.json").write_text(json.dumps(content))
    return root


def extract_numbers(videos: Path, data: Path, settings: NumbersSettings | None = None, **options: Any) -> None:
    extract(ExtractRequest(videos, data, "train", {"numbers": settings or NumbersSettings()}, 2, **options))


def numbers(data: Path) -> dict[str, list[int]]:
    """Clip -> the numbers of its frames."""
    found: dict[str, list[int]] = {}
    for file in sorted((data / "numbers").glob("*.h5")):
        with h5py.File(file) as handle:
            for recording in handle.values():
                found |= {clip: values[:, 0].astype(int).tolist() for clip, values in recording.items()}
    return found


def report(data: Path, stream: str = "numbers") -> dict[str, Any]:
    return dict(json.loads((data / stream / f"extract.{stream}.train.json").read_text()))


@pytest.fixture(scope="session")
def numbered(made_once: MadeOnce) -> Path:
    """The videos of two recordings, and of a clip of a third."""

    def make(folder: Path) -> None:
        for name in ("rec1", "rec2", "clip"):
            write_numbered(folder / f"{name}.mp4")

    return made_once("numbered_recordings", make)


CUTS: dict[str, Cuts] = {
    "rec1": {"a": (0, 0.4), "b": (0.4, 1.0), "c": (2.0, 2.4)},
    "rec2": {"d": (0.2, 0.4)},
    "rec3": {"clip": (7.0, 8.0)},  # a file of its own: the times are those of a video that is not here
}


@pytest.mark.drill
def test_each_clip_gets_the_frames_of_its_cut(numbered: Path, tmp_path: Path) -> None:
    data = annotate(tmp_path / "data", CUTS)
    extract_numbers(numbered, data)
    assert numbers(data) == {
        "a": list(range(10)),
        "b": list(range(10, 25)),
        "c": list(range(50, 60)),
        "d": list(range(5, 10)),
        "clip": list(range(60)),
    }
    assert json.loads((data / "numbers/metadata_numbers.train.json").read_text()) == dict.fromkeys(CUTS, 0)
    assert (report(data)["clips_extracted"], report(data)["skipped"], report(data)["missing"]) == (5, {}, [])
    with h5py.File(data / "numbers/numbers.train.0.h5") as file:
        assert file.attrs["layout"] == "numbers"
    with h5py.File(data / "numbers/extract.train/arrays/rec1.h5") as file:
        assert file["b/times"][()] == pytest.approx(np.arange(10, 25) / 25)
    assert not (data / "numbers/extract.train/features").exists()


def test_the_same_command_again_does_nothing(
    numbered: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = annotate(tmp_path / "data", CUTS)
    extract_numbers(numbered, data)
    before = {file: file.stat().st_mtime_ns for file in data.rglob("*") if file.is_file()}
    capsys.readouterr()
    extract_numbers(numbered, data)
    assert "was extracted before: nothing to do" in capsys.readouterr().out
    assert {file: file.stat().st_mtime_ns for file in data.rglob("*") if file.is_file()} == before


@pytest.mark.drill
def test_other_settings_are_refused_unless_overwritten(numbered: Path, tmp_path: Path) -> None:
    data = annotate(tmp_path / "data", CUTS)
    extract_numbers(numbered, data)
    with pytest.raises(UserError, match=r"offset 0, now 100\); give --overwrite"):
        extract_numbers(numbered, data, NumbersSettings(offset=100))
    assert numbers(data)["a"][0] == 0
    extract_numbers(numbered, data, NumbersSettings(offset=100), overwrite=True)
    assert numbers(data)["a"][0] == 100
    assert report(data)["settings"] == {"offset": 100}


@pytest.mark.drill
def test_another_cut_extracts_only_its_recording_again(numbered: Path, tmp_path: Path) -> None:
    data = annotate(tmp_path / "data", CUTS)
    log = tmp_path / "log"
    extract_numbers(numbered, data, NumbersSettings(log=log), share=WorkShard(0, 3))
    annotate(data, CUTS | {"rec1": {"a": (0, 0.2)}})
    extract_numbers(numbered, data, NumbersSettings(log=log))
    assert sorted(log.read_text().split()) == sorted(["rec1/a", "rec1/b", "rec1/c", "rec1/a", "rec2/d", "rec3/clip"])
    assert numbers(data)["a"] == list(range(5))


@pytest.mark.drill
def test_a_clip_that_was_added_without_a_video_is_reported(numbered: Path, tmp_path: Path) -> None:
    data = annotate(tmp_path / "data", CUTS)
    extract_numbers(numbered, data)
    annotate(data, CUTS | {"rec9": {"absent": None}})
    with pytest.raises(UserError, match="other settings, videos or cuts"):
        extract_numbers(numbered, data)
    extract_numbers(numbered, data, overwrite=True)
    assert report(data)["missing"] == ["rec9/absent"]


def test_files_of_prepare_pack_are_not_replaced(numbered: Path, tmp_path: Path) -> None:
    data = annotate(tmp_path / "data", CUTS)
    (data / "numbers").mkdir()
    (data / "numbers/metadata_numbers.train.json").write_text("{}")
    with pytest.raises(UserError, match="`prepare extract` did not write"):
        extract_numbers(numbered, data)


@pytest.mark.drill
def test_the_jobs_of_an_array_make_the_same_shards(numbered: Path, tmp_path: Path) -> None:
    """The last job, whichever it is, packs the stream."""
    whole = annotate(tmp_path / "whole", CUTS)
    extract_numbers(numbered, whole, shard_mb=0)
    data = annotate(tmp_path / "data", CUTS)
    for share in (WorkShard(2, 3), WorkShard(0, 3), WorkShard(1, 3)):
        assert not (data / "numbers/metadata_numbers.train.json").exists()
        extract_numbers(numbered, data, share=share, shard_mb=0)
    names = ["numbers.train.0.h5", "numbers.train.1.h5", "numbers.train.2.h5", "metadata_numbers.train.json"]
    for name in [*names, "extract.numbers.train.json"]:
        assert (data / "numbers" / name).read_bytes() == (whole / "numbers" / name).read_bytes()


def test_shares_cover_each_recording_once_under_a_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    shares = []
    for text in ("1/3", "2/3", "3/3"):
        for rank in range(4):
            monkeypatch.setenv("RANK", str(rank))
            monkeypatch.setenv("WORLD_SIZE", "4")
            shares.append(WorkShard.of_process(text))
    covered = sorted(number for share in shares for number in range(100)[share.index :: share.count])
    assert covered == list(range(100))
    for text in ("0/3", "4/3", "3", "a/b", "1/0", "²/3", "1/" + "9" * 5000):
        with pytest.raises(UserError, match=r"--shard .*: expected I/N"):
            WorkShard.of_process(text)


def damage(folder: Path) -> dict[str, str]:
    """Writes a video for each kind of damage; clip -> a part of the reason that it must be left out for."""
    whole = folder / "whole.mp4"
    write_numbered(whole, 200)
    content = whole.read_bytes()
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("this is a text, not a video\n" * 50)
    (folder / "truncated.mp4").write_bytes(content[: len(content) // 2])
    (folder / "folder.mp4").mkdir()
    os.mkfifo(folder / "pipe.mp4")  # the decoder waits for a writer, forever
    os.symlink(folder / "nowhere", folder / "broken.mp4")
    write_numbered(folder / "crash.mp4", 3)
    with av.open(str(folder / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=16_000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.rate = 16_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    damaged = bytearray(content)
    start = damaged.index(b"mdat") + 2000
    damaged[start : start + 1500] = random.Random(0).randbytes(1500)
    (folder / "bits.mp4").write_bytes(damaged)
    return {
        "empty": "cannot be read as a video",
        "text": "cannot be read as a video",
        "truncated": "cannot be read as a video",
        "folder": "cannot be read as a video: Is a directory",
        "pipe": "took more than 1.5 s for a frame",
        "broken": "cannot be read as a video: No such file or directory",
        "crash": "crashed the process that read it (SIGABRT)",
        "sound": "has no video stream",
        "bits": "damaged",
    }


def test_damaged_videos_are_named_and_cost_no_other_clip(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    reasons = damage(videos)
    cuts: dict[str, Cuts] = {"clips": dict.fromkeys([*reasons, "absent"])}
    cuts["whole"] = {"good": (0, 1), "late": (100, 101), "reversed": (2, 1), "untimed": None}
    data = annotate(tmp_path / "data", cuts)
    extract_numbers(videos, data, NumbersSettings(crash_on="crash"), stall_seconds=1.5)
    assert numbers(data) == {"good": list(range(25))}
    skipped = report(data)["skipped"]
    for clip, reason in reasons.items():
        assert reason in skipped[f"clips/{clip}"], clip
        assert "\n" not in skipped[f"clips/{clip}"]
    assert "no frame is within the cut from 100 s to 101 s" in skipped["whole/late"]
    assert "the cut is empty" in skipped["whole/reversed"]
    assert "the annotation has no `start` and `end`" in skipped["whole/untimed"]
    assert report(data)["missing"] == ["clips/absent"]
    assert len(skipped) == len(reasons) + 3
    out = capsys.readouterr().out
    assert "12 clips are faulty and skipped" in out
    assert "1 clip has no file" in out


def test_a_name_that_two_clips_share_needs_a_folder(tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    write_numbered(videos / "0.mp4", 5)
    write_numbered(videos / "rec2/0.mp4", 7)
    write_numbered(videos / "1.mp4", 6)
    data = annotate(tmp_path / "data", {"rec1": {"0": None, "1": None}, "rec2": {"0": None}})
    extract_numbers(videos, data)
    assert report(data)["skipped"] == {"rec1/0": "0.mp4 may be that of another recording; move it into rec1/"}
    with h5py.File(data / "numbers/numbers.train.0.h5") as file:
        assert (file["rec1/1"].shape, file["rec2/0"].shape) == ((6, 2), (7, 2))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--streams", "mae"], "unknown stream 'mae'; choose from pose, dino"),
        (["--pose-model", "nowhere.task"], "--pose-model nowhere.task: no such file"),
        ([], "The landmark model is not in"),
        (["--shard", "5/4", "--pose-model", "m.task"], "--shard 5/4: expected I/N"),
        (["--split", "dev", "--pose-model", "m.task"], "No annotation.dev.json"),
        (["--pose-model", "m.task"], "has no video of the 5 annotated clips"),
    ],
)
def test_wrong_options_are_refused_in_one_line(
    signllava: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "m.task").write_bytes(b"")
    (tmp_path / "videos").mkdir()
    annotate(tmp_path / "data", CUTS)
    ended = signllava("prepare", "extract", "videos", "--out", "data", "--split", "train", *words)
    assert ended.code == 2
    assert message in " ".join(ended.err.split())
    assert "Traceback" not in ended.err
    assert not (tmp_path / "data/pose").exists()


def test_a_model_that_cannot_be_loaded_is_refused_in_one_line(
    signllava: Command, numbered: Path, tmp_path: Path
) -> None:
    (tmp_path / "m.task").write_bytes(b"no model")
    data = annotate(tmp_path / "data", CUTS)
    ended = signllava(
        *("prepare", "extract", numbered, "--out", data, "--split", "train", "--workers", 1),
        *("--pose-model", tmp_path / "m.task"),
    )
    assert ended.code == 2
    assert "is not a model of HolisticLandmarker" in " ".join(ended.err.split())


@pytest.fixture(scope="session")
def real(made_once: MadeOnce) -> Path:
    """Three real clips, extracted by the command: two of one recording, and cuts of the third."""
    if SAMPLES is None:
        pytest.skip("no real clips")

    def make(folder: Path) -> None:
        annotate(folder, REAL_CUTS)
        settings = PoseSettings(model_file())
        extract(ExtractRequest(clip_file(CLIPS[0]).parent, folder, "train", {"pose": settings}, 2))

    return made_once("real_pose", make)


REAL_CUTS: dict[str, Cuts] = {"rec": {CLIPS[0]: None, CLIPS[1]: None}, CLIPS[2]: {"x": (0, 0.5), "y": (0.5, 1.0)}}


@needs_samples
def test_real_clips_become_a_stream(real: Path) -> None:
    with h5py.File(real / "pose/pose.train.0.h5") as file:
        shapes = {clip: values.shape for group in file.values() for clip, values in group.items()}
        assert shapes == {CLIPS[0]: (FRAMES[CLIPS[0]], 208), CLIPS[1]: (27, 208), "x": (12, 208), "y": (12, 208)}
        assert file.attrs["layout"] == "mediapipe-104-shoulders"
        assert "MediaPipe Holistic, 104 points" in file.attrs["points"]
        assert file[f"rec/{CLIPS[0]}"].attrs["scale"] > 100
    content = report(real, "pose")
    assert content["share"]["body"] == content["share"]["face"] == 1
    assert min(content["share"]["left_hand"], content["share"]["right_hand"]) >= 0.9
    assert content["rotated"] == content["several_people"] == []
    assert set(content["recordings"]) == {"rec", CLIPS[2]}


@needs_samples
def test_the_contact_sheet_shows_frames_of_the_worst_clips(real: Path) -> None:
    """With what was found drawn in: the pictures have the colors of face and hands."""
    from PIL import Image

    page = (real / "pose/extract.pose.train.html").read_text()
    assert all(f"<h2>{clip}</h2>" in page for clip in report(real, "pose")["worst"])
    pictures = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)
    assert len(pictures) == 4 * 6
    colors = {"face": (255, 90, 208), "left hand": (0, 224, 106), "right hand": (53, 167, 255)}
    shown = np.stack([np.asarray(Image.open(io.BytesIO(base64.b64decode(picture)))) for picture in pictures])
    for part, color in colors.items():
        is_near = abs(shown.astype(int) - color).max(axis=-1) < 40
        assert is_near.any(axis=(1, 2)).mean() > 0.8, part


@needs_samples
@pytest.mark.drill
def test_the_command_gives_the_same_bytes_again(signllava: Command, real: Path, tmp_path: Path) -> None:
    data = annotate(tmp_path / "data", REAL_CUTS)
    ended = signllava(
        *("prepare", "extract", clip_file(CLIPS[0]).parent, "--out", data, "--split", "train"),
        *("--pose-model", model_file(), "--workers", 1),
    )
    assert ended.code == 0, ended.err
    assert "found in 66 frames: body 100.0%" in ended.out
    for name in ("pose.train.0.h5", "metadata_pose.train.json", "extract.pose.train.json", "pack.pose.train.json"):
        assert (data / "pose" / name).read_bytes() == (real / "pose" / name).read_bytes()


@needs_samples
@pytest.mark.drill
def test_the_layout_of_sign_llava_is_stored_and_not_mixed_with_ours(
    signllava: Command, real: Path, tmp_path: Path
) -> None:
    data = annotate(tmp_path / "data", REAL_CUTS)
    words = ("prepare", "extract", clip_file(CLIPS[0]).parent, "--split", "train", "--pose-model", model_file())
    ended = signllava(*words, "--out", data, "--pose-layout", "sign-llava")
    assert ended.code == 0, ended.err
    with h5py.File(data / "pose/pose.train.0.h5") as file:
        assert file.attrs["layout"] == "sign-llava"
        assert "points" not in file.attrs
        hands = file[f"{CLIPS[2]}/x"][()].reshape(12, 104, 2)[:, 25:67]
        assert -1 <= hands.min() < -0.6
        assert 0.6 < hands.max() <= 1
    assert (data / "pose/extract.pose.train.html").exists()  # with the squares alone
    refused = signllava(*words, "--out", data)
    assert refused.code == 2
    assert "layout sign-llava, now mediapipe-104-shoulders" in refused.err
    compared = signllava("prepare", "extract", "--out", data, "--split", "train", "--compare", real)
    assert compared.code == 2
    assert "must not be mixed" in compared.err


@needs_samples
def test_a_clip_turned_on_its_side_gives_the_same_landmarks(tmp_path: Path) -> None:
    """Turned by its header alone: the stored picture lies on its side."""
    images = [frame.image for frame in decode_cut(VideoCut(clip_file(CLIPS[0]), 0, 0.2))]
    poses = []
    for rotation in (0, 90):
        file = tmp_path / f"{rotation}.mp4"
        write_video(file, constant_rate(len(images)), images=images, rotation=rotation, options={"crf": "10"})
        poses.append(extract_pose(VideoCut(file), LandmarkFinder(model_file(), count_people=False)))
    assert [pose.quality.rotation for pose in poses] == [0, 90]
    assert poses[1].quality.pixels == (1280, 720)
    difference = abs(poses[0].features.frames.astype(float) - poses[1].features.frames)
    assert np.median(difference) < 0.01


FULL_DISK = """
import resource
import sys
from pathlib import Path

import numpy as np

from signllava_cli.data.feature_files import ClipFeatures
from signllava_cli.errors import UserError
from signllava_cli.prepare.extract.clip_extractor import ExtractedClip
from signllava_cli.prepare.extract.recording_files import ExtractPaths, write_recording
from signllava_cli.prepare.pack.stream_paths import StreamPaths

resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
clip = ExtractedClip(ClipFeatures(np.zeros((1000, 208), np.float16)))
try:
    write_recording(ExtractPaths(StreamPaths(Path(sys.argv[1]), "pose", "train")), "rec", "f", {"c": clip}, {})
except UserError as error:
    print(error)
"""


@pytest.mark.reliability("Faults", "a full disk costs generate, pack and index one line, and no byte of the result")
def test_a_full_disk_is_one_line_and_leaves_no_half_recording(tmp_path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", FULL_DISK, tmp_path], capture_output=True, text=True, check=False)
    assert ended.stdout.endswith("rec.h5 cannot be written: File too large.\n"), ended
    assert not ended.stderr
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]


def test_a_folder_that_cannot_be_written_is_named(numbered: Path, tmp_path: Path) -> None:
    data = annotate(tmp_path / "data", CUTS)
    (data / "numbers").mkdir()
    (data / "numbers/extract.train").write_text("a file where a folder must be")
    with pytest.raises(UserError, match="cannot be written"):
        extract_numbers(numbered, data)
