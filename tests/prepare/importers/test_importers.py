"""The importers convert recordings, names, order, texts and times of every source."""

import csv
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import Ended

from signllava_cli.data.annotations import read_annotations

Command = Callable[..., Ended]
HOW2SIGN = ("VIDEO_ID", "VIDEO_NAME", "SENTENCE_ID", "SENTENCE_NAME", "START_REALIGNED", "END_REALIGNED", "SENTENCE")


def table(file: Path, columns: Sequence[str], *rows: Sequence[object], separator: str = "\t") -> Path:
    lines = [separator.join(map(str, row)) for row in (columns, *rows)]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def how2sign_row(video: str, signer: int, number: int, start: float, text: str) -> tuple[object, ...]:
    name = f"{video}_{number}-{signer}-rgb_front"
    return (video, f"{video}-{signer}-rgb_front", f"{video}_{number}", name, start, start + 1, text)


def clips(out: Path, split: str) -> dict[str, list[str]]:
    """Recording -> clip names in order, as training reads them."""
    return {recording.name: [clip.name for clip in recording.clips] for recording in read_annotations(out, split)}


def entries(out: Path, split: str) -> dict[str, Any]:
    content = json.loads((out / f"annotation.{split}.json").read_text(encoding="utf-8"))
    return {
        name: entry for recording in content.values() for name, entry in recording.items() if name != "clip_order"
    }


def run_import(signllava: Command, *args: object) -> str:
    result = signllava("prepare", *args)
    assert result.code == 0, result.err
    return result.out


def test_how2sign_keeps_signers_apart_and_orders_by_start(signllava: Command, tmp_path: Path) -> None:
    file = table(
        tmp_path / "how2sign_realigned_val.csv",
        HOW2SIGN,
        how2sign_row("v", 5, 10, 30.5, "Third."),
        how2sign_row("v", 8, 9, 11.0, "Second."),
        how2sign_row("v", 5, 9, 4.25, "Second."),
        how2sign_row("v", 5, 0, 100.0, "Fourth."),
    )
    out = run_import(signllava, "how2sign", "--annotations", file, "--out", tmp_path)
    assert clips(tmp_path, "dev") == {
        "v-5-rgb_front": ["v_9-5-rgb_front", "v_10-5-rgb_front", "v_0-5-rgb_front"],
        "v-8-rgb_front": ["v_9-8-rgb_front"],
    }
    assert entries(tmp_path, "dev")["v_9-5-rgb_front"] == {
        "translation": "Second.",
        "paraphrases": [],
        "keywords": [],
        "start": 4.25,
        "end": 5.25,
        "source": {
            "video_id": "v",
            "video_name": "v-5-rgb_front",
            "sentence_id": "v_9",
            "sentence_name": "v_9-5-rgb_front",
        },
    }
    assert "Split val is renamed to dev." in out


def two_signers(file: Path) -> Path:
    """Script v of four sentences, by signer 5 and, 25 s later, by signer 8; and another script, w."""
    script = [(f"Sentence {n}.", n, 10.0 * (n - 8)) for n in (8, 9, 10, 11)]
    fast = [how2sign_row("v", 5, n, start, text) for text, n, start in script]
    slow = [how2sign_row("v", 8, n, start + 25, text) for text, n, start in script]
    return table(file, HOW2SIGN, *slow, *fast, *(how2sign_row("w", 5, n, n, f"Only {n}.") for n in (0, 1)))


def test_how2sign_in_sign_llava_order_reports_its_leaks(signllava: Command, tmp_path: Path) -> None:
    """Sign_LLaVA sorts the clips of a VIDEO_ID by name: each sentence of signer 8 follows that of signer 5."""
    file = two_signers(tmp_path / "test.tsv")
    command = ("how2sign", "-a", file, "--group-by", "video-id", "--order", "name", "--out", tmp_path / "name")
    out = run_import(signllava, *command)
    assert clips(tmp_path / "name", "test") == {
        "v": [f"v_{n}-{signer}-rgb_front" for n in (8, 9, 10, 11) for signer in (5, 8)],
        "w": ["w_0-5-rgb_front", "w_1-5-rgb_front"],
    }
    assert "4 of 10 (40.0%) at window 1, prelude 0; 4 of 10 (40.0%) at window 2, prelude 2" in out
    assert "warning: test: in this order, clips with their own reference in their gold context" in out
    assert "--order time" in out


