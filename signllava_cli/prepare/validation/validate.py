"""The examination of a dataset folder, from the annotation files down to every frame."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from signllava_cli.data.annotations import annotation_file
from signllava_cli.data.index import Index
from signllava_cli.data.prompts import PromptBuilder
from signllava_cli.data.stream_files import StreamLocation
from signllava_cli.errors import UserError
from signllava_cli.prepare.dataset_folder import list_splits
from signllava_cli.prepare.indexing import index_file
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
from signllava_cli.prepare.validation.length_checks import check_agreement, check_fit
from signllava_cli.prepare.validation.shard_pool import read_shards
from signllava_cli.prepare.validation.split_checks import check_between_splits, check_context
from signllava_cli.prepare.validation.stream_checks import StreamShards, check_leftovers, detect_streams, find_shards
from signllava_cli.prepare.validation.style_checks import check_style
from signllava_cli.prepare.validation.text_checks import check_texts
from signllava_cli.prepare.validation.time_checks import check_times
from signllava_cli.recipe import Recipe


@dataclass(frozen=True)
class ValidationRequest:
    """What is to be examined.

    `recipe`: whose streams, splits and context are meant; when it names no streams, every stream and split in the
    folder. `prompts`: the recipe's, to count the positions of texts. `splits`: these alone. `fps`: of frames in clip
    names. `fast`: arrays are judged by their shapes alone.
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
    """What was found in a dataset folder, and how much of it was looked at.

    `clips`: split -> annotated clips. `arrays` and `frames`: stream -> how many of annotated clips, over all splits.
    `widths`: stream -> that of most arrays, or the recipe's.
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
    """Look for everything in the catalogue.

    Raises:
        UserError: there is no such folder.
    """
    start_time, findings = time.monotonic(), Findings()
    root, recipe = request.root, request.recipe
    if not root.is_dir():
        raise UserError(f"No data folder at {root}; `signllava prepare --help` names what makes one.")
    if "metadata_" in str(root.absolute()) or ".json" in str(root.absolute()):
        findings.add("data-path", [str(root.absolute())])
    read = _check_annotations(request, findings)
    splits = {name: split for name, split in read.items() if split is not None}
    streams: Mapping[str, StreamLocation] = recipe.streams or detect_streams(root)
    if not streams:
        findings.add("streams-none", [str(root)])
    arrays = _check_shards(request, streams, read, findings)
    widths = {
        name: recipe.streams[name].width if recipe.streams else most_common_width(its.values())
        for name, its in arrays.items()
    }
    for name, its in arrays.items():
        recipe_is_wrong = bool(recipe.streams) and check_width(name, its, recipe.streams[name].width, findings)
        for in_split, of_clips in its.items():
            check_arrays(in_split, name, of_clips, None if recipe_is_wrong else widths[name], findings)
        check_repeated(name, its, findings)
    for split in splits.values():
        of_split = {name: its[split.name] for name, its in arrays.items() if split.name in its}
        check_agreement(split.name, of_split, findings)
        check_fit(split.name, split.recordings, of_split, recipe, request.prompts, findings)
        _check_index(root, split.name, recipe.streams, findings)
    return ValidationResult(
        root=root,
        findings=findings.sorted(),
        clips={name: len(split.clip_ids) for name, split in splits.items()},
        arrays={name: sum(map(len, its.values())) for name, its in arrays.items()},
        frames={
            name: sum(each.frames for of in its.values() for each in of.values()) for name, its in arrays.items()
        },
        widths=widths,
        seconds=time.monotonic() - start_time,
        splits=list(splits.values()),
    )


def _check_annotations(request: ValidationRequest, findings: Findings) -> dict[str, AnnotatedSplit | None]:
    """The splits whose annotation is there; None where it cannot be read."""
    context = request.recipe.context
    read: dict[str, AnnotatedSplit | None] = {}
    for name in _split_names(request, findings):
        split = check_annotation(request.root, name, findings)
        if split is not None:
            check_texts(name, split.recordings, findings)
            check_times(name, split.recordings, request.fps, findings)
            check_context(name, split.recordings, context.window, context.prelude, findings)
        if annotation_file(request.root, name).is_file():
            read[name] = split
    readable = [split for split in read.values() if split]
    check_between_splits(readable, request.recipe.data.train, findings)
    check_style(readable, request.recipe.data.train, findings)
    return read


def _split_names(request: ValidationRequest, findings: Findings) -> list[str]:
    if request.splits:
        return list(dict.fromkeys(request.splits))
    try:
        there = list_splits(request.root)
    except UserError:
        there = []
        findings.add("annotation-missing", [annotation_file(request.root, "SPLIT").name])
    of_recipe = [request.recipe.data.train, request.recipe.data.dev] if request.recipe.streams else []
    return list(dict.fromkeys([*there, *of_recipe]))


def _check_shards(
    request: ValidationRequest,
    streams: Mapping[str, StreamLocation],
    splits: Mapping[str, AnnotatedSplit | None],
    findings: Findings,
) -> dict[str, dict[str, ClipArrays]]:
    """stream -> split -> the arrays of its clips."""
    opened: list[StreamShards] = []
    for name, config in streams.items():
        for split in splits:
            if shards := find_shards(request.root, split, name, config, findings):
                opened.append(shards)
    check_leftovers(request.root, opened, findings)
    files = (file for shards in opened for file in shards.file_of.values())
    read = read_shards(files, request.workers, request.fast)
    arrays: dict[str, dict[str, ClipArrays]] = {}
    for shards in opened:
        its = match_arrays(shards, read, splits[shards.split], findings)
        arrays.setdefault(shards.stream, {})[shards.split] = its
    check_extra(opened, read, {name: split for name, split in splits.items() if split}, arrays, findings)
    return arrays


def _check_index(root: Path, split: str, streams: Mapping[str, StreamLocation], findings: Findings) -> None:
    file = index_file(root, split)
    if not file.is_file():
        return
    try:
        index = Index(file, root)
        stale = index.stale_reason(split, streams) or next(filter(None, map(index.changed_file, index.streams)), None)
    except UserError as error:
        stale = str(error)
    if stale:
        findings.add("index-stale", [file.name], split, detail=stale)
