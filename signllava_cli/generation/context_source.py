"""Where the context sentences of a clip come from: nowhere, the references, or hypotheses."""

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from signllava_cli.data.annotations import Clip
from signllava_cli.data.context_splits import CrossSplitContext
from signllava_cli.data.sentences import Sentences
from signllava_cli.data.split import Split
from signllava_cli.errors import UserError, format_count, summarize_names
from signllava_cli.generation.predictions_folder import find_predictions, iterate_predictions, read_predictions
from signllava_cli.generation.sign_llava_json import NO_HYPOTHESIS

PREPARED = "prepared:"
ROWS_PER_BATCH = 10_000  # of a predictions file, whose Python objects are in memory at one time


@dataclass(frozen=True)
class ContextSource:
    """One context source; make it with `open`.

    `name`: `none`, `gold`, `predicted`, or `prepared:FILE`, whose hypotheses are `prepared` and have the hash
    `prepared_hash`. Gold context from several splits is named `gold:SPLIT,SPLIT...`. `window`, `prelude`: how many of
    the last and of the first sentences a clip sees. `gold_if_missing`: a clip without features, which has no
    hypothesis, is represented by its reference instead of nothing. `splits`: gold context from several splits; None:
    from the translated split.
    """

    name: str
    window: int
    prelude: int
    prepared: Sentences | None = None
    prepared_hash: str | None = None
    gold_if_missing: bool = False
    splits: CrossSplitContext | None = None

    @classmethod
    def open(
        cls,
        name: str,
        window: int,
        prelude: int,
        split: Split,
        gold_if_missing: bool = False,
        context_from: Sequence[str] = (),
    ) -> "ContextSource":
        """The source of this name; a prepared file is read and compared with `split`.

        Args:
            context_from: splits that gold context comes from, in addition to `split`.

        Raises:
            UserError: an unknown name, a prepared file that does not fit `split`, or splits that share no recording.
        """
        prepared = prepared_hash = None
        require_source_name(name, "--context-source")
        if name.startswith(PREPARED):
            prepared, prepared_hash = read_prepared_context(
                name.removeprefix(PREPARED), split, f"--context-source {name}"
            )
        if name == "none" or not window + prelude:
            return cls("none", 0, 0)
        other_splits = sorted({*context_from} - {split.name})
        if name == "gold" and other_splits:
            splits = CrossSplitContext(split.root, split.name, other_splits)
            return cls(f"gold:{','.join(sorted(splits.splits))}", window, prelude, splits=splits)
        return cls(name, window, prelude, prepared, prepared_hash, gold_if_missing)

    @property
    def kind(self) -> str:
        """`none`, `gold`, `predicted` or `prepared`."""
        return self.name.partition(":")[0]

    @property
    def is_sequential(self) -> bool:
        """Whether a clip can only be decoded after those before it in its recording."""
        return self.name == "predicted"

    def sentences(self, clip: Clip, split: Split, hypotheses: Sentences) -> list[str]:
        """The context sentences of `clip`, in signing order. An empty hypothesis adds no sentence.

        Args:
            hypotheses: of the clips that are decoded.
        """
        if self.splits:
            return self.splits.sentences(clip, self.window, self.prelude)
        texts = hypotheses if self.prepared is None else self.prepared
        sentences = []
        for row in split.context_rows(clip, self.window, self.prelude):
            is_gold = self.kind == "gold" or (self.gold_if_missing and not split.has_features[row])
            sentences.append(split.index.translation(row) if is_gold else texts[row])
        return [sentence for sentence in sentences if sentence]


def require_source_name(name: str, option: str) -> None:
    """Check the name of a context source.

    Raises:
        UserError: `name`, which `option` gives, is unknown.
    """
    if name not in ("none", "gold", "predicted") and not name.startswith(PREPARED):
        raise UserError(f"{option} {name}: expected none, gold, predicted or prepared:FILE.")


def read_prepared_context(file: str, split: Split, setting: str) -> tuple[Sentences, str]:
    """The hypotheses of the clips of `split` in the predictions file or folder `file`, and a hash of all in the file.

    Args:
        setting: the option or recipe key that names the file, for the messages.

    Raises:
        UserError: the file is missing, it lacks clips of the split, or its references differ from those of the split
            (empty ones are not compared).
    """
    table, index = _read_columns(find_predictions(Path(file).expanduser())), split.index
    lines = pc.index_in(index.ids(), value_set=table["id"].combine_chunks())  # of each clip; null without one
    fix = f"run `signllava generate --split {split.name}` to its end, on this data"
    has_none = pc.fill_null(pc.take(table["is_missing"], lines), True)
    missing = _clip_ids(split, pc.and_(has_none, pa.array(split.has_features)))
    if missing:
        raise UserError(
            f"{setting}: the file lacks {format_count(len(missing), 'sentence')} of split {split.name} "
            f"({summarize_names(missing)}); {fix}."
        )
    references = pc.take(table["reference"], lines)
    is_other = pc.and_(pc.not_equal(references, ""), pc.not_equal(references, index.column("translation")))
    different = _clip_ids(split, pc.fill_null(is_other, False))
    if different:
        count = format_count(len(different), f"clip of split {split.name} has", f"clips of split {split.name} have")
        raise UserError(
            f"{setting}: the file is of other data: {count} another reference in it ({summarize_names(different)}); "
            f"{fix}."
        )
    sentences = Sentences(len(index))
    for row, text in enumerate(pc.take(table["hypothesis"], lines)):
        if text.is_valid:
            sentences[row] = text.as_py()
    return sentences, _hash_sentences(table)


def _clip_ids(split: Split, is_selected: Any) -> list[str]:
    """The ids of the clips where `is_selected` (clips,) of pyarrow is true."""
    return [split.index.id(row) for row in pc.indices_nonzero(is_selected).to_pylist()]


def _read_columns(file: Path) -> Any:
    """A pyarrow.Table with the columns `id`, `hypothesis`, `reference` and `is_missing` of a predictions file.

    Raises:
        UserError: as `read_predictions`.
    """
    text = pa.large_string()
    schema = pa.schema({"id": text, "hypothesis": text, "reference": text, "is_missing": pa.bool_()})
    rows = (
        (row.id, row.hypothesis, row.reference, row.missing == NO_HYPOTHESIS) for row in iterate_predictions(file)
    )
    batches = []
    while chunk := list(itertools.islice(rows, ROWS_PER_BATCH)):
        batches.append(pa.record_batch([*map(list, zip(*chunk, strict=True))], schema=schema))
    table = pa.Table.from_batches(batches, schema)
    if pc.count_distinct(table["id"]).as_py() < len(table):
        read_predictions(file)  # names the clip that has two lines
    return table


def _hash_sentences(table: Any) -> str:
    """The first 16 hex digits of the SHA-256 of all hypotheses of the file, sorted by clip id."""
    ordered, digest, separator = table.take(pc.sort_indices(table["id"])), hashlib.sha256(), ""
    for clip, text in zip(ordered["id"], ordered["hypothesis"], strict=True):
        digest.update(f"{separator}{clip.as_py()}\t{text.as_py()}".encode())
        separator = "\n"
    return digest.hexdigest()[:16]
