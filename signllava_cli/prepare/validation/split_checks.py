"""What splits share that must not be shared, and references that stand in their own context."""

from collections.abc import Sequence

from signllava_cli.data.annotations import Recording
from signllava_cli.data.leaks import find_leaked_references
from signllava_cli.data.words import words
from signllava_cli.prepare.validation.annotation_checks import AnnotatedSplit
from signllava_cli.prepare.validation.checks import MAX_CHANCE_LEAKS, MIN_SHARED_WORDS
from signllava_cli.prepare.validation.findings import Findings


def check_context(split: str, recordings: Sequence[Recording], window: int, prelude: int, findings: Findings) -> None:
    """References in their own gold context: by chance, or so many that the recordings must be wrong."""
    leaked = find_leaked_references(recordings, window, prelude)
    clips = sum(len(recording.clips) for recording in recordings)
    many = len(leaked) > max(1, MAX_CHANCE_LEAKS * clips)
    share = f"{len(leaked)} of {clips} clips, window {window}, prelude {prelude}"
    findings.add("context-leak-many" if many else "context-leak", leaked, split, detail=share)


def check_between_splits(splits: Sequence[AnnotatedSplit], train: str, findings: Findings) -> None:
    """Recordings and clips that stand in two splits, and texts of other splits that `train` has, too."""
    ids = {split.name: split.clip_ids for split in splits}
    for index, split in enumerate(splits):
        for other in splits[:index]:
            detail = f"{other.name} has them, too"
            recordings = (recording for recording in split.content if recording in other.content)
            findings.add("recording-shared", recordings, split.name, detail=detail)
            clips = (clip for clip in ids[split.name] if clip in ids[other.name])
            findings.add("clip-shared", clips, split.name, detail=detail)
    trained = {
        _said(clip.translation)
        for split in splits
        if split.name == train
        for recording in split.recordings
        for clip in recording.clips
    }
    for split in splits:
        for recording in split.recordings if split.name != train else ():
            for clip in recording.clips:
                said = _said(clip.translation)
                if said and said in trained:
                    short = len(said) < MIN_SHARED_WORDS
                    findings.add("text-shared-short" if short else "text-shared", [clip.id], split.name)


def _said(text: str) -> tuple[str, ...]:
    return tuple(words(text))
