"""Ways of spoiling a copy of the toy corpus, each with the finding that must name what was spoiled."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

Spoil = Callable[[Path], None]


@dataclass(frozen=True)
class Spoiling:
    """What is done to the corpus, the finding that tells, and one of the names that it must hold."""

    finding: str
    named: str
    spoil: Spoil

    @property
    def exit_code(self) -> int:
        """Of a training that reads the clip."""
        return 0 if self.finding in TRAINABLE else 2


def annotation(split: str, change: Callable[[dict[str, Any]], None]) -> Spoil:
    """Change the annotation of a split in place."""

    def spoil(root: Path) -> None:
        file = root / f"annotation.{split}.json"
        content = json.loads(file.read_text())
        change(content)
        file.write_text(json.dumps(content))

    return spoil


def clip(changes: dict[str, Any], number: int = 1) -> Spoil:
    """Give a clip of train00 other values."""
    return annotation("train", lambda content: content["train00"][f"train00-{number:02d}"].update(changes))


def order(change: Callable[[list[Any]], None]) -> Spoil:
    """Change the clip_order of train00 in place."""
    return annotation("train", lambda content: change(content["train00"]["clip_order"]))


def text(file: str, content: str | bytes) -> Spoil:
    """Put this content into a file."""
    as_bytes = content.encode() if isinstance(content, str) else content
    return lambda root: void((root / file).write_bytes(as_bytes))


def metadata(changes: dict[str, Any]) -> Spoil:
    """Give recordings other shards in the metadata of mae; None takes one out."""

    def spoil(root: Path) -> None:
        file = root / "mae/metadata_mae.train.json"
        content = json.loads(file.read_text()) | changes
        file.write_text(json.dumps({name: shard for name, shard in content.items() if shard is not None}))

    return spoil


def shard(change: Callable[[h5py.File], object], number: int = 0, split: str = "train") -> Spoil:
    """Change a shard of mae in place."""

    def spoil(root: Path) -> None:
        with h5py.File(root / f"mae/mae.{split}.{number}.h5", "a") as handle:
            change(handle)

    return spoil


def array(change: Callable[[np.ndarray], Any], **settings: Any) -> Spoil:
    """Change the frames (T, 64) of train00-01 in mae."""

    def put(handle: h5py.File) -> None:
        changed = change(handle["train00/train00-01"][()])
        del handle["train00/train00-01"]
        handle.create_dataset("train00/train00-01", data=changed, **settings)

    return shard(put)


def link(target: Any) -> Callable[[h5py.File], None]:
    """Put a link in place of train00-01."""

    def put(handle: h5py.File) -> None:
        del handle["train00/train00-01"]
        handle["train00/train00-01"] = target

    return put


def one_value(value: float) -> Callable[[np.ndarray], np.ndarray]:
    """Put a value into one place of the last frame."""

    def put(frames: np.ndarray) -> np.ndarray:
        frames[-1, 5] = value
        return frames

    return put


def cut(file: str) -> Spoil:
    """Leave the first half of a file."""
    return lambda root: os.truncate(root / file, (root / file).stat().st_size // 2)


def same_paraphrases(root: Path) -> None:
    """Give two clips of train00 one list of paraphrases."""
    for number in (1, 4):
        clip({"translation": f"It is {number} o'clock.", "paraphrases": ["It is so.", "So it is."]}, number)(root)


def all_narrower(root: Path) -> None:
    """Leave 60 of 64 numbers of each frame of mae."""

    def put(handle: h5py.File) -> None:
        for recording in handle.values():
            for name in list(recording):
                frames = recording[name][:, :60]
                del recording[name]
                recording[name] = frames

    for split in ("train", "dev"):
        for number in (0, 1):
            shard(put, number, split)(root)


def long_texts(root: Path) -> None:
    """Give clips of train00 texts that fit alone, but not all in the context of another."""
    for number in range(5):
        clip({"translation": f"{number} " + "bread is good " * 15}, number)(root)


def damaged(root: Path) -> None:
    """Write over the compressed frames of train00-01."""
    array(lambda frames: frames, chunks=True, compression="gzip", fletcher32=True)(root)
    file = root / "mae/mae.train.0.h5"
    with h5py.File(file, "r") as handle:
        place = handle["train00/train00-01"].id.get_chunk_info(0).byte_offset
    content = bytearray(file.read_bytes())
    content[place : place + 40] = b"\x00" * 40
    file.write_bytes(content)


def in_two_groups(handle: h5py.File) -> None:
    """The clips of train00 in two groups, and none is called train00."""
    handle.move("train00", "elsewhere")
    handle.copy("elsewhere", "copy")


def times(*seconds: tuple[float, float]) -> Spoil:
    """Give the first clips of train00 these times."""

    def change(content: dict[str, Any]) -> None:
        for number, (start, end) in enumerate(seconds):
            content["train00"][f"train00-{number:02d}"] |= {"start": start, "end": end}

    return annotation("train", change)


def two_signers(root: Path) -> None:
    """Let the clips of train00 overlap, and be of two videos by turns."""

    def change(content: dict[str, Any]) -> None:
        for number, name in enumerate(content["train00"]["clip_order"]):
            video = {"video_name": f"v-{number % 2}"}
            content["train00"][name] |= {"start": number, "end": number + 2, "source": video}

    annotation("train", change)(root)


def frames_in_names(root: Path) -> None:
    """Name the first two clips of train00 by frames, the later one first."""
    for old, new in (("train00-00", "v.000100-000200"), ("train00-01", "v.000000-000090")):
        annotation("train", renamed("train00", old, new))(root)
        for stream in ("mae", "sign2vec"):
            with h5py.File(root / f"{stream}/{stream}.train.0.h5", "a") as handle:
                handle["train00"].move(old, new)


def twice(root: Path) -> None:
    """Give a clip of train00 twice, as JSON can and Python's objects cannot."""
    file = root / "annotation.train.json"
    extra = '"train00-01": {"translation": "Again."}, '
    file.write_text(file.read_text().replace('"train00": {', f'"train00": {{{extra}', 1))


