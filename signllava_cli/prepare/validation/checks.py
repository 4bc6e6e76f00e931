"""Every finding that validation knows: how bad it is, what it is, its fix, and whether `--fix` has it."""

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")

# Of references in their own gold context a few are repetitions in the signing. How2Sign grouped by VIDEO_NAME has
# 0.4 %, and grouped by VIDEO_ID, with two signers in one recording, 12 to 17 %.
MAX_CHANCE_LEAKS = 0.05
MIN_CLIP_SECONDS = 0.5  # seconds
MAX_OVERLAP_SECONDS = 0.1  # seconds: less is rounding
MIN_SHARED_WORDS = 4  # a text of fewer is said in train and in test alike
MIN_CONSTANT_FRAMES = 5  # frames
MAX_LENGTH_RATIO = 3.0


@dataclass(frozen=True)
class Check:
    """A kind of finding. `error` spoils training or scores, `warning` probably does, `note` is worth knowing.

    `what` and `fix` are a sentence each; `fixable`: `--fix` fixes it.
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
    "Extract these features again and `prepare pack ... --overwrite`, or take the clips out of the annotation."
)
_RECOPY_FIX = "Copy it again, or pack it again: `signllava prepare pack ... --overwrite`."

_ALL_CHECKS = (
    # the annotation file
    _error("annotation-missing", "A split has no annotation file.", "Make it with `signllava prepare`."),
    _error("annotation-unreadable", "An annotation file cannot be read.", "Copy it again, or import it anew."),
    _error("annotation-key-twice", "JSON keeps only the last of two equal keys.", "Rename or remove one by hand."),
    _error("annotation-empty", "An annotation file holds no usable clip.", "Import it anew."),
    _error("recording-malformed", "A recording is no object with a `clip_order` list of texts.",
           "Write its clip_order; what is no object has to go.", True),
    _error("clip-malformed", "A clip is not as the format says.", "Fix the entry, or take the clip out.", True),
    _error("name-unusable", "A name cannot be a path in HDF5.", "Rename it in annotation and features.", True),
    _error("text-not-unicode", "A text holds half a surrogate pair.", "Write it anew, or take the clip out.", True),
    _error("clip-order-unknown", "clip_order names a clip that is not there.", "Take the name out.", True),
    _error("clip-order-repeats", "clip_order names a clip more than once.", "Keep one of them.", True),
    _error("clip-order-misses", "clip_order misses a clip, so it is never used.", "Put it in by its time.", True),
    _warning("recording-empty", "A recording has no clips.", "Import it anew, or take it out.", True),
    # texts
    _error("text-empty", "A translation is empty.", "Take the clip out.", True),
    _error("text-nan", "A translation is `nan` or `<none>`: the model would learn to say so.",
           "Take the clip out.", True),
    _warning("text-no-words", "A translation has no letter and no digit.", "Take the clip out."),
    _warning("text-is-sound-caption", "A translation is only a caption of sound: `[music]`, `(applause)`, `♪ ... ♪`.",
             "Take the clip out: nobody signs it.", True),
    _note("text-is-number", "A translation is a bare number.", "See that no column was mistaken for the text."),
    _note("text-markup", "A text spells a tag or a special token. Plain text here; other tools lose the labels.",
          "Take the markup out if other tools read the file."),
    _note("text-repeated", "A clip says what the clip before it says.",
          "See whether it was signed twice or annotated twice."),
    _warning("clip-duplicate", "A clip has text and times of another clip of its recording.", "Keep one.", True),
    _note("paraphrase-none", "A paraphrase says nothing (empty, `nan`, `<none>`). It is left out here.",
          "Take it out.", True),
    _warning("paraphrases-shared", "Clips with different translations have the same list of paraphrases.",
             "Look for the rows that were mixed up, and merge them again; else take these paraphrases out.", True),
    _note("paraphrase-equals-text", "A paraphrase is the translation itself.", "Take it out.", True),
    _warning("keyword-not-in-sentence", "A keyword does not stand in the translation: nothing is asked about it.",
             "Take it out, or choose keywords anew with `signllava prepare keywords --replace`.", True),
    _note("keyword-case", "A keyword is written differently in the translation. Case does not count here.",
          "Write it as in the translation.", True),
    # times
    _warning("clip-order-time", "clip_order is not in the order of time, so the context is not either.",
             "Order by time.", True),
    _warning("clip-time-reversed", "A clip ends before it begins.",
             "Look its times up and extract its features again."),
    _warning("clips-overlap", f"A clip begins more than {MAX_OVERLAP_SECONDS} s before an earlier one has ended.",
             "Nothing, if clips were cut loosely, as How2Sign's realigned ones; else look their times up."),
    _warning("clips-overlap-signers", "Overlapping clips are of several signers, or annotated twice.",
             "One recording per signer: import How2Sign with --group-by video-name; keep one annotation of a video."),
    _warning("clip-short", f"A clip is shorter than {MIN_CLIP_SECONDS} s.", "Look its times up, or take it out."),
    # context and splits
    _warning("context-leak", "A clip's own reference stands in its gold context.",
             "See whether it was signed twice; do not report gold context without saying so."),
    _error("context-leak-many",
           f"More than {MAX_CHANCE_LEAKS:.0%} of the clips have their reference in their gold context.",
           "One recording per signer: How2Sign is grouped by VIDEO_NAME, not by VIDEO_ID."),
    _warning("text-shared", f"A text of {MIN_SHARED_WORDS} words or more stands in the training split, too.",
             "Take it out of the training split, or say so with the scores."),
    _note("text-shared-short", f"A text of fewer than {MIN_SHARED_WORDS} words stands in the training split, too.",
          "Nothing, if it is a common phrase."),
    _error("clip-shared", "A clip of one recording stands in two splits.", "Take it out of the training split."),
    _warning("recording-shared", "A recording stands in two splits: they share a signer and a story.",
             "Keep each recording in one split, except in official splits such as PHOENIX-2014T's: leave these as "
             "they are. `generate --context-from` takes gold context out of several splits."),
    _error("style-differs-wholly", "The texts of a split are not written in the style of the training split.",
           "Import all splits from one release, with one tokenization: scores would measure the style."),
    _note("style-differs", "Texts of a split are written somewhat otherwise than those of the training split.",
          "See whether the splits come from tables of one release."),
    _note("data-path", "The path holds `metadata_` or `.json`. It does no harm here, but breaks Sign_LLaVA.",
          "Rename the folder if Sign_LLaVA reads it."),
    # the files of a stream
    _warning("streams-none", "The folder has no stream.", "Pack features with `signllava prepare pack`."),
    _error("stream-folder-missing", "A stream has no folder.", "Pack it, or set streams.NAME.folder."),
    _error("metadata-missing", "A stream has no metadata file for a split.",
           "Pack it, or set streams.NAME.metadata."),
    _error("metadata-unreadable", "A metadata file cannot be read.", _RECOPY_FIX),
    _error("shard-name-invalid", "The shard of a recording is no number and no name.", "Correct the metadata file."),
    _error("shard-missing", "A shard that the metadata names is not there.", _RECOPY_FIX),
    _error("shard-unreadable", "A shard cannot be read to its end.", _RECOPY_FIX),
    _note("shard-stray", "A shard is named by no metadata file, so it is not read.", "Name it there, or remove it."),
    _error("recording-in-wrong-shard", "A recording lies in another shard than the metadata says.",
           "Correct the metadata file, or take the shards up with `signllava prepare link`."),
    _warning("recording-in-two-shards", "A recording lies in two shards; the one that the metadata names is read.",
             "Remove the other."),
    _error("recording-not-in-metadata", "A recording lies in a shard, but the metadata does not name it.",
           "Add it to the metadata file, or take the shards up with `signllava prepare link`."),
    _error("recording-without-features", "A recording has no features at all.", _REPACK_FIX, True),
    # arrays
    _error("features-missing", "A clip has no array.", _REPACK_FIX, True),
    _error("features-ambiguous", "Two groups of other names than the recording's hold an array of a clip's name.",
           "Remove one of them, or take one group out of the metadata."),
    _note("features-extra", "An array belongs to no annotated clip.",
          "Nothing, if the clips were taken out on purpose."),
    _error("features-no-array", "A group or a broken link stands in place of an array.", _REPACK_FIX, True),
    _error("features-not-numbers", "An array does not hold numbers.", _REPACK_FIX, True),
    _error("features-shape", "An array is not of shape (frames, width).", _REPACK_FIX, True),
    _error("features-width", "An array has another width than its stream.",
           "Extract and pack them again, or take the clips out.", True),
    _error("stream-width", "All arrays of a stream have one width, and the recipe says another.",
           "Give the recipe the width of the arrays: `--set streams.NAME.width=WIDTH`."),
    _error("features-empty", "An array has no frames.", _REPACK_FIX, True),
    _error("features-nan", "An array holds NaN.", _REPACK_FIX, True),
    _error("features-inf", "An array holds an infinite value, or one that float16 cannot hold.",
           "Scale the features, or extract them again.", True),
    _error("features-zero", "An array holds nothing but zeros, as a failed extractor writes.", _REPACK_FIX, True),
    _warning("features-constant", "Every frame of an array is the same.", _REPACK_FIX),
    _error("features-damaged", "An array cannot be read.", _REPACK_FIX, True),
    _warning("features-dtype", "An array is not float16: it takes more room, and is rounded when read.",
             "Pack it again with `signllava prepare pack`."),
    _warning("features-repeated", "Different clips of a split have the same frames.", _REPACK_FIX),
    _error("features-shared", "Clips of different splits have the same frames.",
           "Take them out of the training split."),
    _warning("lengths-disagree", f"Two streams of a clip differ {MAX_LENGTH_RATIO:.0f} times more in length than usual.",
             "See that both were extracted from the same frames."),
    _warning("too-long", "A clip has more frames than data.max_seq_len leaves room for. It is thinned here; other "
             "tools lose its answer.", "Raise data.max_seq_len, or set stride or max_frames of a stream."),
    _warning("context-too-long", "A clip's context leaves no room for its fewest frames (data.min_frames). Sentences "
             "are cut from it.", "Raise data.max_seq_len, or lower context.window or context.prelude."),
    _error("text-too-long", "A clip's prompt and translation leave no room for its fewest frames (data.min_frames), "
           "even without context: training stops.",
           "See that the translation is one sentence; take the clip out, or raise data.max_seq_len."),
    # leftovers
    _note("index-stale", "The index does not fit the files any more. It is made anew when it is needed.",
          "Leave it, or run `signllava prepare index`."),
    _note("file-half-written", "A command that was stopped has left a file behind.", "Remove it if nothing runs."),
)  # fmt: skip

CHECKS = {ailment.name: ailment for ailment in _ALL_CHECKS}
