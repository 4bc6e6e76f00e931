"""Overlapping clips are either cut with margins or of two signers in one recording; each case has its own fix."""

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
    """Each signer signs the script; each clip begins half a second before the end of the one before it."""
    rows = [
        ("v", f"v-{signer}", f"v_{number}-{signer}", 3 * number + index, 3 * number + index + 3.5, text)
        for index, signer in enumerate(signers)
        for number, text in enumerate(SCRIPT)
    ]
    lines = ["\t".join(map(str, row)) for row in (COLUMNS, *rows)]
    (root / "train.tsv").write_text("\n".join(lines) + "\n")
    command = ("prepare", "how2sign", "-a", root / "train.tsv", "--out", root, "--group-by", group_by)
    assert signllava(*command).code == 0


def overlap_findings(signllava: Command, root: Path) -> dict[str, dict[str, Any]]:
    signllava("prepare", "check", root, "--report", root / "check.json")
    findings = json.loads((root / "check.json").read_text())["findings"]
    return {finding["name"]: finding for finding in findings if finding["name"].startswith("clips-overlap")}


def test_clips_cut_with_margins_need_no_other_grouping(signllava: Command, tmp_path: Path) -> None:
    how2sign(signllava, tmp_path, (5,), "video-name")
    findings = overlap_findings(signllava, tmp_path)
    assert list(findings) == ["clips-overlap"]
    assert findings["clips-overlap"]["count"] == 3
    assert "signer" not in findings["clips-overlap"]["fix"]


def test_two_signers_in_a_recording_are_reported(signllava: Command, tmp_path: Path) -> None:
    how2sign(signllava, tmp_path, (5, 8), "video-id")
    findings = overlap_findings(signllava, tmp_path)
    assert list(findings) == ["clips-overlap-signers"]
    assert findings["clips-overlap-signers"]["count"] == 7
    assert "v: clips of v-5, v-8" in findings["clips-overlap-signers"]["what"]
    assert "video-name" in findings["clips-overlap-signers"]["fix"]


@pytest.mark.parametrize(
    ("group_by", "name"), [("video-id", "clips-overlap-signers"), ("video-name", "clips-overlap")]
)
def test_two_signers_are_detected_by_their_texts(
    signllava: Command, tmp_path: Path, group_by: str, name: str
) -> None:
    """Annotations of other tools lack the columns of the source."""
    how2sign(signllava, tmp_path, (5, 8), group_by)
    file = tmp_path / "annotation.train.json"
    content = json.loads(file.read_text())
    for recording in content.values():
        for clip in set(recording) - {"clip_order"}:
            del recording[clip]["source"]
    file.write_text(json.dumps(content))
    assert list(overlap_findings(signllava, tmp_path)) == [name]
