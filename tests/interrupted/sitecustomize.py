"""Every Python process that has this folder on its PYTHONPATH imports this file; see `interrupted` in conftest.py.

`INTERRUPT=EVENT:PATTERN:COUNT:SIGNAL` sends a process the signal right before its COUNT-th EVENT with a file whose
name matches the pattern: `open` (of any kind), `append` (opened for appending) or `rename` (given this name). So a
kill comes at a known moment, however busy the machine is.
"""

import os
import sys
from fnmatch import fnmatch

if interrupt := os.environ.get("INTERRUPT"):
    event, pattern, count, number = interrupt.split(":")
    num_events = [0]

    def interrupt_process(audit_event: str, arguments: tuple[object, ...]) -> None:
        if audit_event != ("os.rename" if event == "rename" else "open"):
            return
        if event == "append" and arguments[1] != "a":
            return
        file = arguments[1] if event == "rename" else arguments[0]
        if isinstance(file, str | os.PathLike) and fnmatch(os.path.basename(os.fspath(file)), pattern):
            num_events[0] += 1
            if num_events[0] == int(count):
                os.kill(os.getpid(), int(number))

    sys.addaudithook(interrupt_process)
