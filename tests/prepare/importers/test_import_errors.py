"""No row is lost in silence, and no bad file ends in a traceback."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Ended

Command = Callable[..., Ended]
COLUMNS = "uid\tvideo\tstart\tend\ttext\tsaid1\tsaid2\n"
READ = (
    "--recording",
    "video",
    "--start",
    "start",
    "--end",
    "end",
    "--paraphrases",
    "said1",
    "--paraphrases",
    "said2",
)


def run(signllava: Command, root: Path, content: str | bytes, *words: object, name: str = "train.tsv") -> Ended:
    (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return signllava("prepare", "csv", "--annotations", root / name, "--out", root / "out", *words)


def report(root: Path, split: str = "train") -> dict[str, Any]:
    content: dict[str, Any] = json.loads((root / "out" / f"import.{split}.json").read_text())
    return content


def test_every_row_that_is_no_clip_is_counted_and_named(signllava: Command, tmp_path: Path) -> None:
    rows = [
        "a\tr\t0\t1\tGood.\tFine.\tWell.",
        "b\tr\t1\t2\t \t\t",
        "c\tr\t1\t2\tnan\t\t",
        "d\tr\t2\t2\tNo length.\t\t",
        "e\tr\tsoon\t2\tNo start.\t\t",
        "f\tr\t1\tnan\tNo end.\t\t",
        "g/h\tr\t1\t2\tA path.\t\t",
        "\tr\t1\t2\tNo name.\t\t",
        "clip_order\tr\t1\t2\tNot a clip.\t\t",
        "a\tr\t0\t1\tGood.\t\t",
        "a\tr\t0\t1\tOther.\t\t",
        "h\x1b\tr\t1\t2\tAn escape in the name.\t\t",
        "i\tr\t1\t2\tShort.",
        "",
        "j\tr\t1\t2\tA \0 byte.\t\t",
        "a\ts\t0\t1\tThe same name in another recording.\t\t",
    ]
    ended = run(signllava, tmp_path, COLUMNS + "\n".join(rows), *READ)
    assert ended.code == 0, ended.err
    found = report(tmp_path)
    assert found["rejected"] == {
        "no text": 2,
        "time": 3,
        "name": 4,
        "clip given twice": 1,
        "clip given twice, with another text": 1,
        "number of fields": 1,
        "NUL byte": 1,
    }
    assert (found["rows"], found["clips"], found["recordings"]) == (15, 2, 2)
    assert len(found["rejected_rows"]) == 13
    assert found["rejected_rows"][0] == {
        "where": f"{tmp_path / 'train.tsv'}:3",
        "clip": "b",
        "reason": "no text",
        "what": "",
    }
    assert found["rejected_rows"][-1]["where"].endswith(":16")  # the empty line is counted as a line
    assert (
        "warning: train: 13 rows are no usable clips (b: no text, c: no text, d: time, e: time, f: time and 8 more)"
        in ended.out
    )
    assert "rejected: clip given twice, with another text" in ended.out


def test_dropped_paraphrases_are_named_and_their_rows_kept(signllava: Command, tmp_path: Path) -> None:
    rows = "a\tr\t0\t1\tGood.\t<none>\tGood.\nb\tr\t1\t2\tBye.\tSo long.\tSo long.\nc\tr\t2\t3\tOne.\t\tnan\n"
    ended = run(signllava, tmp_path, COLUMNS + rows, *READ)
    assert ended.code == 0, ended.err
    found = report(tmp_path)
    assert (found["rows"], found["clips"]) == (3, 3)
    assert [(text["clip"], text["reason"], text["what"]) for text in found["left_out_texts"]] == [
        ("a", "paraphrase that says nothing", "<none>"),
        ("a", "paraphrase equal to the translation", "Good."),
        ("b", "paraphrase given twice", "So long."),
        ("c", "paraphrase that says nothing", "nan"),
    ]
    assert "4 texts of clips are left out (a, b, c)" in ended.out


def test_the_report_tells_the_source(signllava: Command, tmp_path: Path) -> None:
    content = "uid,text\na,Hello.\n"
    assert run(signllava, tmp_path, content, "--split", "test").code == 0
    found = report(tmp_path, "test")
    assert found["files"] == [
        {
            "file": str(tmp_path / "train.tsv"),
            "bytes": len(content),
            "sha256": hashlib.sha256(content.encode()).hexdigest(),
        }
    ]
    assert found["source"] == "csv"
    assert (found["settings"]["clip"], found["settings"]["split"]) == (None, "test")


def test_a_quote_that_nothing_closes_swallows_no_rows(signllava: Command, tmp_path: Path) -> None:
    rows = [
        'a\t"I love you',
        'b\tvery much" said',
        "c\tx",
        'd\t"Ends',
        'e\t"so"',
        'f\t"Two\nlines"',
        'g\the said "no"',
    ]
    assert run(signllava, tmp_path, "\n".join(["uid\ttext", *rows])).code == 0
    content = json.loads((tmp_path / "out/annotation.train.json").read_text())
    assert {name: entry[name]["translation"] for name, entry in content.items()} == {
        "a": '"I love you',
        "b": 'very much" said',
        "c": "x",
        "d": '"Ends',
        "e": "so",
        "f": "Two\nlines",
        "g": 'he said "no"',
    }


@pytest.mark.parametrize(
    ("content", "words", "says"),
    [
        ("uid,text\n", (), "none of the 0 rows of train is usable"),
        ("uid,text\na,\n", (), "none of the 1 rows of train is usable; "),
        ("", (), "train.tsv is empty"),
        (b"uid,text\na,x\nb,\xff\n", (), "line 3, is not UTF-8"),
        ("uid,words\na,x\n", (), "its columns are uid, words. Name the column of the text with --text"),
        ("name,text\na,x\n", (), "has no column uid; its columns are name, text. Name the column of"),
        ("v,s,text\na,1,x\n", ("--recording", "v", "--start", "s"), "--end (or --duration)"),
        ("name,text\na,x\n", ("--clip", "uid"), "has no column uid; its columns are name, text."),
        ("uid,text,text\na,x,y\n", (), "gives the column text twice"),
        ("uid,text\na,x\n", ("--end", "text"), "without --start"),
        ("uid,text\na,x\n", ("--separator", "ab"), "--separator 'ab'"),
        ("uid,text\na,x\n", ("--split", "../x"), "--split '../x'"),
        ("uid,text\na,x\n", ("--split-column", "set"), "has no column set"),
        ("uid,text,set\na,x,\n", ("--split-column", "set"), "no row tells its split"),
        ("uid,text,set\na,x,dev\n", ("--split-column", "set", "--split", "test"), "splits there: dev 1"),
    ],
)
def test_a_bad_table_ends_in_one_line(
    signllava: Command, tmp_path: Path, content: str | bytes, words: tuple[str, ...], says: str
) -> None:
    ended = run(signllava, tmp_path, content, *words)
    assert ended.code == 2, ended.out + ended.err
    assert len(ended.err.strip().splitlines()) == 1
    assert says in ended.err
    assert not (tmp_path / "out").exists()


def test_a_split_that_no_name_tells_is_asked_for(signllava: Command, tmp_path: Path) -> None:
    for name in ("clips.csv", "train_test.csv", "training.csv"):
        ended = run(signllava, tmp_path, "uid,text\na,x\n", name=name)
        assert ended.code == 2
        assert "Say it with --split." in ended.err


def test_files_of_several_splits_in_one_call(signllava: Command, tmp_path: Path) -> None:
    files = [tmp_path / f"h2s_{split}.csv" for split in ("train", "valid", "test")]
    for file in files:
        file.write_text("uid,text\na,x\n")
    assert signllava("prepare", "csv", "--annotations", *files, "--out", tmp_path).code == 0
    assert {path.name for path in tmp_path.glob("annotation.*")} == {
        f"annotation.{split}.json" for split in ("train", "dev", "test")
    }
    ended = signllava("prepare", "csv", "--annotations", files[0], files[0], "--out", tmp_path / "again")
    assert ended.code == 2
    assert "named twice" in ended.err


def test_two_files_that_give_a_clip_two_texts_are_refused(signllava: Command, tmp_path: Path) -> None:
    """Which of them is meant only the user knows; the order of their names must not decide."""
    one, other = tmp_path / "train_a.csv", tmp_path / "train_b.csv"
    one.write_text("uid,text\na,The same.\nb,Rain .\nc,Sun .\n")
    other.write_text("uid,text\na,The same.\nb,Rain\nc,Sun\n")
    ended = signllava("prepare", "csv", "--annotations", one, other, "--out", tmp_path / "out")
    assert ended.code == 2, ended.out
    assert len(ended.err.strip().splitlines()) == 1
    for words in (str(one), str(other), "2 clips of train", "b: 'Rain .'", "'Rain'", "name one of them"):
        assert words in ended.err
    assert not (tmp_path / "out").exists()


def test_an_existing_annotation_is_replaced_only_when_asked(signllava: Command, tmp_path: Path) -> None:
    assert run(signllava, tmp_path, "uid,text\na,Old.\n").code == 0
    before = (tmp_path / "out/annotation.train.json").read_bytes()
    ended = run(signllava, tmp_path, "uid,text\na,New.\n")
    assert ended.code == 2
    assert "--overwrite" in ended.err
    assert (tmp_path / "out/annotation.train.json").read_bytes() == before
    assert run(signllava, tmp_path, "uid,text\na,New.\n", "--overwrite").code == 0
    assert b"New." in (tmp_path / "out/annotation.train.json").read_bytes()


def test_the_same_import_again_changes_nothing(signllava: Command, tmp_path: Path) -> None:
    text = "uid,text\na,One oven.\nb,Two ovens.\n"
    run(signllava, tmp_path, text, name="train.csv")
    signllava("prepare", "keywords", tmp_path / "out", "--split", "train", "--min-count", 1)
    files = {file: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    ended = run(signllava, tmp_path, text, name="train.csv")
    assert ended.code == 0, ended.err
    assert "imported before" in ended.out
    assert {file: file.read_bytes() for file in (tmp_path / "out").iterdir()} == files
    assert run(signllava, tmp_path, text, "--text", "text", name="train.csv").code == 2  # other settings


def test_captions_that_are_none(signllava: Command, tmp_path: Path) -> None:
    words = ("prepare", "youtube-asl", "--out", tmp_path / "out", "--split", "train", "--annotations")
    assert "holds no .vtt files" in signllava(*words, tmp_path).err
    (tmp_path / "a.vtt").write_text("1\n00:00:01.000 --> 00:00:02.000\nHi.\n")
    assert "first line must be WEBVTT" in signllava(*words, tmp_path).err
    assert "--fps nan" in signllava(*words, tmp_path, "--fps", "nan").err
    assert "cannot be read" in signllava(*words, tmp_path / "missing.csv").err
    (tmp_path / "t.csv").write_text("x")
    assert "Leave it out" in signllava(*words, tmp_path / "t.csv", "--fps", "25").err


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_quote_that_is_never_closed_swallows_no_row_in_silence(
    signllava: Command, tmp_path: Path, separator: str
) -> None:
    rows = [("uid", "text"), ("a", '"one'), ("b", "two"), ("c", 'three"'), ("d", "four")]
    ended = run(signllava, tmp_path, "\n".join(separator.join(row) for row in rows) + "\n", name="train.csv")
    assert ended.code == 0, ended.err
    found = report(tmp_path)
    named = [row["what"] for row in found["rejected_rows"]]
    assert found["clips"] == 4 or (found["clips"] == 1 and "a quote opens in line 2 and closes in line 4" in named[0])


def test_an_import_anew_forgets_the_first_state_of_the_file_it_replaces(signllava: Command, tmp_path: Path) -> None:
    run(signllava, tmp_path, "uid,text\na,One oven.\nb,Two ovens.\n", name="train.csv")
    before = tmp_path / "out" / "annotation.train.json.before"
    signllava("prepare", "keywords", tmp_path / "out", "--split", "train", "--min-count", 1)
    assert before.exists()
    run(signllava, tmp_path, "uid,text\na,One pan.\n", "--overwrite", name="train.csv")
    assert not before.exists()
