"""Every Python process that has this folder on its PYTHONPATH imports this file; see `interrupted` in conftest.py.

With `INTERRUPT=NAME:COUNT:SIGNAL` the process gets the signal when it opens a file of this name for appending the
COUNT-th time: a kill at a known moment, independent of the speed of the machine.
"""

import os
import sys

if interrupt := os.environ.get("INTERRUPT"):
    name, count, number = interrupt.split(":")
    num_opened = 0

    def interrupt_open(event: str, arguments: tuple[object, ...]) -> None:
        global num_opened
        if event == "open" and arguments[1] == "a" and os.path.basename(str(arguments[0])) == name:
            num_opened += 1
            if num_opened == int(count):
                os.kill(os.getpid(), int(number))

    sys.addaudithook(interrupt_open)
