"""`prepare push` and `prepare pull`: a dataset folder goes to the hub and comes back with equal bytes."""

import copy
import json
import logging
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Ended, interrupted, subprocess_command
from hub_stand_in import TOKEN, Hub
from huggingface_hub import constants

from signllava_cli.errors import UserError
from signllava_cli.files import sha256_file
from signllava_cli.prepare.dataset_folder import list_streams
from signllava_cli.prepare.hub_layout import DatasetPath
from signllava_cli.prepare.hub_pull import pull_dataset
from signllava_cli.prepare.indexing import open_index

pytest_plugins = ["hub_stand_in"]
Command = Callable[..., Ended]
REPO, NAME = "lab/toy", "datasets/lab/toy"
LICENSE = ("--license", "cc-by-4.0")
SAFE_NAMES = pytest.mark.reliability("Security", "names and links in data never lead out of their folder")
INTACT = pytest.mark.reliability("Faults", "a download that is not intact is refused by name, and not stored")
RESUMES = pytest.mark.reliability("Faults", "a killed upload or download continues with the files that are missing")


@pytest.fixture
def data(corpus: Path, tmp_path: Path) -> Path:
    """A copy of the dev and test split of the toy corpus, without an index."""
    ignored = shutil.ignore_patterns("index.*", "*.train.*", "pose", "toy.json")
    return Path(shutil.copytree(corpus, tmp_path / "data", ignore=ignored))


@pytest.fixture(scope="module")
def upload() -> dict[str, Any]:
    """What the hub has after the upload of `data`, once a test has needed it."""
    return {}


@pytest.fixture
def pushed(data: Path, hub: Hub, signllava: Command, upload: dict[str, Any]) -> Path:
    """The same folder, after its upload."""
    if not upload:
        assert signllava("prepare", "push", data, REPO, *LICENSE).code == 0
        upload |= {"repositories": hub.repositories, "large_files": hub.large_files}
    hub.repositories, hub.large_files = copy.deepcopy(upload["repositories"]), dict(upload["large_files"])
    return data


def contents(folder: Path) -> dict[str, bytes]:
    """Path -> content of the files of the dataset layout in a folder."""
    files = (file for file in folder.rglob("*") if file.is_file())
    paths = {str(file.relative_to(folder)): file for file in files}
    return {path: file.read_bytes() for path, file in paths.items() if DatasetPath.parse(path)}


def large_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*.h5"))


def index_columns(folder: Path, split: str) -> dict[str, Any]:
    index = open_index(folder, split, list_streams(folder, split))
    return {name: index.column(name).to_pylist() for name in index._columns}


def error_line(ended: Ended) -> str:
    """The only line of the error; its exit code is 2, and it does not show the token."""
    assert ended.code == 2, ended.out + ended.err
    assert ended.err.count("\n") == 1, ended.err
    assert TOKEN not in ended.err + ended.out
    return ended.err


def test_a_dataset_comes_back_with_equal_bytes_and_an_equal_index(
    data: Path, hub: Hub, signllava: Command, tmp_path: Path
) -> None:
    (data / "notes.txt").write_text("mine")
    hub.part_size = 20_000  # so that some shards are uploaded in parts
    push = signllava("prepare", "push", data, REPO, *LICENSE, "--language", "en", "--private")
    assert push.code == 0, push.err
    assert hub.received == large_bytes(data)
    assert "/complete/" in " ".join(hub.requests)
    assert "not uploaded: " in push.out
    assert "notes.txt" in push.out
    assert hub.repositories[NAME].private
    stored = hub.repositories[NAME].files
    assert stored.keys() == contents(data).keys() | {"README.md", "SHA256SUMS", ".gitattributes"}
    out = tmp_path / "out"
    pull = signllava("prepare", "pull", REPO, "--out", out)
    assert pull.code == 0, pull.err
    assert contents(out) == contents(data)
    assert sorted(path.name for path in out.iterdir()) == sorted(
        {path.name for path in data.iterdir()} - {"notes.txt"}
    )
    for split in ("dev", "test"):
        assert index_columns(out, split) == index_columns(data, split)
    assert "license cc-by-4.0" in pull.out
    assert "split dev: 38 clips, indexed" in pull.out
    assert hub.storage_tokens == []  # the storage is another host
    assert TOKEN not in push.out + push.err + pull.out + pull.err