def test_how2sign_by_video_id_in_time_order_reports_its_leaks(signllava: Command, tmp_path: Path) -> None:
    """In time order the sentences are 8 9 10 8 11 9 10 11: clips 3 and 5 leak at window 2, prelude 2."""
    file = two_signers(tmp_path / "test.tsv")
    out = run_import(signllava, "how2sign", "-a", file, "--out", tmp_path / "time", "--group-by", "video-id")
    assert [name.removesuffix("-rgb_front") for name in clips(tmp_path / "time", "test")["v"]] == [
        *("v_8-5", "v_9-5", "v_10-5", "v_8-8"),
        *("v_11-5", "v_9-8", "v_10-8", "v_11-8"),
    ]
    assert "0 of 10 (0.0%) at window 1, prelude 0; 2 of 10 (20.0%) at window 2, prelude 2" in out
    assert "--order time" not in out
    assert "gold context" not in run_import(signllava, "how2sign", "-a", file, "--out", tmp_path / "apart")


@pytest.mark.parametrize(
    ("source", "columns"),
    [
        ("youtube-asl", ("ClipID", "Beg(s)", "Dur(s)", "YouTubeID", "Caption", "Keywords")),
        ("openasl", ("vid", "start", "end", "yid", "raw-text", "split")),
    ],
)
def test_other_sources_have_the_order_of_names(
    signllava: Command, tmp_path: Path, source: str, columns: tuple[str, ...]
) -> None:
    rows = ("y-10", 1, 3, "y", "Hi.", "train"), ("y-2", 4, 6, "y", "Bye.", "train")
    file = table(tmp_path / "train.tsv", columns, *rows)
    for order, names in {"time": ["y-10", "y-2"], "name": ["y-2", "y-10"]}.items():
        run_import(signllava, source, "-a", file, "--order", order, "--out", tmp_path / order)
        assert clips(tmp_path / order, "train") == {"y": names}


@pytest.mark.parametrize("byte_order_mark", ["", "\ufeff"])
def test_how2sign_with_commas_and_not_realigned(signllava: Command, tmp_path: Path, byte_order_mark: str) -> None:
    file = tmp_path / "train.csv"
    file.write_text(
        f"{byte_order_mark}VIDEO_ID,VIDEO_NAME,SENTENCE_ID,SENTENCE_NAME,START,END,SENTENCE\r\n"
        'v,v-1,v_0,"v_0-1",1,2,"Well, he said ""no"".\nTwice."\r\n'
        "v,v-1,v_1,v_1-1,2,3,Yes\r\n",
        encoding="utf-8",
        newline="",
    )
    run_import(signllava, "how2sign", "--annotations", file, "--out", tmp_path)
    assert clips(tmp_path, "train") == {"v-1": ["v_0-1", "v_1-1"]}
    assert entries(tmp_path, "train")["v_0-1"]["translation"] == 'Well, he said "no".\nTwice.'


