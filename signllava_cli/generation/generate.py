"""Translate a split with a checkpoint, under one context source after another."""

import time
from dataclasses import replace
from pathlib import Path

import torch

from signllava_cli.console import progress, say, warn
from signllava_cli.data.annotations import Clip
from signllava_cli.data.examples import Example, ExampleBuilder
from signllava_cli.data.split import Split
from signllava_cli.errors import Stopped
from signllava_cli.generation.context_source import ContextSource
from signllava_cli.generation.decoding import Hypothesis, decode
from signllava_cli.generation.order import decoding_order
from signllava_cli.generation.predictions import Prediction, PredictionsFile, ids_hash
from signllava_cli.model.assembly import Assembled, assemble_checkpoint
from signllava_cli.model.checkpoint import library_versions, weights_hash
from signllava_cli.preemption import StopRequest
from signllava_cli.recipe import Recipe


def generate(
    recipe: Recipe, checkpoint: Path, sources: list[str], out: Path | None = None, overwrite: bool = False
) -> list[Path]:
    """Translate `recipe.generate.split`, once for each context source, each into a predictions folder.

    Args:
        sources: names as `ContextSource.open` takes them.
        out: the folder of the predictions; default `RUN/predictions/STEP.SPLIT.SOURCE`.

    Returns:
        The predictions files, in the order of `sources`.

    Raises:
        UserError: what the person at the terminal can mend in checkpoint, data or settings.
        Stopped: a signal came; what was decoded is in the file.
    """
    split = Split(recipe, recipe.generate.split)
    settings = recipe.context
    opened: dict[str, ContextSource] = {}
    for name in sources:
        source = ContextSource.open(name, settings.window, settings.prelude, split)
        if _label(source) in opened:
            warn(f"--context-source {name} gives the same context as another one, and is done once.")
        opened[_label(source)] = source
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    assembled = assemble_checkpoint(checkpoint, recipe, device)
    files = []
    for label, source in opened.items():
        folder = out or checkpoint.parent / "predictions" / f"{checkpoint.name}.{split.name}.{label}"
        if out and len(opened) > 1:
            folder = out / label
        files.append(PredictionsFile(folder, _meta(recipe, checkpoint, split, source), overwrite))
    with StopRequest().listening() as request:
        for source, file in zip(opened.values(), files, strict=True):
            _translate(recipe, assembled, split, source, file, request)
    return [file.file for file in files]


def _translate(
    recipe: Recipe,
    assembled: Assembled,
    split: Split,
    source: ContextSource,
    file: PredictionsFile,
    request: StopRequest,
) -> None:
    builder, began = ExampleBuilder(recipe, assembled.prompts), time.monotonic()
    file.append(
        [
            _undecoded(clip, source, split.lacking(clip.row))
            for clip in split.annotated
            if not split.has_features[clip.row] and clip.id not in file.done
        ]
    )
    waiting = [clip for clip in split.clips if clip.id not in file.done]
    if len(waiting) < len(split.clips):
        say(f"{file.file}: {len(split.clips) - len(waiting)} clips were done before")
    hypotheses = {id_: row.hypothesis for id_, row in file.done.items()}
    with progress(f"translate, {source.name} context", len(waiting)) as line:
        for clips in decoding_order(waiting, source.in_order, recipe.generate.batch_size):
            examples = [
                builder.build(
                    clip,
                    frames,
                    source.sentences(clip, split, hypotheses),
                    answer=None,
                    room=recipe.generate.max_new_tokens,
                )
                for clip, frames in zip(clips, split.read_all(clips), strict=True)
            ]
            decoded = decode(assembled, examples, recipe.streams, recipe.generate)
            file.append([_decoded(e, h, source) for e, h in zip(examples, decoded, strict=True)])
            hypotheses |= {clip.id: each.text for clip, each in zip(clips, decoded, strict=True)}
            line.advance(len(clips))
            if request and line.done < line.total:
                raise Stopped(f"{len(file.done)} clips are in {file.file}. Run the same command again to go on.")
    seconds = time.monotonic() - began if waiting else 0.0
    file.finish([clip.id for clip in split.annotated], seconds)
    rows = file.done.values()
    cut = sum(1 for row in rows if row.cut_frames or row.cut_sentences)
    unfinished = sum(1 for row in rows if not row.finished)
    if cut:
        warn(f"{cut} of {len(rows)} clips were cut to data.max_positions; each line of the file says how much.")
    if unfinished:
        warn(f"{unfinished} of {len(rows)} hypotheses reached generate.max_new_tokens before their end.")
    say(f"{len(waiting)} clips in {seconds:.1f} s, {source.name} context: {file.file}")


def _decoded(example: Example, hypothesis: Hypothesis, source: ContextSource) -> Prediction:
    return replace(
        _undecoded(example.clip, source),
        hypothesis=hypothesis.text,
        context=list(example.context),
        score=round(hypothesis.score, 6),
        finished=hypothesis.finished,
        cut_frames=example.cuts.frames,
        cut_sentences=example.cuts.sentences,
    )


def _undecoded(clip: Clip, source: ContextSource, missing: str | None = None) -> Prediction:
    """The line of a clip with an empty hypothesis: all that there is to say of one without features."""
    return Prediction(
        recording=clip.recording,
        clip=clip.name,
        position=clip.position,
        task="translation",
        reference=clip.translation,
        hypothesis="",
        context_source=source.name,
        missing=missing,
        context_bound=clip.context_bound,
    )


def _meta(recipe: Recipe, checkpoint: Path, split: Split, source: ContextSource) -> dict[str, object]:
    """What the hypotheses depend on; the batch size and where things lie are not among it."""
    ids = [clip.id for clip in split.annotated]
    settings = recipe.to_dict()
    decoding = {**settings["generate"], "context_source": source.kind}
    _forget(decoding, "split", "batch_size")
    _forget(settings["llm"], "path")
    _forget(settings["tasks"], "train", "dev", "paraphrases", "max_words")
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
