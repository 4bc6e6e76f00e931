"""A prediction: what is known of one clip after decoding."""

from dataclasses import dataclass, field

from signllava_cli.data.annotations import ContextBound


@dataclass(frozen=True)
class Prediction:
    """One clip's line.

    `context`: the sentences it really saw, `context_source`: where they came from. `score`: mean
    log-probability of the hypothesis. `finished`: it ended by itself. `cut_frames`, `cut_sentences`: lost to
    the token budget. `missing`: why it was not decoded, such as the streams without features; such a clip has an
    empty hypothesis. `context_bound`: the corpus's mark, if any. `frames`: shown, over all streams. `question`: what
    was asked, if not for the translation. `n_best`: hypotheses and their scores, this one first, where several were
    asked for. `abstained`: the hypothesis that was held back because of its score.
    """

    recording: str
    clip: str
    position: int
    task: str
    reference: str
    hypothesis: str
    context: list[str] = field(default_factory=list)
    context_source: str = "none"
    score: float | None = None
    finished: bool = True
    truncated_frames: int = 0
    truncated_sentences: int = 0
    missing: str | None = None
    context_bound: ContextBound | None = None
    frames: int | None = None
    question: str | None = None
    n_best: list[tuple[str, float]] = field(default_factory=list)
    abstained: str | None = None

    @property
    def id(self) -> str:
        """`recording/clip`."""
        return f"{self.recording}/{self.clip}"
