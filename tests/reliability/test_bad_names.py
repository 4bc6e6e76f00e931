"""Names of files that are not UTF-8, have line breaks or are too long: a result, or an error of one line."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from conftest import Ended
from text_seeds import ANNOTATION, CSV_SYSTEM, PREDICTIONS, TABLE, as_json, as_lines

from signllava_cli.recipe import format_override

Command = Callable[..., Ended]
NAMES = {"not UTF-8": os.fsdecode(b"caf\xe9 \xff"), "line break": "a\nb\x1b[31m\tc", "300 characters": "x" * 300}


def commands(name: str, folder: Path) -> list[Sequence[object]]:
    """Commands that read or write a file or folder `name`; those of a file name that the disk accepts find it."""
    data, table, system, gold = (
        folder / name,
        folder / f"{name}.csv",
        folder / f"{name}.tsv",
        folder / f"{name}.jsonl",
    )
    recipe, texts = folder / f"{name}.yaml", folder / f"{name}.txt"
    if len(name) < 250:
        data.mkdir()
        (data / "annotation.dev.json").write_bytes(as_json(ANNOTATION))
        table.write_bytes(TABLE)
        system.write_bytes(CSV_SYSTEM.replace(b",", b"\t"))
        gold.write_bytes(as_lines(PREDICTIONS))
        recipe.write_text("run: {output_dir: runs/x}\n")
        texts.write_text("one line\n")
    out = folder / "out"
    return [
        ("eval", system, "--references", gold, "--out", out, "--report", out / f"{name}.html", "--samples", 0),
        ("eval", gold, "--out", out / name, "--latex", out / f"{name}.tex", "--samples", 0),
        ("eval", "--hyp", texts, "--ref", texts, "--out", out, "--samples", 0),
        ("prepare", "csv", "--annotations", table, "--split", "dev", "--out", out / name),
        ("prepare", "check", data, "--split", "dev", "--report", out / f"{name}.html"),
        ("prepare", "keywords", data, "--split", "dev", "--min-count", 1),
        ("prepare", "paraphrases", table, data, "--split", "dev"),
        ("prepare", "index", data),
        ("prepare", "pack", data, "--stream", "mae", "--split", "dev", "--out", data),
        ("prepare", "link", data, "--stream", "mae", "--split", "dev", "--out", data),
        ("recipes", "validate", recipe),
        ("recipes", "copy", recipe, out / name),
        ("recipes", "import", recipe),
        ("checkpoint", "inspect", data),
        ("generate", "--checkpoint", data),
        ("plot", data),
        ("pretrain", "--recipe", "toy/tiny_pretrain", "--set", format_override("data.root", data), "--dry-run"),
        ("pretrain", "--recipe", recipe, "--launch", f"{name}.yaml"),
    ]


@pytest.mark.reliability("Bad input", "every command takes odd file names, or refuses them in one line")
@pytest.mark.parametrize("kind", NAMES)
def test_a_file_name_gives_a_result_or_one_line(
    kind: str,
    signllava: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
) -> None:
    monkeypatch.chdir(tmp_path)
    trials = commands(NAMES[kind], tmp_path)
    wrong = []
    for words in trials:
        try:
            ended = signllava(*words)
        except Exception as error:
            wrong.append(f"{words[:2]}: {type(error).__name__}: {error!r}")
            continue
        if ended.code not in (0, 2) or "Usage" in ended.err or (ended.code == 2 and len(ended.err.splitlines()) != 1):
            wrong.append(f"{words[:2]}: {ended.code} {ended.err!r}")
    assert not wrong, "\n".join(wrong)
    record_property("commands", len(trials))


@pytest.mark.reliability("Bad input", "every command takes odd file names, or refuses them in one line")
def test_a_table_in_a_folder_that_is_not_utf8_is_imported_and_scored(signllava: Command, tmp_path: Path) -> None:
    """JSON names the folder by an escape, from which Python makes the name again."""
    folder = tmp_path / NAMES["not UTF-8"]
    folder.mkdir()
    (folder / "dev.csv").write_bytes(TABLE)
    assert (
        signllava("prepare", "csv", "--annotations", folder / "dev.csv", "--split", "dev", "--out", folder).code == 0
    )
    report = json.loads((folder / "import.dev.json").read_text())
    assert report["files"][0]["file"] == str(folder / "dev.csv")
    (folder / "predictions.jsonl").write_bytes(as_lines(PREDICTIONS))
    assert signllava("eval", folder, "--samples", 0, "--report", folder / "r.html").code == 0
    assert json.loads((folder / "scores.json").read_text())["results"][0]["file"].startswith(str(folder))
    assert "\\udcff" in (folder / "r.html").read_text(encoding="utf-8")
