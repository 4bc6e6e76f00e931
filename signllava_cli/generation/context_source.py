"""Where the context sentences of a clip come from: nowhere, the references, or hypotheses."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from signllava_cli.data.annotations import Clip
from signllava_cli.data.context_splits import CrossSplitContext
from signllava_cli.data.split import Split
from signllava_cli.errors import UserError, format_count, summarize_names
from signllava_cli.generation.predictions_folder import find_predictions, read_predictions
from signllava_cli.generation.sign_llava_json import NO_HYPOTHESIS

PREPARED = "prepared:"


@dataclass(frozen=True)
class ContextSource:
    """One context source; make it with `open`.

    `name`: `none`, `gold`, `predicted`, or `prepared:FILE`, whose hypotheses are `prepared` (clip id -> text). Gold
    context from several splits is named `gold:SPLIT,SPLIT...`. `window`, `prelude`: how many of the last and of the
    first sentences a clip sees. `gold_if_missing`: a clip without features, which has no hypothesis, is represented
    by its reference instead of nothing. `splits`: gold context from several splits; None: from the translated split.
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
        """The source of this name; a prepared file is read and compared with `split`.

        Args:
            context_from: splits that gold context comes from, in addition to `split`.

        Raises:
            UserError: an unknown name, a prepared file that does not fit `split`, or splits that share no recording.
        """
        prepared: dict[str, str] = {}
        if name.startswith(PREPARED):
            prepared = read_prepared_context(name.removeprefix(PREPARED), split, f"--context-source {name}")
        elif name not in ("none", "gold", "predicted"):
            raise UserError(f"--context-source {name}: expected none, gold, predicted or prepared:FILE.")
        if name == "none" or not window + prelude:
            return cls("none", 0, 0, {})
        other_splits = sorted({*context_from} - {split.name})
        if name == "gold" and other_splits:
            splits = CrossSplitContext(split.root, split.name, other_splits)
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
    def is_sequential(self) -> bool:
        """Whether a clip can only be decoded after those before it in its recording."""
        return self.name == "predicted"

    def sentences(self, clip: Clip, split: Split, hypotheses: Mapping[str, str]) -> list[str]:
        """The context sentences of `clip`, in signing order. An empty hypothesis adds no sentence.

        Args:
            hypotheses: clip id -> text, of the clips that are decoded.
        """
        if self.splits:
            return self.splits.sentences(clip, self.window, self.prelude)
        texts = self.prepared if self.prepared else hypotheses
        sentences = []
        for row in split.context_rows(clip, self.window, self.prelude):
            is_gold = self.kind == "gold" or (self.gold_if_missing and not split.has_features[row])
            sentences.append(split.index.translation(row) if is_gold else texts.get(split.index.id(row), ""))
        return [sentence for sentence in sentences if sentence]


def read_prepared_context(file: str, split: Split, setting: str) -> dict[str, str]:
    """Clip id -> hypothesis, from the predictions file or folder `file`, for every clip of `split` with features.

    Args:
        setting: the option or recipe key that names the file, for the messages.

    Raises:
        UserError: the file is missing, it lacks clips of the split, or its references differ from those of the split
            (empty ones are not compared).
    """
    rows = {row.id: row for row in read_predictions(find_predictions(Path(file).expanduser()))}
    fix = f"run `signllava generate --split {split.name}` to its end, on this data"
    missing = [clip.id for clip in split.clips if clip.id not in rows or rows[clip.id].missing == NO_HYPOTHESIS]
    if missing:
        raise UserError(
            f"{setting}: the file lacks {format_count(len(missing), 'sentence')} of split {split.name} "
            f"({summarize_names(missing)}); {fix}."
        )
    shared = ((clip, rows[clip.id]) for clip in split.annotated if clip.id in rows)
    different = [clip.id for clip, row in shared if row.reference not in ("", clip.translation)]
    if different:
        count = format_count(len(different), f"clip of split {split.name} has", f"clips of split {split.name} have")
        raise UserError(
            f"{setting}: the file is of other data: {count} another reference in it ({summarize_names(different)}); "
            f"{fix}."
        )
    return {id_: row.hypothesis for id_, row in rows.items()}


def hash_sentences(sentences: Mapping[str, str]) -> str:
    """The first 16 hex digits of the SHA-256 of `sentences`, sorted by clip id."""
    lines = "\n".join(f"{clip}\t{text}" for clip, text in sorted(sentences.items()))
    return hashlib.sha256(lines.encode()).hexdigest()[:16]
