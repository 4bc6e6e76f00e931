"""Compares the arrays of each stream with the annotation: wrong shards, missing arrays, invalid values."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from signllava_cli.data.clip_arrays import ArrayMatcher, ClipNames
from signllava_cli.prepare.validation.annotation_checks import AnnotatedSplit
from signllava_cli.prepare.validation.findings import Findings
from signllava_cli.prepare.validation.shard_reader import ArrayFacts, ShardFacts
from signllava_cli.prepare.validation.stream_checks import StreamShards

ClipArrays = Mapping[str, ArrayFacts]  # by `recording/clip`


def match_arrays(
    shards: StreamShards, facts_of: Mapping[Path, ShardFacts], split: AnnotatedSplit | None, findings: Findings
) -> ClipArrays:
    """The array of each clip of the split that has one; without an annotation, every array.

    Adds findings for recordings that are not in the shard that the metadata names, and for clips without array.
    """

    def add(name: str, names: Iterable[str], detail: str = "") -> None:
        findings.add(name, names, shards.split, shards.stream, detail)

    files = list(dict.fromkeys(shards.file_of.values()))
    arrays_in = {file: {f"{a.recording}/{a.clip}": a for a in facts_of[file].arrays} for file in files}
    files_of: dict[str, list[Path]] = {}  # recording -> shards with a group of that name
    non_groups: dict[str, str] = {}  # recording -> the error of an entry of that name that is not a group
    for file in files:
        for array in facts_of[file].arrays:
            if not array.clip:
                non_groups[array.recording] = "; ".join(array.failed_checks.values())
        for name in dict.fromkeys(array.recording for array in facts_of[file].arrays if array.clip):
            files_of.setdefault(name, []).append(file)
        if facts_of[file].error:
            add("shard-unreadable", [file.name], facts_of[file].error)
    if split is None:
        return {clip: facts for arrays in arrays_in.values() for clip, facts in arrays.items()}
    matched: dict[str, ArrayFacts] = {}
    in_other_groups, ambiguous = _match_other_groups(shards, facts_of, split)
    for clip_id, locations in ambiguous.items():
        add("features-ambiguous", [clip_id], locations)
    for recording in split.recordings:
        if not recording.clips or recording.name in shards.invalid:
            continue
        other_ids = {clip.id for clip in recording.clips if clip.id in in_other_groups or clip.id in ambiguous}
        matched |= {clip: in_other_groups[clip] for clip in other_ids if clip in in_other_groups}
        shard = shards.shard_of.get(recording.name)
        shard_file = shards.file_of.get(shard) if shard is not None else None
        recording_files = files_of.get(recording.name, [])
        if other_ids and not recording_files:
            add("features-missing", (clip.id for clip in recording.clips if clip.id not in other_ids))
            continue
        if shard is not None and (shard_file is None or (facts_of[shard_file].error and not recording_files)):
            continue  # a missing or unreadable shard is a finding of its own
        if not recording_files:
            add("recording-without-features", [recording.name], non_groups.get(recording.name, ""))
        elif shard is None:
            add("recording-not-in-metadata", [recording.name], f"{recording.name} is in {recording_files[0].name}")
        elif shard_file not in recording_files:
            add("recording-in-wrong-shard", [recording.name], f"{recording.name} is in {recording_files[0].name}")
        else:
            if len(recording_files) > 1:
                names = " and ".join(file.name for file in recording_files[:2])
                add("recording-in-two-shards", [recording.name], f"{recording.name} is in {names}")
            arrays = arrays_in[shard_file]
            matched |= {clip.id: arrays[clip.id] for clip in recording.clips if clip.id in arrays}
            if not facts_of[shard_file].error:
                ids_with_array = arrays.keys() | other_ids
                add("features-missing", (clip.id for clip in recording.clips if clip.id not in ids_with_array))
    return matched


def _match_other_groups(
    shards: StreamShards, facts_of: Mapping[Path, ShardFacts], split: AnnotatedSplit
) -> tuple[ClipArrays, Mapping[str, str]]:
    """The clips whose array is in a group other than the recording's, and those with two such arrays.

    Returns clip -> array, and ambiguous clip -> the two locations. Training finds the same arrays.
    """
    names = ClipNames([clip for recording in split.recordings for clip in recording.clips])
    matcher: ArrayMatcher[ArrayFacts] = ArrayMatcher(names, shards.shard_of, shards.file_of)
    files = dict.fromkeys(shards.file_of.values())
    arrays = ((file, array) for file in files for array in facts_of[file].arrays if array.clip)
    pairs = ((names.clips[row], facts) for row, _, facts in matcher.match(arrays))
    in_other_groups = {clip.id: facts for clip, facts in pairs if facts.recording != clip.recording}
    return in_other_groups, {names.clips[row].id: matcher.format_ambiguous(row) for row in matcher.ambiguous}


def check_extra(
    streams: Sequence[StreamShards],
    facts_of: Mapping[Path, ShardFacts],
    splits: Mapping[str, AnnotatedSplit],
    matched: Mapping[str, Mapping[str, ClipArrays]],
    findings: Findings,
) -> None:
    """Add a finding for arrays of no annotated clip. A file that several splits share is compared with all of them.

    `matched`: stream -> split -> the arrays of its clips, which may be in groups of other names.
    """
    clip_ids = {name: split.clip_ids for name, split in splits.items()}
    used = {
        stream: {f"{facts.recording}/{facts.clip}" for arrays in by_split.values() for facts in arrays.values()}
        for stream, by_split in matched.items()
    }
    streams_of: dict[Path, list[StreamShards]] = {}  # shard -> the streams and splits that read it
    for shards in streams:
        for file in dict.fromkeys(shards.file_of.values()):
            streams_of.setdefault(file, []).append(shards)
    for file, readers in streams_of.items():
        if not all(shards.split in clip_ids for shards in readers):
            continue
        array_ids = (f"{array.recording}/{array.clip}" for array in facts_of[file].arrays if array.clip)
        known_ids = [used[readers[0].stream], *(clip_ids[shards.split] for shards in readers)]
        extra = (array_id for array_id in array_ids if not any(array_id in ids for ids in known_ids))
        findings.add("features-extra", extra, readers[0].split, readers[0].stream)


def check_arrays(split: str, stream: str, arrays: ClipArrays, width: int | None, findings: Findings) -> None:
    """Add the findings of the arrays themselves. `width`: the expected one."""
    for clip, facts in arrays.items():
        for name, detail in facts.failed_checks.items():
            findings.add(name, [clip], split, stream, detail and f"{clip}: {detail}")
        has_shape = facts.frames or facts.width  # an entry that is not an array of numbers has neither
        if width is not None and has_shape and facts.width != width:
            findings.add("features-width", [clip], split, stream, f"{clip}: {facts.width} instead of {width}")


def check_width(stream: str, arrays: Mapping[str, ClipArrays], width: int, findings: Findings) -> bool:
    """Whether the recipe's `width` is wrong: all arrays of the stream have one other width. `arrays`: by split."""
    splits_of_width: dict[int, list[str]] = {}
    for split, split_arrays in arrays.items():
        for array_width in {facts.width for facts in split_arrays.values() if facts.width}:
            splits_of_width.setdefault(array_width, []).append(split)
    if len(splits_of_width) != 1 or width in splits_of_width:
        return False
    ((array_width, splits),) = splits_of_width.items()
    fix = f"Set the recipe's width to that of the arrays: --set streams.{stream}.width={array_width}"
    findings.add("stream-width", splits, None, stream, f"{array_width}, not {width}", fix)
    return True


def most_common_width(arrays: Iterable[ClipArrays]) -> int | None:
    """The most common width of the arrays of a stream. `arrays`: one mapping per split."""
    widths = Counter(facts.width for split_arrays in arrays for facts in split_arrays.values() if facts.width)
    return widths.most_common(1)[0][0] if widths else None


def check_repeated(stream: str, arrays: Mapping[str, ClipArrays], findings: Findings) -> None:
    """Add findings for different clips with the same frames, in one split or in two. `arrays`: by split."""
    clips_of: dict[bytes, list[tuple[str, str]]] = {}  # digest -> (split, clip)
    for split, split_arrays in arrays.items():
        for clip, facts in split_arrays.items():
            if facts.digest:
                clips_of.setdefault(facts.digest, []).append((split, clip))
    for clips in clips_of.values():
        if len(clips) > 1:
            num_in_split = Counter(split for split, _ in clips)
            detail = " = ".join(f"{split} {clip}" for split, clip in clips[:2])
            for split, clip in clips:
                if num_in_split[split] > 1:
                    findings.add("features-repeated", [clip], split, stream, detail)
                if len(num_in_split) > 1:
                    findings.add("features-shared", [clip], split, stream, detail)
