"""The toy corpus is reproducible, and its context-bound clips need context."""

import filecmp
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import Ended, open_recipe_split

from signllava_cli.cli.prepare.toy import toy
from signllava_cli.data.annotations import Clip, Recording, read_annotations
from signllava_cli.data.context import gold_context
from signllava_cli.errors import UserError
from signllava_cli.prepare.toy_corpus import CLIPS, MARKER, STREAMS, TOOL_OF_TOPIC, write_toy_corpus
from signllava_cli.recipe import build_recipe

SPLITS = ("train", "dev", "test")


def clips(root: Path, split: str) -> list[tuple[Recording, Clip]]:
    return [(recording, clip) for recording in read_annotations(root, split) for clip in recording.clips]


def test_a_seed_determines_every_byte(corpus: Path, tmp_path: Path) -> None:
    write_toy_corpus(tmp_path / "again")
    files = [str(path.relative_to(corpus)) for path in corpus.rglob("*.*") if path.suffix in (".json", ".h5")]
    assert len(files) == 31  # without the indexes that other tests add
    equal, different, missing = filecmp.cmpfiles(corpus, tmp_path / "again", files, shallow=False)
    assert (len(equal), different, missing) == (len(files), [], [])
    write_toy_corpus(tmp_path / "other", seed=1)
    assert (tmp_path / "other/annotation.dev.json").read_text() != (corpus / "annotation.dev.json").read_text()


def test_held_out_sentences_do_not_occur_in_train(corpus: Path) -> None:
    known = {text for _, clip in clips(corpus, "train") for text in (clip.translation, *clip.paraphrases)}
    held_out = [clip.translation for split in ("dev", "test") for _, clip in clips(corpus, split)]
    assert len(held_out) > 100
    assert not known & set(held_out)


@pytest.mark.parametrize("split", SPLITS)
def test_recordings_have_enough_clips_with_paraphrases_and_keywords(corpus: Path, split: str) -> None:
    for recording in read_annotations(corpus, split):
        assert CLIPS[0] <= len(recording.clips) <= CLIPS[1]
    for _, clip in clips(corpus, split):
        assert clip.paraphrases
        assert clip.paraphrases[0] != clip.translation
        assert all(word in clip.translation for word in clip.keywords)


@pytest.mark.parametrize("split", SPLITS)
def test_context_decides_every_context_bound_clip(corpus: Path, split: str) -> None:
    bound_clips = [(recording, clip) for recording, clip in clips(corpus, split) if clip.context_bound]
    assert {clip.context_bound.needs for _, clip in bound_clips if clip.context_bound} == {"prelude", "window"}
    for recording, clip in bound_clips:
        bound = clip.context_bound
        assert bound is not None
        assert bound.reading in clip.translation
        assert not any(other in clip.translation for other in bound.others)
        if bound.needs == "prelude":
            (first_sentence,) = gold_context(recording, clip.position, window=0, prelude=1)
            topics = [topic for topic, tool in TOOL_OF_TOPIC.items() if topic in first_sentence]
            assert [TOOL_OF_TOPIC[topic] for topic in topics] == [bound.reading]
        else:
            last_sentences = " ".join(gold_context(recording, clip.position, window=2, prelude=0))
            last_reading = max((bound.reading, *bound.others), key=last_sentences.rfind)
            assert last_reading == bound.reading


def test_the_frames_of_a_context_bound_clip_do_not_depend_on_its_reading(corpus: Path) -> None:
    """The mean frames of the ambiguous sign differ only by noise between readings."""
    streams = {name: {"width": stream.width} for name, stream in STREAMS.items()}
    split = open_recipe_split(build_recipe({"data": {"root": str(corpus)}, "streams": streams}), "train")
    last_frames: dict[str, list[np.ndarray]] = {}
    for clip in split.clips:
        if clip.context_bound and clip.context_bound.needs == "prelude":  # TOOL is the last sign
            frame = split.read(clip)["sign2vec"][-1].astype(np.float32)
            last_frames.setdefault(clip.context_bound.reading, []).append(frame)
    means = [np.mean(frames, axis=0) for frames in last_frames.values()]
    assert len(means) == len(TOOL_OF_TOPIC)
    spread = np.abs(np.stack(means)).mean()
    assert np.abs(means[0] - means[1]).mean() < 0.3 * spread
    assert np.abs(means[0] - means[2]).mean() < 0.3 * spread


def test_it_has_the_layout_of_a_dataset_folder(corpus: Path) -> None:
    for name in STREAMS:
        metadata = json.loads((corpus / name / f"metadata_{name}.test.json").read_text())
        assert set(metadata) == set(json.loads((corpus / "annotation.test.json").read_text()))
        assert {(corpus / name / f"{name}.test.{shard}.h5").is_file() for shard in metadata.values()} == {True}


def test_another_folder_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("Introduction")
    with pytest.raises(UserError, match="not empty"):
        write_toy_corpus(tmp_path)


def test_the_command_names_the_splits_in_the_order_of_a_study(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    toy(tmp_path / "toy")
    assert "recordings train 32, dev 3, test 4;" in capsys.readouterr().out


def test_what_a_killed_command_has_left_does_not_stop_the_next_one(
    signllava: Callable[..., Ended], tmp_path: Path
) -> None:
    out, left = tmp_path / "toy", tmp_path / "toy.replaced.tmp"
    out.mkdir()
    left.mkdir()
    (left / "x").write_text("")
    ended = signllava("prepare", "toy", "--out", out)
    assert ended.code == 0, ended.err
    assert [path.name for path in tmp_path.iterdir()] == ["toy"]


@pytest.mark.parametrize("out", [".", "..", "../here/"])
def test_the_current_folder_is_not_replaced(
    signllava: Callable[..., Ended], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str
) -> None:
    here = tmp_path / "parent" / "here"
    here.mkdir(parents=True)
    (here.parent / MARKER).write_text("{}")  # as if it were a corpus
    monkeypatch.chdir(here)
    ended = signllava("prepare", "toy", "--out", out)
    assert ended.code == 2
    assert "the current folder" in ended.err
    assert here.is_dir()
