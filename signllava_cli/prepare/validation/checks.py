"""The table of checks: name, severity, problem, fix, and whether `--fix` makes it."""

from dataclasses import dataclass
from typing import Literal

from signllava_cli.data.projector_inputs import MAX_CUT

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")

# A few references in their own gold context are repetitions in the signing. How2Sign grouped by VIDEO_NAME has 0.4 %;
# grouped by VIDEO_ID, with two signers in one recording, 12 to 17 %.
MAX_CHANCE_LEAKS = 0.05
MIN_CLIP_SECONDS = 0.5
MAX_OVERLAP_SECONDS = 0.1  # smaller overlaps are rounding errors
MIN_SHARED_WORDS = 4  # shorter texts are common phrases, which occur in train and in test
MIN_CONSTANT_FRAMES = 5
MIN_HAND_SHARE = 0.5  # of the frames of a recording
MAX_LENGTH_RATIO = 3.0  # of two streams, relative to the median ratio


@dataclass(frozen=True)
class Check:
    """A check that a dataset can fail.

    `severity`: an `error` corrupts training or scores, a `warning` probably does, a `note` is worth knowing. `what`
    (the problem) and `fix` (what to do) are sentences. `fixable`: `--fix` makes the fix.
    """

    name: str
    severity: Severity
    what: str
    fix: str
    fixable: bool = False


def _error(name: str, what: str, fix: str, fixable: bool = False) -> Check:
    return Check(name, "error", what, fix, fixable)


def _warning(name: str, what: str, fix: str, fixable: bool = False) -> Check:
    return Check(name, "warning", what, fix, fixable)


def _note(name: str, what: str, fix: str, fixable: bool = False) -> Check:
    return Check(name, "note", what, fix, fixable)


_REPACK_FIX = (
    "Extract these features again and `prepare pack ... --overwrite`, or remove the clips from the annotation."
)
_MISSING_FIX = (
    "Pack the missing features with `prepare pack ... --overwrite`, or remove the clips from the annotation; with "
    "data.missing=skip training skips them, and scores count them as empty."
)
_RECOPY_FIX = "Copy it again, or pack it again: `signllava prepare pack ... --overwrite`."

