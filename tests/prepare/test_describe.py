"""The statistics of `prepare describe` agree with the files and with training."""

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
    """A copy of the toy corpus without an index, which a test may change."""
    return Path(shutil.copytree(corpus, tmp_path / "copy", ignore=shutil.ignore_patterns("index.*")))


def describe(signllava: Command, data: Path, *options: object) -> tuple[dict[str, Any], str]:
    """The content of --report, and the output."""
    file = data.parent / "statistics.json"
    result = signllava("prepare", "describe", data, "--report", file, *options)
    assert result.code == 0, result.err
    return json.loads(file.read_text()), result.out


def cells(out: str, title: str) -> dict[str, list[str]]:
    """The rows of the printed table `title`: first cell -> other cells."""
    table = out.split(f"\n{title}\n", 1)[1].split("└", 1)[0]
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in table.splitlines() if line[:1] == "│"]
    return {row[0]: row[1:] for row in rows}


def frames_in(root: Path, stream: str, split: str) -> list[int]:
    """The number of frames of every array in the shards of a stream."""
    lengths: list[int] = []
    for file in sorted((root / stream).glob(f"{stream}.{split}.*.h5")):
        with h5py.File(file, "r") as shard:
            lengths += [len(clip) for recording in shard.values() for clip in recording.values()]
    return lengths


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_the_statistics_agree_with_the_files(signllava: Command, copy: Path, split: str) -> None:
    description = describe(signllava, copy, "--split", split)[0]
    recordings = read_annotations(copy, split)
    clips = [clip for recording in recordings for clip in recording.clips]
    counts = Counter(word for clip in clips for word in words(clip.translation))
    train = {w for r in read_annotations(copy, "train") for clip in r.clips for w in words(clip.translation)}
    sizes = sorted(len(recording.clips) for recording in recordings)
    statistics = description["splits"][split]
    assert (statistics["recordings"], statistics["clips"]) == (len(recordings), len(clips))
    assert (statistics["clips_per_recording"]["min"], statistics["clips_per_recording"]["max"]) == (
        sizes[0],
        sizes[-1],
    )
    assert statistics["clips_per_recording"]["median"] == sizes[(len(sizes) - 1) // 2]
    assert statistics["texts"] == {
        "words": counts.total(),
        "are_characters": False,
        "vocabulary": len(counts),
        "singletons": list(counts.values()).count(1),
        "oov_rate": None
        if split == "train"
        else sum(n for w, n in counts.items() if w not in train) / counts.total(),
        "repeated_sentences": sum(n > 1 for n in Counter(clip.translation for clip in clips).values()),
        "keywords_per_clip": pytest.approx(sum(len(clip.keywords) for clip in clips) / len(clips)),
        "paraphrases_per_clip": pytest.approx(sum(len(clip.paraphrases) for clip in clips) / len(clips)),
    }
    positions = [clip.position for clip in clips]
    assert sum(statistics["preceding"].values()) == len(clips)
    assert statistics["preceding"]["3"] == positions.count(3)
    assert statistics["preceding"]["4-7"] == sum(4 <= position <= 7 for position in positions)
    assert statistics["preceding"]["16+"] == sum(position >= 16 for position in positions)
    for stream in STREAMS:
        lengths = sorted(frames_in(copy, stream, split))
        frames = statistics["streams"][stream]["frames"]
        assert (frames["min"], frames["max"], frames["mean"]) == (
            lengths[0],
            lengths[-1],
            pytest.approx(np.mean(lengths)),
        )
        assert frames["p95"] == next(n for n in lengths if sum(m <= n for m in lengths) >= 0.95 * len(lengths))
        histogram = description["histograms"][stream]
        for n, (low, high) in enumerate(zip(histogram["bounds"], histogram["bounds"][1:], strict=False)):
            assert histogram["clips"][split][n] == sum(low <= length < high for length in lengths)
        assert sum(histogram["clips"][split]) == len(clips)


def test_the_output_agrees_with_the_json(signllava: Command, copy: Path, settings: list[str]) -> None:
    """For all splits and streams, in 80 columns."""
    options = ("--recipe", "toy/tiny_pretrain", *sets(settings), "--set", "data.max_seq_len=90")
    description, out = describe(signllava, copy, *options)
    splits = description["splits"]
    assert list(splits) == ["train", "dev", "test"]
    rows = cells(out, "splits")
    assert rows["clips"] == [str(split["clips"]) for split in splits.values()]
    assert rows["vocabulary"] == [str(split["texts"]["vocabulary"]) for split in splits.values()]
    assert rows["hours"] == ["unknown"] * 3
    assert rows["running words not in train"] == [
        "-",
        *(f"{splits[split]['texts']['oov_rate']:.1%}" for split in ("dev", "test")),
    ]
    for label, shares in cells(out, "clips by sentences before them").items():
        assert shares == [f"{split['preceding'][label] / split['clips']:.1%}" for split in splits.values()]
    rows = cells(out, "frames per clip")
    assert len(rows) == 2 * 3
    for split, statistics in splits.items():
        for stream in ("sign2vec", "mae"):
            frames = statistics["streams"][stream]["frames"]
            mean = f"{frames['mean']:.1f}"
            expected = [frames["min"], frames["median"], mean, frames["p95"], frames["max"], 0]
            assert rows[f"{stream}, {split}"] == list(map(str, expected))
    for stream, histogram in description["histograms"].items():
        shares = out.split(f"\nframes of {stream}, share of clips\n")[1].splitlines()[1 : len(histogram["bounds"])]
        for n, line in enumerate(shares):
            clips = [(histogram["clips"][split][n], statistics["clips"]) for split, statistics in splits.items()]
            assert re.findall(r"\S+%", line) == [f"{count / total:.1%}" for count, total in clips]
    rows, counts = (
        cells(out, "sequences of the recipe, in tokens"),
        cells(out, "clips truncated to data.max_seq_len=90"),
    )
    for split, statistics in splits.items():
        sequences = statistics["with_recipe"]["sequences"]
        for label in ("untruncated", "truncated"):
            lengths = sequences[label]
            assert rows[f"{split}, {label}"] == [str(lengths[key]) for key in ("median", "p90", "p95", "p99", "max")]
        expected = [sequences[key] for key in ("clips", "frames_truncated", "context_truncated")]
        assert counts[split] == [str(count) for count in [*expected, len(sequences["too_long"])]]
    assert all(len(line) <= 80 for line in out.splitlines() if not line.startswith(("index", "statistics in")))
    assert "\x1b" not in out


@pytest.mark.parametrize(
    "budget",
    [
        ["data.max_seq_len=90", "data.min_frames=6"],
        ["data.max_seq_len=66", "data.min_frames=3", "streams.mae.stride=2", "streams.sign2vec.max_frames=5"],
        ["data.max_seq_len=62", "data.min_frames=5"],
    ],
)
def test_truncation_agrees_with_training(
    signllava: Command, copy: Path, settings: list[str], budget: list[str]
) -> None:
    settings = [*settings, f"data.root={copy}", *budget]
    description = describe(signllava, copy, "--split", "dev", "--recipe", "toy/tiny_pretrain", *sets(settings))[0]
    recipe = read_recipe("toy/tiny_pretrain", settings)
    split = open_split(recipe.data, recipe.streams, "dev")
    builder = ExampleBuilder(
        PromptBuilder(load_tokenizer(recipe.llm), recipe.tasks),
        recipe.streams,
        recipe.data.max_seq_len,
        recipe.data.min_frames,
        recipe.context.prelude,
    )
    examples: list[Example] = []
    too_long = []
    frames = []
    for clip in split.clips:
        streams = split.read(clip)
        frames.append(sum(map(len, streams.values())))
        context = split.gold_context(clip, recipe.context.window, recipe.context.prelude)
        try:
            instruction = translation_instruction(recipe.tasks, clip.translation)
            examples.append(builder.build(clip.id, streams, instruction, context))
        except UserError:
            too_long.append(clip.id)
    with_recipe = description["splits"]["dev"]["with_recipe"]
    sequences = with_recipe["sequences"]
    assert (with_recipe["frames"]["min"], with_recipe["frames"]["max"]) == (min(frames), max(frames))
    assert sequences["too_long"] == too_long
    assert sequences["frames_truncated"] == sum(bool(example.truncation.frames) for example in examples) > 0
    assert sequences["context_truncated"] == sum(bool(example.truncation.sentences) for example in examples) > 0
    assert sequences["truncated"]["max"] == max(example.seq_len for example in examples)
    assert sequences["truncated"]["mean"] == pytest.approx(np.mean([example.seq_len for example in examples]))


def test_untruncated_lengths_do_not_depend_on_max_seq_len(
    signllava: Command, copy: Path, settings: list[str]
) -> None:
    lengths = []
    for budget in (50, 62, 80, 95, 1000):
        options = ("--recipe", "toy/tiny_pretrain", *sets(settings), "--set", f"data.max_seq_len={budget}")
        description = describe(signllava, copy, "--split", "dev", *options)[0]
        lengths.append(description["splits"]["dev"]["with_recipe"]["sequences"]["untruncated"])
    assert all(other == lengths[0] for other in lengths)


def test_too_long_clips_are_named(signllava: Command, copy: Path, settings: list[str]) -> None:
    options = ("--recipe", "toy/tiny_pretrain", *sets(settings), "--set", "data.max_seq_len=20")
    description, out = describe(signllava, copy, "--split", "dev", *options)
    sequences = description["splits"]["dev"]["with_recipe"]["sequences"]
    assert len(sequences["too_long"]) == description["splits"]["dev"]["clips"]
    assert sequences["truncated"]["max"] is None
    assert f"training would stop at {len(sequences['too_long'])} clips that are too long" in out
    assert sequences["too_long"][0] in out


def test_a_large_split_is_sampled_with_a_message(
    signllava: Command, copy: Path, settings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sequence_lengths, "SAMPLE_SIZE", 10)
    options = ("--split", "dev", "--recipe", "toy/tiny_pretrain", *sets(settings))
    first, out = describe(signllava, copy, *options)
    statistics = first["splits"]["dev"]
    assert statistics["with_recipe"]["sequences"]["clips"] == 10
    assert f"a fixed sample of 10 of {statistics['clips']} clips" in out
    assert describe(signllava, copy, *options)[0] == first


def test_without_the_tokenizer_frames_are_counted(signllava: Command, copy: Path, settings: list[str]) -> None:
    options = ("--recipe", "toy/tiny_pretrain", *sets(settings), "--set", "llm.path=nobody/nothing")
    description, out = describe(signllava, copy, "--split", "dev", *options, "--set", "streams.mae.stride=2")
    with_recipe = description["splits"]["dev"]["with_recipe"]
    assert with_recipe["sequences"] is None
    assert list(cells(out, "sequences of the recipe, in tokens")) == ["dev, frames read"]
    assert len([line for line in out.splitlines() if "nobody/nothing cannot be loaded" in line]) == 1


TIMED = [(0.0, 3600.0), (3600.0, 5400.0), (5400.0, 5400.0), (None, None)]
ENTRIES = ["Bread is bread.", "bread  IS good", "Bread is bread.", "New rolls!"]


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Four clips, two of them with a duration; 90 frames each in `long`, 45 in `short`, none of c3."""
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


def test_hours_are_counted_for_clips_with_times(signllava: Command, small: Path) -> None:
    description, out = describe(signllava, small, "--split", "dev")
    assert description["splits"]["dev"]["durations"] == {"hours": 1.5, "clips_unknown": 2}
    assert cells(out, "splits")["clips of unknown duration"] == ["2"]


def test_with_fps_the_longest_stream_gives_the_other_durations(signllava: Command, small: Path) -> None:
    description, _ = describe(signllava, small, "--split", "dev", "--fps", 25)
    assert description["splits"]["dev"]["durations"] == {
        "hours": pytest.approx(1.5 + 90 / 25 / 3600),
        "clips_unknown": 1,
    }


def test_words_are_counted_case_folded(signllava: Command, small: Path) -> None:
    """bread 5, is 3, and good, new, rolls once; train, which is not described, lacks new and rolls."""
    description, out = describe(signllava, small, "--split", "dev")
    texts = description["splits"]["dev"]["texts"]
    assert (texts["words"], texts["vocabulary"], texts["singletons"], texts["repeated_sentences"]) == (11, 5, 3, 1)
    assert texts["oov_rate"] == pytest.approx(2 / 11)
    assert list(description["splits"]) == ["dev"]
    assert "│ train" not in out


def test_characters_counted_as_words_are_reported(signllava: Command, small: Path) -> None:
    """In Chinese each character is a word."""
    clips = (Clip("c", "a", 0, "我今天去学校。"), Clip("c", "b", 1, "你好 OK"))
    write_annotations(small, "zh", [Recording("c", clips)])
    description, out = describe(signllava, small, "--split", "zh", "--split", "train")
    texts = description["splits"]["zh"]["texts"]
    assert (texts["words"], texts["are_characters"]) == (9, True)
    assert "zh: the texts have no spaces between words; each character is counted as a word." in out.splitlines()


def test_a_split_without_streams_is_indexed(signllava: Command, small: Path) -> None:
    result = signllava("prepare", "describe", small, "--split", "train")
    assert re.search(r"indexed 1 clip of split train, no streams, in [\d.]+ s", result.out)


def test_clips_without_frames_are_counted(signllava: Command, small: Path) -> None:
    description, out = describe(signllava, small, "--split", "dev")
    assert description["splits"]["dev"]["streams"]["short"]["clips_without"] == 1
    assert cells(out, "frames per clip")["short, dev"] == ["45", "45", "45.0", "45", "45", "1"]


def test_a_clip_without_frames_has_no_sequence(signllava: Command, small: Path, settings: list[str]) -> None:
    """Training would refuse this split, but the sequences of the other clips are measured."""
    recipe = small.parent / "recipe.yaml"
    recipe.write_text("streams: {long: {width: 2}, short: {width: 2}}")
    llm = next(override for override in settings if override.startswith("llm.path="))
    description, out = describe(signllava, small, "--split", "dev", "--recipe", recipe, "--set", llm)
    with_recipe = description["splits"]["dev"]["with_recipe"]
    assert (with_recipe["clips"], with_recipe["sequences"]["clips"]) == (3, 3)
    assert with_recipe["frames"]["max"] == 135
    message = "1 of 4 clips have no features (r/c3 in long, short); with data.missing=skip training skips them"
    assert message in out


def test_a_dataset_without_streams_has_statistics_of_texts(signllava: Command, small: Path) -> None:
    description, out = describe(signllava, small, "--split", "train", "--png", small.parent / "png")
    assert description["splits"]["train"]["streams"] == {}
    assert description["histograms"] == {}
    assert "frames per clip" not in out
    assert sorted(file.name for file in (small.parent / "png").iterdir()) == ["preceding.png", "words.png"]


def test_a_long_tail_is_one_bin(signllava: Command, tmp_path: Path) -> None:
    lengths = [*range(20, 220), 5000]
    root = tmp_path / "tail"
    root.mkdir()
    clips = tuple(Clip("r", f"c{n}", n, "Bread.") for n in range(len(lengths)))
    write_annotations(root, "dev", [Recording("r", clips)])
    write_stream(root, "dev", "mae", {"r": {f"c{n}": np.zeros((length, 1)) for n, length in enumerate(lengths)}}, 1)
    histogram = describe(signllava, root)[0]["histograms"]["mae"]
    assert histogram["bounds"] == [*range(20, 221, 20), 5001]
    assert histogram["clips"]["dev"] == [20] * 10 + [1]


def test_charts_are_png_images(signllava: Command, copy: Path, settings: list[str]) -> None:
    folder = copy.parent / "new" / "png"
    _, out = describe(signllava, copy, "--recipe", "toy/tiny_pretrain", *sets(settings), "--png", folder)
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
    """The index is enough: the other files may be corrupt."""
    expected = describe(signllava, copy)[0]
    for file in [*copy.glob("annotation.*.json"), *copy.glob("*/*.h5")]:
        state = file.stat()
        file.write_bytes(b"x" * state.st_size)
        os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert describe(signllava, copy)[0] == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--split", "dve"), "No split dve in {data}; its splits: train, dev, test."),
        (("--set", "data.max_seq_len=9"), "--set changes a recipe; name it with --recipe."),
        (("--recipe", "nowhere.yaml"), "No recipe at nowhere.yaml"),
        (("--png", "{data}/annotation.dev.json"), "cannot be written"),
    ],
)
def test_errors_are_one_line(signllava: Command, copy: Path, options: tuple[str, ...], message: str) -> None:
    result = signllava("prepare", "describe", copy, *(option.format(data=copy) for option in options))
    assert result.code == 2
    assert message.format(data=copy) in result.err
    assert len(result.err.strip().splitlines()) == 1


@pytest.mark.parametrize(("exists", "message"), [(False, "No data folder at"), (True, "No annotation.SPLIT.json in")])
def test_a_folder_without_a_dataset_is_an_error(
    signllava: Command, tmp_path: Path, exists: bool, message: str
) -> None:
    data = tmp_path / "data"
    if exists:
        data.mkdir()
    for options in ((), ("--split", "dev")):
        result = signllava("prepare", "describe", data, *options)
        assert result.code == 2
        assert message in result.err
        assert len(result.err.strip().splitlines()) == 1
