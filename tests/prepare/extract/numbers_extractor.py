"""An extractor without a model: it reads the numbers that the frames show. As a script it is a command to kill.

`python numbers_extractor.py VIDEOS DATA WORKERS SHARD` extracts the split train.
"""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).parents[2]))  # as pytest does, for the script

from videos_of_numbers import constant_rate, numbered_image, read_number, write_video

from signllava_cli import console
from signllava_cli.data.feature_files import ClipFeatures, to_float16
from signllava_cli.data.work_shard import WorkShard
from signllava_cli.errors import RunStopped
from signllava_cli.prepare.extract.clip_extractor import ClipVideo, ExtractedClip
from signllava_cli.prepare.extract.extract import ExtractRequest, extract


@dataclass(frozen=True)
class NumbersSettings:
    """`crash_on`: a clip on which the process ends as on a fault of a decoder. `log`: gets a line for each clip."""

    offset: int = 0
    crash_on: str = ""
    log: Path | None = None
    needs_boxes: bool = False

    def fingerprint(self) -> dict[str, object]:
        return {"offset": self.offset}

    def open(self) -> "NumbersExtractor":
        return NumbersExtractor(self)


class NumbersExtractor:
    def __init__(self, settings: NumbersSettings) -> None:
        self.settings = settings

    def extract(self, video: ClipVideo) -> ExtractedClip:
        if video.clip == self.settings.crash_on:
            os.abort()
        frames = list(video.frames())
        if self.settings.log is not None:
            with open(self.settings.log, "a") as log:
                log.write(f"{video.recording}/{video.clip}\n")
        numbers = [[read_number(frame.image) + self.settings.offset, frame.time] for frame in frames]
        features = ClipFeatures(to_float16(np.array(numbers)), layout="numbers")
        return ExtractedClip(features, {"times": np.array([frame.time for frame in frames])})


def write_numbered(file: Path, count: int = 60) -> None:
    """A video at 25 frames per second."""
    from fractions import Fraction

    file.parent.mkdir(parents=True, exist_ok=True)
    write_video(
        file,
        constant_rate(count, Fraction(25)),
        images=[numbered_image(number) for number in range(count)],
        options={"preset": "ultrafast"},
    )


if __name__ == "__main__":
    videos, data, workers, shard = sys.argv[1:]
    settings = NumbersSettings(log=Path(data, "log"))
    streams = {"numbers": settings}
    try:
        share = WorkShard.of_process(None if shard == "all" else shard)
        extract(ExtractRequest(Path(videos), Path(data), "train", streams, int(workers), share, shard_mb=0))
    except RunStopped as stop:
        console.info(str(stop))
        sys.exit(stop.exit_code)
