"""Clips that overlap in time: cut loosely, or of two signers in one recording; each has its own advice."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Ended

Command = Callable[..., Ended]
COLUMNS = ("VIDEO_ID", "VIDEO_NAME", "SENTENCE_NAME", "START_REALIGNED", "END_REALIGNED", "SENTENCE")
SCRIPT = ("Take a pan.", "Heat the oil in it.", "Add the onions.", "Stir them well.")


def how2sign(signllava: Command, root: Path, signers: tuple[int, ...], group_by: str) -> None:
    """Each signer says the script; each clip begins half a second before the one before it has ended."""
    rows = [
        ("v", f"v-{signer}", f"v_{number}-{signer}", 3 * number + index, 3 * number + index + 3.5, text)
        for index, signer in enumerate(signers)
        for number, text in enumerate(SCRIPT)
    ]
    lines = ["\t".join(map(str, row)) for row in (COLUMNS, *rows)]
    (root / "train.tsv").write_text("\n".join(lines) + "\n")
    words = ("prepare", "how2sign", "-a", root / "train.tsv", "--out", root, "--group-by", group_by)
    assert signllava(*words).code == 0


def overlaps(signllava: Command, root: Path) -> dict[str, dict[str, Any]]:
    signllava("prepare", "check", root, "--report", root / "check.json")
    findings = json.loads((root / "check.json").read_text())["findings"]
    return {each["name"]: each for each in findings if each["name"].startswith("clips-overlap")}


def test_loosely_cut_clips_of_one_signer_are_not_to_be_grouped_otherwise(signllava: Command, tmp_path: Path) -> None:
    how2sign(signllava, tmp_path, (5,), "video-name")
    found = overlaps(signllava, tmp_path)
    assert list(found) == ["clips-overlap"]
    assert found["clips-overlap"]["count"] == 3
    assert "signer" not in found["clips-overlap"]["fix"]


def test_two_signers_in_a_recording_are_told(signllava: Command, tmp_path: Path) -> None:
    how2sign(signllava, tmp_path, (5, 8), "video-id")
    found = overlaps(signllava, tmp_path)
    assert list(found) == ["clips-overlap-signers"]
    assert found["clips-overlap-signers"]["count"] == 7
    assert "v: clips of v-5, v-8" in found["clips-overlap-signers"]["what"]
    assert "video-name" in found["clips-overlap-signers"]["fix"]


@pytest.mark.parametrize(
    ("group_by", "name"), [("video-id", "clips-overlap-signers"), ("video-name", "clips-overlap")]
)
def test_two_signers_are_told_by_their_texts_alone(
    signllava: Command, tmp_path: Path, group_by: str, name: str
) -> None:
    """Annotations of other tools do not hold the columns of the source."""
    how2sign(signllava, tmp_path, (5, 8), group_by)
    file = tmp_path / "annotation.train.json"
    content = json.loads(file.read_text())
    for recording in content.values():
        for clip in set(recording) - {"clip_order"}:
            del recording[clip]["source"]
    file.write_text(json.dumps(content))
    assert list(overlaps(signllava, tmp_path)) == [name]
