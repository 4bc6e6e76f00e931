"""Imported by every Python process that has this folder on its PYTHONPATH; see `interrupted` in conftest.py.

`INTERRUPT=NAME:COUNT:SIGNAL:WHO` sends the signal when a file of this name is opened for appending for the COUNT-th
time, to this process (`self`) or to its whole process group (`group`): a kill at a known moment, however busy the
machine is.
"""

import os
import sys

if interrupt := os.environ.get("INTERRUPT"):
    name, count, number, who = interrupt.split(":")
    opened = [0]

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if event == "open" and arguments[1] == "a" and os.path.basename(str(arguments[0])) == name:
            opened[0] += 1
            if opened[0] == int(count):
                os.kill(-os.getpgid(0) if who == "group" else os.getpid(), int(number))

    sys.addaudithook(watch)