def shared_clip(root: Path) -> None:
    """Put a recording of dev into train, too."""
    dev = json.loads((root / "annotation.dev.json").read_text())
    annotation("train", lambda content: content.update(dev00=dev["dev00"]))(root)


def shared_text(words: int) -> Spoil:
    """Give a clip of dev and one of train the same words."""
    said = {"translation": " ".join(["spade"] * words), "keywords": []}

    def spoil(root: Path) -> None:
        for split in ("train", "dev"):
            annotation(split, lambda content, name=f"{split}00": content[name][f"{name}-01"].update(said))(root)

    return spoil


def shared_frames(root: Path) -> None:
    """Give a clip of dev the frames of one of train."""
    with h5py.File(root / "mae/mae.train.0.h5", "r") as handle:
        frames = handle["train00/train00-01"][()]

    def put(handle: h5py.File) -> None:
        del handle["dev00/dev00-01"]
        handle["dev00/dev00-01"] = frames

    shard(put, split="dev")(root)


def repeated_frames(handle: h5py.File) -> None:
    frames = handle["train00/train00-01"][()]
    del handle["train00/train00-02"]
    handle["train00/train00-02"] = frames


def renamed(recording: str, key: str, other: str) -> Callable[[dict[str, Any]], None]:
    """Rename a clip, in clip_order, too."""

    def change(content: dict[str, Any]) -> None:
        entry = content[recording]
        entry[other] = entry.pop(key)
        entry["clip_order"] = [other if name == key else name for name in entry["clip_order"]]

    return change


def restyled(every: int) -> Callable[[dict[str, Any]], None]:
    """Take the last character, a full stop, off every so many texts."""

    def change(content: dict[str, Any]) -> None:
        clips = [entry[name] for entry in content.values() for name in entry["clip_order"]]
        for entry in clips[::every]:
            entry["translation"] = entry["translation"][:-1]

    return change


