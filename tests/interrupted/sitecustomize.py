"""Imported by every Python process that has this folder on its PYTHONPATH; see `interrupted` in conftest.py.

`INTERRUPT=NAME:COUNT:SIGNAL` sends the process the signal when it opens a file of this name for appending for the
COUNT-th time: a kill at a known moment, however busy the machine is.
"""

import os
import sys

if interrupt := os.environ.get("INTERRUPT"):
    name, count, number = interrupt.split(":")
    opened = [0]

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if event == "open" and arguments[1] == "a" and os.path.basename(str(arguments[0])) == name:
            opened[0] += 1
            if opened[0] == int(count):
                os.kill(os.getpid(), int(number))

    sys.addaudithook(watch)
