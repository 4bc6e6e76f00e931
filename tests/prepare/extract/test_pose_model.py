"""The official landmark model is fetched once, on request alone, and only with its published checksum."""

import hashlib
from pathlib import Path

import pytest

from signllava_cli.errors import UserError
from signllava_cli.prepare.extract import pose_model
from signllava_cli.prepare.extract.pose_model import cached_model_file, find_pose_model

CONTENT = b"the official model"


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a file that stands for the official one, whose checksum is set to that of this file."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(pose_model, "MODEL_SHA256", hashlib.sha256(CONTENT).hexdigest())
    (tmp_path / "official.task").write_bytes(CONTENT)
    return (tmp_path / "official.task").as_uri()


def test_the_model_is_fetched_once_into_the_cache(address: str, tmp_path: Path) -> None:
    file = find_pose_model(None, download=True, url=address)
    assert file == cached_model_file() == tmp_path / "cache/signllava/models/holistic_landmarker.task"
    assert file.read_bytes() == CONTENT
    (tmp_path / "official.task").unlink()
    assert find_pose_model(None) == find_pose_model(None, download=True, url=address) == file


def test_nothing_is_fetched_without_a_request(address: str) -> None:
    with pytest.raises(UserError, match="--pose-model, or fetch the official one") as refused:
        find_pose_model(None, url=address)
    assert address in str(refused.value)
    assert not cached_model_file().exists()


def test_another_file_is_not_kept(address: str, tmp_path: Path) -> None:
    (tmp_path / "official.task").write_bytes(b"something else")
    with pytest.raises(UserError, match=r"has SHA-256 .*, expected"):
        find_pose_model(None, download=True, url=address)
    assert not cached_model_file().exists()


def test_a_changed_file_in_the_cache_is_refused(address: str) -> None:
    find_pose_model(None, download=True, url=address).write_bytes(b"changed")
    with pytest.raises(UserError, match="is not the official model"):
        find_pose_model(None)


def test_an_address_that_cannot_be_reached_is_one_line(address: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be fetched") as refused:
        find_pose_model(None, download=True, url=(tmp_path / "nowhere").as_uri())
    assert "\n" not in str(refused.value)


def test_a_file_of_the_user_needs_no_checksum(address: str, tmp_path: Path) -> None:
    own = tmp_path / "own.task"
    own.write_bytes(b"mine")
    assert find_pose_model(own) == own
