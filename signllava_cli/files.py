"""Read files with errors for the user, and write them atomically: a kill leaves the old file or the new one."""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from safetensors import SafetensorError

from signllava_cli.console import info, warning
from signllava_cli.errors import UserError

TEMPORARY_SUFFIX, REMOVED_SUFFIX = ".tmp", ".removed"
LOCK_FILE = ".lock"
NUM_SAMPLES, SAMPLE_BYTES = 16, 4096  # blocks of a file that `sample_hash` reads, and their size
MAX_NAME_BYTES = 255  # limit of the name of a file or folder


def read_text(file: Path) -> str:
    """The text of a UTF-8 file without byte order mark; line ends are kept.

    Raises:
        UserError: the file cannot be read, or is not UTF-8; the message names the line.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}.") from None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{file}, line {line}, is not UTF-8 text; save the file as UTF-8.") from None


def read_json(file: Path) -> dict[str, Any]:
    """The JSON object in `file`.

    Raises:
        UserError: the file is missing, or does not hold a JSON object; the message names the file and the line.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"), object_pairs_hook=reject_duplicate_keys)
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise UserError(f"{file} is not UTF-8 text.") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{file} is not JSON: {error.msg} at line {error.lineno}.") from None
    except (RecursionError, ValueError) as error:
        raise UserError(f"{file} cannot be read as JSON: {error}.") from None
    if not isinstance(content, dict):
        raise UserError(f"{file} holds a {type(content).__name__}, not a JSON object.")
    return content


def reject_duplicate_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse duplicate keys, of which json would keep only the last: a recording or clip would be lost silently."""
    content = dict(pairs)
    if len(content) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} is given twice")
    return content


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder to fill; when the block ends without error, it is flushed and renamed to `path`.

    Raises:
        UserError: the disk is full or not writable, or `path` is the current folder or above it.
    """
    if _holds_current_folder(path):  # the user's shell would be left in a removed folder
        raise UserError(f"{path} is the current folder, or above it, and cannot be replaced; name another folder.")
    with write_errors_as_user_errors(path):
        path = Path(os.path.abspath(path))  # `..` has no name to add a suffix to
        temporary = path.with_name(path.name + TEMPORARY_SUFFIX)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        yield temporary
        for file in sorted(temporary.rglob("*")):
            fsync(file)
        fsync(temporary)
        replaced = path.with_name(path.name + ".replaced" + TEMPORARY_SUFFIX)
        if path.exists():
            shutil.rmtree(replaced, ignore_errors=True)  # of a killed process
            path.rename(replaced)
        temporary.rename(path)
        fsync(path.parent)
        shutil.rmtree(replaced, ignore_errors=True)


def _holds_current_folder(path: Path) -> bool:
    try:
        return Path.cwd().is_relative_to(path.resolve())
    except FileNotFoundError:  # the current folder has been removed
        return False


def remove_folder(path: Path) -> None:
    """Remove the folder `path`: a kill leaves the complete folder, or a hidden remainder that is not `path`."""
    renamed = path.with_name(f".{path.name}{REMOVED_SUFFIX}")
    shutil.rmtree(renamed, ignore_errors=True)  # of a killed process
    path.rename(renamed)
    shutil.rmtree(renamed, ignore_errors=True)  # NFS keeps files that are open


@contextlib.contextmanager
def atomic_file(path: Path, is_shared: bool = False) -> Iterator[Path]:
    """Yield a temporary file to fill; when the block ends without error, it is flushed and renamed to `path`.

    Args:
        is_shared: other processes may write the same file at the same time; the last one wins.

    Raises:
        UserError: the disk is full or not writable.
    """
    require_own_file(path)
    path = path.resolve() if path.is_symlink() else path  # write the target of the link, and keep the link
    unique = f".{uuid.uuid4().hex}" if is_shared else ""
    temporary = path.with_name(path.name + unique + TEMPORARY_SUFFIX)
    with write_errors_as_user_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)  # it may be a link
        try:
            yield temporary
            fsync(temporary)
            if path.exists():
                shutil.copymode(path, temporary)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def require_own_file(path: Path) -> None:
    """Check that `path`, a file to be written, is no link to a file of another folder.

    A dataset or run that somebody else has made could hold such a link, to any file of the user.

    Raises:
        UserError: it is such a link.
    """
    if path.is_symlink() and path.resolve().parent != path.parent.resolve():
        raise UserError(
            f"{path} is a link to {path.resolve()}, in another folder, and is not written; remove the link, or name "
            "that folder."
        )


