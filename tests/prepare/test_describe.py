"""What `prepare describe` says is what the files hold, and what training would make of them."""

import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from conftest import Ended, sets
from PIL import Image

from signllava_cli.data.annotations import Clip, Recording, read_annotations
from signllava_cli.data.examples import Example, ExampleBuilder
from signllava_cli.data.prompts import PromptBuilder
from signllava_cli.data.tasks import translation_instruction
from signllava_cli.data.words import words
from signllava_cli.errors import UserError
from signllava_cli.model.llm import load_tokenizer
from signllava_cli.prepare import sequence_lengths
from signllava_cli.prepare.dataset_writer import write_annotations, write_stream
from signllava_cli.prepare.indexing import open_split
from signllava_cli.recipe import read_recipe

Command = Callable[..., Ended]
STREAMS = ("mae", "pose", "sign2vec")


@pytest.fixture
def copy(corpus: Path, tmp_path: Path) -> Path:
    """A copy of the toy corpus that a test may corrupt; without an index."""
    return Path(shutil.copytree(corpus, tmp_path / "copy", ignore=shutil.ignore_patterns("index.*")))


def described(signllava: Command, data: Path, *options: object) -> tuple[dict[str, Any], str]:
    """What the command wrote to --json, and what it printed."""
    file = data.parent / "figures.json"
    ended = signllava("prepare", "describe", data, "--json", file, *options)
    assert ended.code == 0, ended.err
    return json.loads(file.read_text()), ended.out


def cells(out: str, title: str) -> dict[str, list[str]]:
    """The rows of the printed table with this title: first cell -> the others."""
    table = out.split(f"\n{title}\n", 1)[1].split("└", 1)[0]
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in table.splitlines() if line[:1] == "│"]
    return {row[0]: row[1:] for row in rows}


