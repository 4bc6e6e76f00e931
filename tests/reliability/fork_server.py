"""Runs `signllava` commands in forked children of a process that has imported the libraries; see faults.py.

Reads one JSON object per line, {"words": [...], "out": FILE}, runs the command with its output in FILE, and answers
with a line that holds its exit code (-N: ended by signal N).
"""

import importlib
import json
import os
import sys
import traceback

MODULES = (
    "bitsandbytes",
    "peft",
    "transformers.models.llama.modeling_llama",
    "signllava_cli.cli.main",
    "signllava_cli.generation.generate",
    "signllava_cli.prepare.indexing",
    "signllava_cli.prepare.pack.pack",
    "signllava_cli.training.loop",
)


def run_in_child(words: list[str], out: str) -> None:
    from signllava_cli.cli.main import run

    code = 1
    try:
        file = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 1)
        os.dup2(file, 2)
        sys.argv = ["signllava", *words]
        run()
    except SystemExit as ended:
        code = int(ended.code or 0)
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def serve() -> None:
    for module in MODULES:
        importlib.import_module(module)
    print("ready", flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            run_in_child(request["words"], request["out"])
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    serve()