def write_text(path: Path, text: str, is_shared: bool = False) -> None:
    """Write a text file atomically; `is_shared` as in `atomic_file`.

    What UTF-8 cannot encode is written as its escape, `\\udcff`: a byte of a file name that is not UTF-8.

    Raises:
        UserError: the disk is full or not writable.
    """
    with atomic_file(path, is_shared) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, content: Any, is_shared: bool = False) -> None:
    """Write an indented JSON file atomically; `is_shared` as in `atomic_file`."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n", is_shared)


def append_text(path: Path, text: str, is_flushed: bool = False) -> None:
    """Append to a text file. A kill or a full disk can leave a part of `text`.

    Args:
        is_flushed: `text` is on the disk when this returns.

    Raises:
        UserError: the disk is full or not writable.
    """
    with write_errors_as_user_errors(path), open(path, "a", encoding="utf-8") as file:
        file.write(text)
        if is_flushed:
            file.flush()
            os.fsync(file.fileno())


def lock_folder(folder: Path) -> IO[str]:
    """Lock `folder` until this process ends or the returned handle is closed.

    Raises:
        UserError: another process holds the lock.
    """
    return acquire_lock(
        folder / LOCK_FILE, f"Another process is writing to {folder}: wait for it, or choose another folder."
    )


def acquire_lock(lock: Path, message: str) -> IO[str]:
    """Lock the file `lock` until this process ends or the returned handle is closed; on a file system without locks,
    warn instead.

    Raises:
        UserError: another process holds the lock; its message is `message`.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    require_own_file(lock)
    handle = open(lock, "a", encoding="utf-8")  # noqa: SIM115 (the caller keeps it open)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        handle.close()
        raise UserError(message) from None
    except OSError as error:
        _warn_about_locks(lock.parent, error)
    return handle


def _warn_about_locks(folder: Path, error: OSError) -> None:
    warning(
        f"{folder} is on a file system without locks ({error.strerror}), so signllava cannot notice another process "
        "that writes to it: start only one at a time."
    )


def sha256_file(file: Path) -> str:
    """SHA-256 of the bytes of `file`, as hexadecimal digits."""
    with open(file, "rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def sample_hash(file: Path) -> str:
    """SHA-256 of evenly spaced blocks of a file: detects features that were extracted again, or other weights."""
    digest, size = hashlib.sha256(), file.stat().st_size
    with open(file, "rb") as content:
        for index in range(NUM_SAMPLES):
            content.seek(index * max(0, size - SAMPLE_BYTES) // max(1, NUM_SAMPLES - 1))
            digest.update(content.read(SAMPLE_BYTES))
    return digest.hexdigest()[:16]


@contextlib.contextmanager
def exclusive_access(folder: Path) -> Iterator[None]:
    """Run the block while no other process runs such a block for `folder`.

    NFS locks only files that are open for writing (flock(2)): there, the file `.lock` in the folder is locked instead
    of the folder, if it can be written. On a file system without locks the block runs after a warning.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as handles:
        directory = os.open(folder, os.O_RDONLY)
        handles.callback(os.close, directory)
        try:
            _wait_for_lock(directory, folder)
        except OSError as error:
            try:
                _wait_for_lock(handles.enter_context(open(folder / LOCK_FILE, "a", encoding="utf-8")), folder)
            except OSError:
                if os.access(folder, os.W_OK):  # nobody writes to a read-only folder
                    _warn_about_locks(folder, error)
        yield


def _wait_for_lock(handle: int | IO[str], folder: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        info(f"another process is writing in {folder}; waiting for it")
        fcntl.flock(handle, fcntl.LOCK_EX)


def user_cache() -> Path:
    """The folder of this package in the user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "signllava"


def write_link(link: Path, target: str) -> None:
    """Make `link` a relative link to `target` in the same folder; a one-line file if links are not supported.

    Raises:
        UserError: the disk is full or not writable.
    """
    temporary = link.with_name(link.name + TEMPORARY_SUFFIX)
    with write_errors_as_user_errors(link):
        temporary.unlink(missing_ok=True)
        try:
            temporary.symlink_to(target)
        except OSError:
            temporary.write_text(target + "\n", encoding="utf-8")
        temporary.replace(link)


def read_link(link: Path) -> Path | None:
    """The folder that a link of `write_link` points to; None if link or folder is missing."""
    if link.is_dir():
        return link.resolve()
    target = link_target(link)
    return link.parent / target if target and (link.parent / target).is_dir() else None


def link_target(link: Path) -> str | None:
    """The name in a link of `write_link`, whether or not it exists; None if the link is missing.

    A one-line file names a folder beside it, never another path.
    """
    if link.is_symlink():
        return os.readlink(link)
    if link.is_file() and link.stat().st_size <= MAX_NAME_BYTES:
        name = link.read_text(encoding="utf-8", errors="replace").strip()
        return name if "/" not in name and "\0" not in name and name not in ("", ".", "..") else None
    return None


def fsync(path: Path) -> None:
    """Flush a file or folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def write_errors_as_user_errors(path: Path) -> Iterator[None]:
    """Turn an error of the system in the block, which writes `path`, into a UserError."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}.") from None
    except SafetensorError as error:
        raise UserError(f"{path} cannot be written: {error}.") from None