def test_how2sign_keywords_hold_only_where_the_state_is_ok(signllava: Command, tmp_path: Path) -> None:
    columns = (*HOW2SIGN, "STATE", "KEYWORDS", "GPT_Rephrase1", "GPT_Rephrase2")
    file = table(
        tmp_path / "train.tsv",
        columns,
        (*how2sign_row("v", 1, 0, 0, "Fold the dough."), "OK", "'fold, dough'", '"So, fold it."', "Fold."),
        (*how2sign_row("v", 1, 1, 1, "Wait."), "FAILED", "'sorry, no'", "", "<none>"),
    )
    run_import(signllava, "how2sign", "--annotations", file, "--out", tmp_path)
    entry_of = entries(tmp_path, "train")
    assert entry_of["v_0-1-rgb_front"]["keywords"] == ["fold", "dough"]
    assert entry_of["v_0-1-rgb_front"]["paraphrases"] == ["So, fold it.", "Fold."]
    assert entry_of["v_1-1-rgb_front"]["keywords"] == entry_of["v_1-1-rgb_front"]["paraphrases"] == []
    report = json.loads((tmp_path / "import.train.json").read_text())
    assert report["skipped"] == {"placeholder paraphrase": 1, "keywords whose state is not OK": 1}


def test_youtube_asl_tables_with_and_without_a_header(signllava: Command, tmp_path: Path) -> None:
    columns = ("ClipID", "Beg(s)", "Dur(s)", "YouTubeID", "StartFrame", "EndFrame", "FPS", "Caption", "GPT_Rephrase1")
    header = table(
        tmp_path / "train.csv",
        (*columns, "Keywords"),
        ("id.000322-000351", 10.74, 0.97, "id", 322, 351, 29.97, '"Hello, you!"', "<none>", '"self, esteem"'),
        ("id.000030-000060", 1.0, 1.0, "id", 30, 60, 29.97, "Hi.", "Hey.", ""),
        separator=",",
    )
    headless = table(
        tmp_path / "dev.tsv", ("10.74", "0.97", "id", "322", "351", "29.97", "Hello, you!", "OK", "'self, esteem'")
    )
    run_import(signllava, "youtube-asl", "--annotations", header, headless, "--out", tmp_path)
    assert clips(tmp_path, "train") == {"id": ["id.000030-000060", "id.000322-000351"]}
    hello = {"translation": "Hello, you!", "paraphrases": [], "keywords": ["self", "esteem"], "start": 10.74}
    source = {"youtubeid": "id", "startframe": "322", "endframe": "351"}
    source_with_id = {"clipid": "id.000322-000351", **source}
    assert entries(tmp_path, "train")["id.000322-000351"] == {**hello, "end": 11.71, "source": source_with_id}
    assert entries(tmp_path, "dev") == {"id.000322-000351": {**hello, "end": 11.71, "source": source}}


VTT = """WEBVTT
Kind: captions

NOTE made 00:00 --> by hand

1
00:00:03.000 --> 00:00:04.500 align:start
<v Ann>Salt &amp; <i>pepper</i>
on top.

00:00:01.000 --> 00:00:02.000
First.

00:00:05.000 --> 00:00:06.000

00:00:99 --> soon
Lost?
"""


def test_youtube_asl_captions_are_named_by_milliseconds_or_frames(signllava: Command, tmp_path: Path) -> None:
    folder = tmp_path / "captions"
    folder.mkdir()
    (folder / "abc.en.vtt").write_text(VTT)
    (folder / "abc.en-GB.vtt").write_text(VTT)
    (folder / "notes.txt").write_text("not a caption")
    command = ("youtube-asl", "--annotations", folder, "--split", "train", "--out")
    run_import(signllava, *command, tmp_path / "ms")
    assert clips(tmp_path / "ms", "train") == {"abc": ["abc.00001000-00002000", "abc.00003000-00004500"]}
    assert entries(tmp_path / "ms", "train")["abc.00003000-00004500"]["translation"] == "Salt & pepper on top."
    report = json.loads((tmp_path / "ms" / "import.train.json").read_text())
    rejected = {(Path(row["where"]).name, row["reason"]) for row in report["rejected_rows"]}
    assert rejected == {
        ("abc.en.vtt:14", "no text"),
        ("abc.en.vtt:16", "malformed cue"),
        ("abc.en-GB.vtt", "second caption file of a recording"),
    }
    files = [folder / "abc.en.vtt", folder / "abc.en-GB.vtt"]
    command_for_files = ("youtube-asl", "--split", "train", "--out", tmp_path / "files", "--annotations", *files)
    run_import(signllava, *command_for_files)
    assert clips(tmp_path / "files", "train") == clips(tmp_path / "ms", "train")
    run_import(signllava, *command, tmp_path / "fps", "--fps", 29.97)
    assert clips(tmp_path / "fps", "train") == {"abc": ["abc.000030-000060", "abc.000090-000135"]}


