"""A damaged index, which is a memory-mapped file: it is rebuilt or refused, and neither used nor a crash."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from fuzzing import Reader, fuzz_reader, replay, scaled
from mutations import bytes_inputs
from text_seeds import ANNOTATION, as_json

from signllava_cli.data.stream_files import DefaultLocation
from signllava_cli.prepare.dataset_writer import write_stream
from signllava_cli.prepare.indexing import index_files, open_index

STREAMS = {"mae": DefaultLocation()}
FUZZ = pytest.mark.reliability("Bad input", "a damaged index is rebuilt, and never crashes the process")


def write_data(folder: Path) -> bytes:
    """A small dataset in `folder`; the content of its index."""
    (folder / "annotation.dev.json").write_bytes(as_json(ANNOTATION))
    frames = {
        recording: {clip: np.ones((3, 4), np.float16) for clip in clips if clip != "clip_order"}
        for recording, clips in ANNOTATION.items()
    }
    write_stream(folder, "dev", "mae", frames, 1)
    open_index(folder, "dev", STREAMS)
    return index_files(folder, "dev")[0].read_bytes()


def contents(file: Path) -> list[object]:
    """All that an index gives."""
    index = open_index(file.parent, "dev", STREAMS)
    clips = [index.clip(row) for row in range(len(index))]
    texts = [
        f"{index.id(row)} {clip.translation} {clip.keywords} {index.dataset_path('mae', clip)}".encode()
        for row, clip in enumerate(clips)
    ]
    columns = (index.positions, index.recordings, index.text_bytes, index.stream_columns("mae")[0]["mae/frames"])
    files = index.files("mae")
    assert all(file.is_file() for file in files)
    numbers = [np.asarray(column).tolist() for column in columns]
    return [texts, numbers, index.ids().to_pylist(), index.fingerprint(["mae"]), files]


@pytest.fixture
def index_reader() -> Iterator[tuple[Reader, Path]]:
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as temporary:
        folder = Path(temporary)
        seed = write_data(folder)
        expected = contents(folder / "index.dev.arrow")

        def require_expected(file: Path) -> None:
            assert contents(file) == expected

        yield Reader("index", require_expected, (seed,), "index.dev.arrow"), folder


@FUZZ
@pytest.mark.drill
@pytest.mark.parametrize("number", [20, 800])
def test_a_damaged_index(
    number: int, index_reader: tuple[Reader, Path], record_property: Callable[[str, object], None]
) -> None:
    reader, folder = index_reader
    record_property("inputs", fuzz_reader(reader, bytes_inputs(reader.seeds, number), scaled(number), folder))
    record_property("cases", replay(reader, folder))
