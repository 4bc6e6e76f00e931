"""A reference leaks where its own text, whole and exact, stands in its gold context."""

from signllava_cli.data.annotations import Clip, Recording
from signllava_cli.data.leaks import find_leaked_references


def recording(name: str, *texts: str) -> Recording:
    return Recording(name, tuple(Clip(name, f"c{index}", index, text) for index, text in enumerate(texts)))


def test_only_what_the_context_shows_leaks() -> None:
    signed = recording("r", "Hi.", "Fold it.", "Fold it. ", "Now wait.", "wait", "Now.", "Again.", "Hi.", "Fold it")
    assert find_leaked_references([signed], window=1, prelude=1) == ["r/c2", "r/c7"]
    assert find_leaked_references([signed], window=1, prelude=0) == ["r/c2"]
    assert find_leaked_references([signed], window=0, prelude=0) == []


def test_recordings_do_not_see_each_other() -> None:
    assert find_leaked_references([recording("a", "Hi."), recording("b", "Hi.")], window=2, prelude=2) == []