def test_the_card_has_the_license_and_the_statistics(pushed: Path, hub: Hub) -> None:
    card = hub.repositories[NAME].files["README.md"].decode()
    assert card.startswith("---\nlicense: cc-by-4.0\n")
    assert "| clips | 38 | " in card
    assert "| mae, dev | 64 | 9 | 12 | 12.24 | 16 | 0 |" in card
    sums = hub.repositories[NAME].files["SHA256SUMS"].decode()
    assert f"{sha256_file(pushed / 'mae/mae.dev.0.h5')}  mae/mae.dev.0.h5\n" in sums


def test_json_and_quiet(data: Path, hub: Hub, signllava: Command, tmp_path: Path) -> None:
    push = json.loads(signllava("prepare", "push", data, REPO, *LICENSE, "--json").out)
    assert push["num_bytes"] > hub.received == large_bytes(data)
    again = json.loads(signllava("prepare", "push", data, REPO, *LICENSE, "--json").out)
    assert (again["uploaded"], again["commit"]) == ([], push["commit"])
    assert len(again["unchanged"]) == len(push["uploaded"])
    pull = json.loads(signllava("prepare", "pull", REPO, "--out", tmp_path / "out", "--json").out)
    assert pull["commit"] == push["commit"]
    assert pull["indexed"]["dev"] == 38
    assert signllava("prepare", "pull", REPO, "--out", tmp_path / "out", "--quiet").out == ""


@pytest.mark.drill
def test_a_split_and_a_stream_can_be_chosen_and_others_added_later(
    data: Path, hub: Hub, signllava: Command, tmp_path: Path
) -> None:
    assert signllava("prepare", "push", data, REPO, *LICENSE, "--split", "dev", "--stream", "mae").code == 0
    assert {path.split for path in map(DatasetPath.parse, hub.repositories[NAME].files) if path} == {"dev"}
    assert signllava("prepare", "push", data, REPO, *LICENSE, "--split", "test").code == 0
    out = tmp_path / "out"
    assert signllava("prepare", "pull", REPO, "--out", out, "--split", "test", "--stream", "sign2vec").code == 0
    expected = {path for path in contents(data) if ".test." in path and not path.startswith("mae")}
    assert contents(out).keys() == expected
    assert signllava("prepare", "pull", REPO, "--out", out).code == 0
    assert contents(out).keys() == {path for path in contents(data) if ".test." in path or "mae" in path} | {
        "annotation.dev.json"
    }
    for options in (("--split", "train"), ("--stream", "dino")):
        assert f"No {options[0][2:]} {options[1]} in {REPO}" in error_line(
            signllava("prepare", "pull", REPO, "--out", out, *options)
        )
        assert f"No {options[0][2:]} {options[1]} in" in error_line(
            signllava("prepare", "push", data, REPO, *LICENSE, *options)
        )


@pytest.mark.drill
def test_a_revision_is_a_branch_and_main_stays(data: Path, hub: Hub, signllava: Command, tmp_path: Path) -> None:
    assert signllava("prepare", "push", data, REPO, *LICENSE, "--revision", "v1", "--split", "dev").code == 0
    assert hub.repositories[NAME].files.keys() == {".gitattributes"}
    assert "has no SHA256SUMS" in error_line(signllava("prepare", "pull", REPO, "--out", tmp_path / "out"))
    assert signllava("prepare", "pull", REPO, "--out", tmp_path / "out", "--revision", "v1").code == 0
    refused = signllava("prepare", "pull", REPO, "--out", tmp_path / "out", "--revision", "v2")
    assert "no such branch, tag or commit" in error_line(refused)


def test_texts_stay_at_home_without_annotation(data: Path, hub: Hub, signllava: Command, tmp_path: Path) -> None:
    push = signllava("prepare", "push", data, REPO, *LICENSE, "--without-annotation")
    assert push.code == 0, push.err
    stored = hub.repositories[NAME].files
    sentences = {
        entry["translation"]
        for recording in json.loads((data / "annotation.dev.json").read_text()).values()
        for name, entry in recording.items()
        if name != "clip_order"
    }
    assert not [path for path in stored if "annotation" in path or "index" in path]
    assert not [path for path, content in stored.items() for text in sentences if text.encode() in content]
    assert "annotation.dev.json" in push.out
    out = tmp_path / "out"
    pull = signllava("prepare", "pull", REPO, "--out", out)
    assert pull.code == 0, pull.err
    assert "warning: split dev has no annotation in the repository" in pull.out
    for split in ("dev", "test"):
        shutil.copy(data / f"annotation.{split}.json", out)
    assert signllava("prepare", "index", out).code == 0
    assert index_columns(out, "dev") == index_columns(data, "dev")


def test_texts_of_an_earlier_upload_are_not_overlooked(pushed: Path, signllava: Command) -> None:
    refused = signllava("prepare", "push", pushed, REPO, *LICENSE, "--without-annotation")
    assert "has annotation.dev.json, annotation.test.json of an earlier upload" in error_line(refused)


