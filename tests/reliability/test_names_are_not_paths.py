"""Names in data never become paths outside of their folder, for reading or writing; nor do links in it."""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import Ended, sets
from safetensors.numpy import save_file

from signllava_cli.api.hub import save_checkpoint
from signllava_cli.errors import UserError
from signllava_cli.files import read_link
from signllava_cli.model.checkpoint import find_checkpoint
from signllava_cli.prepare.pack.stream_paths import StreamPaths
from signllava_cli.recipe import format_override
from signllava_cli.serving.videos import Videos

Command = Callable[..., Ended]
INSIDE = pytest.mark.reliability("Security", "names and links in data never lead out of their folder")
LONG = "n" * 300
PATHS = ("..", "../up", "../../outside/secret", "/etc/passwd", "a/../../up", "a\0b", "~/x", "./x")
ODD_NAMES = (
    "CON",
    "nul.txt",
    "a:b",
    "dots...",
    "space ",
    "..\\up",
    "C:\\up",
    "$HOME",
    "`id`",
    "%2e%2e",
    LONG,
    "\u202e",
    "-rf",
)


def all_files(folder: Path) -> dict[str, bytes | str]:
    """The files below a folder with their contents, and the links with their targets."""
    return {
        str(path): os.readlink(path) if path.is_symlink() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A folder beside the data, which no command may read, and nothing may change."""
    folder = tmp_path / "outside"
    folder.mkdir()
    np.save(folder / "secret.npy", np.full((3, 4), 7.0))
    (folder / "secret.mp4").write_bytes(b"secret")
    with h5py.File(folder / "secret.h5", "w") as file:
        file["frames"] = np.full((3, 4), 7.0)
    (folder / "profile").write_text("secret settings\n")
    before = all_files(folder)
    yield folder
    assert all_files(folder) == before


def write_annotation(
    root: Path, clips: Mapping[str, Mapping[str, Mapping[str, object]]], split: str = "train"
) -> Path:
    root.mkdir(exist_ok=True)
    content = {name: {"clip_order": list(entries), **entries} for name, entries in clips.items()}
    (root / f"annotation.{split}.json").write_text(json.dumps(content))
    return root


@INSIDE
@pytest.mark.parametrize("command", ["csv", "openasl"])
def test_importers_reject_names_that_are_paths(
    signllava: Command, tmp_path: Path, outside: Path, command: str, record_property: Callable[[str, object], None]
) -> None:
    """Names of recordings, clips and splits; odd names are names."""
    rows = [
        ("good", "good", "train"),
        *((name, "c", "train") for name in PATHS),
        *(("r", name, "train") for name in PATHS),
    ]
    rows += [("r", f"s{number}", name) for number, name in enumerate(PATHS)]
    rows += [(name, name, "train") for name in ODD_NAMES]
    table, out = tmp_path / "table.tsv", tmp_path / "work" / "data"
    header = "vid\tyid\tstart\tend\traw-text\tsplit"
    lines = [f"{clip}\t{recording}\t{n}\t{n + 1}\tText.\t{split}" for n, (recording, clip, split) in enumerate(rows)]
    table.write_text("\n".join([header, *lines]) + "\n")
    columns = ["--clip", "vid", "--recording", "yid", "--text", "raw-text", "--split-column", "split"]
    ended = signllava("prepare", command, "-a", table, "--out", out, *(columns if command == "csv" else []))
    assert ended.code == 0, ended.err
    assert {path.name for path in out.iterdir()} <= {"annotation.train.json", "import.train.json", ".lock"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["outside", "table.tsv", "work"]
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["data"]
    recordings = json.loads((out / "annotation.train.json").read_text())
    names = [*recordings, *(clip for entry in recordings.values() for clip in entry["clip_order"])]
    assert "good" in names
    assert not [name for name in names if "/" in name or "\0" in name or name in (".", "..")]
    record_property("names", len(rows))


@pytest.mark.drill
@INSIDE
@pytest.mark.parametrize("name", PATHS)
def test_annotations_with_names_that_are_paths_are_refused(
    signllava: Command, tmp_path: Path, outside: Path, name: str, record_property: Callable[[str, object], None]
) -> None:
    for recording, clip in ((name, "c"), ("r", name)):
        data = write_annotation(tmp_path / "data", {recording: {clip: {"translation": "Text."}}})
        for words in (
            ("pack", outside, "--stream", "x", "--split", "train", "--out", data),
            ("extract", outside, "--split", "train", "--out", data, "--streams", "pose"),
            ("keywords", data, "--split", "train"),
            ("describe", data),
            ("index", data),
        ):
            ended = signllava("prepare", *words)
            assert ended.code == 2, (words, ended.out)
            assert "Traceback" not in ended.err
        assert [path.name for path in data.iterdir() if path.name != ".lock"] == ["annotation.train.json"]
    record_property("names", 2)


@INSIDE
def test_odd_names_stay_inside_the_folder(
    signllava: Command, tmp_path: Path, outside: Path, record_property: Callable[[str, object], None]
) -> None:
    clips = {name: {name: {"translation": "Text."}} for name in ODD_NAMES}
    data, source = write_annotation(tmp_path / "data", clips), tmp_path / "source"
    for name in ODD_NAMES:
        if name != LONG:
            (source / name).mkdir(parents=True)
            np.save(source / name / f"{name}.npy", np.ones((2, 4)))
    before = sorted(path.name for path in tmp_path.iterdir())
    for words in (
        ("pack", source, "--stream", "x", "--split", "train", "--out", data),
        ("check", data, "--fix", "--report", tmp_path / "source" / "check.html"),
        ("describe", data, "--png", tmp_path / "source" / "png"),
        ("keywords", data, "--split", "train"),
    ):
        ended = signllava("prepare", *words)
        assert ended.code == (2 if words[0] == "check" else 0), (words, ended.err)
    with h5py.File(data / "x" / "x.train.0.h5") as file:
        assert set(file) == {name for name in ODD_NAMES if name != LONG}
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    record_property("names", len(ODD_NAMES))


@INSIDE
def test_columns_of_a_table_do_not_lead_out_of_the_source(
    signllava: Command, tmp_path: Path, outside: Path, record_property: Callable[[str, object], None]
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    np.save(source / "own.npy", np.ones((2, 4)))
    values = {"own": "own", "up": "../outside/secret", "absolute": str(outside / "secret"), "null": "a\0b"}
    clips = {name: {"translation": "Text.", "source": {"file": value}} for name, value in values.items()}
    data = write_annotation(tmp_path / "data", {"r": clips})
    words = (source, "--pattern", "{file}.npy", "--stream", "x", "--split", "train", "--out", data)
    ended = signllava("prepare", "pack", *words)
    assert ended.code == 0, ended.err
    report = json.loads((data / "x" / "pack.x.train.json").read_text())
    assert report["clips_packed"] == 1
    assert report["faulty"].keys() == {"r/up", "r/absolute", "r/null"}
    record_property("names", len(values))


@INSIDE
@pytest.mark.parametrize("split", ["../up", "a/../../up", "a\0b", "/etc/passwd", ""])
def test_a_split_is_never_a_path(signllava: Command, tmp_path: Path, settings: list[str], split: str) -> None:
    (tmp_path / "annotation.a").mkdir()
    write_annotation(tmp_path, {"r": {"c": {"translation": "Text."}}}, "up")
    for words in (
        ("prepare", "pack", tmp_path, "--stream", "x", "--split", split, "--out", tmp_path),
        ("prepare", "keywords", tmp_path, "--split", split),
        ("pretrain", "--recipe", "toy/tiny_pretrain", *sets([*settings, format_override("data.train", split)])),
    ):
        ended = signllava(*words)
        assert ended.code == 2, words
        assert "Traceback" not in ended.err
    with pytest.raises(UserError, match="not the name of a split"):
        assert StreamPaths(tmp_path, "x", split).annotation
    assert not (tmp_path / "run").exists() or not list((tmp_path / "run").glob("step-*"))


@pytest.mark.drill
@INSIDE
def test_links_in_a_dataset_are_not_written_through(
    signllava: Command, corpus: Path, tmp_path: Path, outside: Path, record_property: Callable[[str, object], None]
) -> None:
    data = tmp_path / "data"
    shutil.copytree(corpus, data, ignore=shutil.ignore_patterns("index.*"))
    table = tmp_path / "table.csv"
    table.write_text("uid,text\na,Text.\n")
    names = ("annotation.new.json", "import.new.json", "import.new.json.tmp", ".lock", "annotation.train.json.before")
    for name in names:
        (data / name).unlink(missing_ok=True)
        (data / name).symlink_to(outside / "profile")
        signllava("prepare", "csv", "-a", table, "--out", data, "--split", "new", "--overwrite")
        signllava("prepare", "keywords", data, "--split", "train")
        assert (outside / "profile").read_text() == "secret settings\n", name
        (data / name).unlink(missing_ok=True)
    for name in (
        "pack.x.train.json",
        "metadata_x.train.json",
        "x.train.0.h5",
        "pack.x.train.plan.json",
        "x.train.0.h5.1.tmp",
    ):
        (data / "x").mkdir(exist_ok=True)
        (data / "x" / name).symlink_to(outside / "profile")
        words = (data / "mae" / "mae.train.0.h5", "--stream", "x", "--split", "train", "--out", data, "--overwrite")
        signllava("prepare", "pack", *words)
        assert (outside / "profile").read_text() == "secret settings\n", name
        shutil.rmtree(data / "x")
    record_property("links", len(names) + 6)


@INSIDE
def test_links_in_a_run_are_not_written_through(
    signllava: Command, settings: list[str], run: Path, tmp_path: Path, outside: Path
) -> None:
    """A link in a run folder or in a folder of predictions; `best` and `last` name folders beside them alone."""
    for name in ("metrics.jsonl", "log.txt", "recipe.yaml", ".lock"):
        (tmp_path / "run").mkdir(exist_ok=True)
        (tmp_path / "run" / name).symlink_to(outside / "profile")
        ended = signllava("pretrain", "--recipe", "toy/tiny_pretrain", *sets([*settings, "train.max_steps=1"]))
        assert ended.code == 2, (name, ended.out)
        assert "is a link to" in ended.err
        shutil.rmtree(tmp_path / "run")
    predictions = tmp_path / "predictions"
    (predictions / "parts").mkdir(parents=True)
    for name in ("predictions.meta.json", "parts/0-of-1.jsonl", "parts/0-of-1.lock"):
        (predictions / name).symlink_to(outside / "profile")
    ended = signllava("generate", "-c", run, "--split", "dev", "--out", predictions, "--overwrite")
    assert (ended.code, "is a link to" in ended.err) == (2, True), ended.out
    (tmp_path / "fake").mkdir()
    for target in ("../outside", str(outside), ".", "..", "", "a\0b"):
        (tmp_path / "fake" / "best").write_text(target)
        assert read_link(tmp_path / "fake" / "best") is None


@INSIDE
def test_a_saved_checkpoint_has_no_other_files_of_its_folder(run: Path, tmp_path: Path, outside: Path) -> None:
    """`checkpoint push` uploads what `save_checkpoint` writes."""
    copy = tmp_path / "copy"
    shutil.copytree(find_checkpoint(run), copy)
    (copy / "adapter").mkdir()
    save_file({"a": np.ones(1)}, copy / "adapter" / "adapter_model.safetensors")
    (copy / "adapter" / "adapter_config.json").write_text("{}")
    recipe = (copy / "recipe.yaml").read_text()
    (copy / "recipe.yaml").write_text(recipe.replace("lora:\n  enabled: false", "lora:\n  enabled: true"))
    for name in ("secret.txt", "adapter/secret.txt", "resume.txt"):
        (copy / name).symlink_to(outside / "profile")
    saved = all_files(save_checkpoint(copy, tmp_path / "saved", None))
    names = {"README.md", "adapter_config.json", "adapter_model.safetensors", "config.json", "projector.safetensors"}
    assert {Path(name).name for name in saved} == {*names, "recipe.yaml"}
    assert not [name for name, content in saved.items() if b"secret settings" in bytes(content)]  # type: ignore[arg-type]


@INSIDE
def test_links_in_hdf5_files_lead_to_no_other_file(
    signllava: Command, tmp_path: Path, outside: Path, record_property: Callable[[str, object], None]
) -> None:
    """As a source of `prepare pack`, `prepare link`, and as the shard of a dataset."""
    data = write_annotation(tmp_path / "data", {"r": {"a": {"translation": "A."}, "b": {"translation": "B."}}})
    with h5py.File(tmp_path / "links.h5", "w") as file:
        file["r/a"] = np.ones((2, 4))
        file["r/b"] = h5py.ExternalLink(str(outside / "secret.h5"), "frames")
    with h5py.File(tmp_path / "virtual.h5", "w") as file:
        file["r/a"] = np.ones((2, 4))
        layout = h5py.VirtualLayout((3, 4), np.float64)
        layout[:] = h5py.VirtualSource(str(outside / "secret.h5"), "frames", (3, 4))
        file.create_virtual_dataset("r/b", layout)
    with h5py.File(tmp_path / "raw.h5", "w") as file:
        file["r/a"] = np.ones((2, 4))
        file.create_dataset("r/b", (3, 4), np.uint8, external=[(str(outside / "profile"), 0, 12)])
    for stream in ("links", "virtual", "raw"):
        words = (tmp_path / f"{stream}.h5", "--stream", stream, "--split", "train", "--out", data)
        ended = signllava("prepare", "pack", *words)
        assert ended.code == 0, ended.err
        with h5py.File(data / stream / f"{stream}.train.0.h5") as file:
            assert list(file["r"]) == ["a"], stream
    record_property("links", 3)


@INSIDE
def test_videos_of_the_web_app_are_those_of_its_folder(tmp_path: Path, outside: Path) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    videos = Videos(folder, ())
    for name in ("../outside/secret", str(outside / "secret"), "a\0b", LONG):
        assert videos.of_recording(name) is None
