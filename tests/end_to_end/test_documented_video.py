"""The commands of docs/video.md, on real clips and a tiny LLM."""

import csv
import shutil
from pathlib import Path

import pytest
from doc_pages import shell_block
from documented_lab import Lab
from real_clips import CLIPS, clip_file, model_file, needs_samples


@needs_samples
@pytest.mark.drill
def test_the_way_from_video_to_scores(tiny_llm: Path, tmp_path: Path) -> None:
    lab = Lab(tmp_path / "lab", tiny_llm)
    (lab.folder / "videos").mkdir()
    with open(lab.folder / "clips.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["video", "start", "end", "sentence", "split"])
        for name, split in zip(CLIPS, ("dev", "test", "train"), strict=True):
            shutil.copy(clip_file(name), lab.folder / "videos")
            table.writerow([name, 0, 0.3, f"the {split} bread is good", split])
            table.writerow([name, 0.3, 0.6, f"a {split} tree is small", split])
    shutil.copy(model_file(), lab.folder / "holistic_landmarker.task")
    out = lab.shell(
        shell_block("docs/video.md", "prepare extract videos --out data/mine --split $split --pose-model")
    )
    assert "stream pose of split train: 2 of 2 clips, width 208" in out
    assert "BLEU" in out
    shutil.rmtree(lab.folder / "runs")
    lab.shell(shell_block("docs/video.md", "prepare llm tiny --corpus data/mine"))
    shutil.copytree(lab.folder / "data" / "mine", lab.folder / "data" / "extracted_last_year")
    assert "2 clips" in lab.shell(shell_block("docs/video.md", "--compare data/extracted_last_year"))
