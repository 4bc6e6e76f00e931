"""Sentences of the clips of a split, such as hypotheses, without a Python object for each."""

import numpy as np


class Sentences:
    """At most one sentence for each clip, by its row in the index of the split.

    A split may have a million clips, and every rank holds them: all text is in one buffer.
    """

    def __init__(self, num_clips: int) -> None:
        self._text = bytearray()  # UTF-8
        self._starts, self._ends = np.zeros((2, num_clips), np.int64)  # in the buffer; equal without a sentence

    def __getitem__(self, row: int) -> str:
        """The sentence of the clip in `row`; empty if it has none."""
        return self._text[self._starts[row] : self._ends[row]].decode()

    def __setitem__(self, row: int, sentence: str) -> None:
        self._starts[row] = len(self._text)
        self._text += sentence.encode()
        self._ends[row] = len(self._text)
