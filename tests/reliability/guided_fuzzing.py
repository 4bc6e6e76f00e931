"""Fuzzes a reader of text files, guided by the code that its inputs reach: guided_fuzzing.py READER [MINUTES].

Needs atheris, which is no dependency of the tests. An input that makes the reader fail is written to `cases/READER/`,
and a new input that reaches other code to a corpus below the system's temporary folder, where the next start resumes.
"""

import sys
import tempfile
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parent.parent))

with atheris.instrument_imports(include=["signllava_cli", "yaml", "json", "csv", "webvtt"]):
    from text_readers import TEXT_READERS

from fuzzing import try_input, write_case, write_input


def main(name: str, minutes: float) -> None:
    reader = TEXT_READERS[name].reader
    folder = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    corpus = Path(tempfile.gettempdir()) / "signllava-fuzzing" / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(reader.seeds):
        (corpus / f"seed{number}").write_bytes(seed)
    known: set[str] = set()
    with atheris.instrument_imports(include=["signllava_cli"]):
        reader.read(write_input(reader, reader.seeds[0], folder))

    def test_one_input(content: bytes) -> None:
        problem = try_input(reader, content, folder)
        if problem is not None and problem[0] not in known:
            known.add(problem[0])
            print(f"{name}: {problem[0]}: {write_case(reader, content)}\n{problem[1]}", file=sys.stderr)

    options = [
        f"-max_total_time={round(minutes * 60)}",
        "-max_len=4096",
        "-rss_limit_mb=4096",
        "-print_final_stats=1",
    ]
    atheris.Setup([sys.argv[0], *options, str(corpus)], test_one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 5.0)
