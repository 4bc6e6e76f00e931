"""Repositories of the Hugging Face hub: their files, downloads that are checked, and errors of one line."""

import contextlib
import hashlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi, RepoFile, RepoUrl, constants, get_token
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import logging, sha

from signllava_cli.console import progress
from signllava_cli.errors import UserError, first_line, format_count, summarize_names
from signllava_cli.files import exclusive_access, fsync, sha256_file, write_errors_as_user_errors
from signllava_cli.model.hub_access import CONNECTION_ERRORS
from signllava_cli.redaction import REDACTED, redact

STAGING = ".download"  # folder in the target folder, for files that are not checked yet


@dataclass(frozen=True)
class HubSnapshot:
    """A commit of a repository. `files`: path -> size and hash. `license`: as its card names it."""

    repo_id: str
    repo_type: str
    commit: str
    license: str | None
    files: Mapping[str, RepoFile]


@dataclass(frozen=True)
class Download:
    """The paths that were downloaded, the sum of their sizes, and the paths that were there already."""

    repo_id: str
    commit: str
    license: str | None
    downloaded: list[str]
    num_bytes: int
    present: list[str]


def read_snapshot(api: HfApi, repo_id: str, repo_type: str, revision: str | None, failure: str) -> HubSnapshot:
    """The files of the newest commit of `revision`, a branch, a tag or a commit.

    Args:
        failure: what the error says that the hub prevented, as in "lab/signs was not downloaded".

    Raises:
        UserError: the hub cannot be reached, or has no such repository or revision for this user.
    """
    with hub_errors(failure):
        info = api.repo_info(repo_id, repo_type=repo_type, revision=revision)
        entries = api.list_repo_tree(repo_id, recursive=True, revision=info.sha, repo_type=repo_type)
        files = {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}
    card = getattr(info, "card_data", None)
    return HubSnapshot(repo_id, repo_type, str(info.sha), card.get("license") if card else None, files)


def create_repository(api: HfApi, repo_id: str, repo_type: str, private: bool) -> RepoUrl:
    """Create the repository if it does not exist.

    Raises:
        UserError: the hub refuses or cannot be reached; it exists and is public, although `private`.
    """
    with hub_errors(f"{repo_id} was not uploaded"):
        url = api.create_repo(repo_id, repo_type=repo_type, private=private or None, exist_ok=True)
        if private and api.repo_info(url.repo_id, repo_type=repo_type).private is False:
            raise UserError(f"{repo_id} exists already and is public: make it private on the hub, or omit --private.")
    return url


def download_files(
    api: HfApi,
    snapshot: HubSnapshot,
    paths: Sequence[str],
    folder: Path,
    overwrite: bool,
    checksums: Mapping[str, str],
) -> Download:
    """Download `paths` of `snapshot` into `folder`; a file gets its name when its size and hashes are right.

    Files that are there already are kept, so that an interrupted download continues. The paths must have been checked
    by the caller: none may lead out of the folder.

    Args:
        overwrite: replace files that exist with another content.
        checksums: path -> SHA-256, which is checked besides the hash that the hub lists.

    Raises:
        UserError: a file exists with another content, the hub cannot be reached, or a file was not downloaded intact.
    """
    with exclusive_access(folder):
        for path in (STAGING, *paths):
            _require_inside(folder, path)
        present = [path for path in paths if has_content(folder / path, snapshot.files[path])]
        pending = [path for path in paths if path not in set(present)]
        different = [str(folder / path) for path in pending if (folder / path).exists()]
        if different and not overwrite:
            count = format_count(len(different), "file exists", "files exist")
            raise UserError(
                f"{count} with another content than in {snapshot.repo_id} ({summarize_names(different)}): choose "
                "another folder, or replace them with --overwrite."
            )
        try:
            with progress("files downloaded", len(paths), len(present)) as bar:
                for path in pending:
                    temporary = download_file(api, snapshot, path, folder / STAGING, checksums.get(path))
                    _move(temporary, folder / path)
                    bar.advance(note=path)
        finally:
            shutil.rmtree(folder / STAGING, ignore_errors=True)
    num_bytes = sum(snapshot.files[path].size for path in pending)
    return Download(snapshot.repo_id, snapshot.commit, snapshot.license, pending, num_bytes, present)


