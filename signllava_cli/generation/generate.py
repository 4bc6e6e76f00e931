"""Translate a split with a checkpoint, under one context source after another."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from signllava_cli.console import info, progress, warning
from signllava_cli.data.annotations import Clip
from signllava_cli.data.examples import Example
from signllava_cli.data.split import Split
from signllava_cli.errors import RunStopped, UserError
from signllava_cli.generation.context_source import ContextSource
from signllava_cli.generation.decoding import Hypothesis
from signllava_cli.generation.distributed import main_process_first, rank_device
from signllava_cli.generation.instructions import NO_KEYWORD
from signllava_cli.generation.prediction import Prediction
from signllava_cli.generation.predictions_folder import PredictionsFolder, choose_folder, hash_ids
from signllava_cli.generation.scheduling import AdmissionQueue, DecodingJob, ReadyQueue, WorkShard
from signllava_cli.model.checkpoint import library_versions, read_config, weights_hash
from signllava_cli.model.layouts import require_layouts
from signllava_cli.model.loading import load_checkpoint_bundle
from signllava_cli.preemption import StopRequest
from signllava_cli.prepare.indexing import open_split
from signllava_cli.recipe import Recipe


def generate(
    recipe: Recipe,
    checkpoint: Path,
    sources: list[str],
    out: Path | None = None,
    overwrite: bool = False,
    shard: str | None = None,
    keep_others: bool = False,
) -> list[Path]:
    """Translate `recipe.generate.split`, once for each context source, each into a predictions folder.

    Ranks of a launch share the work, and so do the jobs of an array, which each name their `shard`.

    Args:
        sources: names as `ContextSource.open` takes them.
        out: the folder of the predictions; default `RUN/predictions/STEP.SPLIT.SOURCE`.
        shard: "i/n", i from 1 on: this is job i of n.
        keep_others: where a folder holds predictions made with other settings, write into one beside it.

    Returns:
        The predictions files, in the order of `sources`.

    Raises:
        UserError: what the person at the terminal can fix in checkpoint, data or settings.
        Stopped: a signal came; what was decoded is in the folder.
    """
    share = WorkShard.of_process(shard)
    if overwrite and shard:
        raise UserError("--overwrite with --shard would remove what other jobs write: remove the folder yourself.")
    with main_process_first():
        split = open_split(recipe.data, recipe.streams, recipe.generate.split)
    require_layouts(read_config(checkpoint).layouts, split, str(checkpoint))
    opened = _open_sources(recipe, split, sources)
    work = DecodingJob.of(recipe, split, load_checkpoint_bundle(checkpoint, recipe, rank_device()))
    folders = []
    for label, source in opened.items():
        folder = out or checkpoint.parent / "predictions" / f"{checkpoint.name}.{split.name}.{work.label}{label}"
        if out and len(opened) > 1:
            folder = out / label
        with main_process_first() as first:
            meta = _metadata(recipe, checkpoint, split, source)
            folder = choose_folder(folder, meta) if keep_others else folder
            folders.append(PredictionsFolder(folder, meta, str(share), overwrite and first))
    with StopRequest().handle_signals() as request:
        for source, predictions in zip(opened.values(), folders, strict=True):
            _decode_source(work, source, predictions, share, request)
    return [predictions.file for predictions in folders]


def _decode_source(
    work: DecodingJob, source: ContextSource, predictions: PredictionsFolder, share: WorkShard, request: StopRequest
) -> None:
    """Decode this share of the clips that are not done yet, and join the parts if they are then all there."""
    split, start_time = work.split, time.monotonic()
    mine = share.of(split.annotated, work.frames, source.sequential)
    left = [clip for clip in mine if clip.id not in predictions.done]
    if len(left) < len(mine):
        info(f"{predictions.folder}: {len(mine) - len(left)} clips were done before")
    reasons = {clip.id: reason for clip in left if (reason := _skip_reason(work, clip))}
    predictions.append(
        [_empty_prediction(work, source, clip, reasons[clip.id]) for clip in left if clip.id in reasons]
    )
    waiting = [clip for clip in left if clip.id not in reasons]
    frontier = ReadyQueue(waiting, [work.frames[clip.row] for clip in waiting], source.sequential)
    queue = AdmissionQueue(work, source, frontier, {id_: row.hypothesis for id_, row in predictions.done.items()})
    with progress(f"translate, {source.name} context", len(waiting)) as line:
        while line.done < line.total:
            queue.fill()
            decoded = work.decoder.step()
            rows = [_decoded_prediction(work, source, example, hypothesis) for example, hypothesis in decoded]
            predictions.append(rows)
            queue.hypotheses |= {row.id: row.hypothesis for row in rows}
            for example, _ in decoded:
                queue.frontier.done(example.clip)
            if decoded:
                line.advance(len(decoded), note=f"{line.rate:.2f} clips/s")
            if request and line.done < line.total:
                raise RunStopped(
                    f"{len(predictions.done)} clips are in {predictions.folder}. Run the same command again to go on."
                )
    seconds = time.monotonic() - start_time if waiting else 0.0
    joined = predictions.join_parts([clip.id for clip in split.annotated], seconds)
    if joined or not waiting:
        _print_result(
            predictions, f"{len(waiting)} clips in {seconds:.1f} s, {source.name} context", all_ranks=joined
        )
    absent = len(split.annotated) - len(predictions.done)
    if absent:
        info(
            f"share {share}: {len(mine)} clips are done; {absent} are left to the others, of whom the last joins all"
        )


def _print_result(predictions: PredictionsFolder, what: str, all_ranks: bool) -> None:
    """Say what there is, if it is complete; whichever rank joined the parts does."""
    if not predictions.file.exists():
        return
    rows = predictions.done.values()
    cut = sum(1 for row in rows if row.truncated_frames or row.truncated_sentences)
    unfinished = sum(1 for row in rows if not row.finished)
    abstained = sum(1 for row in rows if row.abstained is not None)
    if cut:
        warning(f"{cut} of {len(rows)} clips were cut to data.max_seq_len; each line says how much.", all_ranks)
    if unfinished:
        warning(
            f"{unfinished} of {len(rows)} hypotheses reached generate.max_new_tokens before their end.", all_ranks
        )
    if abstained:
        warning(f"{abstained} of {len(rows)} hypotheses are empty, held back by generate.abstain.", all_ranks)
    info(f"{what}: {predictions.file}", all_ranks=all_ranks)


def _skip_reason(work: DecodingJob, clip: Clip) -> str | None:
    if not work.split.has_features[clip.row]:
        return work.split.lacking(clip.row)
    return None if work.questions.of(clip) else NO_KEYWORD


def _decoded_prediction(
    work: DecodingJob, source: ContextSource, example: Example, hypothesis: Hypothesis
) -> Prediction:
    below = work.recipe.generate.abstain
    held_back = below is not None and hypothesis.score < below
    question = work.questions.of(example.clip)
    return replace(
        _empty_prediction(work, source, example.clip),
        reference=question.answer if question else "",
        question=question.text if question and work.questions.task != "translation" else None,
        hypothesis="" if held_back else hypothesis.text,
        abstained=hypothesis.text if held_back else None,
        context=list(example.context),
        score=round(hypothesis.score, 6),
        n_best=[(text, round(score, 6)) for text, score in hypothesis.n_best],
        finished=hypothesis.finished,
        frames=sum(map(len, example.streams.values())),
        truncated_frames=example.truncation.frames,
        truncated_sentences=example.truncation.sentences,
    )


def _empty_prediction(work: DecodingJob, source: ContextSource, clip: Clip, missing: str | None = None) -> Prediction:
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


def _open_sources(recipe: Recipe, split: Split, names: Sequence[str]) -> dict[str, ContextSource]:
    """The context sources by their labels, each once."""
    opened: dict[str, ContextSource] = {}
    config = recipe.context
    gold_if_missing = recipe.generate.missing_context == "gold"
    for name in names:
        if name == "predicted" and (recipe.generate.task_prompt or recipe.generate.task != "translation"):
            raise UserError("--context-source predicted: answers are no context; use none, gold or prepared:FILE.")
        source = ContextSource.open(
            name, config.window, config.prelude, split, gold_if_missing, recipe.generate.context_from
        )
        if _label(source) in opened:
            warning(f"--context-source {name} gives the same context as another one, and is done once.")
        opened[_label(source)] = source
    if {*recipe.generate.context_from} - {split.name}:
        _print_context_from(opened, split)
    return opened


def _print_context_from(opened: Mapping[str, ContextSource], split: Split) -> None:
    """Say which context comes from several splits, how many clips it concerns, and how many see their reference.

    Raises:
        UserError: no source is gold context.
    """
    joined = [source for source in opened.values() if source.splits]
    if not joined:
        raise UserError(
            "--context-from has no effect without gold context: add --context-source gold with a --context or "
            "--prelude above 0, or drop it."
        )
    (source,) = joined
    assert source.splits is not None
    extended, leaked = source.splits.count(source.window, source.prelude)
    clips = len(source.splits.own)
    others = ", ".join(source.splits.splits[1:])
    info(f"gold context: {extended} of {clips} clips of split {split.name} have earlier sentences in split {others}")
    if leaked:
        warning(f"{leaked} of {clips} clips ({leaked / clips:.1%}) see their own reference in this gold context.")
    for other in opened.values():
        if not other.splits and other.name != "none":
            info(f"{other.kind} context stays within split {split.name}: --context-from is for gold context")


def _metadata(recipe: Recipe, checkpoint: Path, split: Split, source: ContextSource) -> dict[str, object]:
    """What the hypotheses depend on; the batch size and where things lie are not among it."""
    ids = [clip.id for clip in split.annotated]
    config = recipe.to_dict()
    decoding = {**config["generate"], "context_source": source.kind}
    _remove_keys(decoding, "split", "context_from", "batch_size", "max_tokens_per_batch")
    _remove_keys(config["llm"], "path")
    _remove_keys(config["tasks"], "train", "dev", "paraphrases")
    for stream in config["streams"].values():
        _remove_keys(stream, "folder", "metadata", "shards", "layout")
    return {
        "checkpoint": checkpoint.name,
        "weights": weights_hash(checkpoint),
        "split": split.name,
        "clips": len(ids),
        "clips_hash": hash_ids(ids),
        "data": split.fingerprint(),
        "window": source.window,
        "prelude": source.prelude,
        "context_from": sorted(source.splits.splits) if source.splits else [split.name],
        "prepared": source.prepared_hash,
        "decoding": decoding,
        "llm": config["llm"],
        "streams": config["streams"],
        "tasks": config["tasks"],
        "max_seq_len": recipe.data.max_seq_len,
        "min_frames": recipe.data.min_frames,
        "versions": library_versions(),
    }


def _remove_keys(config: dict[str, object], *keys: str) -> None:
    for key in keys:
        del config[key]


def _label(source: ContextSource) -> str:
    if source.name == "none":
        return "none"
    kind = f"prepared-{source.prepared_hash}" if source.prepared else source.kind
    splits = f"-from-{'-'.join(sorted(source.splits.splits))}" if source.splits else ""
    return f"{kind}-n{source.window}-m{source.prelude}{splits}"
