"""Functions that corrupt a copy of the toy corpus."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

Corrupt = Callable[[Path], None]


def change_annotation(split: str, change: Callable[[dict[str, Any]], None]) -> Corrupt:
    """Change the annotation of a split in place."""

    def corrupt(root: Path) -> None:
        file = root / f"annotation.{split}.json"
        content = json.loads(file.read_text())
        change(content)
        file.write_text(json.dumps(content))

    return corrupt


def change_clip(changes: dict[str, Any], number: int = 1) -> Corrupt:
    """Change values of a clip of train00."""
    return change_annotation("train", lambda content: content["train00"][f"train00-{number:02d}"].update(changes))


def change_order(change: Callable[[list[Any]], None]) -> Corrupt:
    """Change the clip_order of train00 in place."""
    return change_annotation("train", lambda content: change(content["train00"]["clip_order"]))


def write_file(file: str, content: str | bytes) -> Corrupt:
    """Write `content` to a file."""
    as_bytes = content.encode() if isinstance(content, str) else content
    return lambda root: discard_result((root / file).write_bytes(as_bytes))


def change_metadata(changes: dict[str, Any]) -> Corrupt:
    """Change the shards of recordings in the metadata of mae; None removes a recording."""

    def corrupt(root: Path) -> None:
        file = root / "mae/metadata_mae.train.json"
        content = json.loads(file.read_text()) | changes
        file.write_text(json.dumps({name: shard for name, shard in content.items() if shard is not None}))

    return corrupt


def change_shard(change: Callable[[h5py.File], object], number: int = 0, split: str = "train") -> Corrupt:
    """Change a shard of mae in place."""

    def corrupt(root: Path) -> None:
        with h5py.File(root / f"mae/mae.{split}.{number}.h5", "a") as handle:
            change(handle)

    return corrupt


def change_array(change: Callable[[np.ndarray], Any], **options: Any) -> Corrupt:
    """Change the frames (T, 64) of train00-01 in mae."""

    def put(handle: h5py.File) -> None:
        changed = change(handle["train00/train00-01"][()])
        del handle["train00/train00-01"]
        handle.create_dataset("train00/train00-01", data=changed, **options)

    return change_shard(put)


def replace_by_link(target: Any) -> Callable[[h5py.File], None]:
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
        change_clip({"translation": f"It is {number} o'clock.", "paraphrases": ["It is so.", "So it is."]}, number)(
            root
        )


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
            change_shard(put, number, split)(root)


def lengthen_texts(root: Path) -> None:
    """Give clips of train00 texts that fit into a sequence alone, but not as context of another."""
    for number in range(5):
        change_clip({"translation": f"{number} " + "bread is good " * 15}, number)(root)


def damage_array(root: Path) -> None:
    """Overwrite the compressed frames of train00-01."""
    change_array(lambda frames: frames, chunks=True, compression="gzip", fletcher32=True)(root)
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

    return change_annotation("train", change)


def mix_signers(root: Path) -> None:
    """Make the clips of train00 overlap, and alternate between two videos."""

    def change(content: dict[str, Any]) -> None:
        for number, name in enumerate(content["train00"]["clip_order"]):
            video = {"video_name": f"v-{number % 2}"}
            content["train00"][name] |= {"start": number, "end": number + 2, "source": video}

    change_annotation("train", change)(root)


def reverse_times_in_names(root: Path) -> None:
    """Name the first two clips of train00 by frame numbers, in the wrong order."""
    for old, new in (("train00-00", "v.000100-000200"), ("train00-01", "v.000000-000090")):
        change_annotation("train", rename("train00", old, new))(root)
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
    change_annotation("train", lambda content: content.update(dev00=dev["dev00"]))(root)


def share_text(words: int) -> Corrupt:
    """Give a clip of dev and one of train the same words."""
    entry = {"translation": " ".join(["spade"] * words), "keywords": []}

    def change(content: dict[str, Any]) -> None:
        (recording,) = content.keys() & {"train00", "dev00"}
        content[recording][f"{recording}-01"].update(entry)

    def corrupt(root: Path) -> None:
        for split in ("train", "dev"):
            change_annotation(split, change)(root)

    return corrupt


def share_frames(root: Path) -> None:
    """Give a clip of dev the frames of one of train."""
    with h5py.File(root / "mae/mae.train.0.h5", "r") as handle:
        frames = handle["train00/train00-01"][()]

    def put(handle: h5py.File) -> None:
        del handle["dev00/dev00-01"]
        handle["dev00/dev00-01"] = frames

    change_shard(put, split="dev")(root)


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
    return change_annotation("train", lambda content: content.update(recordings))


def rename_recording(content: dict[str, Any]) -> None:
    content["../up"] = content.pop("train00")


def remove_order(content: dict[str, Any]) -> None:
    del content["train00"]["clip_order"]


def copy_part(corpus: Path, copy: Path) -> Path:
    """A copy of the files that the recipe of these tests reads."""
    return Path(shutil.copytree(corpus, copy, ignore=shutil.ignore_patterns("index.*", "*.test.*", "pose")))


def discard_result(_: object) -> None:
    """For lambdas that return nothing."""