def download_file(api: HfApi, snapshot: HubSnapshot, path: str, folder: Path, checksum: str | None = None) -> Path:
    """Download one file into `folder`, and check it.

    Raises:
        UserError: the hub cannot be reached, or the file has not the hash that the hub lists, or not the SHA-256
            `checksum`; it is removed.
    """
    with hub_errors(f"{path} of {snapshot.repo_id} was not downloaded"):
        file = Path(
            api.hf_hub_download(
                snapshot.repo_id, path, repo_type=snapshot.repo_type, revision=snapshot.commit, local_dir=folder
            )
        )
    if not has_content(file, snapshot.files[path]):
        file.unlink()
        raise UserError(
            f"{path} of {snapshot.repo_id} was not downloaded intact: its size or hash is not the one that the hub "
            "lists. Run the command again; it downloads only what is missing."
        )
    if checksum and sha256_file(file) != checksum:
        file.unlink()
        raise UserError(
            f"{path} of {snapshot.repo_id} has another SHA-256 than its uploader has listed: it was changed on the "
            "hub, and is not stored. Ask the owner to upload it again."
        )
    return file


def _move(temporary: Path, target: Path) -> None:
    with write_errors_as_user_errors(target):
        target.parent.mkdir(exist_ok=True)
        fsync(temporary)
        temporary.replace(target)
        fsync(target.parent)


def _require_inside(folder: Path, path: str) -> None:
    """Check that no link leads from `folder` to a file of another folder that would be written."""
    root, target = folder.resolve(), folder / path
    if target.is_symlink() or not target.parent.resolve().is_relative_to(root):
        raise UserError(f"{target} is a link or in a linked folder, and is not written; remove the link.")


def has_content(file: Path, remote: RepoFile) -> bool:
    """Whether `file` exists with the size and the hash of `remote`."""
    return file.is_file() and file.stat().st_size == remote.size and is_same_content(file, remote)


def is_same_content(content: Path | bytes, remote: RepoFile, checksum: str | None = None) -> bool:
    """Whether `remote` has this content: a large file is known by its SHA-256, a small one by git's SHA-1.

    Args:
        checksum: the SHA-256 of the content, if it is known.
    """
    if remote.lfs and checksum is None:
        checksum = hashlib.sha256(content).hexdigest() if isinstance(content, bytes) else sha256_file(content)
    if remote.lfs:
        return checksum == remote.lfs.sha256
    size = len(content) if isinstance(content, bytes) else content.stat().st_size
    if size != remote.size:
        return False
    return bool(sha.git_hash(content if isinstance(content, bytes) else content.read_bytes()) == remote.blob_id)


@contextlib.contextmanager
def hub_errors(failure: str) -> Iterator[None]:
    """Turn an error of the hub or the network in the block into a UserError that begins with `failure`.

    huggingface_hub, which retries some requests for half a minute, prints nothing else.
    """
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # of the hub, or of the HTTP library that it uses
        raise UserError(f"{failure}: {_describe_error(error)}.") from None
    finally:
        logging.set_verbosity(verbosity)


def _describe_error(error: BaseException) -> str:
    """Why the hub failed, and what to do, in one line without the user's token."""
    error = _cause(error)
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set; unset it to use the network"
    if type(error).__name__ in CONNECTION_ERRORS:
        return redact(f"{constants.ENDPOINT} cannot be reached ({first_line(error)})")
    if isinstance(error, GatedRepoError):
        return "the repository is gated; ask for access on its page, and log in with `hf auth login`"
    if isinstance(error, RepositoryNotFoundError):
        return "the hub has no such repository for you; check the name, and log in with `hf auth login`"
    if isinstance(error, RevisionNotFoundError):
        return "the repository has no such branch, tag or commit; name another --revision"
    if status == 401:
        return "the hub does not accept your token; log in with `hf auth login`, or set HF_TOKEN"
    if status == 403:
        return "your token does not allow it; log in with `hf auth login` and a token that may write there"
    if status in (409, 412):
        return "another upload changed the repository at the same time; run the command again"
    if status is not None:
        message = getattr(error, "server_message", None)
        text = f"the hub answered {status}" + (f" ({' '.join(message.split())})" if message else "")
        return f"{_hide_token(text)}; run the command again, or later"
    return _hide_token(first_line(error))


def _cause(error: BaseException) -> BaseException:
    """The error of the hub or the connection behind those that huggingface_hub raised because of it."""
    while error.__cause__ is not None and not (
        isinstance(error, HfHubHTTPError | OfflineModeIsEnabled) or type(error).__name__ in CONNECTION_ERRORS
    ):
        error = error.__cause__
    return error


def _hide_token(text: str) -> str:
    token = get_token()
    return redact(text.replace(token, REDACTED) if token else text)
