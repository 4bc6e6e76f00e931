"""`prepare extract --dry-run` estimates frames, hours and disk from a sample, and writes nothing."""

from fractions import Fraction
from pathlib import Path

import pytest
from numbers_extractor import NumbersSettings, write_numbered
from real_clips import CLIPS, clip_file, model_file, needs_samples
from test_dino import Command, backbones  # noqa: F401 (a fixture)
from test_extract import REAL_CUTS, annotate
from videos_of_numbers import constant_rate, write_video

from signllava_cli.errors import UserError
from signllava_cli.prepare.extract.extract import ExtractRequest
from signllava_cli.prepare.extract.extract_cost import estimate_cost


def estimate(videos: Path, data: Path, workers: int = 2) -> None:
    estimate_cost(ExtractRequest(videos, data, "train", {"numbers": NumbersSettings()}, workers))


def test_frames_are_those_of_the_cuts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of whole files their length, of cuts that of the annotation; and the sample is not stored."""
    write_video(tmp_path / "rec.mp4", constant_rate(100, Fraction(25)))
    write_numbered(tmp_path / "whole.mp4", 100)
    data = annotate(tmp_path / "data", {"rec": {"a": (0, 1), "b": (1, 3)}, "other": {"whole": None, "absent": None}})
    estimate(tmp_path, data)
    out = " ".join(capsys.readouterr().out.split())
    assert "about 175 frames in 3 clips" in out
    assert "hours, 2 workers" in out
    assert "1 clip has no video (other/absent)" in out
    assert [path.name for path in data.iterdir()] == ["annotation.train.json"]


def test_a_folder_without_a_readable_video_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"")
    data = annotate(tmp_path / "data", {"rec": {"a": None}})
    with pytest.raises(UserError, match="can be read"):
        estimate(tmp_path, data)


@needs_samples
@pytest.mark.drill
def test_the_command_estimates_both_streams(signllava: Command, backbones: Path, tmp_path: Path) -> None:  # noqa: F811
    data = annotate(tmp_path / "data", REAL_CUTS)
    words = ("--out", data, "--split", "train", "--streams", "pose,dino", "--dino", backbones / "face", "--dry-run")
    ended = signllava("prepare", "extract", clip_file(CLIPS[0]).parent, *words, "--pose-model", model_file())
    assert ended.code == 0, ended.err
    assert "about 66 frames in 4 clips" in ended.out
    rows = [line.split() for line in ended.out.splitlines() if "pose" in line or "dino" in line]
    rates = {row[1]: float(row[3]) for row in rows if len(row) > 3}
    assert rates["dino"] > rates["pose"] > 1
    assert not (data / "pose").exists()
