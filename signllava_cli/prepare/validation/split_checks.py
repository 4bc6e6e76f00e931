"""Checks what splits share, and which references are in their own context."""

from collections.abc import Sequence

from signllava_cli.data.annotations import Recording
from signllava_cli.data.leaks import find_leaked_references
from signllava_cli.data.words import words
from signllava_cli.prepare.validation.annotation_checks import AnnotatedSplit
from signllava_cli.prepare.validation.checks import MAX_CHANCE_LEAKS, MIN_SHARED_WORDS
from signllava_cli.prepare.validation.findings import Findings


def check_context(split: str, recordings: Sequence[Recording], window: int, prelude: int, findings: Findings) -> None:
    """Add a finding for references in their own gold context: a few by chance, or too many for that."""
    leaked_ids = find_leaked_references(recordings, window, prelude)
    num_clips = sum(len(recording.clips) for recording in recordings)
    exceeds_chance = len(leaked_ids) > max(1, MAX_CHANCE_LEAKS * num_clips)
    detail = f"{len(leaked_ids)} of {num_clips} clips, window {window}, prelude {prelude}"
    findings.add("context-leak-many" if exceeds_chance else "context-leak", leaked_ids, split, detail=detail)


def check_between_splits(splits: Sequence[AnnotatedSplit], train: str, findings: Findings) -> None:
    """Add findings for recordings and clips of two splits, and for texts that are also in `train`."""
    ids = {split.name: split.clip_ids for split in splits}
    for index, split in enumerate(splits):
        for other in splits[:index]:
            detail = f"also in {other.name}"
            recordings = (recording for recording in split.content if recording in other.content)
            findings.add("recording-shared", recordings, split.name, detail=detail)
            clips = (clip for clip in ids[split.name] if clip in ids[other.name])
            findings.add("clip-shared", clips, split.name, detail=detail)
    train_texts = {
        tuple(words(clip.translation))
        for split in splits
        if split.name == train
        for recording in split.recordings
        for clip in recording.clips
    }
    for split in splits:
        for recording in split.recordings if split.name != train else ():
            for clip in recording.clips:
                text = tuple(words(clip.translation))
                if text and text in train_texts:
                    is_short = len(text) < MIN_SHARED_WORDS
                    findings.add("text-shared-short" if is_short else "text-shared", [clip.id], split.name)