OPENASL = ("vid", "yid", "start", "end", "raw-text", "tokenized-text", "gloss", "split")


def openasl(file: Path) -> Path:
    return table(
        file,
        OPENASL,
        ("y-2", "y", "01:00:02.500", "01:00:03.000", '"Stop, she said.', "stop", "", "train"),
        ("y-1", "y", "00:59:59.000", "01:00:01.000", 'The "end".', "the end", "", "train"),
        ("z-1", "z", "00:00:00.000", "00:00:01.000", "Hi.", "hi", "", "valid"),
    )


def test_openasl_imports_every_split_of_its_column(signllava: Command, tmp_path: Path) -> None:
    file = openasl(tmp_path / "openasl-v1.0.tsv")
    assert "Split valid is renamed to dev." in run_import(signllava, "openasl", "-a", file, "--out", tmp_path)
    assert clips(tmp_path, "train") == {"y": ["y-1", "y-2"]}
    assert clips(tmp_path, "dev") == {"z": ["z-1"]}
    last = entries(tmp_path, "train")["y-2"]
    assert (last["translation"], last["start"], last["end"]) == ('"Stop, she said.', 3602.5, 3603.0)
    assert last["source"] == {"vid": "y-2", "yid": "y"}


def test_openasl_with_commas_gives_the_same_annotation(signllava: Command, tmp_path: Path) -> None:
    """A spreadsheet writes commas, and quotes the texts that hold commas or quotes."""
    original = openasl(tmp_path / "openasl-v1.0.tsv")
    rows = [line.split("\t") for line in original.read_text(encoding="utf-8").splitlines()]
    comma_file = tmp_path / "openasl-v1.0.csv"
    with comma_file.open("w", encoding="utf-8-sig", newline="") as opened:
        csv.writer(opened).writerows(rows)
    for name, file in (("tab", original), ("comma", comma_file)):
        run_import(signllava, "openasl", "-a", file, "--out", tmp_path / name)
    for split in ("train", "dev"):
        assert entries(tmp_path / "comma", split) == entries(tmp_path / "tab", split)
    assert len(entries(tmp_path / "comma", "train")) == 2


def test_split_selects_from_a_split_column(signllava: Command, tmp_path: Path) -> None:
    file = openasl(tmp_path / "openasl.tsv")
    out = run_import(signllava, "openasl", "-a", file, "--out", tmp_path, "--split", "val")
    assert "rows of other splits: train 2" in out
    assert [path.name for path in tmp_path.glob("annotation.*")] == ["annotation.dev.json"]


PHOENIX = ("name", "video", "start", "end", "speaker", "orth", "translation")


def phoenix(file: Path, texts: dict[int, str]) -> Path:
    rows = [(f"news_tagesschau-{n}", "-", -1, -1, "S1", "WETTER", text) for n, text in texts.items()]
    return table(file, PHOENIX, *rows, separator="|")


def test_phoenix14t_orders_a_broadcast_by_number(signllava: Command, tmp_path: Path) -> None:
    file = phoenix(tmp_path / "PHOENIX-2014-T.dev.corpus.csv", {n: f'satz {n} "so' for n in (10, 2, 1)})
    run_import(signllava, "phoenix14t", "--annotations", file, "--out", tmp_path)
    assert clips(tmp_path, "dev") == {"news_tagesschau": [f"news_tagesschau-{n}" for n in (1, 2, 10)]}
    assert entries(tmp_path, "dev")["news_tagesschau-1"] == {
        "translation": 'satz 1 "so',
        "paraphrases": [],
        "keywords": [],
        "source": {"name": "news_tagesschau-1", "speaker": "S1"},
    }


