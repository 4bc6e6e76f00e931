"""Translates a recording clip by clip, and gives one line for each translated clip."""

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Literal

from pydantic import BaseModel

from signllava_cli.api.inputs import check_features
from signllava_cli.api.translator import Features, SignLlava, Translation
from signllava_cli.data.annotations import Clip
from signllava_cli.data.context import context_indices
from signllava_cli.data.split import Split
from signllava_cli.errors import UserError
from signllava_cli.serving.recent_clips import RecentClip, RecentClips
from signllava_cli.serving.uploads import UploadedClip
from signllava_cli.serving.videos import Videos

Source = Literal["none", "gold", "predicted"]


class ClipLine(BaseModel):
    """The translation of one clip and its context.

    `number`: from 1 to `of`, the number of clips; None: not yet known. `confidence`: the geometric mean of the token
    probabilities. `start` and `end`: seconds in the recording's video. `video`: whether the clip has its own video.
    `attention`: the key with which /api/attention says which frames were read. `error`: why there is no text; it is
    the last line if translation cannot continue.
    """

    number: int
    of: int | None
    clip: str
    text: str = ""
    confidence: float | None = None
    finished: bool = True
    context: list[str] = []
    n_best: list[tuple[str, float]] = []
    truncated_frames: int = 0
    truncated_sentences: int = 0
    reference: str | None = None
    start: float | None = None
    end: float | None = None
    video: bool = False
    attention: str | None = None
    error: str | None = None


def translate_dataset_clips(
    model: SignLlava,
    recent: RecentClips,
    split: Split,
    videos: Videos,
    clips: Sequence[Clip],
    window: int,
    prelude: int,
    source: Source,
) -> Iterator[ClipLine]:
    """Translate the clips of one recording of `split`, in signing order.

    A clip without features has no text, and adds no context.
    """
    texts: list[str] = []
    for clip in clips:
        line = ClipLine(number=clip.position + 1, of=len(clips), clip=clip.name, reference=clip.translation)
        line.start, line.end = clip.start, clip.end
        line.video = videos.of_clip(clip) is not None
        sentences = [clip.translation for clip in clips] if source == "gold" else texts
        context = [] if source == "none" else select_context(sentences, clip.position, window, prelude)
        if split.has_features[clip.row]:
            try:
                translation = model.translate(split.read(clip), context, prelude)
            except UserError as error:
                line.error = str(error)
                yield line
                return
            fill_line(line, translation)
            if line.text:
                read = partial(split.read, clip)
                line.attention = recent.add(RecentClip(read, 0, translation.text, translation.context, prelude))
        else:
            line.error = f"no features in {split.missing_streams(clip.row)}"
        texts.append(line.text)
        yield line


def translate_uploaded_clips(
    model: SignLlava,
    recent: RecentClips,
    clips: Sequence[UploadedClip],
    window: int,
    prelude: int,
    source: Source,
) -> Iterator[ClipLine]:
    """Translate the uploaded clips as one recording, in their order. All are checked before the first is translated.

    Raises:
        UserError: the features of a clip cannot be used.
    """
    for clip in clips:
        check_features(clip.features, model.recipe.streams)

    def translate_clips() -> Iterator[ClipLine]:
        texts: list[str] = []
        for position, clip in enumerate(clips):
            line = ClipLine(number=position + 1, of=len(clips), clip=clip.name)
            context = [] if source == "none" else select_context(texts, position, window, prelude)
            try:
                translate_line(line, model, recent, clip.features, context, prelude)
            except UserError as error:
                line.error = str(error)
                yield line
                return
            texts.append(line.text)
            yield line

    return translate_clips()


def select_context(sentences: Sequence[str], position: int, window: int, prelude: int) -> list[str]:
    """The sentences before a position that its prompt holds; empty ones are skipped."""
    return [sentences[index] for index in context_indices(position, window, prelude) if sentences[index]]


def translate_line(
    line: ClipLine, model: SignLlava, recent: RecentClips, features: Features, context: Sequence[str], prelude: int
) -> None:
    """Translate a clip, write the translation into its line, and keep the features for questions about it."""
    translation = model.translate(features, context, prelude)
    fill_line(line, translation)
    if line.text:
        line.attention = recent.add_features(features, translation, prelude)


def fill_line(line: ClipLine, translation: Translation) -> None:
    """Write a translation into its line."""
    line.text, line.finished = translation.text, translation.finished
    line.confidence = math.exp(translation.score)
    line.context, line.n_best = list(translation.context), list(translation.n_best)
    line.truncated_frames, line.truncated_sentences = translation.truncation.frames, translation.truncation.sentences
