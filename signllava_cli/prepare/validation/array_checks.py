"""The arrays of each stream, held against the annotation: where recordings lie, and what their clips lack."""

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
    shards: StreamShards, read: Mapping[Path, ShardFacts], split: AnnotatedSplit | None, findings: Findings
) -> ClipArrays:
    """The array of each clip of the split that has one; without an annotation, every array.

    Finds recordings that do not lie where the metadata says, clips without array, and arrays without clip.
    """

    def found(name: str, names: Iterable[str], detail: str = "") -> None:
        findings.add(name, names, shards.split, shards.stream, detail)

    files = list(dict.fromkeys(shards.file_of.values()))
    arrays = {file: {f"{each.recording}/{each.clip}": each for each in read[file].arrays} for file in files}
    lies_in: dict[str, list[Path]] = {}
    no_group: dict[str, str] = {}  # recording -> what stands in place of its group
    for file in files:
        no_group |= {
            each.recording: "; ".join(each.failed_checks.values()) for each in read[file].arrays if not each.clip
        }
        for name in dict.fromkeys(each.recording for each in read[file].arrays if each.clip):
            lies_in.setdefault(name, []).append(file)
        if read[file].error:
            found("shard-unreadable", [file.name], read[file].error)
    if split is None:
        return {clip: facts for its in arrays.values() for clip, facts in its.items()}
    chosen: dict[str, ArrayFacts] = {}
    elsewhere, ambiguous = _in_other_groups(shards, read, split)
    for clip, both in ambiguous.items():
        found("features-ambiguous", [clip], both)
    for recording in split.recordings:
        if not recording.clips or recording.name in shards.unclear:
            continue
        grouped_otherwise = {clip.id for clip in recording.clips if clip.id in elsewhere or clip.id in ambiguous}
        chosen |= {clip: elsewhere[clip] for clip in grouped_otherwise if clip in elsewhere}
        named = shards.shard_of.get(recording.name)
        file_named = shards.file_of.get(named) if named is not None else None
        here = lies_in.get(recording.name, [])
        if grouped_otherwise and not here:
            found("features-missing", (clip.id for clip in recording.clips if clip.id not in grouped_otherwise))
            continue
        if named is not None and (file_named is None or (read[file_named].error and not here)):
            continue  # the shard is missing or unreadable, which is a finding of its own
        if not here:
            found("recording-without-features", [recording.name], no_group.get(recording.name, ""))
        elif named is None:
            found("recording-not-in-metadata", [recording.name], f"{recording.name} lies in {here[0].name}")
        elif file_named not in here:
            found("recording-in-wrong-shard", [recording.name], f"{recording.name} lies in {here[0].name}")
        else:
            if len(here) > 1:
                both = f"{recording.name} lies in {here[0].name} and {here[1].name}"
                found("recording-in-two-shards", [recording.name], both)
            its = arrays[file_named]
            chosen |= {clip.id: its[clip.id] for clip in recording.clips if clip.id in its}
            if not read[file_named].error:
                there = its.keys() | grouped_otherwise
                found("features-missing", (clip.id for clip in recording.clips if clip.id not in there))
    return chosen


def _in_other_groups(
    shards: StreamShards, read: Mapping[Path, ShardFacts], split: AnnotatedSplit
) -> tuple[ClipArrays, Mapping[str, str]]:
    """By clip, the array that training finds in another group than its recording's; or two places of such arrays."""
    names = ClipNames([clip for recording in split.recordings for clip in recording.clips])
    matcher: ArrayMatcher[ArrayFacts] = ArrayMatcher(names, shards.shard_of, shards.file_of)
    files = dict.fromkeys(shards.file_of.values())
    listed = ((file, each) for file in files for each in read[file].arrays if each.clip)
    matched = ((names.clips[row], facts) for row, _, facts in matcher.match(listed))
    elsewhere = {clip.id: facts for clip, facts in matched if facts.recording != clip.recording}
    return elsewhere, {names.clips[row].id: matcher.format_ambiguous(row) for row in matcher.ambiguous}


