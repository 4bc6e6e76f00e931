"""Translate a split with a checkpoint, under one context source after another."""

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from signllava_cli.console import progress, say, warn
from signllava_cli.data.annotations import Clip
from signllava_cli.data.examples import Example, ExampleBuilder
from signllava_cli.data.split import Split
from signllava_cli.errors import Stopped, UserError
from signllava_cli.generation.context_source import ContextSource
from signllava_cli.generation.controls import ShownFrames
from signllava_cli.generation.decoding import Decoder, Hypothesis, is_time_to_admit, open_decoder
from signllava_cli.generation.frontier import Frontier
from signllava_cli.generation.prediction import Prediction
from signllava_cli.generation.predictions import PredictionsFolder, ids_hash
from signllava_cli.generation.questions import NOT_ASKED, Questions
from signllava_cli.generation.ranks import device_of_rank, main_rank_first
from signllava_cli.generation.shares import Share
from signllava_cli.model.assembly import assemble_checkpoint
from signllava_cli.model.checkpoint import library_versions, weights_hash
from signllava_cli.preemption import StopRequest
from signllava_cli.recipe import Recipe


def generate(
    recipe: Recipe,
    checkpoint: Path,
    sources: list[str],
    out: Path | None = None,
    overwrite: bool = False,
    shard: str | None = None,
) -> list[Path]:
    """Translate `recipe.generate.split`, once for each context source, each into a predictions folder.

    Ranks of a launch share the work, and so do the jobs of an array, which each name their `shard`.

    Args:
        sources: names as `ContextSource.open` takes them.
        out: the folder of the predictions; default `RUN/predictions/STEP.SPLIT.SOURCE`.
        shard: "i/n", i from 1 on: this is job i of n.

    Returns:
        The predictions files, in the order of `sources`.

    Raises:
        UserError: what the person at the terminal can mend in checkpoint, data or settings.
        Stopped: a signal came; what was decoded is in the folder.
    """
    share = Share.of_process(shard)
    if overwrite and shard:
        raise UserError("--overwrite with --shard would remove what other jobs write: remove the folder yourself.")
    with main_rank_first():
        split = Split(recipe, recipe.generate.split)
    opened = _opened_sources(recipe, split, sources)
    work = Work.of(recipe, checkpoint, split)
    folders = []
    for label, source in opened.items():
        folder = out or checkpoint.parent / "predictions" / f"{checkpoint.name}.{split.name}.{work.label}{label}"
        if out and len(opened) > 1:
            folder = out / label
        with main_rank_first() as first:
            meta = _meta(recipe, checkpoint, split, source)
            folders.append(PredictionsFolder(folder, meta, share, overwrite and first))
    with StopRequest().listening() as request:
        for source, predictions in zip(opened.values(), folders, strict=True):
            _translate(work, source, predictions, share, request)
    return [predictions.file for predictions in folders]


@dataclass(frozen=True)
class Work:
    """What is the same under every context source: the clips, how they are shown and asked about, who decodes."""

    recipe: Recipe
    split: Split
    frames: list[int]
    shown: ShownFrames
    questions: Questions
    builder: ExampleBuilder
    decoder: Decoder

    @classmethod
    def of(cls, recipe: Recipe, checkpoint: Path, split: Split) -> "Work":
        """Everything opened that `recipe.generate` needs."""
        shown, questions = ShownFrames(split, recipe.generate), Questions(recipe, split)
        assembled = assemble_checkpoint(checkpoint, recipe, device_of_rank())
        frames = np.sum([stream.kept_frames() for stream in split.streams], axis=0)
        builder = ExampleBuilder(recipe, assembled.prompts)
        return cls(recipe, split, frames.tolist(), shown, questions, builder, open_decoder(assembled, recipe))

    @property
    def label(self) -> str:
        """What the name of a folder says of it, if there is something to say."""
        settings = self.recipe.generate
        parts = [f"without-{name}" for name in settings.ablate]
        parts += [] if settings.features == "own" else [settings.features]
        parts += [] if self.questions.task == "translation" else [self.questions.task]
        return "".join(f"{part}." for part in parts)