@pytest.mark.drill
def test_files_under_other_names_get_the_default_names(
    data: Path, hub: Hub, signllava: Command, tmp_path: Path
) -> None:
    expected = contents(data)
    for file in sorted((data / "mae").iterdir()):
        name = file.name.replace("metadata_mae", "H2S.mae") if file.suffix == ".json" else f"H2S.{file.name}"
        file.rename(file.with_name(name))
    assert signllava("prepare", "push", data, REPO, *LICENSE).code == 0
    assert signllava("prepare", "pull", REPO, "--out", tmp_path / "out").code == 0
    assert contents(tmp_path / "out") == expected


@pytest.mark.drill
def test_only_one_file_changes_and_only_it_is_uploaded_and_downloaded_again(
    pushed: Path, hub: Hub, signllava: Command, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert signllava("prepare", "pull", REPO, "--out", out).code == 0
    received, sent = hub.received, hub.sent
    annotation = pushed / "annotation.dev.json"
    annotation.write_text(annotation.read_text().replace('"translation": "', '"translation": "And '))
    push = json.loads(signllava("prepare", "push", pushed, REPO, *LICENSE, "--json").out)
    assert set(push["uploaded"]) >= {"annotation.dev.json", "SHA256SUMS"}
    assert not [path for path in push["uploaded"] if path.endswith(".h5")]
    refused = signllava("prepare", "pull", REPO, "--out", out)
    assert "1 file exists with another content" in error_line(refused)
    assert signllava("prepare", "pull", REPO, "--out", out, "--overwrite").code == 0
    assert contents(out) == contents(pushed)
    assert (hub.received, hub.sent) == (received, sent)


def kill_after(words: tuple[object, ...], pattern: str, count: int, event: str) -> None:
    """Run a command until a file is opened or renamed, and kill it."""
    process = subprocess_command(*words, env=interrupted(pattern, count, signal.SIGKILL, event))
    out, _ = process.communicate(timeout=300)
    assert process.returncode == -signal.SIGKILL, out


@pytest.mark.drill
@RESUMES
def test_a_killed_download_continues(
    pushed: Path, hub: Hub, signllava: Command, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    out, shards = tmp_path / "out", sorted(pushed.rglob("*.h5"))
    pull = ("prepare", "pull", REPO, "--out", out)
    kill_after(pull, "*.h5", 5, "rename")  # huggingface_hub and signllava each rename a file once
    sent_before = hub.sent
    assert 0 < sent_before < large_bytes(pushed)
    stored = contents(out)
    assert stored.items() < contents(pushed).items()
    assert not list(out.glob("index.*"))
    ended = signllava(*pull)
    assert ended.code == 0, ended.err
    assert contents(out) == contents(pushed)
    kept = sum(len(content) for path, content in stored.items() if path.endswith(".h5"))
    assert hub.sent - sent_before == large_bytes(pushed) - kept
    assert not (out / ".download").exists()
    assert len(shards) > 2
    record_property("kills", 1)


@pytest.mark.drill
@RESUMES
def test_a_killed_upload_continues(
    data: Path, hub: Hub, signllava: Command, record_property: Callable[[str, object], None]
) -> None:
    shards = {sha256_file(file): file for file in data.rglob("*.h5")}
    push = ("prepare", "push", data, REPO, *LICENSE)
    for split in ("dev", "test"):
        open_index(data, split, list_streams(data, split))
    # each shard is opened to be hashed, for its first bytes, and for the upload; the kill comes in the uploads
    kill_after(push, "mae.test.*.h5", 5, "open")
    assert "SHA256SUMS" not in hub.repositories[NAME].files
    first = hub.received
    uploaded = {oid for oid in shards if oid in hub.large_files}
    assert first == sum(shards[oid].stat().st_size for oid in uploaded)
    assert 0 < len(uploaded) < len(shards)
    assert signllava(*push).code == 0
    assert hub.received == large_bytes(data)
    stored = hub.repositories[NAME].files
    assert {path: stored[path] for path in contents(data)} == contents(data)
    record_property("kills", 1)


@INTACT
@pytest.mark.parametrize(
    ("path", "change"),
    [
        ("mae/mae.dev.0.h5", "truncated"),
        ("annotation.dev.json", "altered"),
        pytest.param("mae/mae.dev.0.h5", "altered", marks=pytest.mark.drill),
        pytest.param("annotation.dev.json", "truncated", marks=pytest.mark.drill),
        pytest.param("SHA256SUMS", "altered", marks=pytest.mark.drill),
    ],
)
def test_a_download_that_is_not_intact_is_refused(
    pushed: Path, hub: Hub, signllava: Command, tmp_path: Path, path: str, change: str
) -> None:
    content = hub.repositories[NAME].files[path]
    hub.served[path] = content[:-1] if change == "truncated" else content[:-1] + bytes([content[-1] ^ 1])
    out = tmp_path / "out"
    assert f"{path} of {REPO} was not downloaded" in error_line(signllava("prepare", "pull", REPO, "--out", out))
    assert not (out / path).exists()
    assert not (out / ".download").exists()
    hub.served.clear()
    assert signllava("prepare", "pull", REPO, "--out", out).code == 0
    assert contents(out) == contents(pushed)


@INTACT
@pytest.mark.parametrize(
    ("path", "change"),
    [
        ("mae/mae.dev.0.h5", "replaced"),
        ("annotation.dev.json", "removed"),
        pytest.param("mae/mae.dev.0.h5", "removed", marks=pytest.mark.drill),
        pytest.param("annotation.dev.json", "replaced", marks=pytest.mark.drill),
    ],
)
def test_a_file_that_was_changed_on_the_hub_is_refused(
    pushed: Path, hub: Hub, signllava: Command, tmp_path: Path, path: str, change: str
) -> None:
    files = dict(hub.repositories[NAME].files)
    content = files.pop(path)
    hub.put(NAME, files if change == "removed" else files | {path: content + b" "})
    assert path in error_line(signllava("prepare", "pull", REPO, "--out", tmp_path / "out"))
    assert not (tmp_path / "out" / path).exists()


@SAFE_NAMES
def test_hostile_names_are_refused(
    pushed: Path, hub: Hub, signllava: Command, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    files = dict(hub.repositories[NAME].files)
    sums = files["SHA256SUMS"].decode()
    names = [
        *("../evil.h5", "/tmp/evil", "mae/../../evil.h5", "../mae/mae.dev.0.h5", "mae/..", ".bashrc", "mae/.lock"),
        *("mae/mae.dev./../../evil.h5", "mae\\..\\mae.dev.0.h5", "mae/mae.dev.0.h5\x1b[2J", "annotation...json"),
        *("annotation.dev.json/x", "mae/dino.dev.0.h5", "index.dev.arrow", "run.py", "annotation.../x.json"),
    ]
    out = tmp_path / "deep" / "out"
    for name in names:
        checksums = f"{sums}{'0' * 64}  {name}\n".encode()
        hub.put(NAME, {**files, name: b"x", "SHA256SUMS": checksums})
        line = error_line(signllava("prepare", "pull", REPO, "--out", out))
        assert "names what is no file of a dataset" in line, name
        assert "\x1b" not in line
    hub.put(NAME, files | {name: b"x" for name in names if not name.startswith("/")})
    ended = signllava("prepare", "pull", REPO, "--out", out)
    assert ended.code == 0, ended.err
    assert contents(out) == contents(pushed)
    assert f"not downloaded: {len(names) - 1} other files of the repository" in ended.out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "deep"]
    record_property("names", len(names))


@SAFE_NAMES
def test_a_link_in_the_folder_is_not_followed(pushed: Path, signllava: Command, tmp_path: Path) -> None:
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    out.mkdir()
    elsewhere.mkdir()
    (out / "mae").symlink_to(elsewhere)
    assert "is a link or in a linked folder" in error_line(signllava("prepare", "pull", REPO, "--out", out))
    assert not list(elsewhere.iterdir())


def test_the_license_is_required_and_checked_by_the_hub(data: Path, hub: Hub, signllava: Command) -> None:
    assert "--license" in signllava("prepare", "push", data, REPO).err
    assert "needs --license-name" in error_line(signllava("prepare", "push", data, REPO, "--license", "other"))
    refused = signllava("prepare", "push", data, REPO, "--license", "no-such-license")
    assert '"license" must be one of' in error_line(refused)
    assert hub.received == 0


def test_a_public_repository_is_not_taken_for_a_private_one(pushed: Path, signllava: Command) -> None:
    refused = signllava("prepare", "push", pushed, REPO, *LICENSE, "--private")
    assert "exists already and is public" in error_line(refused)


@pytest.mark.drill
def test_an_upload_that_another_one_preceded_is_refused_and_can_be_repeated(
    data: Path, hub: Hub, signllava: Command
) -> None:
    """Else SHA256SUMS would be that of one upload, without the files of the other."""

    def add_another() -> None:
        repository = hub.repositories[NAME]
        repository.commit({**repository.commits[repository.branches["main"]]})
        hub.before_commit = lambda: None

    hub.before_commit = add_another
    push = ("prepare", "push", data, REPO, *LICENSE)
    assert "another upload changed the repository at the same time" in error_line(signllava(*push))
    assert "SHA256SUMS" not in hub.repositories[NAME].files
    assert signllava(*push).code == 0
    assert "SHA256SUMS" in hub.repositories[NAME].files


@pytest.mark.drill
def test_a_file_that_the_hub_did_not_take_is_named(data: Path, hub: Hub, signllava: Command) -> None:
    hub.ignored.add("mae/mae.dev.1.h5")
    refused = signllava("prepare", "push", data, REPO, *LICENSE)
    assert "1 file is missing or different on the hub (mae/mae.dev.1.h5)" in error_line(refused)


ERRORS = [
    (("GET /api/datasets", 500), "the hub answered 500"),
    (("GET /api/datasets", 401), "token"),
    (("POST /api/repos", 500), "the hub answered 500"),
    (("/commit/", 412), "another upload changed the repository"),
    (("/commit/", 403), "your token does not allow it"),
]


@pytest.mark.parametrize(("failure", "reason"), ERRORS)
def test_an_error_of_the_hub_is_one_line(
    data: Path, hub: Hub, signllava: Command, tmp_path: Path, failure: tuple[str, int], reason: str
) -> None:
    hub.put(NAME, {"SHA256SUMS": b""})
    hub.failures.append(failure)
    command = ("pull", REPO, "--out", tmp_path / "out") if failure[0][:3] == "GET" else ("push", data, REPO, *LICENSE)
    line = error_line(signllava("prepare", *command))
    assert line.startswith(f"error: {REPO} was not ")
    assert reason in line


@pytest.mark.parametrize(
    "failure",
    [("/resolve/", 503), pytest.param(("POST /api/datasets/lab/toy/preupload", 500), marks=pytest.mark.drill)],
)
def test_requests_that_are_repeated_print_nothing(
    pushed: Path,
    hub: Hub,
    signllava: Command,
    tmp_path: Path,
    failure: tuple[str, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    messages: list[logging.LogRecord] = []
    monkeypatch.setattr(logging.StreamHandler, "emit", lambda _, record: messages.append(record))
    hub.failures.append(failure)
    command: tuple[object, ...] = ("pull", REPO, "--out", tmp_path / "out")
    if "preupload" in failure[0]:
        (pushed / "annotation.dev.json").write_text((pushed / "annotation.dev.json").read_text() + " ")
        command = ("push", pushed, REPO, *LICENSE)
    assert f"the hub answered {failure[1]}" in error_line(signllava("prepare", *command))
    assert sum(failure[0] in request for request in hub.requests) > 2
    assert messages == []


@pytest.mark.reliability("Security", "secrets are in no log, checkpoint, model card or report")
def test_the_token_is_in_no_error_of_the_python_api(hub: Hub, tmp_path: Path) -> None:
    """Even if the hub repeats it."""
    hub.failures.append(("GET /api/datasets", 500))
    with pytest.raises(UserError, match=r"the hub answered 500 \(Internal Error for Bearer \*\*\*\)") as raised:
        pull_dataset(REPO, tmp_path)
    assert TOKEN not in str(raised.value)


def test_an_unknown_repository_or_a_wrong_token_is_one_line(
    data: Path, hub: Hub, signllava: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pull = ("prepare", "pull", "lab/none", "--out", tmp_path / "out")
    assert "the hub has no such repository for you" in error_line(signllava(*pull))
    assert "your token does not allow it" in error_line(signllava("prepare", "push", data, "other/toy", *LICENSE))
    monkeypatch.setenv("HF_TOKEN", "hf_" + "Wrong" * 6)
    for command in (pull, ("prepare", "push", data, REPO, *LICENSE)):
        line = error_line(signllava(*command))
        assert "the hub does not accept your token" in line
        assert "Wrong" not in line
    monkeypatch.delenv("HF_TOKEN")
    assert "log in with `hf auth login`" in error_line(signllava(*pull))
    assert "Repo id must" in error_line(signllava("prepare", "pull", "a/b/c", "--out", tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_without_a_network_there_is_one_line(
    data: Path, hub: Hub, signllava: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = [("prepare", "pull", REPO, "--out", tmp_path / "out"), ("prepare", "push", data, REPO, *LICENSE)]
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for command in commands:
        assert "HF_HUB_OFFLINE is set; unset it to use the network" in error_line(signllava(*command))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nothing listens on this port
    for command in commands:
        assert "http://127.0.0.1:9 cannot be reached (" in error_line(signllava(*command))
    assert hub.requests == []