def without_order(content: dict[str, Any]) -> None:
    del content["train00"]["clip_order"]


def part_of(corpus: Path, copy: Path) -> Path:
    """A copy of what the recipe of these tests reads of the corpus."""
    return Path(shutil.copytree(corpus, copy, ignore=shutil.ignore_patterns("index.*", "*.test.*", "pose")))


def void(_: object) -> None:
    """For lambdas that return nothing."""


TRAIN, DEV, CLIP = "annotation.train.json", "annotation.dev.json", "train00/train00-01"
SHARD, METADATA = "mae/mae.train.0.h5", "mae/metadata_mae.train.json"

# Findings that training goes on with: it has a rule for them, or cannot tell.
TRAINABLE = frozenset({
    "recording-empty", "text-nan", "text-no-words", "text-is-sound-caption", "text-is-number", "text-markup",
    "text-repeated", "clip-duplicate", "paraphrase-none", "paraphrases-shared", "paraphrase-equals-text",
    "keyword-not-in-sentence", "keyword-case", "clip-order-time", "clip-time-reversed", "clips-overlap", "clips-overlap-signers",
    "clip-short", "style-differs", "style-differs-wholly",
    "context-leak", "context-leak-many", "text-shared", "text-shared-short", "shard-stray", "recording-in-two-shards",
    "features-extra", "features-zero", "features-constant", "features-dtype", "features-repeated", "features-shared",
    "lengths-disagree", "too-long", "context-too-long", "index-stale", "file-half-written",
})  # fmt: skip

