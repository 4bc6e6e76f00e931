"""The worked example of docs/video.md: a stream of another backbone."""

import re
import sys
from pathlib import Path

import h5py
import pytest
from conftest import run_script
from numbers_extractor import write_numbered
from test_dino import save_dinov2
from test_extract import annotate

ROOT = Path(__file__).parents[3]


@pytest.mark.drill
def test_the_script_makes_a_stream_of_whole_frames(tmp_path: Path) -> None:
    [script] = re.findall(r"^```python\n# (\S+)\n(.*?)^```$", (ROOT / "docs/video.md").read_text(), re.M | re.S)
    (tmp_path / script[0]).write_text(script[1])
    lines = [line for line in script[1].splitlines() if line and not line.startswith(("import", "from", '"""'))]
    assert len(lines) <= 30
    save_dinov2(tmp_path / "model", 0)
    write_numbered(tmp_path / "videos" / "rec.mp4", 10)
    annotate(tmp_path / "data", {"rec": {"a": (0, 0.2), "b": (0.2, 0.4)}})
    command = f"{sys.executable} {script[0]} videos data train model"
    run_script(command, tmp_path, tmp_path, PYTHONPATH=str(ROOT))
    with h5py.File(tmp_path / "data/frames/frames.train.0.h5") as file:
        assert {clip: values.shape for clip, values in file["rec"].items()} == {"a": (5, 32), "b": (5, 32)}
        assert file.attrs["layout"] == "whole frames: model"
