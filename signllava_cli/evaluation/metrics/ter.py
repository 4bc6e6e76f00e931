"""The number of edits behind TER (Snover et al. 2006), equal to sacreBLEU's and many times faster.

sacreBLEU follows Tercom: while a shift of a block of words lowers the edit distance, it makes the shift that lowers
it most; the edits are the number of shifts plus the remaining distance. It computes distances inside a beam around
the diagonal of the matrix, so those of long pairs may be larger than Levenshtein's. Here rapidfuzz computes the
distance where the beam provably changes nothing; elsewhere only the rows of the matrix that a shift changes are
computed.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rapidfuzz.distance import Levenshtein

# The limits of sacreBLEU, which change scores. The last limits the time of a long pair.
MAX_BLOCK_LEN = 10
MAX_MATCH_DISTANCE = 50
BEAM_WIDTH = 25
MAX_SHIFTS_TRIED = 1000
OUTSIDE_COST = 1 << 40  # of a cell outside the beam

Row = list[int]


def count_edits(hypothesis: Sequence[str], reference: Sequence[str]) -> int:
    """How many insertions, deletions, substitutions and shifts turn the words `hypothesis` into `reference`."""
    if list(hypothesis) == list(reference):
        return 0
    if not reference:
        return len(hypothesis)
    codes: dict[str, int] = {}  # each word becomes one character, so both sides become strings
    hyp, ref = (
        "".join(chr(codes.setdefault(word, len(codes))) for word in words) for words in (hypothesis, reference)
    )
    distances = _BeamDistances(len(hyp), ref)
    num_shifts = num_tried = 0
    while True:
        matrix = distances.compute_matrix(hyp)
        best: tuple[int, int, int, int] | None = None  # the maximum of (gain, length, -start, -target)
        for candidates in _find_shifts(hyp, ref, _align(hyp, ref, distances, matrix)):
            for shift in candidates:
                gain = matrix.distance - distances.compute_distance_after_shift(shift, hyp, matrix)
                key = (gain, shift.length, -shift.start, -shift.target)
                if best is None or key > best:
                    best = key
            num_tried += len(candidates)
            if num_tried >= MAX_SHIFTS_TRIED:
                return num_shifts + matrix.distance
        if best is None or best[0] <= 0:
            return num_shifts + matrix.distance
        hyp = _Shift(-best[2], best[1], -best[3]).apply(hyp)
        num_shifts += 1


@dataclass(frozen=True)
class _Shift:
    """The `length` words from index `start` move to before the word at index `target`."""

    start: int
    length: int
    target: int

    @property
    def new_start(self) -> int:
        """The index of the first word of the block after the shift."""
        return self.target - self.length if self.target > self.start + self.length else self.target

    def apply(self, words: str) -> str:
        """`words` after the shift."""
        end = self.start + self.length
        rest = words[: self.start] + words[end:]
        return rest[: self.new_start] + words[self.start : end] + rest[self.new_start :]


@dataclass(frozen=True)
class _Alignment:
    """`targets`: for each word of the reference, the index of the word of the hypothesis that it is aligned with or
    follows (-1: it precedes all). `hyp_edited`, `ref_edited`: for each word of either side, whether it is part of an
    edit."""

    targets: list[int]
    hyp_edited: list[bool]
    ref_edited: list[bool]


class _Matrix:
    """Edit distances of all prefixes of the hypothesis (`forward`), and, computed on first use, of all suffixes."""

    def __init__(self, forward: list[Row]) -> None:
        self.forward = forward
        self.backward: list[Row] | None = None

    @property
    def distance(self) -> int:
        return self.forward[-1][-1]


class _BeamDistances:
    """Edit distances of hypotheses of `length` words to the reference `ref`, inside sacreBLEU's beam.

    Row i of a matrix belongs to the first i words of the hypothesis, and has the columns `spans[i]`.
    """

    def __init__(self, length: int, ref: str) -> None:
        self.ref = ref
        ratio = len(ref) / length if length else 1
        width = math.ceil(ratio / 2 + BEAM_WIDTH) if ratio / 2 > BEAM_WIDTH else BEAM_WIDTH
        columns = len(ref) + 1
        diagonal = [math.floor(row * ratio) for row in range(length + 1)]
        self.spans = [(max(0, column - width), min(columns, column + width)) for column in diagonal]
        self.spans[0] = (0, columns)
        self.spans[-1] = (self.spans[-1][0] if length else 0, columns)

    def compute_matrix(self, hyp: str) -> _Matrix:
        """The matrix of `hyp`, forward."""
        rows = [list(range(len(self.ref) + 1))]
        for number, word in enumerate(hyp, start=1):
            rows.append(self._compute_next_row(rows[-1], number, word))
        return _Matrix(rows)

    def compute_distance_after_shift(self, shift: _Shift, hyp: str, matrix: _Matrix) -> int:
        """The distance of `hyp` after `shift`; `matrix` is the one before the shift."""
        shifted = shift.apply(hyp)
        unbounded = Levenshtein.distance(shifted, self.ref)
        # On a shortest path, insertions minus deletions equals the difference of the lengths. Its distance from the
        # diagonal is at most the larger of both numbers.
        if len(self.ref) < BEAM_WIDTH or (unbounded + abs(len(hyp) - len(self.ref))) // 2 < BEAM_WIDTH:
            return int(unbounded)
        first = min(shift.start, shift.new_start)
        # a block whose target is inside of it, near the end of the hypothesis, moves by fewer words than `new_start`
        last = min(max(shift.start, shift.new_start) + shift.length, len(hyp))
        row = matrix.forward[first]
        for number in range(first + 1, last + 1):
            row = self._compute_next_row(row, number, shifted[number - 1])
        if matrix.backward is None:
            matrix.backward = self._compute_backward_rows(hyp)
        return min(prefix + suffix for prefix, suffix in zip(row, matrix.backward[last], strict=True))

    def _compute_next_row(self, previous: Row, number: int, word: str) -> Row:
        """Row `number`, which belongs to the word `word` of the hypothesis, from the `previous` row."""
        (last_start, _), (start, end) = self.spans[number - 1], self.spans[number]
        row = [previous[0] + 1] if start == 0 else []
        column = max(start, 1)
        offset = column - 1 - last_start
        above = ([OUTSIDE_COST] if offset < 0 else []) + previous[max(offset, 0) : end - last_start]
        above += [OUTSIDE_COST] * (end - column + 1 - len(above))
        left = row[0] if row else OUTSIDE_COST
        diagonal = above[0]
        for up, ref_word in zip(above[1:], self.ref[column - 1 : end - 1], strict=True):
            cost = diagonal if word == ref_word else diagonal + 1
            if up < cost:
                cost = up + 1
            if left < cost:
                cost = left + 1
            row.append(cost)
            left, diagonal = cost, up
        return row

    def _compute_backward_rows(self, hyp: str) -> list[Row]:
        """For each cell of the matrix of `hyp`, the distance of the words after it."""
        columns = len(self.ref) + 1
        rows: list[Row] = [[]] * (len(hyp) + 1)
        start, _ = self.spans[-1]
        rows[-1] = [columns - 1 - column for column in range(start, columns)]
        for number in range(len(hyp) - 1, -1, -1):
            (start, end), (next_start, _) = self.spans[number], self.spans[number + 1]
            below, word, row = rows[number + 1], hyp[number], []
            right = OUTSIDE_COST
            for column in range(end - 1, start - 1, -1):
                index = column - next_start
                down = below[index] if 0 <= index < len(below) else OUTSIDE_COST
                diagonal = below[index + 1] if 0 <= index + 1 < len(below) else OUTSIDE_COST
                differs = column >= len(self.ref) or word != self.ref[column]
                right = min(diagonal + differs, down + 1, right + 1)
                row.append(right)
            rows[number] = row[::-1]
        return rows


def _align(hyp: str, ref: str, distances: _BeamDistances, matrix: _Matrix) -> _Alignment:
    """The alignment of the shortest path. Of equal steps it takes a match or substitution, then a deletion, then an
    insertion."""
    spans, rows = distances.spans, matrix.forward
    targets, hyp_edited, ref_edited = [-1] * len(ref), [True] * len(hyp), [True] * len(ref)
    row, column = len(hyp), len(ref)
    while column:
        cost = rows[row][column - spans[row][0]]
        if row:
            start, end = spans[row - 1]
            differs = hyp[row - 1] != ref[column - 1]
            if start < column <= end and rows[row - 1][column - 1 - start] + differs == cost:
                row, column = row - 1, column - 1
                targets[column], hyp_edited[row], ref_edited[column] = row, differs, differs
                continue
            if start <= column < end and rows[row - 1][column - start] + 1 == cost:
                row -= 1
                continue
        column -= 1
        targets[column] = row - 1
    return _Alignment(targets, hyp_edited, ref_edited)


def _find_shifts(hyp: str, ref: str, alignment: _Alignment) -> Iterator[list[_Shift]]:
    """For each block of words in both sides that is part of an edit in both, the shifts to where it is aligned."""
    ref_indices: dict[str, list[int]] = {}
    for index, word in enumerate(ref):
        ref_indices.setdefault(word, []).append(index)
    for start, word in enumerate(hyp):
        for index in ref_indices.get(word, ()):
            if abs(index - start) > MAX_MATCH_DISTANCE:
                continue
            max_len = min(MAX_BLOCK_LEN, len(hyp) - start, len(ref) - index)
            for length in range(1, max_len + 1):
                if hyp[start + length - 1] != ref[index + length - 1]:
                    break
                if (
                    any(alignment.hyp_edited[start : start + length])
                    and any(alignment.ref_edited[index : index + length])
                    and not start <= alignment.targets[index] < start + length
                ):
                    first = 0 if index == 0 else alignment.targets[index - 1] + 1
                    targets = [first, *(target + 1 for target in alignment.targets[index : index + length])]
                    yield [_Shift(start, length, target) for target, _ in itertools.groupby(targets)]