@pytest.mark.parametrize("corpus_name", ["PHOENIX-2014T", "PHOENIX-2014-T"])
def test_phoenix14t_skips_the_complex_annotation_of_the_official_folder(
    signllava: Command, tmp_path: Path, corpus_name: str
) -> None:
    """The complex file of train is beside the official ones, sorts first, and ends each text in " ."."""
    texts = {1: "und nun die wettervorhersage", 2: "am tag wechselhaft"}
    for split in ("train", "dev", "test"):
        phoenix(tmp_path / f"{corpus_name}.{split}.corpus.csv", texts)
    complex_file = tmp_path / f"{corpus_name}.train-complex-annotation.corpus.csv"
    phoenix(complex_file, {n: f"{text} ." for n, text in texts.items()})
    page = (Path(__file__).parents[3] / "docs/importing.md").read_text()
    pattern, *_ = re.findall(r"phoenix14t +--annotations (\S+)", page)
    files = sorted(tmp_path.glob(pattern))
    assert len(files) == 4, "the command of the docs matches the files of the release"
    out = run_import(signllava, "phoenix14t", "--annotations", *files, "--out", tmp_path / "out")
    for split in ("train", "dev", "test"):
        assert [entry["translation"] for entry in entries(tmp_path / "out", split).values()] == list(texts.values())
    assert [line for line in out.splitlines() if "complex" in line] == [
        f"{complex_file} is skipped: the complex annotation repeats clips of train with other texts."
    ]
    report = json.loads((tmp_path / "out" / "import.train.json").read_text())
    assert report["settings"]["skipped"] == [str(complex_file)]
    assert (report["clips"], report["rejected"]) == (2, {})
    result = signllava("prepare", "phoenix14t", "--annotations", complex_file, "--out", tmp_path / "alone")
    assert result.code == 2
    assert "train.corpus.csv" in result.err


def test_csv_needs_no_options_for_common_column_names(signllava: Command, tmp_path: Path) -> None:
    """WSLP: a byte order mark, `uid`, and the first text column; each clip is a recording."""
    file = tmp_path / "train.csv"
    file.write_text("\ufeffuid,gloss,text\na,G,Hello.\nb,G,Bye.\n", encoding="utf-8")
    assert "each clip is a recording of its own" in run_import(signllava, "csv", "-a", file, "--out", tmp_path)
    assert clips(tmp_path, "train") == {"a": ["a"], "b": ["b"]}
    assert entries(tmp_path, "train")["a"]["translation"] == "Hello."


def test_csv_reads_the_named_columns(signllava: Command, tmp_path: Path) -> None:
    file = table(
        tmp_path / "all.txt",
        ("id", "video", "from", "seconds", "sentence", "k", "p1", "p2", "set"),
        (2, "r", "0:10", 2, "Later.", "a, b", "Then.", "Afterwards.", "train"),
        (1, "r", "0:01.5", 2, "Earlier.", "", "", "", "train"),
        (1, "s", "0:01", 2, "Elsewhere.", "", "", "", "val"),
        separator=";",
    )
    names = {"clip": "id", "recording": "video", "text": "sentence", "start": "from", "duration": "seconds"}
    names |= {"keywords": "k", "split-column": "set"}
    options = [argument for option, column in names.items() for argument in (f"--{option}", column)]
    out = run_import(
        signllava, "csv", "-a", file, "--out", tmp_path, *options, "--paraphrases", "p1", "--paraphrases=p2"
    )
    assert "recording of its own" not in out
    assert clips(tmp_path, "train") == {"r": ["1", "2"]}
    assert clips(tmp_path, "dev") == {"s": ["1"]}
    assert entries(tmp_path, "train")["2"] == {
        "translation": "Later.",
        "paraphrases": ["Then.", "Afterwards."],
        "keywords": ["a", "b"],
        "start": 10.0,
        "end": 12.0,
        "source": {"id": "2", "video": "r"},
    }


