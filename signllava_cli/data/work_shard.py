"""Which part of the work a process does, among the jobs of an array and the ranks of a launcher."""

import os
import re
from dataclasses import dataclass

from signllava_cli.errors import UserError


@dataclass(frozen=True)
class WorkShard:
    """Part `index` (counted from 0) of `count` parts of the clips or recordings."""

    index: int = 0
    count: int = 1

    @classmethod
    def of_process(cls, shard: str | None) -> "WorkShard":
        """The shard of this rank in job `shard` ("i/n", i counted from 1; None: the only job).

        Raises:
            UserError: `shard` is not of this form.
        """
        job, num_jobs = (1, 1) if shard is None else parse_shard(shard)
        rank, num_ranks = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        return cls((job - 1) * num_ranks + rank, num_jobs * num_ranks)

    def __str__(self) -> str:
        return f"{self.index + 1}-of-{self.count}"


def parse_shard(shard: str) -> tuple[int, int]:
    """The job and the number of jobs in "i/n", i counted from 1.

    Raises:
        UserError: `shard` is not of this form.
    """
    numbers = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", shard)
    job, num_jobs = map(int, numbers.groups()) if numbers else (0, 0)
    if not 1 <= job <= num_jobs:
        raise UserError(f"--shard {shard}: expected I/N with I from 1 to N, such as 3/8.")
    return job, num_jobs
