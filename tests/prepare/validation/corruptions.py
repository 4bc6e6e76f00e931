"""Corruptions of a copy of the toy corpus, each with the finding that must report it."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

Corrupt = Callable[[Path], None]


@dataclass(frozen=True)
class Corruption:
    """`corrupt` changes the corpus; `finding` must report it, with `affected` among its names."""

    finding: str
    affected: str
    corrupt: Corrupt

    @property
    def exit_code(self) -> int:
        """The exit code of a training that reads the clip."""
        return 0 if self.finding in TRAINABLE else 2


def annotation(split: str, change: Callable[[dict[str, Any]], None]) -> Corrupt:
    """Change the annotation of a split in place."""

    def corrupt(root: Path) -> None:
        file = root / f"annotation.{split}.json"
        content = json.loads(file.read_text())
        change(content)
        file.write_text(json.dumps(content))

    return corrupt


def clip(changes: dict[str, Any], number: int = 1) -> Corrupt:
    """Change values of a clip of train00."""
    return annotation("train", lambda content: content["train00"][f"train00-{number:02d}"].update(changes))


def order(change: Callable[[list[Any]], None]) -> Corrupt:
    """Change the clip_order of train00 in place."""
    return annotation("train", lambda content: change(content["train00"]["clip_order"]))


def text(file: str, content: str | bytes) -> Corrupt:
    """Write `content` to a file."""
    as_bytes = content.encode() if isinstance(content, str) else content
    return lambda root: void((root / file).write_bytes(as_bytes))


def metadata(changes: dict[str, Any]) -> Corrupt:
    """Change the shards of recordings in the metadata of mae; None removes a recording."""

    def corrupt(root: Path) -> None:
        file = root / "mae/metadata_mae.train.json"
        content = json.loads(file.read_text()) | changes
        file.write_text(json.dumps({name: shard for name, shard in content.items() if shard is not None}))

    return corrupt


def shard(change: Callable[[h5py.File], object], number: int = 0, split: str = "train") -> Corrupt:
    """Change a shard of mae in place."""

    def corrupt(root: Path) -> None:
        with h5py.File(root / f"mae/mae.{split}.{number}.h5", "a") as handle:
            change(handle)

    return corrupt


def array(change: Callable[[np.ndarray], Any], **options: Any) -> Corrupt:
    """Change the frames (T, 64) of train00-01 in mae."""

    def put(handle: h5py.File) -> None:
        changed = change(handle["train00/train00-01"][()])
        del handle["train00/train00-01"]
        handle.create_dataset("train00/train00-01", data=changed, **options)

    return shard(put)


def link(target: Any) -> Callable[[h5py.File], None]:
    """Replace train00-01 by a link."""

    def put(handle: h5py.File) -> None:
        del handle["train00/train00-01"]
        handle["train00/train00-01"] = target

    return put


def set_value(value: float) -> Callable[[np.ndarray], np.ndarray]:
    """Set one value of the last frame."""

    def put(frames: np.ndarray) -> np.ndarray:
        frames[-1, 5] = value
        return frames

    return put


def truncate(file: str) -> Corrupt:
    """Keep only the first half of a file."""
    return lambda root: os.truncate(root / file, (root / file).stat().st_size // 2)


def share_paraphrases(root: Path) -> None:
    """Give two clips of train00 the same list of paraphrases."""
    for number in (1, 4):
        clip({"translation": f"It is {number} o'clock.", "paraphrases": ["It is so.", "So it is."]}, number)(root)


def narrow_all(root: Path) -> None:
    """Keep 60 of 64 values of each frame of mae."""

    def put(handle: h5py.File) -> None:
        for recording in handle.values():
            for name in list(recording):
                frames = recording[name][:, :60]
                del recording[name]
                recording[name] = frames

    for split in ("train", "dev"):
        for number in (0, 1):
            shard(put, number, split)(root)


def lengthen_texts(root: Path) -> None:
    """Give clips of train00 texts that fit into a sequence alone, but not as context of another."""
    for number in range(5):
        clip({"translation": f"{number} " + "bread is good " * 15}, number)(root)


def damage_array(root: Path) -> None:
    """Overwrite the compressed frames of train00-01."""
    array(lambda frames: frames, chunks=True, compression="gzip", fletcher32=True)(root)
    file = root / "mae/mae.train.0.h5"
    with h5py.File(file, "r") as handle:
        offset = handle["train00/train00-01"].id.get_chunk_info(0).byte_offset
    content = bytearray(file.read_bytes())
    content[offset : offset + 40] = b"\x00" * 40
    file.write_bytes(content)


def copy_to_two_groups(handle: h5py.File) -> None:
    """Put the clips of train00 into two groups with other names."""
    handle.move("train00", "elsewhere")
    handle.copy("elsewhere", "copy")


def set_times(*seconds: tuple[float, float]) -> Corrupt:
    """Give the first clips of train00 these times."""

    def change(content: dict[str, Any]) -> None:
        for number, (start, end) in enumerate(seconds):
            content["train00"][f"train00-{number:02d}"] |= {"start": start, "end": end}

    return annotation("train", change)


def mix_signers(root: Path) -> None:
    """Make the clips of train00 overlap, and alternate between two videos."""

    def change(content: dict[str, Any]) -> None:
        for number, name in enumerate(content["train00"]["clip_order"]):
            video = {"video_name": f"v-{number % 2}"}
            content["train00"][name] |= {"start": number, "end": number + 2, "source": video}

    annotation("train", change)(root)


def reverse_times_in_names(root: Path) -> None:
    """Name the first two clips of train00 by frame numbers, in the wrong order."""
    for old, new in (("train00-00", "v.000100-000200"), ("train00-01", "v.000000-000090")):
        annotation("train", rename("train00", old, new))(root)
        for stream in ("mae", "sign2vec"):
            with h5py.File(root / f"{stream}/{stream}.train.0.h5", "a") as handle:
                handle["train00"].move(old, new)


def duplicate_key(root: Path) -> None:
    """Write a key of train00 twice, which is possible in JSON, but not in a dict."""
    file = root / "annotation.train.json"
    extra = '"train00-01": {"translation": "Again."}, '
    file.write_text(file.read_text().replace('"train00": {', f'"train00": {{{extra}', 1))


def share_clip(root: Path) -> None:
    """Copy a recording of dev to train."""
    dev = json.loads((root / "annotation.dev.json").read_text())
    annotation("train", lambda content: content.update(dev00=dev["dev00"]))(root)


def share_text(words: int) -> Corrupt:
    """Give a clip of dev and one of train the same words."""
    entry = {"translation": " ".join(["spade"] * words), "keywords": []}

    def corrupt(root: Path) -> None:
        for split in ("train", "dev"):
            annotation(split, lambda content, name=f"{split}00": content[name][f"{name}-01"].update(entry))(root)

    return corrupt


def share_frames(root: Path) -> None:
    """Give a clip of dev the frames of one of train."""
    with h5py.File(root / "mae/mae.train.0.h5", "r") as handle:
        frames = handle["train00/train00-01"][()]

    def put(handle: h5py.File) -> None:
        del handle["dev00/dev00-01"]
        handle["dev00/dev00-01"] = frames

    shard(put, split="dev")(root)


def repeat_frames(handle: h5py.File) -> None:
    frames = handle["train00/train00-01"][()]
    del handle["train00/train00-02"]
    handle["train00/train00-02"] = frames


def rename(recording: str, key: str, other: str) -> Callable[[dict[str, Any]], None]:
    """Rename a clip, also in clip_order."""

    def change(content: dict[str, Any]) -> None:
        entry = content[recording]
        entry[other] = entry.pop(key)
        entry["clip_order"] = [other if name == key else name for name in entry["clip_order"]]

    return change


def remove_full_stops(every: int) -> Callable[[dict[str, Any]], None]:
    """Remove the last character, a full stop, of every n-th text."""

    def change(content: dict[str, Any]) -> None:
        clips = [entry[name] for entry in content.values() for name in entry["clip_order"]]
        for entry in clips[::every]:
            entry["translation"] = entry["translation"][:-1]

    return change


def update_annotation(**recordings: Any) -> Corrupt:
    """Set recordings of train."""
    return annotation("train", lambda content: content.update(recordings))


def rename_recording(content: dict[str, Any]) -> None:
    content["../up"] = content.pop("train00")


def remove_order(content: dict[str, Any]) -> None:
    del content["train00"]["clip_order"]


def copy_part(corpus: Path, copy: Path) -> Path:
    """A copy of the files that the recipe of these tests reads."""
    return Path(shutil.copytree(corpus, copy, ignore=shutil.ignore_patterns("index.*", "*.test.*", "pose")))


def void(_: object) -> None:
    """For lambdas that return nothing."""


TRAIN, DEV, CLIP = "annotation.train.json", "annotation.dev.json", "train00/train00-01"
SHARD, METADATA = "mae/mae.train.0.h5", "mae/metadata_mae.train.json"

# Findings that do not stop a training: it handles or cannot detect them.
TRAINABLE = frozenset({
    "recording-empty", "text-nan", "text-no-words", "text-is-sound-caption", "text-is-number", "text-markup",
    "text-repeated", "clip-duplicate", "paraphrase-none", "paraphrases-shared", "paraphrase-equals-text",
    "keyword-not-in-sentence", "keyword-case", "clip-order-time", "clip-time-reversed", "clips-overlap", "clips-overlap-signers",
    "clip-short", "style-differs", "style-differs-wholly",
    "context-leak", "context-leak-many", "text-shared", "text-shared-short", "shard-stray", "recording-in-two-shards",
    "features-extra", "features-zero", "features-constant", "features-dtype", "features-repeated", "features-shared",
    "lengths-disagree", "too-long", "context-too-long", "index-stale", "file-half-written",
})  # fmt: skip

CORRUPTIONS = [
    Corruption("annotation-missing", DEV, lambda root: (root / DEV).unlink()),
    Corruption("annotation-unreadable", TRAIN, truncate(TRAIN)),
    Corruption("annotation-unreadable", DEV, text(DEV, "")),
    Corruption("annotation-unreadable", DEV, text(DEV, '{"dev00": "Grüße"}'.encode("latin-1"))),
    Corruption("annotation-unreadable", DEV, text(DEV, "[1, 2]")),
    Corruption("annotation-unreadable", DEV, text(DEV, "[" * 100_000)),
    Corruption("annotation-key-twice", "train00-01", duplicate_key),
    Corruption("annotation-empty", DEV, text(DEV, "{}")),
    Corruption("recording-malformed", "train00", update_annotation(train00=["clip"])),
    Corruption("recording-malformed", "train00", annotation("train", remove_order)),
    Corruption("recording-malformed", "train00", order(lambda names: names.append(3))),
    Corruption("clip-malformed", CLIP, clip({"translation": None})),
    Corruption("clip-malformed", CLIP, clip({"translation": 12})),
    Corruption("clip-malformed", CLIP, clip({"keywords": "bread"})),
    Corruption("clip-malformed", CLIP, clip({"paraphrases": [None]})),
    Corruption("clip-malformed", CLIP, clip({"start": "1.0", "end": float("nan")})),
    Corruption("name-unusable", "train00/a/b", annotation("train", rename("train00", "train00-01", "a/b"))),
    Corruption("name-unusable", "../up", annotation("train", rename_recording)),
    Corruption("text-not-unicode", CLIP, clip({"translation": "half \ud83d"})),
    Corruption("clip-order-unknown", "train00/nobody", order(lambda names: names.append("nobody"))),
    Corruption("clip-order-repeats", CLIP, order(lambda names: names.append("train00-01"))),
    Corruption("clip-order-misses", CLIP, order(lambda names: names.remove("train00-01"))),
    Corruption("recording-empty", "nobody", update_annotation(nobody={"clip_order": []})),
    Corruption("text-empty", CLIP, clip({"translation": " \n"})),
    Corruption("text-nan", CLIP, clip({"translation": "nan"})),
    Corruption("text-nan", CLIP, clip({"translation": "<none>"})),
    Corruption("text-no-words", CLIP, clip({"translation": "..."})),
    Corruption("text-is-sound-caption", CLIP, clip({"translation": "[Music] [Applause]"})),
    Corruption("text-is-sound-caption", CLIP, clip({"translation": "(audience laughs)"})),
    Corruption("text-is-sound-caption", CLIP, clip({"translation": "♪ bread is good ♪"})),
    Corruption("text-is-number", CLIP, clip({"translation": "12.50"})),
    Corruption("text-markup", CLIP, clip({"translation": "Look at the <video> here."})),
    Corruption("text-markup", CLIP, clip({"translation": "It ends.<|eot_id|> Or not.</s>"})),
    Corruption("text-markup", CLIP, clip({"paraphrases": ["[INST] Say it."]})),
    Corruption("text-repeated", CLIP, annotation("train", lambda content: content["train00"].update(
        {"train00-01": content["train00"]["train00-00"]}))),
    Corruption("clip-duplicate", CLIP, annotation("train", lambda content: content["train00"].update(
        {name: {"translation": "Twice.", "start": 1, "end": 2} for name in ("train00-00", "train00-01")}))),
    Corruption("paraphrase-none", CLIP, clip({"paraphrases": ["<none>", "It is so."]})),
    Corruption("paraphrase-equals-text", CLIP, clip({"translation": "It is so.", "paraphrases": ["It is so. "]})),
    Corruption("paraphrases-shared", CLIP, share_paraphrases),
    Corruption("keyword-not-in-sentence", CLIP, clip({"keywords": ["zebra"]})),
    Corruption("keyword-case", CLIP, clip({"translation": "In New York.", "keywords": ["new york"]})),
    Corruption("clip-order-time", CLIP, set_times((9, 10), (0, 2))),
    Corruption("clip-order-time", "train00/v.000000-000090", reverse_times_in_names),
    Corruption("clip-time-reversed", CLIP, set_times((0, 2), (9, 4))),
    Corruption("clips-overlap", CLIP, set_times((0, 5), (4, 9))),
    Corruption("clips-overlap-signers", CLIP, mix_signers),
    Corruption("clip-short", CLIP, set_times((0, 5), (6, 6.3))),
    Corruption("context-leak", "dev00/dev00-02", annotation("dev", lambda content: content["dev00"].update(
        {"dev00-02": content["dev00"]["dev00-00"]}))),
    Corruption("context-leak-many", "dev00/dev00-02", annotation("dev", lambda content: content["dev00"].update(
        dict.fromkeys(content["dev00"]["clip_order"], content["dev00"]["dev00-00"])))),
    Corruption("text-shared", "dev00/dev00-01", share_text(words=4)),
    Corruption("text-shared-short", "dev00/dev00-01", share_text(words=3)),
    Corruption("clip-shared", "dev00/dev00-00", share_clip),
    Corruption("recording-shared", "dev00", share_clip),
    Corruption("style-differs-wholly", DEV, annotation("dev", remove_full_stops(every=1))),
    Corruption("style-differs", DEV, annotation("dev", remove_full_stops(every=2))),
    Corruption("stream-folder-missing", "mae", lambda root: shutil.rmtree(root / "mae")),
    Corruption("metadata-missing", "metadata_mae.train.json", lambda root: (root / METADATA).unlink()),
    Corruption("metadata-unreadable", "metadata_mae.train.json", truncate(METADATA)),
    Corruption("metadata-unreadable", "metadata_mae.train.json", text(METADATA, '{"train00": 0, "train00": 1}')),
    Corruption("shard-name-invalid", "train00", metadata({"train00": 0.5})),
    Corruption("shard-name-invalid", "train00", metadata({"train00": [0]})),
    Corruption("shard-name-invalid", "train00", metadata({"train00": "../0"})),
    Corruption("shard-missing", "mae.train.0.h5", lambda root: (root / SHARD).unlink()),
    Corruption("shard-missing", "mae.train.7.h5", metadata({"train00": 7})),
    Corruption("shard-unreadable", "mae.train.0.h5", truncate(SHARD)),
    Corruption("shard-unreadable", "mae.train.0.h5", text(SHARD, "")),
    Corruption("shard-unreadable", "mae.train.0.h5", text(SHARD, "not HDF5" * 1000)),
    Corruption("shard-stray", "mae.train.9.h5", text("mae/mae.train.9.h5", "what is not read")),
    Corruption("recording-in-wrong-shard", "train00", metadata({"train00": "1"})),
    Corruption("recording-in-two-shards", "train00",
             shard(lambda handle: handle.create_dataset("train00/x", data=[[1.0]]), number=1)),
    Corruption("recording-not-in-metadata", "train00", metadata({"train00": None})),
    Corruption("recording-without-features", "train00", shard(lambda handle: handle.__delitem__("train00"))),
    Corruption("features-missing", CLIP, shard(lambda handle: handle.__delitem__(CLIP))),
    Corruption("features-ambiguous", CLIP, shard(copy_to_two_groups)),
    Corruption("features-extra", "train00/extra",
             shard(lambda handle: handle.create_dataset("train00/extra", data=[[1.0]]))),
    Corruption("features-no-array", CLIP,
             shard(lambda handle: (handle.__delitem__(CLIP), handle.create_group(CLIP)))),
    Corruption("features-no-array", CLIP, shard(link(h5py.SoftLink("/nowhere")))),
    Corruption("features-no-array", CLIP, shard(link(h5py.ExternalLink("nowhere.h5", "/x")))),
    Corruption("recording-without-features", "train00",
             shard(lambda handle: (handle.__delitem__("train00"), handle.create_dataset("train00", data=[[1.0]])))),
    Corruption("features-not-numbers", CLIP, array(lambda frames: [["x"] * 64], dtype=h5py.string_dtype())),
    Corruption("features-shape", CLIP, array(lambda frames: frames[0])),
    Corruption("features-shape", CLIP, array(lambda frames: frames[None])),
    Corruption("features-width", CLIP, array(lambda frames: frames[:, :63])),
    Corruption("stream-width", "train", narrow_all),
    Corruption("features-shape", CLIP, array(lambda frames: frames[:, :0])),
    Corruption("features-empty", CLIP, array(lambda frames: frames[:0])),
    Corruption("features-nan", CLIP, array(set_value(np.nan))),
    Corruption("features-inf", CLIP, array(set_value(-np.inf))),
    Corruption("features-inf", CLIP, array(lambda frames: frames.astype("f4") * 1e6)),
    Corruption("features-zero", CLIP, array(np.zeros_like)),
    Corruption("features-constant", CLIP, array(lambda frames: np.repeat(frames[:1], 5, axis=0))),
    Corruption("features-damaged", CLIP, damage_array),
    Corruption("features-dtype", CLIP, array(lambda frames: frames.astype("f4"))),
    Corruption("features-dtype", CLIP, array(lambda frames: (frames * 10).astype("i2"))),
    Corruption("features-repeated", "train00/train00-02", shard(repeat_frames)),
    Corruption("features-shared", "dev00/dev00-01", share_frames),
    Corruption("lengths-disagree", CLIP, array(lambda frames: np.concatenate([frames] * 8))),
    Corruption("too-long", CLIP, array(lambda frames: np.concatenate([frames] * 40))),
    Corruption("context-too-long", "train00/train00-04", lengthen_texts),
    Corruption("text-too-long", CLIP, clip({"translation": "bread is good " * 200})),
    Corruption("index-stale", "index.train.arrow", text("index.train.arrow", "no index")),
    Corruption("file-half-written", "mae.train.9.h5.tmp", text("mae/mae.train.9.h5.tmp", "half")),
]  # fmt: skip
