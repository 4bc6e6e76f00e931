"""A prediction: one line of the predictions file."""

from dataclasses import dataclass, field

from signllava_cli.data.annotations import ContextBound


@dataclass(frozen=True)
class Prediction:
    """The hypothesis of one clip, and how it was made.

    `context`: the sentences in the prompt, after truncation; `context_source`: the name of their source. `score`:
    mean log-probability of the hypothesis. `finished`: whether the model ended it, rather than a length limit.
    `truncated_frames`, `truncated_sentences`: removed to fit the token budget. `missing`: what the clip lacks to be
    decoded, such as the streams without features; the hypothesis is then empty. `context_bound`: the annotation's
    mark, if any. `frames`: number of frames in the sequence, over all streams. `question`: the text of the
    instruction, except for the task translation. `n_best`: hypotheses and scores, this one first, if the recipe asks
    for several. `abstained`: the hypothesis that was withheld because of its score.
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