_ALL_CHECKS = (
    # the annotation file
    _error("annotation-missing", "A split has no annotation file.", "Create it with `signllava prepare`."),
    _error("annotation-unreadable", "An annotation file cannot be read.", "Copy it again, or import it again."),
    _error("annotation-key-twice", "A JSON object has a key twice; only the last value is read.",
           "Rename or remove one by hand."),
    _error("annotation-empty", "An annotation file holds no valid clip.", "Import it again."),
    _error("recording-malformed", "A recording is not an object with a `clip_order` list of texts.",
           "Add the clip_order; remove a recording that is not an object.", True),
    _error("clip-malformed", "The entry of a clip is malformed.", "Fix the entry, or remove the clip.", True),
    _error("name-unusable", "A name is not valid in an HDF5 path.",
           "Rename it in the annotation and the features.", True),
    _error("text-not-unicode", "A text is not valid Unicode: it holds half a surrogate pair.",
           "Fix the text, or remove the clip.", True),
    _error("clip-order-unknown", "clip_order names a clip that has no entry.", "Remove the name.", True),
    _error("clip-order-repeats", "clip_order names a clip more than once.", "Remove the repetitions.", True),
    _error("clip-order-misses", "clip_order lacks a clip, so the clip is never used.",
           "Insert it by its start time.", True),
    _warning("recording-empty", "A recording has no clips.", "Import it again, or remove it.", True),
    # texts
    _error("text-empty", "A translation is empty.", "Remove the clip.", True),
    _error("text-nan", "A translation is `nan` or `<none>`: the model would learn to generate it.",
           "Remove the clip.", True),
    _warning("text-no-words", "A translation has no letter and no digit.", "Remove the clip."),
    _warning("text-is-sound-caption", "A translation is only a caption of sound: `[music]`, `(applause)`, `♪ ... ♪`.",
             "Remove the clip if nothing was signed: some texts are in brackets for other reasons."),
    _note("text-is-number", "A translation is a bare number.",
          "Check that the text was imported from the right column."),
    _note("text-markup", "A text contains a tag or a special token. It is plain text here; other tools lose labels.",
          "Remove the markup if other tools read the file."),
    _note("text-repeated", "A clip has the text of the clip before it.",
          "Check whether it was signed twice or annotated twice."),
    _warning("clip-duplicate", "A clip has the text and the times of another clip of its recording.",
             "Remove one.", True),
    _note("paraphrase-none", "A paraphrase is a placeholder (empty, `nan`, `<none>`). It is skipped here.",
          "Remove it.", True),
    _warning("paraphrases-shared", "Clips with different translations have the same list of paraphrases.",
             "Find the rows that were mixed up, and merge them again; else remove these paraphrases.", True),
    _note("paraphrase-equals-text", "A paraphrase is the translation itself.", "Remove it.", True),
    _warning("keyword-not-in-sentence", "A keyword is not in the translation, so no task uses it.",
             "Remove it, or choose keywords again with `signllava prepare keywords --replace`.", True),
    _note("keyword-case", "A keyword is written differently in the translation. Case is ignored here.",
          "Use the spelling of the translation.", True),
    # times
    _warning("clip-order-time",
             "clip_order is not the order of the start times, so the context is in the wrong order.",
             "Order the clips by start time.", True),
    _warning("clip-time-reversed", "A clip ends before it begins.",
             "Correct its times and extract its features again."),
    _warning("clips-overlap", f"A clip begins more than {MAX_OVERLAP_SECONDS} s before an earlier one has ended.",
             "Nothing if clips were cut with margins, as in How2Sign's realigned table; else correct their times."),
    _warning("clips-overlap-signers", "Overlapping clips are of several signers, or annotated twice.",
             "Use one recording per signer: import How2Sign with --group-by video-name; keep one annotation of a "
             "video."),
    _warning("clip-short", f"A clip is shorter than {MIN_CLIP_SECONDS} s.", "Correct its times, or remove the clip."),
    # context and splits
    _warning("context-leak", "A clip's own reference is in its gold context.",
             "Check whether it was signed twice; mention it when reporting scores with gold context."),
    _error("context-leak-many",
           f"More than {MAX_CHANCE_LEAKS:.0%} of the clips have their reference in their gold context.",
           "Use one recording per signer: group How2Sign by VIDEO_NAME, not by VIDEO_ID."),
    _warning("text-shared", f"A text of {MIN_SHARED_WORDS} words or more is also in the training split.",
             "Remove it from the training split, or mention it when reporting scores."),
    _note("text-shared-short", f"A text of fewer than {MIN_SHARED_WORDS} words is also in the training split.",
          "Nothing if it is a common phrase."),
    _error("clip-shared", "A clip of one recording is in two splits.", "Remove it from the training split."),
    _warning("recording-shared", "A recording is in two splits, which share its signer and topic.",
             "Keep each recording in one split. Do not change official splits such as those of PHOENIX-2014T; "
             "`generate --context-from` takes gold context from several splits."),
    _error("style-differs-wholly",
           "The texts of a split are written in another style than those of the training split.",
           "Import all splits from one release, with one tokenization; else scores measure the style."),
    _note("style-differs", "Some texts of a split are written in another style than those of the training split.",
          "Check that the splits come from tables of one release."),
    _note("data-path", "The path contains `metadata_` or `.json`. This is harmless here, but breaks Sign_LLaVA.",
          "Rename the folder if Sign_LLaVA reads it."),
    # the files of a stream
    _warning("streams-none", "The folder has no stream.", "Pack features with `signllava prepare pack`."),
    _error("stream-folder-missing", "A stream has no folder.", "Pack the stream, or set streams.NAME.folder."),
    _error("metadata-missing", "A stream has no metadata file for a split.",
           "Pack the stream, or set streams.NAME.metadata."),
    _error("metadata-unreadable", "A metadata file cannot be read.", _RECOPY_FIX),
    _error("shard-name-invalid", "The shard of a recording is neither a number nor a valid name.",
           "Correct the metadata file."),
    _error("shard-missing", "A shard that the metadata names is missing.", _RECOPY_FIX),
    _error("shard-unreadable", "A shard cannot be read completely.", _RECOPY_FIX),
    _note("shard-stray", "No metadata file names a shard, so it is not read.",
          "Add it to the metadata file, or remove it."),
    _error("recording-in-wrong-shard", "A recording is in another shard than the metadata says.",
           "Correct the metadata file, or link the shards with `signllava prepare link`."),
    _warning("recording-in-two-shards", "A recording is in two shards; the one that the metadata names is read.",
             "Remove it from the other."),
    _error("recording-not-in-metadata", "A recording is in a shard, but not in the metadata.",
           "Add it to the metadata file, or link the shards with `signllava prepare link`."),
    _error("recording-without-features", "A recording has no features.", _MISSING_FIX, True),
    # arrays
    _error("features-missing", "A clip has no array.", _MISSING_FIX, True),
    _error("features-ambiguous", "Two groups, neither named after the recording, hold an array of a clip's name.",
           "Remove one of the arrays, or remove one group from the metadata."),
    _note("features-extra", "An array belongs to no annotated clip.",
          "Nothing if the clips were removed on purpose."),
    _error("features-no-array", "A group or a broken link is in the place of an array.", _REPACK_FIX, True),
    _error("features-not-numbers", "An array is not numeric.", _REPACK_FIX, True),
    _error("features-shape", "An array is not of shape (frames, width).", _REPACK_FIX, True),
    _error("features-width", "An array has another width than its stream.",
           "Extract and pack the features again, or remove the clips.", True),
    _error("stream-width", "All arrays of a stream have the same width, but the recipe has another.",
           "Set the recipe's width to that of the arrays: `--set streams.NAME.width=WIDTH`."),
    _error("features-empty", "An array has no frames.", _MISSING_FIX, True),
    _error("features-nan", "An array holds NaN.", _REPACK_FIX, True),
    _error("features-inf", "An array holds an infinite value, or one outside the range of float16.",
           "Scale the features, or extract them again.", True),
    _error("features-zero", "All values of an array are zero, as after a failed extraction.", _REPACK_FIX, True),
    _warning("features-constant", "All frames of an array are equal.", _REPACK_FIX),
    _error("features-damaged", "An array cannot be read.", _REPACK_FIX, True),
    _warning("features-dtype", "An array is not float16: it takes more space, and is rounded when read.",
             "Pack it again with `signllava prepare pack`."),
    _warning("features-repeated", "Different clips of a split have the same frames.", _REPACK_FIX),
    _error("features-shared", "Clips of different splits have the same frames.",
           "Remove them from the training split."),
    _warning("lengths-disagree",
             f"The ratio of a clip's lengths in two streams differs from the median by a factor above "
             f"{MAX_LENGTH_RATIO:.0f}.",
             "Check that both were extracted from the same frames."),
    _error("lengths-joined",
           f"Streams that the recipe joins differ in a clip by more than {MAX_CUT} frames, after stride.",
           "Set stride of the faster stream, extract its features again, or remove join from the recipe."),
    _warning("too-long",
             "A clip has more frames than fit into data.max_seq_len. Frames are subsampled here; other tools lose "
             "the answer.",
             "Raise data.max_seq_len, or set stack, stride or max_frames of a stream."),
    _warning("context-too-long",
             "With its context, a clip does not fit with data.min_frames frames per stream. Context "
             "sentences are removed.",
             "Raise data.max_seq_len, or lower context.window or context.prelude."),
    _error("text-too-long", "Even without context, a clip's prompt and translation do not fit with data.min_frames "
           "frames per stream: training stops.",
           "Check that the translation is one sentence; remove the clip, or raise data.max_seq_len."),
    # videos, from the reports of `prepare extract`
    _warning("video-several-people", "A clip shows several people; the landmarks are those of one of them.",
             "Look at the contact sheet; remove the clip, or crop the video to the signer."),
    _warning("video-jumps", "The signer jumps within a clip, perhaps to somebody else.",
             "Look at the contact sheet; correct the times of the clip, or remove it."),
    _warning("video-hands-rare", f"A hand was found in fewer than {MIN_HAND_SHARE:.0%} of the frames of a recording.",
             "Nothing if the signer uses one hand; else look at the contact sheet."),
    _note("video-turned", "A video lies on its side, and was turned as its header says.",
          "Look at the contact sheet: some headers are wrong."),
    _note("video-report-unreadable", "The report of an extraction cannot be read.",
          "Extract the stream again, or remove the report."),
    # leftovers
    _note("index-stale", "The index is older than the files. It is rebuilt when it is needed.",
          "Nothing, or run `signllava prepare index`."),
    _note("file-half-written", "A stopped command has left a temporary file.", "Remove it if no command is running."),
)  # fmt: skip

CHECKS = {check.name: check for check in _ALL_CHECKS}
