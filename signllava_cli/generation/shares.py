"""Who decodes what, when several processes share the work: ranks of one launch, and the jobs of an array."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from signllava_cli.data.annotations import Clip
from signllava_cli.errors import UserError

POSITIONS_OF_TEXT = 150  # what a clip costs beside its frames, about: its prompt and its hypothesis


@dataclass(frozen=True)
class Share:
    """Part `index` (from 0 on) of `count`."""

    index: int
    count: int

    @classmethod
    def of_process(cls, shard: str | None) -> "Share":
        """The share of this rank of job `shard` ("i/n", i from 1 on; none: the only job).

        Raises:
            UserError: `shard` is not such.
        """
        job, jobs = 1, 1
        if shard is not None:
            numbers = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", shard)
            job, jobs = map(int, numbers.groups()) if numbers else (0, 0)
            if not 1 <= job <= jobs:
                raise UserError(f"--shard {shard}: expected I/N with I from 1 to N, such as 3/8.")
        rank, ranks = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        return cls((job - 1) * ranks + rank, jobs * ranks)

    def __str__(self) -> str:
        return f"{self.index + 1}-of-{self.count}"

    def of(self, clips: Sequence[Clip], frames: Sequence[int], in_order: bool) -> list[Clip]:
        """This share of `clips`, in their order; all shares together are all of them, with about equal work.

        `in_order` shares out whole recordings. Each goes, the most work first, to whoever has the least so far.
        """
        if self.count == 1:
            return list(clips)
        groups: dict[str, list[int]] = {}
        for place, clip in enumerate(clips):
            groups.setdefault(clip.recording if in_order else clip.id, []).append(place)
        work = {name: sum(frames[place] + POSITIONS_OF_TEXT for place in places) for name, places in groups.items()}
        loads = np.zeros(self.count)
        mine: list[int] = []
        for name in sorted(groups, key=lambda name: -work[name]):
            least = int(loads.argmin())
            loads[least] += work[name]
            if least == self.index:
                mine += groups[name]
        return [clips[place] for place in sorted(mine)]
