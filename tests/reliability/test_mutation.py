"""A sample of the mutation check; `make mutation` runs all of it."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mutants import make_mutants

ROOT = Path(__file__).parents[2]
# Those whose tests take few seconds.
FILES = [
    *("training/step.py", "data/batches.py", "data/training_set.py", "model/loss.py", "generation/search.py"),
    *("evaluation/resampling.py", "evaluation/metrics/text_metrics.py", "evaluation/metrics/ter.py"),
]
CODE = '''"""Docstrings, imports and annotations have no mutants."""

from math import floor


def share(values: list[int], limit: int = 3) -> float:
    """The share of values below the limit."""
    below = [value for value in values if value < limit]
    print("counted")
    return len(below) / max(1, len(values))
'''


@pytest.mark.drill
@pytest.mark.reliability("Mutation", "a single wrong operator, constant, argument or condition fails a test")
def test_a_sample_of_mutants_is_killed_or_explained(
    record_property: Callable[[str, Any], None], tmp_path: Path
) -> None:
    results = tmp_path / "results.jsonl"
    script = Path(__file__).parent / "mutation_check.py"
    ended = subprocess.run(
        [sys.executable, script, *FILES, "--sample", "60", "--results", results],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    outcomes = [json.loads(line)["outcome"] for line in results.read_text().splitlines()]
    assert len(outcomes) == 60
    record_property("mutants", len(outcomes))
    record_property("killed", len(outcomes) - outcomes.count("survived"))


def test_the_mutants_of_a_file_differ_in_one_place_each(tmp_path: Path) -> None:
    (tmp_path / "code.py").write_text(CODE)
    mutants = make_mutants(tmp_path, "code.py")
    assert {mutant.function for mutant in mutants} == {"share"}
    assert {(mutant.before, mutant.after) for mutant in mutants} >= {
        (
            "below = [value for value in values if value < limit]",
            "below = [value for value in values if value <= limit]",
        ),
        ("below = [value for value in values if value < limit]", "below = [value for value in values if True]"),
        ('print("counted")', "pass"),
        ('print("counted")', "print('XXcountedXX')"),
        ("return len(below) / max(1, len(values))", "return len(below) * max(1, len(values))"),
        ("return len(below) / max(1, len(values))", "return len(below) / min(1, len(values))"),
        ("return len(below) / max(1, len(values))", "return len(below) / max(len(values))"),
        ("return len(below) / max(1, len(values))", "return None"),
    }
    assert len({mutant.code for mutant in mutants}) == len(mutants)
    lines = CODE.splitlines()
    for mutant in mutants:
        assert sum(one != other for one, other in zip(lines, mutant.code.splitlines(), strict=True)) == 1
        assert lines[mutant.line - 1].strip() == mutant.before