def test_csv_names_clips_by_recording_and_times(signllava: Command, tmp_path: Path) -> None:
    """As in a table of subtitles; the names sort by time."""
    rows = [("v", "0:20", 2.5, "Three."), ("v", "9.9996", 1, "Two."), ("w", 0, 1, "Other."), ("v", 1, 0.5, "One.")]
    file = table(tmp_path / "train.csv", ("video", "from", "seconds", "text"), *rows, separator=",")
    options = ("--recording", "video", "--start", "from", "--duration", "seconds")
    out = run_import(signllava, "csv", "-a", file, "--out", tmp_path / "out", *options)
    assert "{recording}.{start}-{end}, in milliseconds" in out
    names = ["v.00001000-00001500", "v.00010000-00011000", "v.00020000-00022500"]
    assert clips(tmp_path / "out", "train") == {"v": names, "w": ["w.00000000-00001000"]}
    assert sorted(names) == names
    assert entries(tmp_path / "out", "train")[names[0]]["source"] == {"video": "v"}


@pytest.mark.parametrize("second", [("v", 1.0004, 2, "Other."), ("v", "0:01", 2, "Hi.")])
def test_two_rows_that_would_get_the_same_name_are_refused(
    signllava: Command, tmp_path: Path, second: tuple[object, ...]
) -> None:
    columns = ("video", "start", "end", "text")
    file = table(tmp_path / "train.csv", columns, ("v", 1, 2, "Hi."), ("w", 1, 2, "Hi."), second)
    options = ("--recording", "video", "--start", "start", "--end", "end")
    result = signllava("prepare", "csv", "-a", file, "--out", tmp_path / "out", *options)
    assert result.code == 2, result.out
    assert len(result.err.strip().splitlines()) == 1
    for part in (f"{file}:2", f"{file}:4", "v.00001000-00002000", "--clip"):
        assert part in result.err
    assert not (tmp_path / "out").exists()


def test_rows_without_times_are_not_named_by_times(signllava: Command, tmp_path: Path) -> None:
    columns = ("video", "start", "end", "text")
    file = table(tmp_path / "train.csv", columns, ("v", "", 2, "Hi."), ("v", 1, 2, ""), ("v", 2, 3, "Bye."))
    options = ("--recording", "video", "--start", "start", "--end", "end")
    run_import(signllava, "csv", "-a", file, "--out", tmp_path, *options)
    assert clips(tmp_path, "train") == {"v": ["v.00002000-00003000"]}
    assert json.loads((tmp_path / "import.train.json").read_text())["rejected"] == {"time": 1, "no text": 1}


def test_csv_sorts_by_a_number_and_reads_files_without_header(signllava: Command, tmp_path: Path) -> None:
    """ssvp_slt manifests; a caption may begin with an unclosed quote."""
    rows = [("r-10", 7, 'And "so" on.'), ("r-9", 3, '"I say'), ("r-8", 5, "so")]
    (tmp_path / "test.tsv").write_text("".join("\t".join(map(str, row)) + "\n" for row in rows))
    options = ("--columns", "video_name,duration,caption", "--clip", "video_name", "--text", "caption")
    run_import(signllava, "csv", "-a", tmp_path / "test.tsv", "--out", tmp_path / "a", *options)
    assert clips(tmp_path / "a", "test") == {name: [name] for name in ("r-10", "r-9", "r-8")}
    assert entries(tmp_path / "a", "test")["r-9"]["translation"] == '"I say'
    numbered = table(tmp_path / "dev.csv", ("uid", "r", "n", "text"), ("a", "r", 10, "x"), ("b", "r", 9.5, "y"))
    run_import(signllava, "csv", "-a", numbered, "--out", tmp_path, "--recording", "r", "--order", "n")
    assert clips(tmp_path, "dev") == {"r": ["b", "a"]}
