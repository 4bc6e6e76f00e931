"""The Python API translates a video as `prepare extract` and `generate` do, and refuses what they leave out."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Ended
from real_clips import CLIPS, FRAMES, clip_file, model_file, needs_samples, write_with_pause
from videos_of_numbers import constant_rate, write_video

from signllava_cli import SignLlava
from signllava_cli.api.inputs import InvalidInput
from signllava_cli.api.signing_pauses import PauseCutter, Segment
from signllava_cli.api.video_features import VideoOptions, VideoReader, choose_video_streams
from signllava_cli.data.clip_source import UnreadableClip
from signllava_cli.data.keypoints import BODY, LEFT_HAND
from signllava_cli.generation.predictions_folder import read_predictions
from signllava_cli.prepare.extract.landmarks import FrameLandmarks
from signllava_cli.prepare.extract.video_cuts import VideoCut, decode_cut

Command = Callable[..., Ended]
SETTINGS: dict[str, Any] = {"num_beams": 2, "max_new_tokens": 8}


@pytest.fixture(scope="module")
def model(video_run: Path) -> SignLlava:
    return SignLlava.from_pretrained(video_run / "run", **SETTINGS)


@pytest.fixture(scope="module")
def options(video_run: Path) -> dict[str, Any]:
    return {"pose_model": model_file(), "dino": video_run / "backbone"}


@needs_samples
def test_a_video_is_translated_as_by_extract_and_generate(
    model: SignLlava, options: dict[str, Any], video_run: Path, signllava: Command, tmp_path: Path
) -> None:
    words = [
        "--set",
        f"data.root={video_run / 'data'}",
        "--split",
        "train",
        "--beams",
        2,
        "--max-new-tokens",
        8,
        "--context-source",
        "none",
        "--out",
        tmp_path,
    ]
    ended = signllava("generate", "-c", video_run / "run", *words)
    assert ended.code == 0, ended.err
    expected = {row.clip: row for row in read_predictions(tmp_path / "predictions.jsonl")}
    assert len(expected) == 3
    for clip, path, cut in (
        (CLIPS[0], CLIPS[0], ()),
        (CLIPS[1], CLIPS[1], ()),
        ("cut", CLIPS[2], (0.25, 0.8)),
    ):
        translation = model.translate_video(clip_file(path), *cut, **options)
        assert translation.text == expected[clip].hypothesis
        assert translation.score == pytest.approx(expected[clip].score, abs=1e-4)
    assert len({row.score for row in expected.values()}) == 3


@needs_samples
def test_some_streams_and_context_can_be_chosen(model: SignLlava, options: dict[str, Any]) -> None:
    translation = model.translate_video(
        clip_file(CLIPS[0]), context=["We eat."], streams=["pose"], pose_model=model_file()
    )
    assert translation.context == ("We eat.",)
    assert list(translation.stream_embeddings) == ["pose"]
    with pytest.raises(InvalidInput, match=r"dino must name its image backbone of .*backbone@.*: a folder"):
        model.translate_video(clip_file(CLIPS[0]), pose_model=model_file())


@needs_samples
def test_what_extract_leaves_out_is_refused_in_one_line(model: SignLlava, tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    whole = clip_file(CLIPS[2]).read_bytes()
    (tmp_path / "half.mp4").write_bytes(whole[: len(whole) // 2])
    rate, gray = constant_rate(5), [np.full((64, 64, 3), 128, np.uint8)] * 5
    write_video(tmp_path / "nobody.mp4", rate, images=gray)
    bodies = [frame.image for frame in decode_cut(VideoCut(clip_file(CLIPS[0])))][:2]
    write_video(tmp_path / "few.mp4", constant_rate(8), images=[*bodies, *[np.zeros_like(bodies[0])] * 6])
    for file, cut, message in (
        ("nowhere.mp4", (), "cannot be read as a video: No such file"),
        ("text.mp4", (), "cannot be read as a video"),
        ("half.mp4", (), "cannot be read as a video"),
        (clip_file(CLIPS[0]), (5, 6), r"no frame is within the cut from 5 s to 6 s"),
        (clip_file(CLIPS[0]), (0.5, 0.2), "the cut is empty"),
        (clip_file(CLIPS[0]), (0, float("nan")), "end: expected seconds"),
        ("nobody.mp4", (), "a body was found in 0 of 5 frames"),
        ("few.mp4", (), r"a body was found in \d of 8 frames, fewer than 80%"),
    ):
        with pytest.raises(InvalidInput, match=message) as refused:
            model.translate_video(tmp_path / file, *cut, streams=["pose"], pose_model=model_file())
        assert "\n" not in str(refused.value)


def test_streams_that_no_video_gives_are_refused_by_name(run: Path, tmp_path: Path) -> None:
    model = SignLlava.from_pretrained(run, **SETTINGS)
    with pytest.raises(
        InvalidInput, match="Stream sign2vec cannot be made from a video: extract it with its own tool"
    ):
        model.translate_video(tmp_path / "a.mp4")
    with pytest.raises(InvalidInput, match="knows no stream 'pose'"):
        model.translate_video(tmp_path / "a.mp4", streams=["pose"])


@pytest.mark.parametrize(
    ("layouts", "options", "message"),
    [
        ({}, {}, r"Stream pose: the layout of its numbers in training is unknown"),
        ({"pose": "mine"}, {}, r"Stream pose cannot be made .*; or choose other streams only: dino"),
        ({"pose": "sign-llava"}, {"pose_model": Path("/no/file")}, "pose_model: no such file"),
        ({"pose": "sign-llava"}, {"streams": ()}, "expected at least one"),
    ],
)
def test_streams_are_chosen_by_the_layout_of_the_training(
    layouts: dict[str, str], options: dict[str, Any], message: str
) -> None:
    pytest.importorskip("mediapipe")
    with pytest.raises(InvalidInput, match=message):
        choose_video_streams(["pose", "dino"], layouts, VideoOptions(**options))


@needs_samples
def test_the_layout_of_the_training_is_made(video_run: Path) -> None:
    options = VideoOptions(model_file(), streams=("keypoints",))
    chosen = choose_video_streams(["keypoints"], {"keypoints": "sign-llava"}, options)
    assert (chosen.pose, chosen.landmarks.layout) == ("keypoints", "sign-llava")
    options = VideoOptions(model_file(), dino=str(video_run / "backbone"))
    with pytest.raises(InvalidInput, match=r"was trained on crops.*other@0123456789ab, but backbone gives"):
        choose_video_streams(["dino"], {"dino": "crops face,left,right: my/other@0123456789ab"}, options)


# ---- pauses ----


def made_frames(positions: Sequence[float | None], fps: float = 25) -> list[FrameLandmarks]:
    """Frames with a left hand at these positions, in shoulder widths; None: no hand."""
    body = np.zeros((33, 2))
    body[11] = (200, 0)
    return [
        FrameLandmarks(
            index / fps,
            {BODY: body} | ({} if place is None else {LEFT_HAND: np.full((21, 2), (200 * place, 50.0))}),
            (640, 480),
        )
        for index, place in enumerate(positions)
    ]


def cut_at_pauses(frames: list[FrameLandmarks]) -> tuple[list[Segment], PauseCutter]:
    cutter = PauseCutter()
    segments = [segment for frame in frames for segment in cutter.add(frame)]
    return [*segments, *cutter.finish()], cutter


def test_segments_lie_between_still_or_absent_hands() -> None:
    signing: list[float | None] = [0.1 * (index % 7) for index in range(25)]
    hold: list[float | None] = [0.3] * 8  # 0.3 s: not a pause
    frames = made_frames([*[0.0] * 25, *signing, *hold, *signing, *[None] * 20, *signing])
    segments, cutter = cut_at_pauses(frames)
    assert [round(25 * segment.frames[0].time) for segment in segments] == pytest.approx(
        [26 - 5, 104 - 5], abs=2
    )  # 0.2 s earlier
    assert [round(25 * segment.frames[-1].time) for segment in segments] == pytest.approx([82 + 5, 127], abs=2)
    assert [segment.end is None for segment in segments] == [False, True]
    assert segments[0].end == pytest.approx(segments[0].frames[-1].time + 1 / 25)
    assert cutter.num_short == 0


def test_still_videos_and_twitches_have_no_segment() -> None:
    assert cut_at_pauses(made_frames([0.5] * 50))[0] == []
    assert cut_at_pauses(made_frames([None] * 50))[0] == []
    segments, cutter = cut_at_pauses(made_frames([0.0] * 25 + [0.2] * 30))
    assert (segments, cutter.num_short) == ([], 1)


@pytest.mark.drill
@needs_samples
def test_a_video_is_cut_at_its_pause(model: SignLlava, video_run: Path, tmp_path: Path) -> None:
    write_with_pause(tmp_path / "two.mp4")
    options = VideoOptions(model_file(), str(video_run / "backbone"))
    reader = choose_video_streams(list(model.streams), model.layouts, options).open()
    clips = list(reader.read_segments(VideoCut(tmp_path / "two.mp4")))
    count = FRAMES[CLIPS[0]]
    assert [round(24 * clip.start) for clip in clips] == pytest.approx([0, count + 33], abs=5)
    assert [round(24 * clip.end) for clip in clips] == pytest.approx([count + 8, count + 36 + 27], abs=8)
    for clip in clips:
        assert clip.error is None
        assert len(clip.features["pose"]) == len(clip.features["dino"]) == len(clip.times) == len(clip.points)
    with pytest.raises(UnreadableClip, match="no signing found"):
        list(reader.read_segments(VideoCut(tmp_path / "two.mp4", (count + 18) / 24, (count + 30) / 24)))
    assert isinstance(reader, VideoReader)
