"""HDF5 files held open while clips are read from them one after the other."""

from collections import OrderedDict
from pathlib import Path
from types import TracebackType

import h5py

OPEN_AT_ONCE = 16


class OpenHdf5:
    """The HDF5 files that were used last. To be used in one process, and closed by its `with` block."""

    def __init__(self) -> None:
        self._handles: OrderedDict[Path, h5py.File] = OrderedDict()

    def __enter__(self) -> "OpenHdf5":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, where: TracebackType | None
    ) -> None:
        for handle in self._handles.values():
            handle.close()
        self._handles.clear()

    def open(self, file: Path) -> h5py.File:
        """`file`, opened to read.

        Raises:
            OSError: it is no whole HDF5 file.
        """
        if file not in self._handles:
            if len(self._handles) == OPEN_AT_ONCE:
                self._handles.popitem(last=False)[1].close()
            self._handles[file] = h5py.File(file, "r")
        self._handles.move_to_end(file)
        return self._handles[file]
