"""What a clip sees of the sentences before it: nothing, the references, or hypotheses."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from signllava_cli.data.annotations import Clip
from signllava_cli.data.context_splits import CrossSplitContext
from signllava_cli.data.split import Split
from signllava_cli.errors import UserError, summarize_names
from signllava_cli.generation.predictions_folder import find_predictions, read_predictions
from signllava_cli.generation.sign_llava_json import NO_HYPOTHESIS

PREPARED = "prepared:"


@dataclass(frozen=True)
class ContextSource:
    """`none`, `gold`, `predicted`, or `prepared:FILE` with the hypotheses of an earlier predictions file.

    The name of gold context out of several splits is `gold:SPLIT,SPLIT...`.

    `gold_where_missing`: a clip without features has no hypothesis; its reference stands in its place, or nothing.
    `splits`: gold context out of several splits; None: out of the split that is translated alone.

    Raises:
        UserError: the name is none of these, or a prepared file lacks a sentence that some clip would see.
    """

    name: str
    window: int
    prelude: int
    prepared: Mapping[str, str]
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
        """The source of this name, its prepared file read and checked against `split`.

        Args:
            context_from: splits that gold context comes from, besides `split` itself.
        """
        prepared: dict[str, str] = {}
        if name.startswith(PREPARED):
            prepared = read_prepared_context(name.removeprefix(PREPARED), split, f"--context-source {name}")
        elif name not in ("none", "gold", "predicted"):
            raise UserError(f"--context-source {name}: expected none, gold, predicted or prepared:FILE.")
        if name == "none" or not window + prelude:
            return cls("none", 0, 0, {})
        others = sorted({*context_from} - {split.name})
        if name == "gold" and others:
            splits = CrossSplitContext(split.root, split.name, others)
            return cls(f"gold:{','.join(sorted(splits.splits))}", window, prelude, {}, splits=splits)
        return cls(name, window, prelude, prepared, gold_if_missing)

    @property
    def kind(self) -> str:
        """`none`, `gold`, `predicted` or `prepared`."""
        return self.name.partition(":")[0]

    @property
    def prepared_hash(self) -> str | None:
        """A hash of the prepared sentences, if there are any."""
        return hash_sentences(self.prepared) if self.prepared else None

    @property
    def sequential(self) -> bool:
        """Whether a clip has to wait for the hypotheses of those before it."""
        return self.name == "predicted"

    def sentences(self, clip: Clip, split: Split, hypotheses: Mapping[str, str]) -> list[str]:
        """The sentences that `clip` sees. `hypotheses` are those decoded so far: clip id -> text.

        An empty hypothesis leaves no sentence.
        """
        if self.splits:
            return self.splits.sentences(clip, self.window, self.prelude)
        texts = self.prepared if self.prepared else hypotheses
        sentences = []
        for row in split.context_rows(clip, self.window, self.prelude):
            stands_in = self.gold_if_missing and not split.has_features[row]
            gold = self.kind == "gold" or stands_in
            sentences.append(split.index.translation(row) if gold else texts.get(split.index.id(row), ""))
        return [sentence for sentence in sentences if sentence]


def read_prepared_context(file: str, split: Split, setting: str) -> dict[str, str]:
    """Clip id -> hypothesis, from the predictions file or folder `file`, for every clip of `split` with features.

    Raises:
        UserError: no such file, or it lacks clips of the split, or clips of these names have other references in
            it (an empty one is none); `setting` says who asked for it.
    """
    rows = {row.id: row for row in read_predictions(find_predictions(Path(file).expanduser()))}
    fix = f"run `signllava generate --split {split.name}` to its end, on this data"
    absent = [clip.id for clip in split.clips if clip.id not in rows or rows[clip.id].missing == NO_HYPOTHESIS]
    if absent:
        raise UserError(
            f"{setting}: the file lacks {len(absent)} sentences of split {split.name} ({summarize_names(absent)}); "
            f"{fix}."
        )
    known = ((clip, rows[clip.id]) for clip in split.annotated if clip.id in rows)
    others = [clip.id for clip, row in known if row.reference not in ("", clip.translation)]
    if others:
        raise UserError(
            f"{setting}: the file is of other data: {len(others)} clips of split {split.name} have another reference "
            f"in it ({summarize_names(others)}); {fix}."
        )
    return {id_: row.hypothesis for id_, row in rows.items()}


def hash_sentences(sentences: Mapping[str, str]) -> str:
    """The first 16 hex digits of the SHA-256 of `sentences` by clip id."""
    lines = "\n".join(f"{clip}\t{text}" for clip, text in sorted(sentences.items()))
    return hashlib.sha256(lines.encode()).hexdigest()[:16]
