"""Corruptions of the toy corpus, each with the finding that must report it."""

import shutil
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
import pytest
from corruptions import (
    Corrupt,
    change_annotation,
    change_array,
    change_clip,
    change_metadata,
    change_order,
    change_shard,
    copy_to_two_groups,
    damage_array,
    duplicate_key,
    lengthen_texts,
    mix_signers,
    narrow_all,
    remove_full_stops,
    remove_order,
    rename,
    rename_recording,
    repeat_frames,
    replace_by_link,
    reverse_times_in_names,
    set_times,
    set_value,
    share_clip,
    share_frames,
    share_paraphrases,
    share_text,
    truncate,
    update_annotation,
    write_file,
)


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


def one_per_finding(corruptions: list[Corruption]) -> list[Any]:
    """The parameters of a test of these corruptions: the first of each finding, and the others as drills."""
    findings = [corruption.finding for corruption in corruptions]
    return [
        pytest.param(
            corruption,
            id=f"{corruption.finding}-{index}",
            marks=[pytest.mark.drill] if corruption.finding in findings[:index] else [],
        )
        for index, corruption in enumerate(corruptions)
    ]


TRAIN, DEV, CLIP = "annotation.train.json", "annotation.dev.json", "train00/train00-01"
SHARD, METADATA = "mae/mae.train.0.h5", "mae/metadata_mae.train.json"
VIDEO_REPORT = "mae/extract.mae.train.json"

# Findings that do not stop a training: it handles or cannot detect them.
TRAINABLE = frozenset({
    "recording-empty", "text-nan", "text-no-words", "text-is-sound-caption", "text-is-number", "text-markup",
    "text-repeated", "clip-duplicate", "paraphrase-none", "paraphrases-shared", "paraphrase-equals-text",
    "keyword-not-in-sentence", "keyword-case", "clip-order-time", "clip-time-reversed", "clips-overlap",
    "clips-overlap-signers", "clip-short", "style-differs", "style-differs-wholly",
    "context-leak", "context-leak-many", "text-shared", "text-shared-short", "shard-stray", "recording-in-two-shards",
    "features-extra", "features-zero", "features-constant", "features-dtype", "features-repeated", "features-shared",
    "lengths-disagree", "too-long", "context-too-long", "index-stale", "file-half-written",
    "video-several-people", "video-jumps", "video-hands-rare", "video-turned", "video-report-unreadable",
})  # fmt: skip

