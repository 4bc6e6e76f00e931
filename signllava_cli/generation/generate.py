"""Translate a split with a checkpoint, under one context source after another."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from signllava_cli.console import info, print_line, progress, warning
from signllava_cli.data.annotations import Clip
from signllava_cli.data.index import Index
from signllava_cli.data.sentences import Sentences
from signllava_cli.data.split import Split
from signllava_cli.data.work_shard import WorkShard
from signllava_cli.errors import RunStopped, UserError, format_count
from signllava_cli.generation.context_source import ContextSource
from signllava_cli.generation.distributed import (
    join_ranks,
    main_process_first,
    rank_device,
    require_shared_folder,
)
from signllava_cli.generation.instructions import NO_KEYWORD
from signllava_cli.generation.prediction import Prediction
from signllava_cli.generation.predictions_folder import DECODER, PredictionsFolder, choose_folder, hash_ids
from signllava_cli.generation.scheduling import DecodedClip, DecodingJob, DecodingQueue, select_clips
from signllava_cli.heartbeat import watch_machines
from signllava_cli.model.checkpoint import library_versions, read_config, weights_hash
from signllava_cli.model.layouts import require_layouts
from signllava_cli.model.loading import load_for_decoding
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
    """Translate `recipe.generate.split` once per context source, each into a predictions folder.

    The ranks of a launch share the clips, and so do the jobs of an array, each with its own `shard`.

    Args:
        sources: names as `ContextSource.open` takes them.
        out: the folder of the predictions; default `RUN/predictions/STEP.SPLIT.SOURCE`.
        shard: "i/n", i counted from 1: this is job i of n.
        keep_others: where a folder holds predictions made with other settings, write into a new folder beside it.

    Returns:
        The predictions files, in the order of `sources`.

    Raises:
        UserError: an error in the checkpoint, the data or the settings that the user can fix.
        RunStopped: a signal arrived; all finished clips are in the folder.
    """
    work_shard = WorkShard.of_process(shard)
    if overwrite and keep_others:
        raise UserError("--overwrite deletes the predictions that --keep-others keeps; pass one of them.")
    if overwrite and shard:
        raise UserError("--overwrite with --shard would delete what other jobs write; delete the folder yourself.")
    folders: list[PredictionsFolder] = []
    with watch_machines(recipe.launch, join_ranks):
        with main_process_first():
            split = open_split(recipe.data, recipe.streams, recipe.generate.split)
        require_layouts(read_config(checkpoint).layouts, split, str(checkpoint))
        sources_by_label = _open_sources(recipe, split, sources)
        job = DecodingJob.open(recipe, split, load_for_decoding(checkpoint, recipe, rank_device()))
        for label, source in sources_by_label.items():
            name = f"{checkpoint.name}.{split.name}.{_settings_label(job)}{label}"
            folder = out or checkpoint.parent / "predictions" / name
            if out and len(sources_by_label) > 1:
                folder = out / label
            with main_process_first() as is_main_process:
                meta = _metadata(recipe, checkpoint, split, source) | {DECODER: job.decoder.description}
                folder = choose_folder(folder, meta) if keep_others else folder
                folders.append(PredictionsFolder(folder, meta, str(work_shard), overwrite and is_main_process))
        for predictions in folders:
            require_shared_folder(predictions.folder)
    with StopRequest().handle_signals() as stop_request:
        for source, predictions in zip(sources_by_label.values(), folders, strict=True):
            _decode_source(job, source, predictions, work_shard, stop_request)
    return [predictions.file for predictions in folders]


def _decode_source(
    job: DecodingJob,
    source: ContextSource,
    predictions: PredictionsFolder,
    shard: WorkShard,
    stop_request: StopRequest,
) -> None:
    """Decode the clips of the shard that have no prediction yet; join the parts if that completes the split."""
    index, start_time = job.split.index, time.monotonic()
    shard_rows = select_clips(shard, job.num_embeddings, index.recordings if source.is_sequential else None)
    is_done = np.fromiter((index.id(int(row)) in predictions.rows for row in shard_rows), bool, len(shard_rows))
    remaining = shard_rows[~is_done]
    if is_done.any():
        info(f"{predictions.folder}: {format_count(int(is_done.sum()), 'clip was', 'clips were')} done before")
    reasons = ((int(row), _skip_reason(job, index.clip(int(row)))) for row in remaining)
    skipped = {row: reason for row, reason in reasons if reason}
    predictions.append([_empty_prediction(job, source, index.clip(row), skipped[row]) for row in skipped])
    rows = np.setdiff1d(remaining, [*skipped])
    queue = DecodingQueue(job, source, rows, _read_hypotheses(index, predictions))
    with progress(f"translate, {source.name} context", len(rows)) as line:
        while line.done < line.total:
            decoded = queue.step()
            predictions.append([_make_prediction(job, source, decoded_clip) for decoded_clip in decoded])
            if decoded:
                line.advance(len(decoded), note=f"{line.rate:.2f} clips/s")
            if stop_request and line.done < line.total:
                raise RunStopped(
                    f"{format_count(len(predictions.rows), 'clip is', 'clips are')} in {predictions.folder}. "
                    "Run the same command again to continue."
                )
    seconds = time.monotonic() - start_time if len(rows) else 0.0
    has_joined = predictions.join_parts(index.ids().to_pylist(), seconds)
    if has_joined or not len(rows):
        summary = f"{format_count(len(rows), 'clip')} in {seconds:.1f} s, {source.name} context"
        _print_result(predictions, summary, all_ranks=has_joined)
    num_missing = len(index) - len(predictions.rows)
    if num_missing:
        done = format_count(len(shard_rows), "clip is", "clips are")
        left = format_count(num_missing, "clip is", "clips are")
        info(f"shard {shard}: {done} done; {left} left to other processes; the last one writes the predictions file")


def _read_hypotheses(index: Index, predictions: PredictionsFolder) -> Sentences:
    """The hypotheses that are in the predictions folder."""
    hypotheses = Sentences(len(index))
    for row in range(len(index)) if predictions.rows else ():
        if prediction := predictions.rows.get(index.id(row)):
            hypotheses[row] = prediction.hypothesis
    return hypotheses


def _print_result(predictions: PredictionsFolder, summary: str, all_ranks: bool) -> None:
    """Print the summary and the warnings if the predictions are complete; `all_ranks`: whatever rank this is."""
    if not predictions.file.exists():
        return
    rows = predictions.rows.values()
    num_truncated = sum(1 for row in rows if row.truncated_frames or row.truncated_sentences)
    num_unfinished = sum(1 for row in rows if not row.finished)
    num_abstained = sum(1 for row in rows if row.abstained is not None)
    if num_truncated:
        warning(
            f"{num_truncated} of {len(rows)} clips were truncated to data.max_seq_len; each line says by how much.",
            all_ranks=all_ranks,
        )
    if num_unfinished:
        warning(
            f"{num_unfinished} of {len(rows)} hypotheses reached generate.max_new_tokens before their end.",
            all_ranks=all_ranks,
        )
    if num_abstained:
        warning(
            f"{num_abstained} of {len(rows)} hypotheses are empty: scores below generate.abstain.",
            all_ranks=all_ranks,
        )
    print_line(f"{summary}: {predictions.file}", all_ranks=all_ranks)


def _skip_reason(job: DecodingJob, clip: Clip) -> str | None:
    """What the clip lacks so that it cannot be decoded, or None."""
    if not job.split.has_features[clip.row]:
        return job.split.missing_streams(clip.row)
    return None if job.instructions.for_clip(clip) else NO_KEYWORD


def _make_prediction(job: DecodingJob, source: ContextSource, decoded: DecodedClip) -> Prediction:
    example, hypothesis = decoded.example, decoded.hypothesis
    instruction = job.instructions.for_clip(decoded.clip)
    return replace(
        _empty_prediction(job, source, decoded.clip),
        reference=instruction.answer if instruction else "",
        question=instruction.text if instruction and job.instructions.task != "translation" else None,
        hypothesis=hypothesis.text,
        abstained=hypothesis.abstained,
        context=list(example.context),
        score=round(hypothesis.score, 6),
        n_best=[(text, round(score, 6)) for text, score in hypothesis.n_best],
        finished=hypothesis.finished,
        frames=sum(map(len, example.streams.values())),
        truncated_frames=example.truncation.frames,
        truncated_sentences=example.truncation.sentences,
    )


def _empty_prediction(job: DecodingJob, source: ContextSource, clip: Clip, missing: str | None = None) -> Prediction:
    """The prediction of a clip that is not decoded: an empty hypothesis."""
    is_translation = job.instructions.task == "translation"
    return Prediction(
        recording=clip.recording,
        clip=clip.name,
        position=clip.position,
        task=job.instructions.task,
        reference=clip.translation if is_translation else "",
        hypothesis="",
        context_source=source.name,
        missing=missing,
        context_bound=clip.context_bound,
    )


def _open_sources(recipe: Recipe, split: Split, names: Sequence[str]) -> dict[str, ContextSource]:
    """The context sources by their labels, without repetitions."""
    sources: dict[str, ContextSource] = {}
    config = recipe.context
    gold_if_missing = recipe.generate.missing_context == "gold"
    for name in names:
        if name == "predicted" and (recipe.generate.task_prompt or recipe.generate.task != "translation"):
            raise UserError(
                "--context-source predicted: answers to questions are not context; use none, gold or prepared:FILE."
            )
        source = ContextSource.open(
            name, config.window, config.prelude, split, gold_if_missing, recipe.generate.context_from
        )
        if _source_label(source) in sources:
            warning(f"--context-source {name} gives the same context as another source; it is decoded once.")
        sources[_source_label(source)] = source
    if {*recipe.generate.context_from} - {split.name}:
        _print_context_from(sources, split)
    return sources


def _print_context_from(sources: Mapping[str, ContextSource], split: Split) -> None:
    """Print which context comes from several splits, for how many clips, and how many see their own reference.

    Raises:
        UserError: no source is gold context.
    """
    cross_split_sources = [source for source in sources.values() if source.splits]
    if not cross_split_sources:
        raise UserError(
            "--context-from has no effect without gold context: add --context-source gold with a --context or "
            "--prelude above 0, or drop it."
        )
    (source,) = cross_split_sources
    assert source.splits is not None
    num_extended, num_leaked = source.splits.count(source.window, source.prelude)
    num_clips = len(source.splits.clips)
    other_splits = ", ".join(source.splits.splits[1:])
    info(
        f"gold context: {num_extended} of {num_clips} clips of split {split.name} have earlier sentences in split "
        f"{other_splits}"
    )
    if num_leaked:
        warning(
            f"{num_leaked} of {num_clips} clips ({num_leaked / num_clips:.1%}) see their own reference in this gold "
            "context."
        )
    for other in sources.values():
        if not other.splits and other.name != "none":
            info(f"{other.kind} context stays within split {split.name}: --context-from is for gold context")


def _metadata(recipe: Recipe, checkpoint: Path, split: Split, source: ContextSource) -> dict[str, object]:
    """Everything that the hypotheses depend on; the batch size and file locations are not part of it."""
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


def _settings_label(job: DecodingJob) -> str:
    """The part of a folder's name for a control or a task other than translation; empty without one."""
    config = job.recipe.generate
    parts = [f"without-{name}" for name in config.ablate]
    parts += [] if config.features == "own" else [config.features]
    parts += [] if job.instructions.task == "translation" else [job.instructions.task]
    return "".join(f"{part}." for part in parts)


def _source_label(source: ContextSource) -> str:
    """The part of a folder's name for the context source, such as `predicted-n2-m2`."""
    if source.name == "none":
        return "none"
    kind = f"prepared-{source.prepared_hash}" if source.prepared else source.kind
    splits = f"-from-{'-'.join(sorted(source.splits.splits))}" if source.splits else ""
    return f"{kind}-n{source.window}-m{source.prelude}{splits}"