@dataclass
class Queue:
    """The clips on their way into the decoder, and those inside."""

    work: Work
    source: ContextSource
    frontier: Frontier
    hypotheses: dict[str, str]
    built: deque[Example] = field(default_factory=deque)

    def fill(self) -> None:
        """Admit as many clips as there is room for, when it is time to."""
        decoder, settings = self.work.decoder, self.work.recipe.generate
        if not is_time_to_admit(len(decoder.active), settings.batch_size):
            return
        room = settings.batch_size - len(decoder.active)
        self.built += self._examples(self.frontier.take(room - len(self.built)))
        admitted: list[Example] = []
        while self.built and len(admitted) < room and self._fits([*decoder.active, *admitted, self.built[0]]):
            admitted.append(self.built.popleft())
        if admitted:
            decoder.admit(admitted)

    def _fits(self, together: Sequence[Example]) -> bool:
        settings = self.work.recipe.generate
        if settings.tokens_per_batch is None or len(together) == 1:
            return True
        longest = max(example.positions for example in together) + settings.max_new_tokens
        return longest * len(together) <= settings.tokens_per_batch

    def _examples(self, clips: list[Clip]) -> list[Example]:
        work = self.work
        return [self._example(clip, frames) for clip, frames in zip(clips, work.shown.read_all(clips), strict=True)]

    def _example(self, clip: Clip, frames: dict[str, np.ndarray]) -> Example:
        question = self.work.questions.of(clip)
        assert question is not None
        if question.backwards:
            frames = {name: its[::-1] for name, its in frames.items()}
        sentences = self.source.sentences(clip, self.work.split, self.hypotheses)
        room = self.work.recipe.generate.max_new_tokens
        return self.work.builder.build(clip, frames, sentences, None, question=question.text, room=room)


def _translate(
    work: Work, source: ContextSource, predictions: PredictionsFolder, share: Share, request: StopRequest
) -> None:
    """Decode this share of the clips that are not done yet, and join the parts if they are then all there."""
    split, began = work.split, time.monotonic()
    mine = share.of(split.annotated, work.frames, source.in_order)
    left = [clip for clip in mine if clip.id not in predictions.done]
    if len(left) < len(mine):
        say(f"{predictions.folder}: {len(mine) - len(left)} clips were done before")
    reasons = {clip.id: reason for clip in left if (reason := _cannot_be_asked(work, clip))}
    predictions.append([_undecoded(work, source, clip, reasons[clip.id]) for clip in left if clip.id in reasons])
    waiting = [clip for clip in left if clip.id not in reasons]
    frontier = Frontier(waiting, [work.frames[clip.row] for clip in waiting], source.in_order)
    queue = Queue(work, source, frontier, {id_: row.hypothesis for id_, row in predictions.done.items()})
    with progress(f"translate, {source.name} context", len(waiting)) as line:
        while line.done < line.total:
            queue.fill()
            decoded = work.decoder.step()
            rows = [_decoded(work, source, example, hypothesis) for example, hypothesis in decoded]
            predictions.append(rows)
            queue.hypotheses |= {row.id: row.hypothesis for row in rows}
            for example, _ in decoded:
                queue.frontier.done(example.clip)
            if decoded:
                line.advance(len(decoded), note=f"{line.rate:.2f} clips/s")
            if request and line.done < line.total:
                raise Stopped(
                    f"{len(predictions.done)} clips are in {predictions.folder}. Run the same command again to go on."
                )
    seconds = time.monotonic() - began if waiting else 0.0
    joined = predictions.join_parts([clip.id for clip in split.annotated], seconds)
    if joined or not waiting:
        _tell(predictions, f"{len(waiting)} clips in {seconds:.1f} s, {source.name} context", on_every_rank=joined)
    absent = len(split.annotated) - len(predictions.done)
    if absent:
        say(f"share {share}: {len(mine)} clips are done; {absent} are left to the others, of whom the last joins all")


def _tell(predictions: PredictionsFolder, what: str, on_every_rank: bool) -> None:
    """Say what there is, if it is complete; whichever rank joined the parts does."""
    if not predictions.file.exists():
        return
    rows = predictions.done.values()
    cut = sum(1 for row in rows if row.cut_frames or row.cut_sentences)
    unfinished = sum(1 for row in rows if not row.finished)
    abstained = sum(1 for row in rows if row.abstained is not None)
    if cut:
        warn(f"{cut} of {len(rows)} clips were cut to data.max_positions; each line says how much.", on_every_rank)
    if unfinished:
        warn(
            f"{unfinished} of {len(rows)} hypotheses reached generate.max_new_tokens before their end.", on_every_rank
        )
    if abstained:
        warn(f"{abstained} of {len(rows)} hypotheses are empty, held back by generate.abstain.", on_every_rank)
    say(f"{what}: {predictions.file}", on_every_rank=on_every_rank)


