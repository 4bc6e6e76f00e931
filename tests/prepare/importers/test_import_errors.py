"""Every rejected row is reported, and no malformed file causes a traceback."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Ended

Command = Callable[..., Ended]
COLUMNS = "uid\tvideo\tstart\tend\ttext\tp1\tp2\n"
OPTIONS = (
    "--recording",
    "video",
    "--start",
    "start",
    "--end",
    "end",
    "--paraphrases",
    "p1",
    "--paraphrases",
    "p2",
)


def run(signllava: Command, root: Path, content: str | bytes, *options: object, name: str = "train.tsv") -> Ended:
    (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return signllava("prepare", "csv", "--annotations", root / name, "--out", root / "out", *options)


def report(root: Path, split: str = "train") -> dict[str, Any]:
    content: dict[str, Any] = json.loads((root / "out" / f"import.{split}.json").read_text())
    return content


def test_every_rejected_row_is_counted_and_named(signllava: Command, tmp_path: Path) -> None:
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
    result = run(signllava, tmp_path, COLUMNS + "\n".join(rows), *OPTIONS)
    assert result.code == 0, result.err
    import_report = report(tmp_path)
    assert import_report["rejected"] == {
        "no text": 2,
        "time": 3,
        "name": 4,
        "duplicate clip": 1,
        "duplicate clip with another text": 1,
        "number of fields": 1,
        "NUL byte": 1,
    }
    assert (import_report["rows"], import_report["clips"], import_report["recordings"]) == (15, 2, 2)
    assert len(import_report["rejected_rows"]) == 13
    assert import_report["rejected_rows"][0] == {
        "where": f"{tmp_path / 'train.tsv'}:3",
        "clip": "b",
        "reason": "no text",
        "text": "",
    }
    assert import_report["rejected_rows"][-1]["where"].endswith(":16")  # the empty line is counted as a line
    assert (
        "warning: train: 13 rows are rejected (b: no text, c: no text, d: time, e: time, f: time and 8 more)"
        in result.out
    )
    assert "rejected: duplicate clip with another text" in result.out


def test_skipped_paraphrases_are_named_and_their_rows_kept(signllava: Command, tmp_path: Path) -> None:
    rows = "a\tr\t0\t1\tGood.\t<none>\tGood.\nb\tr\t1\t2\tBye.\tSo long.\tSo long.\nc\tr\t2\t3\tOne.\t\tnan\n"
    result = run(signllava, tmp_path, COLUMNS + rows, *OPTIONS)
    assert result.code == 0, result.err
    import_report = report(tmp_path)
    assert (import_report["rows"], import_report["clips"]) == (3, 3)
    assert [(text["clip"], text["reason"], text["text"]) for text in import_report["skipped_texts"]] == [
        ("a", "placeholder paraphrase", "<none>"),
        ("a", "paraphrase equal to the translation", "Good."),
        ("b", "duplicate paraphrase", "So long."),
        ("c", "placeholder paraphrase", "nan"),
    ]
    assert "4 keywords and paraphrases are skipped (a, b, c)" in result.out


def test_the_report_holds_the_source(signllava: Command, tmp_path: Path) -> None:
    content = "uid,text\na,Hello.\n"
    assert run(signllava, tmp_path, content, "--split", "test").code == 0
    import_report = report(tmp_path, "test")
    assert import_report["files"] == [
        {
            "file": str(tmp_path / "train.tsv"),
            "bytes": len(content),
            "sha256": hashlib.sha256(content.encode()).hexdigest(),
        }
    ]
    assert import_report["source"] == "csv"
    assert (import_report["settings"]["clip"], import_report["settings"]["split"]) == (None, "test")


def test_an_unclosed_quote_encloses_no_rows(signllava: Command, tmp_path: Path) -> None:
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
    ("content", "options", "message"),
    [
        ("uid,text\n", (), "none of the 0 rows of train is valid"),
        ("uid,text\na,\n", (), "none of the 1 rows of train is valid; "),
        ("", (), "train.tsv is empty"),
        (b"uid,text\na,x\nb,\xff\n", (), "line 3, is not UTF-8"),
        ("uid,words\na,x\n", (), "its columns are uid, words. Name the column of the text with --text"),
        ("name,text\na,x\n", (), "has no column uid; its columns are name, text. Name the column of"),
        ("v,s,text\na,1,x\n", ("--recording", "v", "--start", "s"), "--end (or --duration)"),
        ("name,text\na,x\n", ("--clip", "uid"), "has no column uid; its columns are name, text."),
        ("uid,text,text\na,x,y\n", (), "has the column text twice"),
        ("uid,text\na,x\n", ("--end", "text"), "need --start"),
        ("uid,text\na,x\n", ("--separator", "ab"), "--separator 'ab'"),
        ("uid,text\na,x\n", ("--split", "../x"), "--split '../x'"),
        ("uid,text\na,x\n", ("--split-column", "set"), "has no column set"),
        ("uid,text,set\na,x,\n", ("--split-column", "set"), "no row has a valid split"),
        ("uid,text,set\na,x,dev\n", ("--split-column", "set", "--split", "test"), "its splits: dev 1"),
    ],
)
def test_an_invalid_table_is_a_one_line_error(
    signllava: Command, tmp_path: Path, content: str | bytes, options: tuple[str, ...], message: str
) -> None:
    result = run(signllava, tmp_path, content, *options)
    assert result.code == 2, result.out + result.err
    assert len(result.err.strip().splitlines()) == 1
    assert message in result.err
    assert not (tmp_path / "out").exists()


def test_an_unknown_split_must_be_named(signllava: Command, tmp_path: Path) -> None:
    for name in ("clips.csv", "train_test.csv", "training.csv"):
        result = run(signllava, tmp_path, "uid,text\na,x\n", name=name)
        assert result.code == 2
        assert "Name it with --split." in result.err


def test_one_command_imports_files_of_several_splits(signllava: Command, tmp_path: Path) -> None:
    files = [tmp_path / f"h2s_{split}.csv" for split in ("train", "valid", "test")]
    for file in files:
        file.write_text("uid,text\na,x\n")
    assert signllava("prepare", "csv", "--annotations", *files, "--out", tmp_path).code == 0
    assert {path.name for path in tmp_path.glob("annotation.*")} == {
        f"annotation.{split}.json" for split in ("train", "dev", "test")
    }
    result = signllava("prepare", "csv", "--annotations", files[0], files[0], "--out", tmp_path / "again")
    assert result.code == 2
    assert "named twice" in result.err


def test_two_files_with_different_texts_for_a_clip_are_refused(signllava: Command, tmp_path: Path) -> None:
    """Only the user knows which is right; the order of their names must not decide."""
    first, second = tmp_path / "train_a.csv", tmp_path / "train_b.csv"
    first.write_text("uid,text\na,The same.\nb,Rain .\nc,Sun .\n")
    second.write_text("uid,text\na,The same.\nb,Rain\nc,Sun\n")
    result = signllava("prepare", "csv", "--annotations", first, second, "--out", tmp_path / "out")
    assert result.code == 2, result.out
    assert len(result.err.strip().splitlines()) == 1
    for part in (str(first), str(second), "2 clips of train", "b: 'Rain .'", "'Rain'", "name only one of them"):
        assert part in result.err
    assert not (tmp_path / "out").exists()


def test_an_existing_annotation_is_only_replaced_with_overwrite(signllava: Command, tmp_path: Path) -> None:
    assert run(signllava, tmp_path, "uid,text\na,Old.\n").code == 0
    before = (tmp_path / "out/annotation.train.json").read_bytes()
    result = run(signllava, tmp_path, "uid,text\na,New.\n")
    assert result.code == 2
    assert "--overwrite" in result.err
    assert (tmp_path / "out/annotation.train.json").read_bytes() == before
    assert run(signllava, tmp_path, "uid,text\na,New.\n", "--overwrite").code == 0
    assert b"New." in (tmp_path / "out/annotation.train.json").read_bytes()


def test_the_same_import_again_changes_nothing(signllava: Command, tmp_path: Path) -> None:
    text = "uid,text\na,One oven.\nb,Two ovens.\n"
    run(signllava, tmp_path, text, name="train.csv")
    signllava("prepare", "keywords", tmp_path / "out", "--split", "train", "--min-count", 1)
    files = {file: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    result = run(signllava, tmp_path, text, name="train.csv")
    assert result.code == 0, result.err
    assert "the same import was made before" in result.out
    assert {file: file.read_bytes() for file in (tmp_path / "out").iterdir()} == files
    assert run(signllava, tmp_path, text, "--text", "text", name="train.csv").code == 2  # other options


def test_invalid_captions_are_refused(signllava: Command, tmp_path: Path) -> None:
    command = ("prepare", "youtube-asl", "--out", tmp_path / "out", "--split", "train", "--annotations")
    assert "holds no .vtt files" in signllava(*command, tmp_path).err
    (tmp_path / "a.vtt").write_text("1\n00:00:01.000 --> 00:00:02.000\nHi.\n")
    assert "first line must be WEBVTT" in signllava(*command, tmp_path).err
    assert "--fps nan" in signllava(*command, tmp_path, "--fps", "nan").err
    assert "cannot be read" in signllava(*command, tmp_path / "missing.csv").err
    (tmp_path / "t.csv").write_text("x")
    assert "omit this option" in signllava(*command, tmp_path / "t.csv", "--fps", "25").err


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_rows_enclosed_by_a_quote_are_reported(signllava: Command, tmp_path: Path, separator: str) -> None:
    rows = [("uid", "text"), ("a", '"one'), ("b", "two"), ("c", 'three"'), ("d", "four")]
    result = run(signllava, tmp_path, "\n".join(separator.join(row) for row in rows) + "\n", name="train.csv")
    assert result.code == 0, result.err
    import_report = report(tmp_path)
    texts = [row["text"] for row in import_report["rejected_rows"]]
    assert import_report["clips"] == 4 or (
        import_report["clips"] == 1 and "a quote opens in line 2 and closes in line 4" in texts[0]
    )


def test_overwrite_removes_the_backup_of_the_replaced_file(signllava: Command, tmp_path: Path) -> None:
    run(signllava, tmp_path, "uid,text\na,One oven.\nb,Two ovens.\n", name="train.csv")
    backup = tmp_path / "out" / "annotation.train.json.before"
    signllava("prepare", "keywords", tmp_path / "out", "--split", "train", "--min-count", 1)
    assert backup.exists()
    run(signllava, tmp_path, "uid,text\na,One pan.\n", "--overwrite", name="train.csv")
    assert not backup.exists()