SPOILINGS = [
    Spoiling("annotation-missing", DEV, lambda root: (root / DEV).unlink()),
    Spoiling("annotation-unreadable", TRAIN, cut(TRAIN)),
    Spoiling("annotation-unreadable", DEV, text(DEV, "")),
    Spoiling("annotation-unreadable", DEV, text(DEV, '{"dev00": "Grüße"}'.encode("latin-1"))),
    Spoiling("annotation-unreadable", DEV, text(DEV, "[1, 2]")),
    Spoiling("annotation-unreadable", DEV, text(DEV, "[" * 100_000)),
    Spoiling("annotation-key-twice", "train00-01", twice),
    Spoiling("annotation-empty", DEV, text(DEV, "{}")),
    Spoiling("recording-malformed", "train00", annotation("train", lambda all: all.update(train00=["clip"]))),
    Spoiling("recording-malformed", "train00", annotation("train", without_order)),
    Spoiling("recording-malformed", "train00", order(lambda names: names.append(3))),
    Spoiling("clip-malformed", CLIP, clip({"translation": None})),
    Spoiling("clip-malformed", CLIP, clip({"translation": 12})),
    Spoiling("clip-malformed", CLIP, clip({"keywords": "bread"})),
    Spoiling("clip-malformed", CLIP, clip({"paraphrases": [None]})),
    Spoiling("clip-malformed", CLIP, clip({"start": "1.0", "end": float("nan")})),
    Spoiling("name-unusable", "train00/a/b", annotation("train", renamed("train00", "train00-01", "a/b"))),
    Spoiling("name-unusable", "../up", annotation("train", lambda all: all.update({"../up": all.pop("train00")}))),
    Spoiling("text-not-unicode", CLIP, clip({"translation": "half \ud83d"})),
    Spoiling("clip-order-unknown", "train00/nobody", order(lambda names: names.append("nobody"))),
    Spoiling("clip-order-repeats", CLIP, order(lambda names: names.append("train00-01"))),
    Spoiling("clip-order-misses", CLIP, order(lambda names: names.remove("train00-01"))),
    Spoiling("recording-empty", "nobody", annotation("train", lambda all: all.update(nobody={"clip_order": []}))),
    Spoiling("text-empty", CLIP, clip({"translation": " \n"})),
    Spoiling("text-nan", CLIP, clip({"translation": "nan"})),
    Spoiling("text-nan", CLIP, clip({"translation": "<none>"})),
    Spoiling("text-no-words", CLIP, clip({"translation": "..."})),
    Spoiling("text-is-sound-caption", CLIP, clip({"translation": "[Music] [Applause]"})),
    Spoiling("text-is-sound-caption", CLIP, clip({"translation": "(audience laughs)"})),
    Spoiling("text-is-sound-caption", CLIP, clip({"translation": "♪ bread is good ♪"})),
    Spoiling("text-is-number", CLIP, clip({"translation": "12.50"})),
    Spoiling("text-markup", CLIP, clip({"translation": "Look at the <video> here."})),
    Spoiling("text-markup", CLIP, clip({"translation": "It ends.<|eot_id|> Or not.</s>"})),
    Spoiling("text-markup", CLIP, clip({"paraphrases": ["[INST] Say it."]})),
    Spoiling("text-repeated", CLIP, annotation("train", lambda all: all["train00"].update(
        {"train00-01": all["train00"]["train00-00"]}))),
    Spoiling("clip-duplicate", CLIP, annotation("train", lambda all: all["train00"].update(
        {name: {"translation": "Twice.", "start": 1, "end": 2} for name in ("train00-00", "train00-01")}))),
    Spoiling("paraphrase-none", CLIP, clip({"paraphrases": ["<none>", "It is so."]})),
    Spoiling("paraphrase-equals-text", CLIP, clip({"translation": "It is so.", "paraphrases": ["It is so. "]})),
    Spoiling("paraphrases-shared", CLIP, same_paraphrases),
    Spoiling("keyword-not-in-sentence", CLIP, clip({"keywords": ["zebra"]})),
    Spoiling("keyword-case", CLIP, clip({"translation": "In New York.", "keywords": ["new york"]})),
    Spoiling("clip-order-time", CLIP, times((9, 10), (0, 2))),
    Spoiling("clip-order-time", "train00/v.000000-000090", frames_in_names),
    Spoiling("clip-time-reversed", CLIP, times((0, 2), (9, 4))),
    Spoiling("clips-overlap", CLIP, times((0, 5), (4, 9))),
    Spoiling("clips-overlap-signers", CLIP, two_signers),
    Spoiling("clip-short", CLIP, times((0, 5), (6, 6.3))),
    Spoiling("context-leak", "dev00/dev00-02", annotation("dev", lambda all: all["dev00"].update(
        {"dev00-02": all["dev00"]["dev00-00"]}))),
    Spoiling("context-leak-many", "dev00/dev00-02", annotation("dev", lambda all: all["dev00"].update(
        dict.fromkeys(all["dev00"]["clip_order"], all["dev00"]["dev00-00"])))),
    Spoiling("text-shared", "dev00/dev00-01", shared_text(words=4)),
    Spoiling("text-shared-short", "dev00/dev00-01", shared_text(words=3)),
    Spoiling("clip-shared", "dev00/dev00-00", shared_clip),
    Spoiling("recording-shared", "dev00", shared_clip),
    Spoiling("style-differs-wholly", DEV, annotation("dev", restyled(every=1))),
    Spoiling("style-differs", DEV, annotation("dev", restyled(every=2))),
    Spoiling("stream-folder-missing", "mae", lambda root: shutil.rmtree(root / "mae")),
    Spoiling("metadata-missing", "metadata_mae.train.json", lambda root: (root / METADATA).unlink()),
    Spoiling("metadata-unreadable", "metadata_mae.train.json", cut(METADATA)),
    Spoiling("metadata-unreadable", "metadata_mae.train.json", text(METADATA, '{"train00": 0, "train00": 1}')),
    Spoiling("shard-name-invalid", "train00", metadata({"train00": 0.5})),
    Spoiling("shard-name-invalid", "train00", metadata({"train00": [0]})),
    Spoiling("shard-name-invalid", "train00", metadata({"train00": "../0"})),
    Spoiling("shard-missing", "mae.train.0.h5", lambda root: (root / SHARD).unlink()),
    Spoiling("shard-missing", "mae.train.7.h5", metadata({"train00": 7})),
    Spoiling("shard-unreadable", "mae.train.0.h5", cut(SHARD)),
    Spoiling("shard-unreadable", "mae.train.0.h5", text(SHARD, "")),
    Spoiling("shard-unreadable", "mae.train.0.h5", text(SHARD, "no HDF5 at all" * 1000)),
    Spoiling("shard-stray", "mae.train.9.h5", text("mae/mae.train.9.h5", "what is not read")),
    Spoiling("recording-in-wrong-shard", "train00", metadata({"train00": "1"})),
    Spoiling("recording-in-two-shards", "train00",
             shard(lambda one: one.create_dataset("train00/x", data=[[1.0]]), number=1)),
    Spoiling("recording-not-in-metadata", "train00", metadata({"train00": None})),
    Spoiling("recording-without-features", "train00", shard(lambda one: one.__delitem__("train00"))),
    Spoiling("features-missing", CLIP, shard(lambda one: one.__delitem__(CLIP))),
    Spoiling("features-ambiguous", CLIP, shard(in_two_groups)),
    Spoiling("features-extra", "train00/extra", shard(lambda one: one.create_dataset("train00/extra", data=[[1.0]]))),
    Spoiling("features-no-array", CLIP, shard(lambda one: (one.__delitem__(CLIP), one.create_group(CLIP)))),
    Spoiling("features-no-array", CLIP, shard(link(h5py.SoftLink("/nowhere")))),
    Spoiling("features-no-array", CLIP, shard(link(h5py.ExternalLink("nowhere.h5", "/x")))),
    Spoiling("recording-without-features", "train00",
             shard(lambda one: (one.__delitem__("train00"), one.create_dataset("train00", data=[[1.0]])))),
    Spoiling("features-not-numbers", CLIP, array(lambda frames: [["x"] * 64], dtype=h5py.string_dtype())),
    Spoiling("features-shape", CLIP, array(lambda frames: frames[0])),
    Spoiling("features-shape", CLIP, array(lambda frames: frames[None])),
    Spoiling("features-width", CLIP, array(lambda frames: frames[:, :63])),
    Spoiling("stream-width", "train", all_narrower),
    Spoiling("features-shape", CLIP, array(lambda frames: frames[:, :0])),
    Spoiling("features-empty", CLIP, array(lambda frames: frames[:0])),
    Spoiling("features-nan", CLIP, array(one_value(np.nan))),
    Spoiling("features-inf", CLIP, array(one_value(-np.inf))),
    Spoiling("features-inf", CLIP, array(lambda frames: frames.astype("f4") * 1e6)),
    Spoiling("features-zero", CLIP, array(np.zeros_like)),
    Spoiling("features-constant", CLIP, array(lambda frames: np.repeat(frames[:1], 5, axis=0))),
    Spoiling("features-damaged", CLIP, damaged),
    Spoiling("features-dtype", CLIP, array(lambda frames: frames.astype("f4"))),
    Spoiling("features-dtype", CLIP, array(lambda frames: (frames * 10).astype("i2"))),
    Spoiling("features-repeated", "train00/train00-02", shard(repeated_frames)),
    Spoiling("features-shared", "dev00/dev00-01", shared_frames),
    Spoiling("lengths-disagree", CLIP, array(lambda frames: np.concatenate([frames] * 8))),
    Spoiling("too-long", CLIP, array(lambda frames: np.concatenate([frames] * 40))),
    Spoiling("context-too-long", "train00/train00-04", long_texts),
    Spoiling("text-too-long", CLIP, clip({"translation": "bread is good " * 200})),
    Spoiling("index-stale", "index.train.arrow", text("index.train.arrow", "no index")),
    Spoiling("file-half-written", "mae.train.9.h5.tmp", text("mae/mae.train.9.h5.tmp", "half")),
]  # fmt: skip
