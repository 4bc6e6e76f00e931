"""A reference leaks if its exact text is a sentence of its own gold context."""

from signllava_cli.data.annotations import Clip, Recording
from signllava_cli.data.leaks import find_leaked_references


def recording(name: str, *texts: str) -> Recording:
    return Recording(name, tuple(Clip(name, f"c{index}", index, text) for index, text in enumerate(texts)))


def test_only_sentences_of_the_context_leak() -> None:
    one_recording = recording(
        "r", "Hi.", "Fold it.", "Fold it. ", "Now wait.", "wait", "Now.", "Again.", "Hi.", "Fold it"
    )
    assert find_leaked_references([one_recording], window=1, prelude=1) == ["r/c2", "r/c7"]
    assert find_leaked_references([one_recording], window=1, prelude=0) == ["r/c2"]
    assert find_leaked_references([one_recording], window=0, prelude=0) == []


def test_other_recordings_do_not_leak() -> None:
    assert find_leaked_references([recording("a", "Hi."), recording("b", "Hi.")], window=2, prelude=2) == []
