"""Hostile feature files: each kind was once a traceback, a crash, an endless loop or a large allocation."""

import ctypes
import faulthandler
import io
import resource
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from binary_seeds import FRAMES, npy_seeds

from signllava_cli import processes
from signllava_cli.data.array_size import MAX_UNPACKED_BYTES
from signllava_cli.data.clip_source import ClipSource, UnreadableClip
from signllava_cli.data.feature_files import HDF5FileCache, read_features
from signllava_cli.data.hdf5_attributes import read_attribute
from signllava_cli.data.shard import list_shard
from signllava_cli.errors import UserError
from signllava_cli.processes import BeforeFile, ReadCrash, call_in_child

pytestmark = pytest.mark.reliability(
    "Bad input", "damaged feature files are refused: no crash, hang or large allocation"
)
HUGE = (2**30, 1024)


def reason(file: Path, format: str, key: str = "") -> str:
    with HDF5FileCache() as handles, pytest.raises(UnreadableClip) as error:
        read_features(ClipSource(file, format, key), handles)
    return str(error.value)


def test_a_npy_file_that_declares_more_than_it_holds_is_refused(tmp_path: Path) -> None:
    header = b"{'descr': '<f2', 'fortran_order': False, 'shape': (1073741824, 1024), }\n"
    (tmp_path / "a.npy").write_bytes(npy_seeds()[0][:8] + len(header).to_bytes(2, "little") + header + bytes(80))
    assert (
        reason(tmp_path / "a.npy", "npy") == "cannot be read: declares 2,199,023,255,552 bytes, but 80 are possible"
    )


def test_a_compressed_array_that_unpacks_to_far_more_is_refused(tmp_path: Path) -> None:
    rows = MAX_UNPACKED_BYTES // 64 + 1
    np.savez_compressed(tmp_path / "a.npz", frames=np.zeros((rows, 64), np.int8))
    assert "but at most 67,108,864 are possible" in reason(tmp_path / "a.npz", "npz")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("rec/a", data=np.zeros((rows, 64), np.int8), compression="gzip")
    assert "but at most 67,108,864 are possible" in reason(tmp_path / "a.h5", "hdf5", "rec/a")


def test_an_array_in_a_zip_file_that_declares_more_than_its_entry_is_refused(tmp_path: Path) -> None:
    header = b"\x93NUMPY\x01\x00\x76\x00{'descr': '<f2', 'fortran_order': False, 'shape': (1073741824, 1024), }"
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("frames.npy", header.ljust(127) + b"\n" + bytes(80))
    assert "declares 2,199,023,255,552 bytes, but 208 are possible" in reason(tmp_path / "a.npz", "npz")


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_an_array_that_is_not_compressed_by_deflate_is_refused(tmp_path: Path, method: int) -> None:
    """The header of LZMA can ask for 4 GiB of memory."""
    np.save(tmp_path / "a.npy", np.zeros((4, 4), np.float16))
    with zipfile.ZipFile(tmp_path / "a.npz", "w", method) as archive:
        archive.write(tmp_path / "a.npy", "a.npy")
    assert "it is not compressed as NumPy does it" in reason(tmp_path / "a.npz", "npz")


def declare_huge(file: h5py.File) -> None:
    file.create_dataset("rec/a", HUGE, "f2", chunks=(1024, 1024), compression="gzip")


def declare_huge_chunks(file: h5py.File) -> None:
    file.create_dataset("rec/a", (10, 4), "f2", chunks=(2**24, 64), maxshape=(None, None), compression="gzip")


def declare_huge_fill(file: h5py.File) -> None:
    file.create_dataset("rec/a", HUGE, "f2")


def use_another_file(file: h5py.File) -> None:
    file.create_dataset("rec/a", (1, 4), "u1", external=[("/etc/passwd", 0, 4)])


@pytest.mark.parametrize("write", [declare_huge, declare_huge_chunks, declare_huge_fill, use_another_file])
def test_an_hdf5_array_that_its_file_cannot_hold_is_refused(
    tmp_path: Path, write: Callable[[h5py.File], None]
) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        write(file)
    text = reason(tmp_path / "a.h5", "hdf5", "rec/a")
    assert "are possible" in text or text == "its numbers are in another file, which is not read"
    assert [stored.error for stored in list_shard(tmp_path / "a.h5")] == [
        f"damaged: {text}".replace("cannot be read: ", "")
    ]


def with_lying_attribute(length: int) -> bytes:
    """A shard whose attribute `layout`, a text of variable length, declares another length than it has."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file["rec/a"] = FRAMES
        file.attrs["layout"] = "x" * 77
    content = buffer.getvalue()
    assert content.count((77).to_bytes(4, "little")) >= 1
    place = content.index(b"layout\x00")
    place = content.index((77).to_bytes(4, "little"), place)
    return content[:place] + length.to_bytes(4, "little") + content[place + 4 :]


def test_a_text_attribute_with_a_wrong_length_is_damaged_and_allocates_little(tmp_path: Path) -> None:
    (tmp_path / "a.h5").write_bytes(with_lying_attribute(2**32 - 1))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with h5py.File(tmp_path / "a.h5") as file, pytest.raises(ValueError, match="the attribute layout is damaged"):
        read_attribute(file, "layout")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**17  # KiB
    assert "the attribute layout is damaged" in reason(tmp_path / "a.h5", "hdf5", "rec/a")


def crash(before_file: BeforeFile, file: Path) -> None:
    before_file(file)
    faulthandler.disable()
    ctypes.string_at(0)


def never_return(before_file: BeforeFile, file: Path) -> None:
    before_file(file)
    while True:
        pass


def test_a_file_that_crashes_its_reader_or_never_ends_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "MAX_CPU_SECONDS", 0.5)
    with pytest.raises(ReadCrash, match=r"x\.h5: it is damaged: reading it crashes a process \(SIGSEGV\)"):
        call_in_child(crash, tmp_path / "x.h5")
    with pytest.raises(ReadCrash, match=r"x\.h5: it is damaged: reading it takes more than 0\.5 s"):
        call_in_child(never_return, tmp_path / "x.h5")


def test_a_child_cannot_allocate_far_more_than_its_file(tmp_path: Path) -> None:
    def allocate(before_file: BeforeFile, size: int) -> int:
        before_file(tmp_path / "small")
        return len(bytearray(size))

    (tmp_path / "small").write_bytes(b"x")
    assert call_in_child(allocate, 2**29) == 2**29
    with pytest.raises(MemoryError):
        call_in_child(allocate, 2**31)


def test_errors_of_a_child_are_those_of_the_function() -> None:
    def fail(before_file: BeforeFile) -> None:
        raise UserError("as it was")

    with pytest.raises(UserError, match=r"^as it was$"):
        call_in_child(fail)
