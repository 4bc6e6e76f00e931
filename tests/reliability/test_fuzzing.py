"""The frame of the fuzz tests finds what it is meant to find: each defect of a reader fails it, and is named."""

import contextlib
import ctypes
import time
from pathlib import Path

import fuzzing
import pytest
from fuzzing import Reader, fuzz_reader, replay

from signllava_cli.errors import UserError


def traceback_of(file: Path) -> None:
    {b"": 0}[file.read_bytes()]


def no_message(file: Path) -> None:
    raise UserError("")


def endless_loop(file: Path) -> None:
    while True:
        with contextlib.suppress(Exception):
            sum(range(10_000))


def sleep(file: Path) -> None:
    time.sleep(1000)


def allocate(file: Path) -> None:
    bytearray(1 << 30)


def crash(file: Path) -> None:
    ctypes.string_at(0)


def lone_surrogate(file: Path) -> None:
    print("\ud800")


@pytest.mark.reliability("Bad input", "the fuzz tests notice tracebacks, hangs, crashes and allocations")
@pytest.mark.parametrize(
    ("read", "kind"),
    [
        (traceback_of, "KeyError in test_fuzzing.py:traceback_of"),
        (no_message, "an error without a message"),
        (endless_loop, "more than 0.2 s of CPU time in test_fuzzing.py:endless_loop"),
        pytest.param(sleep, "no progress in 1 s", marks=pytest.mark.drill),
        (allocate, "MemoryError in test_fuzzing.py:allocate"),
        (crash, "the process died (status 11)"),
        (lone_surrogate, "UnicodeEncodeError in test_fuzzing.py:lone_surrogate"),
    ],
)
def test_a_defect_of_a_reader_is_named_with_its_input(
    read: fuzzing.Callable[[Path], object], kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fuzzing, "CASES", tmp_path / "cases")
    monkeypatch.setattr(fuzzing, "WALL_SECONDS", 1.0 if read is sleep else 300.0)

    def read_some(file: Path) -> None:
        if file.read_bytes() == b"bad":
            read(file)

    reader = Reader("reader", read_some, (), seconds=0.2)
    contents = [b"good", b"bad", b"good", b"bad"]
    with pytest.raises(AssertionError) as failure:
        fuzz_reader(reader, contents.__getitem__, len(contents), tmp_path / "inputs")
    assert "1 kinds of failures" in str(failure.value)
    assert kind in str(failure.value)
    assert [file.read_bytes() for file in (tmp_path / "cases/reader").iterdir()] == [b"bad"]
    with pytest.raises(AssertionError, match="1 kinds"):
        replay(reader, tmp_path / "inputs")


def test_all_inputs_of_a_good_reader_are_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzzing, "CASES", tmp_path / "cases")
    tried = tmp_path / "tried"

    def read(file: Path) -> None:
        with open(tried, "ab") as handle:
            handle.write(file.read_bytes())
        raise UserError("one line")

    assert fuzz_reader(Reader("reader", read, ()), lambda number: bytes([number]), 200, tmp_path / "inputs") == 200
    assert tried.read_bytes() == bytes(range(200))