def check_extra(
    opened: Sequence[StreamShards],
    read: Mapping[Path, ShardFacts],
    splits: Mapping[str, AnnotatedSplit],
    chosen: Mapping[str, Mapping[str, ClipArrays]],
    findings: Findings,
) -> None:
    """Arrays of no annotated clip. A file that several splits share is held against all of them.

    `chosen`: stream -> split -> the arrays of its clips, which may lie in groups of other names.
    """
    ids = {name: split.clip_ids for name, split in splits.items()}
    used = {
        stream: {f"{facts.recording}/{facts.clip}" for arrays in its.values() for facts in arrays.values()}
        for stream, its in chosen.items()
    }
    sharing: dict[Path, list[StreamShards]] = {}
    for shards in opened:
        for file in dict.fromkeys(shards.file_of.values()):
            sharing.setdefault(file, []).append(shards)
    for file, its_splits in sharing.items():
        if not all(shards.split in ids for shards in its_splits):
            continue
        clips = (f"{each.recording}/{each.clip}" for each in read[file].arrays if each.clip)
        known = [used[its_splits[0].stream], *(ids[shards.split] for shards in its_splits)]
        extra = (clip for clip in clips if not any(clip in each for each in known))
        findings.add("features-extra", extra, its_splits[0].split, its_splits[0].stream)


def check_arrays(split: str, stream: str, arrays: ClipArrays, width: int | None, findings: Findings) -> None:
    """What is wrong with the arrays themselves. `width`: what the stream's arrays should have."""
    for clip, facts in arrays.items():
        for name, detail in facts.failed_checks.items():
            findings.add(name, [clip], split, stream, detail and f"{clip}: {detail}")
        readable = facts.frames or facts.width  # what is no array of numbers has neither
        if width is not None and readable and facts.width != width:
            findings.add("features-width", [clip], split, stream, f"{clip}: {facts.width} in place of {width}")


def check_width(stream: str, arrays: Mapping[str, ClipArrays], width: int, findings: Findings) -> bool:
    """Whether the recipe's `width` is wrong: all arrays of the stream have one other width. `arrays`: by split."""
    splits_of_width: dict[int, list[str]] = {}
    for split, its in arrays.items():
        for other in {facts.width for facts in its.values() if facts.width}:
            splits_of_width.setdefault(other, []).append(split)
    if len(splits_of_width) != 1 or width in splits_of_width:
        return False
    ((other, splits),) = splits_of_width.items()
    setting = f"Give the recipe the width of the arrays: --set streams.{stream}.width={other}"
    findings.add("stream-width", splits, None, stream, f"{other}, not {width}", setting)
    return True


def most_common_width(arrays: Iterable[ClipArrays]) -> int | None:
    """The width that most arrays of a stream have."""
    widths = Counter(facts.width for its in arrays for facts in its.values() if facts.width)
    return widths.most_common(1)[0][0] if widths else None


def check_repeated(stream: str, arrays: Mapping[str, ClipArrays], findings: Findings) -> None:
    """Different clips with the same frames, in one split or in two. `arrays`: by split."""
    same: dict[bytes, list[tuple[str, str]]] = {}
    for split, its in arrays.items():
        for clip, facts in its.items():
            if facts.digest:
                same.setdefault(facts.digest, []).append((split, clip))
    for clips in same.values():
        if len(clips) > 1:
            in_splits = Counter(split for split, _ in clips)
            listed = " = ".join(f"{split} {clip}" for split, clip in clips[:2])
            for split, clip in clips:
                if in_splits[split] > 1:
                    findings.add("features-repeated", [clip], split, stream, listed)
                if len(in_splits) > 1:
                    findings.add("features-shared", [clip], split, stream, listed)
