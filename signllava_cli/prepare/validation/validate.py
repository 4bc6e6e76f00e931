"""Runs all checks of a dataset folder, from the annotation files to the values of every frame."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from signllava_cli.data.annotations import annotation_file
from signllava_cli.data.index import Index
from signllava_cli.data.prompts import PromptBuilder
from signllava_cli.data.stream_files import StreamLocation
from signllava_cli.errors import UserError
from signllava_cli.prepare.dataset_folder import list_splits, require_data_folder
from signllava_cli.prepare.indexing import index_files
from signllava_cli.prepare.validation.annotation_checks import AnnotatedSplit, check_annotation
from signllava_cli.prepare.validation.array_checks import (
    ClipArrays,
    check_arrays,
    check_extra,
    check_repeated,
    check_width,
    match_arrays,
    most_common_width,
)
from signllava_cli.prepare.validation.findings import Finding, Findings
from signllava_cli.prepare.validation.length_checks import check_agreement, check_fit, check_joined
from signllava_cli.prepare.validation.shard_reader import read_shards
from signllava_cli.prepare.validation.split_checks import check_between_splits, check_context
from signllava_cli.prepare.validation.stream_checks import StreamShards, check_leftovers, detect_streams, find_shards
from signllava_cli.prepare.validation.style_checks import check_style
from signllava_cli.prepare.validation.text_checks import check_texts
from signllava_cli.prepare.validation.time_checks import check_times
from signllava_cli.prepare.validation.video_checks import check_videos
from signllava_cli.recipe import Recipe


@dataclass(frozen=True)
class ValidationRequest:
    """What to check.

    `recipe`: streams, splits and context; if it has no streams, all streams and splits in the folder are checked.
    `prompts`: of the recipe, to count the tokens of texts. `splits`: checks only these. `fps`: of frame numbers in
    clip names. `fast`: only the shapes of arrays are checked.
    """

    root: Path
    recipe: Recipe
    splits: tuple[str, ...] = ()
    prompts: PromptBuilder | None = None
    fps: float = 25.0
    workers: int | None = None
    fast: bool = False


@dataclass(frozen=True)
class ValidationResult:
    """The findings, and how much was checked.

    `clips`: split -> number of annotated clips. `arrays` and `frames`: stream -> their number in annotated clips, in
    all splits. `widths`: stream -> the width of most arrays, or the recipe's.
    """

    root: Path
    findings: Sequence[Finding]
    clips: Mapping[str, int]
    arrays: Mapping[str, int]
    frames: Mapping[str, int]
    widths: Mapping[str, int | None]
    seconds: float
    splits: Sequence[AnnotatedSplit] = field(repr=False)


def validate(request: ValidationRequest) -> ValidationResult:
    """Run every check.

    Raises:
        UserError: the folder is missing.
    """
    start_time, findings = time.monotonic(), Findings()
    root, recipe = request.root, request.recipe
    require_data_folder(root)
    if "metadata_" in str(root.absolute()) or ".json" in str(root.absolute()):
        findings.add("data-path", [str(root.absolute())])
    all_splits = _check_annotations(request, findings)
    splits = {name: split for name, split in all_splits.items() if split is not None}
    streams: Mapping[str, StreamLocation] = recipe.streams or detect_streams(root)
    if not streams:
        findings.add("streams-none", [str(root)])
    arrays = _check_shards(request, streams, all_splits, findings)
    widths = {
        name: recipe.streams[name].width if recipe.streams else most_common_width(by_split.values())
        for name, by_split in arrays.items()
    }
    for name, by_split in arrays.items():
        stream = recipe.streams.get(name)
        has_wrong_width = stream is not None and check_width(name, by_split, stream.width, findings)
        for split_name, clip_arrays in by_split.items():
            check_arrays(split_name, name, clip_arrays, None if has_wrong_width else widths[name], findings)
        check_repeated(name, by_split, findings)
    for split in splits.values():
        by_stream = {name: by_split[split.name] for name, by_split in arrays.items() if split.name in by_split}
        check_agreement(split.name, by_stream, findings)
        check_joined(split.name, by_stream, recipe, findings)
        check_fit(split.name, split.recordings, by_stream, recipe, request.prompts, findings)
        _check_index(root, split.name, recipe.streams, findings)
    return ValidationResult(
        root=root,
        findings=findings.sorted(),
        clips={name: len(split.clip_ids) for name, split in splits.items()},
        arrays={name: sum(map(len, by_split.values())) for name, by_split in arrays.items()},
        frames={
            name: sum(facts.frames for clip_arrays in by_split.values() for facts in clip_arrays.values())
            for name, by_split in arrays.items()
        },
        widths=widths,
        seconds=time.monotonic() - start_time,
        splits=list(splits.values()),
    )


def _check_annotations(request: ValidationRequest, findings: Findings) -> dict[str, AnnotatedSplit | None]:
    """The splits with an annotation file; None if it cannot be read."""
    context = request.recipe.context
    splits: dict[str, AnnotatedSplit | None] = {}
    for name in _split_names(request, findings):
        split = check_annotation(request.root, name, findings)
        if split is not None:
            check_texts(name, split.recordings, findings)
            check_times(name, split.recordings, request.fps, findings)
            check_context(name, split.recordings, context.window, context.prelude, findings)
        if annotation_file(request.root, name).is_file():
            splits[name] = split
    readable = [split for split in splits.values() if split]
    check_between_splits(readable, request.recipe.data.train, findings)
    check_style(readable, request.recipe.data.train, findings)
    return splits


def _split_names(request: ValidationRequest, findings: Findings) -> list[str]:
    if request.splits:
        return list(dict.fromkeys(request.splits))
    try:
        splits = list_splits(request.root)
    except UserError:
        splits = []
        findings.add("annotation-missing", [annotation_file(request.root, "SPLIT").name])
    recipe_splits = [request.recipe.data.train, request.recipe.data.dev] if request.recipe.streams else []
    return list(dict.fromkeys([*splits, *recipe_splits]))


def _check_shards(
    request: ValidationRequest,
    streams: Mapping[str, StreamLocation],
    splits: Mapping[str, AnnotatedSplit | None],
    findings: Findings,
) -> dict[str, dict[str, ClipArrays]]:
    """Stream -> split -> the arrays of its clips."""
    stream_shards: list[StreamShards] = []
    for name, config in streams.items():
        for split in splits:
            if shards := find_shards(request.root, split, name, config, findings):
                stream_shards.append(shards)
    check_leftovers(request.root, stream_shards, findings)
    check_videos(stream_shards, findings)
    files = (file for shards in stream_shards for file in shards.file_of.values())
    facts_of = read_shards(files, request.workers, request.fast)
    arrays: dict[str, dict[str, ClipArrays]] = {}
    for shards in stream_shards:
        clip_arrays = match_arrays(shards, facts_of, splits[shards.split], findings)
        arrays.setdefault(shards.stream, {})[shards.split] = clip_arrays
    check_extra(stream_shards, facts_of, {name: split for name, split in splits.items() if split}, arrays, findings)
    return arrays


def _check_index(root: Path, split: str, streams: Mapping[str, StreamLocation], findings: Findings) -> None:
    file = next((file for file in index_files(root, split) if file.is_file()), None)
    if file is None:
        return
    try:
        index = Index(file, root)
        stale = index.stale_reason(split, streams) or next(filter(None, map(index.changed_file, index.streams)), None)
    except UserError as error:
        stale = str(error)
    if stale:
        findings.add("index-stale", [file.name], split, detail=stale)