def frames_in(root: Path, stream: str, split: str) -> list[int]:
    """The length of every array in the shards of a stream."""
    lengths: list[int] = []
    for file in sorted((root / stream).glob(f"{stream}.{split}.*.h5")):
        with h5py.File(file, "r") as shard:
            lengths += [len(clip) for recording in shard.values() for clip in recording.values()]
    return lengths


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_the_figures_are_those_of_the_files(signllava: Command, copy: Path, split: str) -> None:
    found = described(signllava, copy, "--split", split)[0]
    recordings = read_annotations(copy, split)
    clips = [clip for recording in recordings for clip in recording.clips]
    said = Counter(word for clip in clips for word in words(clip.translation))
    train = {w for r in read_annotations(copy, "train") for clip in r.clips for w in words(clip.translation)}
    sizes = sorted(len(recording.clips) for recording in recordings)
    figures = found["splits"][split]
    assert (figures["recordings"], figures["clips"]) == (len(recordings), len(clips))
    assert (figures["clips_of_recording"]["min"], figures["clips_of_recording"]["max"]) == (sizes[0], sizes[-1])
    assert figures["clips_of_recording"]["median"] == sizes[(len(sizes) - 1) // 2]
    assert figures["texts"] == {
        "words": said.total(),
        "are_characters": False,
        "vocabulary": len(said),
        "once": list(said.values()).count(1),
        "unseen": None if split == "train" else sum(n for w, n in said.items() if w not in train) / said.total(),
        "repeated": sum(n > 1 for n in Counter(clip.translation for clip in clips).values()),
        "keywords": pytest.approx(sum(len(clip.keywords) for clip in clips) / len(clips)),
        "paraphrases": pytest.approx(sum(len(clip.paraphrases) for clip in clips) / len(clips)),
    }
    before = [clip.position for clip in clips]
    assert sum(figures["preceding"].values()) == len(clips)
    assert figures["preceding"]["3"] == before.count(3)
    assert figures["preceding"]["4-7"] == sum(4 <= position <= 7 for position in before)
    assert figures["preceding"]["16+"] == sum(position >= 16 for position in before)
    for stream in STREAMS:
        lengths = sorted(frames_in(copy, stream, split))
        its = figures["streams"][stream]["frames"]
        assert (its["min"], its["max"], its["mean"]) == (lengths[0], lengths[-1], pytest.approx(np.mean(lengths)))
        assert its["p95"] == next(n for n in lengths if sum(m <= n for m in lengths) >= 0.95 * len(lengths))
        histogram = found["histograms"][stream]
        for n, (low, high) in enumerate(zip(histogram["bounds"], histogram["bounds"][1:], strict=False)):
            assert histogram["clips"][split][n] == sum(low <= length < high for length in lengths)
        assert sum(histogram["clips"][split]) == len(clips)


def test_what_is_printed_is_what_is_written(signllava: Command, copy: Path, settings: list[str]) -> None:
    """... of all splits and streams, at 80 columns."""
    options = ("--recipe", "toy/tiny_pretrain", *sets(settings), "--set", "data.max_seq_len=90")
    found, out = described(signllava, copy, *options)
    splits = found["splits"]
    assert list(splits) == ["train", "dev", "test"]
    rows = cells(out, "splits")
    assert rows["clips"] == [str(its["clips"]) for its in splits.values()]
    assert rows["vocabulary"] == [str(its["texts"]["vocabulary"]) for its in splits.values()]
    assert rows["hours"] == ["unknown"] * 3
    assert rows["running words that train has not"] == [
        "-",
        *(f"{splits[split]['texts']['unseen']:.1%}" for split in ("dev", "test")),
    ]
    for label, shares in cells(out, "clips by sentences before them").items():
        assert shares == [f"{its['preceding'][label] / its['clips']:.1%}" for its in splits.values()]
    rows = cells(out, "frames of a clip")
    assert len(rows) == 2 * 3
    for split, its in splits.items():
        for stream in ("sign2vec", "mae"):
            each = its["streams"][stream]["frames"]
            expected = [each["min"], each["median"], f"{each['mean']:.1f}", each["p95"], each["max"], 0]
            assert rows[f"{stream}, {split}"] == list(map(str, expected))
    for stream, histogram in found["histograms"].items():
        shares = out.split(f"\nframes of {stream}, share of clips\n")[1].splitlines()[1 : len(histogram["bounds"])]
        for n, line in enumerate(shares):
            clips = [(histogram["clips"][split][n], its["clips"]) for split, its in splits.items()]
            assert re.findall(r"\S+%", line) == [f"{count / of:.1%}" for count, of in clips]
    rows, counts = (
        cells(out, "sequences under the recipe, in positions"),
        cells(out, "clips that data.max_seq_len=90 cuts"),
    )
    for split, its in splits.items():
        sequences = its["under_recipe"]["sequences"]
        for label, each in (("whole", sequences["whole"]), ("cut to fit", sequences["cut"])):
            assert rows[f"{split}, {label}"] == [str(each[key]) for key in ("median", "p90", "p95", "p99", "max")]
        expected = [sequences[key] for key in ("clips", "thinned", "lose_context")]
        assert counts[split] == [str(count) for count in [*expected, len(sequences["cannot_fit"])]]
    assert all(len(line) <= 80 for line in out.splitlines() if not line.startswith(("index", "figures in")))
    assert "\x1b" not in out


@pytest.mark.parametrize(
    "budget",
    [
        ["data.max_seq_len=90", "data.min_frames=6"],
        ["data.max_seq_len=66", "data.min_frames=3", "streams.mae.stride=2", "streams.sign2vec.max_frames=5"],
        ["data.max_seq_len=62", "data.min_frames=5"],
    ],
)
def test_the_cuts_are_those_of_training(
    signllava: Command, copy: Path, settings: list[str], budget: list[str]
) -> None:
    settings = [*settings, f"data.root={copy}", *budget]
    found = described(signllava, copy, "--split", "dev", "--recipe", "toy/tiny_pretrain", *sets(settings))[0]
    recipe = read_recipe("toy/tiny_pretrain", settings)
    split = open_split(recipe.data, recipe.streams, "dev")
    builder = ExampleBuilder(
        PromptBuilder(load_tokenizer(recipe.llm), recipe.tasks),
        recipe.data.max_seq_len,
        recipe.data.min_frames,
        recipe.context.prelude,
    )
    examples: list[Example] = []
    refused = []
    frames = []
    for clip in split.clips:
        streams = split.read(clip)
        frames.append(sum(map(len, streams.values())))
        context = split.gold_context(clip, recipe.context.window, recipe.context.prelude)
        try:
            instruction = translation_instruction(recipe.tasks, clip.translation)
            examples.append(builder.build(clip.id, streams, instruction, context))
        except UserError:
            refused.append(clip.id)
    under_recipe = found["splits"]["dev"]["under_recipe"]
    sequences = under_recipe["sequences"]
    assert (under_recipe["frames"]["min"], under_recipe["frames"]["max"]) == (min(frames), max(frames))
    assert sequences["cannot_fit"] == refused
    assert sequences["thinned"] == sum(bool(example.truncation.frames) for example in examples) > 0
    assert sequences["lose_context"] == sum(bool(example.truncation.sentences) for example in examples) > 0
    assert sequences["cut"]["max"] == max(example.seq_len for example in examples)
    assert sequences["cut"]["mean"] == pytest.approx(np.mean([example.seq_len for example in examples]))


def test_whole_sequences_do_not_depend_on_the_budget(signllava: Command, copy: Path, settings: list[str]) -> None:
    whole = []
    for budget in (50, 62, 80, 95, 1000):
        options = ("--recipe", "toy/tiny_pretrain", *sets(settings), "--set", f"data.max_seq_len={budget}")
        found = described(signllava, copy, "--split", "dev", *options)[0]
        whole.append(found["splits"]["dev"]["under_recipe"]["sequences"]["whole"])
    assert all(each == whole[0] for each in whole)


def test_clips_that_cannot_fit_are_named(signllava: Command, copy: Path, settings: list[str]) -> None:
    options = ("--recipe", "toy/tiny_pretrain", *sets(settings), "--set", "data.max_seq_len=20")
    found, out = described(signllava, copy, "--split", "dev", *options)
    sequences = found["splits"]["dev"]["under_recipe"]["sequences"]
    assert len(sequences["cannot_fit"]) == found["splits"]["dev"]["clips"]
    assert sequences["cut"]["max"] is None
    assert f"training would stop at {len(sequences['cannot_fit'])} clips that cannot fit" in out
    assert sequences["cannot_fit"][0] in out


def test_a_large_split_is_sampled_and_says_so(
    signllava: Command, copy: Path, settings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sequence_lengths, "SAMPLE", 10)
    options = ("--split", "dev", "--recipe", "toy/tiny_pretrain", *sets(settings))
    first, out = described(signllava, copy, *options)
    its = first["splits"]["dev"]
    assert its["under_recipe"]["sequences"]["clips"] == 10
    assert f"a sample of 10 of {its['clips']} clips" in out
    assert described(signllava, copy, *options)[0] == first


def test_without_the_tokenizer_frames_are_described(signllava: Command, copy: Path, settings: list[str]) -> None:
    options = ("--recipe", "toy/tiny_pretrain", *sets(settings), "--set", "llm.path=nobody/nothing")
    found, out = described(signllava, copy, "--split", "dev", *options, "--set", "streams.mae.stride=2")
    under_recipe = found["splits"]["dev"]["under_recipe"]
    assert under_recipe["sequences"] is None
    assert list(cells(out, "sequences under the recipe, in positions")) == ["dev, frames read"]
    assert len([line for line in out.splitlines() if "nobody/nothing cannot be loaded" in line]) == 1


TIMED = [(0.0, 3600.0), (3600.0, 5400.0), (5400.0, 5400.0), (None, None)]
ENTRIES = ["Bread is bread.", "bread  IS good", "Bread is bread.", "New rolls!"]


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Four clips, of which two have a duration; 90 frames each in `long`, half in `short`; and none of c3."""
    root = tmp_path / "small"
    root.mkdir()
    clips = [
        Clip("r", f"c{n}", n, text, start=start, end=end)
        for n, (text, (start, end)) in enumerate(zip(ENTRIES, TIMED, strict=True))
    ]
    write_annotations(root, "dev", [Recording("r", tuple(clips))])
    write_annotations(root, "train", [Recording("t", (Clip("t", "c", 0, "Bread is good."),))])
    for stream, frames in (("long", 90), ("short", 45)):
        write_stream(root, "dev", stream, {"r": {f"c{n}": np.zeros((frames, 2)) for n in range(3)}}, 1)
    return root


def test_hours_are_those_of_the_clips_with_times(signllava: Command, small: Path) -> None:
    found, out = described(signllava, small, "--split", "dev")
    assert found["splits"]["dev"]["durations"] == {"hours": 1.5, "clips_unknown": 2}
    assert cells(out, "splits")["clips of unknown duration"] == ["2"]


def test_with_fps_the_longest_stream_tells_the_others(signllava: Command, small: Path) -> None:
    found, _ = described(signllava, small, "--split", "dev", "--fps", 25)
    assert found["splits"]["dev"]["durations"] == {"hours": pytest.approx(1.5 + 90 / 25 / 3600), "clips_unknown": 1}


def test_words_are_those_of_the_word_rule(signllava: Command, small: Path) -> None:
    """bread 5, is 3, and good, new, rolls once; train, which is not described, lacks new and rolls."""
    found, out = described(signllava, small, "--split", "dev")
    texts = found["splits"]["dev"]["texts"]
    assert (texts["words"], texts["vocabulary"], texts["once"], texts["repeated"]) == (11, 5, 3, 1)
    assert texts["unseen"] == pytest.approx(2 / 11)
    assert list(found["splits"]) == ["dev"]
    assert "│ train" not in out


def test_words_that_are_characters_are_said_to_be(signllava: Command, small: Path) -> None:
    """A figure of Chinese is not taken for one of words."""
    clips = (Clip("c", "a", 0, "我今天去学校。"), Clip("c", "b", 1, "你好 OK"))
    write_annotations(small, "zh", [Recording("c", clips)])
    found, out = described(signllava, small, "--split", "zh", "--split", "train")
    texts = found["splits"]["zh"]["texts"]
    assert (texts["words"], texts["are_characters"]) == (9, True)
    assert "zh: the texts have no spaces between words; each character is counted as a word." in out.splitlines()


def test_without_streams_none_are_listed(signllava: Command, small: Path) -> None:
    ended = signllava("prepare", "describe", small, "--split", "train")
    assert re.search(r"indexed 1 clips of split train, no streams, in [\d.]+ s", ended.out)


def test_clips_without_frames_are_counted(signllava: Command, small: Path) -> None:
    found, out = described(signllava, small, "--split", "dev")
    assert found["splits"]["dev"]["streams"]["short"]["clips_without"] == 1
    assert cells(out, "frames of a clip")["short, dev"] == ["45", "45", "45.0", "45", "45", "1"]


def test_a_clip_without_frames_has_no_sequence(signllava: Command, small: Path, settings: list[str]) -> None:
    """... and training would refuse this split, but the sequences of the others are told."""
    recipe = small.parent / "recipe.yaml"
    recipe.write_text("streams: {long: {width: 2}, short: {width: 2}}")
    llm = next(each for each in settings if each.startswith("llm.path="))
    found, out = described(signllava, small, "--split", "dev", "--recipe", recipe, "--set", llm)
    under_recipe = found["splits"]["dev"]["under_recipe"]
    assert (under_recipe["clips"], under_recipe["sequences"]["clips"]) == (3, 3)
    assert under_recipe["frames"]["max"] == 135
    assert "1 of 4 clips have no features (r/c3 in long, short)" in out


def test_a_dataset_without_streams_has_its_texts_described(signllava: Command, small: Path) -> None:
    found, out = described(signllava, small, "--split", "train", "--png", small.parent / "png")
    assert found["splits"]["train"]["streams"] == {}
    assert found["histograms"] == {}
    assert "frames of a clip" not in out
    assert sorted(file.name for file in (small.parent / "png").iterdir()) == ["preceding.png", "words.png"]


def test_a_long_tail_stays_readable(signllava: Command, tmp_path: Path) -> None:
    lengths = [*range(20, 220), 5000]
    root = tmp_path / "tail"
    root.mkdir()
    clips = tuple(Clip("r", f"c{n}", n, "Bread.") for n in range(len(lengths)))
    write_annotations(root, "dev", [Recording("r", clips)])
    write_stream(root, "dev", "mae", {"r": {f"c{n}": np.zeros((length, 1)) for n, length in enumerate(lengths)}}, 1)
    histogram = described(signllava, root)[0]["histograms"]["mae"]
    assert histogram["bounds"] == [*range(20, 221, 20), 5001]
    assert histogram["clips"]["dev"] == [20] * 10 + [1]


def test_charts_are_images(signllava: Command, copy: Path, settings: list[str]) -> None:
    folder = copy.parent / "new" / "png"
    _, out = described(signllava, copy, "--recipe", "toy/tiny_pretrain", *sets(settings), "--png", folder)
    names = ["frames.png", "preceding.png", "sequences.png", "words.png"]
    assert sorted(file.name for file in folder.iterdir()) == names
    for name in names:
        assert str(folder / name) in out
        with Image.open(folder / name) as image:
            image.load()
            assert image.format == "PNG"
            assert image.width == 1200
            assert 400 <= image.height <= 1200
            assert len(image.convert("RGB").getcolors(1 << 24) or ()) > 50


def test_only_the_index_is_read(signllava: Command, copy: Path) -> None:
    """Once there is one, the files beside it may hold anything."""
    expected = described(signllava, copy)[0]
    for file in [*copy.glob("annotation.*.json"), *copy.glob("*/*.h5")]:
        state = file.stat()
        file.write_bytes(b"x" * state.st_size)
        os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert described(signllava, copy)[0] == expected


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--split", "dve"), "No split dve in {data}; splits there: train, dev, test."),
        (("--set", "data.max_seq_len=9"), "--set changes a recipe: name it with --recipe."),
        (("--recipe", "nowhere.yaml"), "No recipe at nowhere.yaml"),
        (("--png", "{data}/annotation.dev.json"), "cannot be written"),
    ],
)
def test_errors_are_one_line(signllava: Command, copy: Path, options: tuple[str, ...], says: str) -> None:
    ended = signllava("prepare", "describe", copy, *(option.format(data=copy) for option in options))
    assert ended.code == 2
    assert says.format(data=copy) in ended.err
    assert len(ended.err.strip().splitlines()) == 1


@pytest.mark.parametrize(("made", "says"), [(False, "No data folder at"), (True, "No annotation.SPLIT.json in")])
def test_a_folder_without_a_dataset_is_an_error(signllava: Command, tmp_path: Path, made: bool, says: str) -> None:
    data = tmp_path / "data"
    if made:
        data.mkdir()
    for options in ((), ("--split", "dev")):
        ended = signllava("prepare", "describe", data, *options)
        assert ended.code == 2
        assert says in ended.err
        assert len(ended.err.strip().splitlines()) == 1
