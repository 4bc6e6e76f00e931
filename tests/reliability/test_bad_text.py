"""Text files that are damaged, odd or hostile: each reader returns, or raises an error of one line, soon and lean.

A reader that fails writes the input to `cases/READER/`: fix the reader, and commit the case.
"""

import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fuzzing import CASES, fuzz_reader, replay, scaled
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from mutations import large_inputs
from text_readers import TEXT_READERS

RecordProperty = Callable[[str, object], None]
INPUTS = 100_000  # of all readers in the drills
FEW_INPUTS = 1_500  # in `make test`
WEIGHT = sum(each.weight for each in TEXT_READERS.values())
FUZZ = pytest.mark.reliability(
    "Bad input", "a damaged or hostile text file gives a result or an error of one line, in bounded time and memory"
)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder in memory, where a file is written without a disk."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as temporary:
        yield Path(temporary)


def number_of_inputs(name: str, total: int) -> int:
    return scaled(round(total * TEXT_READERS[name].weight / WEIGHT))


@FUZZ
@pytest.mark.parametrize("name", TEXT_READERS)
def test_valid_files_are_read(name: str, folder: Path) -> None:
    """Mutations of files that are refused as a whole would test little."""
    reader = TEXT_READERS[name].reader
    for seed in reader.seeds:
        file = folder / reader.file_name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(seed)
        reader.read(file)


@pytest.mark.drill
@FUZZ
def test_a_few_bad_inputs_of_each_reader(folder: Path, record_property: RecordProperty) -> None:
    tried = 0
    for name, fuzzed in TEXT_READERS.items():
        if fuzzed.weight >= 0.5:  # not the commands, which take longer
            tried += fuzz_reader(fuzzed.reader, fuzzed.inputs(0), number_of_inputs(name, FEW_INPUTS), folder / name)
    record_property("inputs", tried)


@FUZZ
@pytest.mark.drill
@pytest.mark.parametrize("name", TEXT_READERS)
def test_bad_inputs(name: str, folder: Path, record_property: RecordProperty) -> None:
    fuzzed = TEXT_READERS[name]
    record_property("inputs", fuzz_reader(fuzzed.reader, fuzzed.inputs(1), number_of_inputs(name, INPUTS), folder))


@FUZZ
@pytest.mark.drill
@pytest.mark.parametrize("name", TEXT_READERS)
def test_large_inputs(name: str, folder: Path, record_property: RecordProperty) -> None:
    """Ten megabytes in one line, brackets in brackets, aliases of aliases, numbers of a million digits."""
    inputs = large_inputs()
    record_property("inputs", fuzz_reader(TEXT_READERS[name].reader, inputs.__getitem__, len(inputs), folder))


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=8),
    lambda values: (
        st.lists(values, max_size=3)
        | st.dictionaries(
            st.sampled_from(["clip_order", "a", "translation", "hypothesis", "step"]) | st.text(), values, max_size=4
        )
    ),
    max_leaves=12,
)
JSON_READERS = [
    name for name, each in TEXT_READERS.items() if each.reader.file_name.endswith((".json", ".jsonl", ".yaml"))
]


@FUZZ
@pytest.mark.drill
@pytest.mark.parametrize("name", [name for name in JSON_READERS if TEXT_READERS[name].weight >= 0.5])
def test_any_json_value(name: str, folder: Path, record_property: RecordProperty) -> None:
    reader, contents = TEXT_READERS[name].reader, list[bytes]()

    @settings(
        max_examples=scaled(300),
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(JSON_VALUES)
    def collect(value: object) -> None:
        contents.append(json.dumps(value).encode())

    collect()
    record_property("inputs", fuzz_reader(reader, contents.__getitem__, len(contents), folder))


@FUZZ
@pytest.mark.parametrize("name", sorted(path.name for path in CASES.glob("*") if path.name in TEXT_READERS))
def test_inputs_that_once_failed(name: str, folder: Path, record_property: RecordProperty) -> None:
    record_property("cases", replay(TEXT_READERS[name].reader, folder))
