"""A file for HDF5 to write to that can fail without bringing HDF5 down.

When the disk is full, HDF5 loses the error of a late write, a traceback is printed for each object that is let go,
and closing the file may crash the process (seen with HDF5 2.0.0, h5py 3.16.0).
"""

import io
from pathlib import Path
from typing import Any


class SteadyFile(io.FileIO):
    """A file to write and read; once a write has failed, nothing more is written and `check` raises."""

    def __init__(self, file: Path) -> None:
        super().__init__(file, "w+")
        self.fault: OSError | None = None

    def write(self, data: Any) -> int:
        """Write all of `data`; a fault is kept for `check`."""
        left = memoryview(data).cast("B")
        try:
            while left and self.fault is None:
                left = left[super().write(left) or 0 :]
        except OSError as fault:
            self.fault = fault
        return len(data)

    def truncate(self, size: int | None = None) -> int:
        """Cut or lengthen the file; a fault is kept for `check`."""
        try:
            return super().truncate(size)
        except OSError as fault:
            self.fault = self.fault or fault
            return size or 0

    def check(self) -> None:
        """Raises OSError if something could not be written."""
        if self.fault is not None:
            raise self.fault