def _cannot_be_asked(work: Work, clip: Clip) -> str | None:
    if not work.split.has_features[clip.row]:
        return work.split.lacking(clip.row)
    return None if work.questions.of(clip) else NOT_ASKED


def _decoded(work: Work, source: ContextSource, example: Example, hypothesis: Hypothesis) -> Prediction:
    below = work.recipe.generate.abstain
    held_back = below is not None and hypothesis.score < below
    question = work.questions.of(example.clip)
    return replace(
        _undecoded(work, source, example.clip),
        reference=question.answer if question else "",
        question=question.text if question and work.questions.task != "translation" else None,
        hypothesis="" if held_back else hypothesis.text,
        abstained=hypothesis.text if held_back else None,
        context=list(example.context),
        score=round(hypothesis.score, 6),
        n_best=[(text, round(score, 6)) for text, score in hypothesis.n_best],
        finished=hypothesis.finished,
        frames=sum(map(len, example.streams.values())),
        cut_frames=example.cuts.frames,
        cut_sentences=example.cuts.sentences,
    )


def _undecoded(work: Work, source: ContextSource, clip: Clip, missing: str | None = None) -> Prediction:
    """The line of a clip with an empty hypothesis: all that there is to say of one without features."""
    return Prediction(
        recording=clip.recording,
        clip=clip.name,
        position=clip.position,
        task=work.questions.task,
        reference=clip.translation if work.questions.task == "translation" else "",
        hypothesis="",
        context_source=source.name,
        missing=missing,
        context_bound=clip.context_bound,
    )


def _opened_sources(recipe: Recipe, split: Split, names: Sequence[str]) -> dict[str, ContextSource]:
    """The context sources by their labels, each once."""
    opened: dict[str, ContextSource] = {}
    settings = recipe.context
    gold_where_missing = recipe.generate.missing_context == "gold"
    for name in names:
        if name == "predicted" and (recipe.generate.task_prompt or recipe.generate.task != "translation"):
            raise UserError("--context-source predicted: answers are no context; use none, gold or prepared:FILE.")
        source = ContextSource.open(name, settings.window, settings.prelude, split, gold_where_missing)
        if _label(source) in opened:
            warn(f"--context-source {name} gives the same context as another one, and is done once.")
        opened[_label(source)] = source
    return opened


def _meta(recipe: Recipe, checkpoint: Path, split: Split, source: ContextSource) -> dict[str, object]:
    """What the hypotheses depend on; the batch size and where things lie are not among it."""
    ids = [clip.id for clip in split.annotated]
    settings = recipe.to_dict()
    decoding = {**settings["generate"], "context_source": source.kind}
    _forget(decoding, "split", "batch_size", "tokens_per_batch")
    _forget(settings["llm"], "path")
    _forget(settings["tasks"], "train", "dev", "paraphrases")
    for stream in settings["streams"].values():
        _forget(stream, "folder", "metadata", "shards")
    return {
        "checkpoint": checkpoint.name,
        "weights": weights_hash(checkpoint),
        "split": split.name,
        "clips": len(ids),
        "clips_hash": ids_hash(ids),
        "data": split.fingerprint(),
        "window": source.window,
        "prelude": source.prelude,
        "prepared": source.prepared_hash,
        "decoding": decoding,
        "llm": settings["llm"],
        "streams": settings["streams"],
        "tasks": settings["tasks"],
        "max_positions": recipe.data.max_positions,
        "min_frames": recipe.data.min_frames,
        "versions": library_versions(),
    }


def _forget(settings: dict[str, object], *keys: str) -> None:
    for key in keys:
        del settings[key]


def _label(source: ContextSource) -> str:
    if source.name == "none":
        return "none"
    kind = f"prepared-{source.prepared_hash}" if source.prepared else source.name
    return f"{kind}-n{source.window}-m{source.prelude}"