CORRUPTIONS = [
    Corruption("annotation-missing", DEV, lambda root: (root / DEV).unlink()),
    Corruption("annotation-unreadable", TRAIN, truncate(TRAIN)),
    Corruption("annotation-unreadable", DEV, write_file(DEV, "")),
    Corruption("annotation-unreadable", DEV, write_file(DEV, '{"dev00": "Grüße"}'.encode("latin-1"))),
    Corruption("annotation-unreadable", DEV, write_file(DEV, "[1, 2]")),
    Corruption("annotation-unreadable", DEV, write_file(DEV, "[" * 100_000)),
    Corruption("annotation-key-twice", "train00-01", duplicate_key),
    Corruption("annotation-empty", DEV, write_file(DEV, "{}")),
    Corruption("recording-malformed", "train00", update_annotation(train00=["clip"])),
    Corruption("recording-malformed", "train00", change_annotation("train", remove_order)),
    Corruption("recording-malformed", "train00", change_order(lambda names: names.append(3))),
    Corruption("clip-malformed", CLIP, change_clip({"translation": None})),
    Corruption("clip-malformed", CLIP, change_clip({"translation": 12})),
    Corruption("clip-malformed", CLIP, change_clip({"keywords": "bread"})),
    Corruption("clip-malformed", CLIP, change_clip({"paraphrases": [None]})),
    Corruption("clip-malformed", CLIP, change_clip({"start": "1.0", "end": float("nan")})),
    Corruption("name-unusable", "train00/a/b", change_annotation("train", rename("train00", "train00-01", "a/b"))),
    Corruption("name-unusable", "../up", change_annotation("train", rename_recording)),
    Corruption("text-not-unicode", CLIP, change_clip({"translation": "half \ud83d"})),
    Corruption("clip-order-unknown", "train00/nobody", change_order(lambda names: names.append("nobody"))),
    Corruption("clip-order-repeats", CLIP, change_order(lambda names: names.append("train00-01"))),
    Corruption("clip-order-misses", CLIP, change_order(lambda names: names.remove("train00-01"))),
    Corruption("recording-empty", "nobody", update_annotation(nobody={"clip_order": []})),
    Corruption("text-empty", CLIP, change_clip({"translation": " \n"})),
    Corruption("text-nan", CLIP, change_clip({"translation": "nan"})),
    Corruption("text-nan", CLIP, change_clip({"translation": "<none>"})),
    Corruption("text-no-words", CLIP, change_clip({"translation": "..."})),
    Corruption("text-is-sound-caption", CLIP, change_clip({"translation": "[Music] [Applause]"})),
    Corruption("text-is-sound-caption", CLIP, change_clip({"translation": "(audience laughs)"})),
    Corruption("text-is-sound-caption", CLIP, change_clip({"translation": "♪ bread is good ♪"})),
    Corruption("text-is-number", CLIP, change_clip({"translation": "12.50"})),
    Corruption("text-markup", CLIP, change_clip({"translation": "Look at the <video> here."})),
    Corruption("text-markup", CLIP, change_clip({"translation": "It ends.<|eot_id|> Or not.</s>"})),
    Corruption("text-markup", CLIP, change_clip({"paraphrases": ["[INST] Say it."]})),
    Corruption("text-repeated", CLIP, change_annotation("train", lambda content: content["train00"].update(
        {"train00-01": content["train00"]["train00-00"]}))),
    Corruption("clip-duplicate", CLIP, change_annotation("train", lambda content: content["train00"].update(
        {name: {"translation": "Twice.", "start": 1, "end": 2} for name in ("train00-00", "train00-01")}))),
    Corruption("paraphrase-none", CLIP, change_clip({"paraphrases": ["<none>", "It is so."]})),
    Corruption("paraphrase-equals-text", CLIP,
               change_clip({"translation": "It is so.", "paraphrases": ["It is so. "]})),
    Corruption("paraphrases-shared", CLIP, share_paraphrases),
    Corruption("keyword-not-in-sentence", CLIP, change_clip({"keywords": ["zebra"]})),
    Corruption("keyword-case", CLIP, change_clip({"translation": "In New York.", "keywords": ["new york"]})),
    Corruption("clip-order-time", CLIP, set_times((9, 10), (0, 2))),
    Corruption("clip-order-time", "train00/v.000000-000090", reverse_times_in_names),
    Corruption("clip-time-reversed", CLIP, set_times((0, 2), (9, 4))),
    Corruption("clips-overlap", CLIP, set_times((0, 5), (4, 9))),
    Corruption("clips-overlap-signers", CLIP, mix_signers),
    Corruption("clip-short", CLIP, set_times((0, 5), (6, 6.3))),
    Corruption("context-leak", "dev00/dev00-02", change_annotation("dev", lambda content: content["dev00"].update(
        {"dev00-02": content["dev00"]["dev00-00"]}))),
    Corruption("context-leak-many", "dev00/dev00-02",
               change_annotation("dev", lambda content: content["dev00"].update(
        dict.fromkeys(content["dev00"]["clip_order"], content["dev00"]["dev00-00"])))),
    Corruption("text-shared", "dev00/dev00-01", share_text(words=4)),
    Corruption("text-shared-short", "dev00/dev00-01", share_text(words=3)),
    Corruption("clip-shared", "dev00/dev00-00", share_clip),
    Corruption("recording-shared", "dev00", share_clip),
    Corruption("style-differs-wholly", DEV, change_annotation("dev", remove_full_stops(every=1))),
    Corruption("style-differs", DEV, change_annotation("dev", remove_full_stops(every=2))),
    Corruption("stream-folder-missing", "mae", lambda root: shutil.rmtree(root / "mae")),
    Corruption("metadata-missing", "metadata_mae.train.json", lambda root: (root / METADATA).unlink()),
    Corruption("metadata-unreadable", "metadata_mae.train.json", truncate(METADATA)),
    Corruption("metadata-unreadable", "metadata_mae.train.json",
               write_file(METADATA, '{"train00": 0, "train00": 1}')),
    Corruption("shard-name-invalid", "train00", change_metadata({"train00": 0.5})),
    Corruption("shard-name-invalid", "train00", change_metadata({"train00": [0]})),
    Corruption("shard-name-invalid", "train00", change_metadata({"train00": "../0"})),
    Corruption("shard-missing", "mae.train.0.h5", lambda root: (root / SHARD).unlink()),
    Corruption("shard-missing", "mae.train.7.h5", change_metadata({"train00": 7})),
    Corruption("shard-unreadable", "mae.train.0.h5", truncate(SHARD)),
    Corruption("shard-unreadable", "mae.train.0.h5", write_file(SHARD, "")),
    Corruption("shard-unreadable", "mae.train.0.h5", write_file(SHARD, "not HDF5" * 1000)),
    Corruption("shard-stray", "mae.train.9.h5", write_file("mae/mae.train.9.h5", "what is not read")),
    Corruption("recording-in-wrong-shard", "train00", change_metadata({"train00": "1"})),
    Corruption("recording-in-two-shards", "train00",
             change_shard(lambda handle: handle.create_dataset("train00/x", data=[[1.0]]), number=1)),
    Corruption("recording-not-in-metadata", "train00", change_metadata({"train00": None})),
    Corruption("recording-without-features", "train00", change_shard(lambda handle: handle.__delitem__("train00"))),
    Corruption("features-missing", CLIP, change_shard(lambda handle: handle.__delitem__(CLIP))),
    Corruption("features-ambiguous", CLIP, change_shard(copy_to_two_groups)),
    Corruption("features-extra", "train00/extra",
             change_shard(lambda handle: handle.create_dataset("train00/extra", data=[[1.0]]))),
    Corruption("features-no-array", CLIP,
             change_shard(lambda handle: (handle.__delitem__(CLIP), handle.create_group(CLIP)))),
    Corruption("features-no-array", CLIP, change_shard(replace_by_link(h5py.SoftLink("/nowhere")))),
    Corruption("features-no-array", CLIP, change_shard(replace_by_link(h5py.ExternalLink("nowhere.h5", "/x")))),
    Corruption("recording-without-features", "train00",
               change_shard(lambda handle: (
                   handle.__delitem__("train00"), handle.create_dataset("train00", data=[[1.0]])))),
    Corruption("features-not-numbers", CLIP, change_array(lambda frames: [["x"] * 64], dtype=h5py.string_dtype())),
    Corruption("features-shape", CLIP, change_array(lambda frames: frames[0])),
    Corruption("features-shape", CLIP, change_array(lambda frames: frames[None])),
    Corruption("features-width", CLIP, change_array(lambda frames: frames[:, :63])),
    Corruption("stream-width", "train", narrow_all),
    Corruption("features-shape", CLIP, change_array(lambda frames: frames[:, :0])),
    Corruption("features-empty", CLIP, change_array(lambda frames: frames[:0])),
    Corruption("features-nan", CLIP, change_array(set_value(np.nan))),
    Corruption("features-inf", CLIP, change_array(set_value(-np.inf))),
    Corruption("features-inf", CLIP, change_array(lambda frames: frames.astype("f4") * 1e6)),
    Corruption("features-zero", CLIP, change_array(np.zeros_like)),
    Corruption("features-constant", CLIP, change_array(lambda frames: np.repeat(frames[:1], 5, axis=0))),
    Corruption("features-damaged", CLIP, damage_array),
    Corruption("features-dtype", CLIP, change_array(lambda frames: frames.astype("f4"))),
    Corruption("features-dtype", CLIP, change_array(lambda frames: (frames * 10).astype("i2"))),
    Corruption("features-repeated", "train00/train00-02", change_shard(repeat_frames)),
    Corruption("features-shared", "dev00/dev00-01", share_frames),
    Corruption("lengths-disagree", CLIP, change_array(lambda frames: np.concatenate([frames] * 8))),
    Corruption("too-long", CLIP, change_array(lambda frames: np.concatenate([frames] * 40))),
    Corruption("context-too-long", "train00/train00-04", lengthen_texts),
    Corruption("text-too-long", CLIP, change_clip({"translation": "bread is good " * 200})),
    Corruption("video-several-people", CLIP, write_file(VIDEO_REPORT, f'{{"several_people": ["{CLIP}"]}}')),
    Corruption("video-jumps", CLIP, write_file(VIDEO_REPORT, f'{{"jumps": {{"{CLIP}": 2}}}}')),
    Corruption("video-turned", CLIP, write_file(VIDEO_REPORT, f'{{"rotated": ["{CLIP}"]}}')),
    Corruption("video-hands-rare", "train00", write_file(
        VIDEO_REPORT, '{"recordings": {"train00": {"share": {"left_hand": 0.4, "right_hand": 1.0}}}}')),
    Corruption("video-report-unreadable", "extract.mae.train.json", write_file(VIDEO_REPORT, '{"several_people"')),
    Corruption("index-stale", "index.train.arrow", write_file("index.train.arrow", "no index")),
    Corruption("file-half-written", "mae.train.9.h5.tmp", write_file("mae/mae.train.9.h5.tmp", "half")),
]  # fmt: skip
