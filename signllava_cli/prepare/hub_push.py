"""`signllava prepare push`: uploads a dataset folder as a dataset repository of the Hugging Face hub."""

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, DatasetCard, HfApi

from signllava_cli.console import progress, warning
from signllava_cli.data.stream_files import DefaultLocation
from signllava_cli.errors import UserError, first_line, format_count, summarize_names
from signllava_cli.files import sha256_file
from signllava_cli.model.hub_repository import (
    HubSnapshot,
    create_repository,
    hub_errors,
    is_same_content,
    read_snapshot,
)
from signllava_cli.prepare.dataset_card import DatasetLicense, dataset_card
from signllava_cli.prepare.dataset_folder import list_splits, list_streams
from signllava_cli.prepare.describe import describe_dataset
from signllava_cli.prepare.hub_layout import (
    CARD,
    CHECKSUMS,
    DATASET,
    DatasetPath,
    format_checksums,
    list_dataset_files,
    list_other_files,
)
from signllava_cli.prepare.hub_pull import read_checksums
from signllava_cli.prepare.indexing import open_index

FILES_PER_UPLOAD = 5  # huggingface_hub uploads 5 at a time


@dataclass(frozen=True)
class PushRequest:
    """What is uploaded of the dataset folder `root`, and how. `splits`, `streams`: None stands for all."""

    root: Path
    repo_id: str
    license: DatasetLicense
    splits: Sequence[str] | None = None
    streams: Sequence[str] | None = None
    with_annotation: bool = True
    languages: Sequence[str] = ()
    private: bool = False
    revision: str | None = None


@dataclass(frozen=True)
class PushResult:
    """`uploaded`, `unchanged`: paths in the repository. `not_uploaded`: other files of the folder."""

    repo_id: str
    url: str
    commit: str
    uploaded: list[str]
    num_bytes: int
    unchanged: list[str]
    not_uploaded: list[str]


def push_dataset(request: PushRequest, token: str | None = None) -> PushResult:
    """Upload the files of a dataset, a card and SHA256SUMS in one commit, without those that are there already.

    An interrupted upload continues: the hub keeps the large files that it has received.

    Raises:
        UserError: the folder is incomplete, or the hub refuses or cannot be reached.
    """
    files = list_dataset_files(request.root, request.splits, request.streams)
    for split in {path.split: None for path in files}:
        streams = {path.stream: DefaultLocation() for path in files if path.split == split and path.stream}
        open_index(request.root, split, streams)  # an error if a file is not what its name says
    others = list_other_files(request.root, files.values())
    if not request.with_annotation:
        others = sorted([*others, *(files[path].name for path in files if path.stream is None)])
        files = {path: file for path, file in files.items() if path.stream is not None}
    checksums = _hash_files(files)
    api = HfApi(token=token)
    url = create_repository(api, request.repo_id, DATASET, request.private)
    failure = f"{request.repo_id} was not uploaded"
    if request.revision:
        with hub_errors(failure):
            api.create_branch(url.repo_id, branch=request.revision, repo_type=DATASET, exist_ok=True)
    before = read_snapshot(api, url.repo_id, DATASET, request.revision, failure)
    _require_no_annotation(request, before)
    checksums = _merge_checksums(api, before, checksums)
    contents: dict[str, Path | bytes] = {path.path: file for path, file in files.items()}
    card = _make_card(request, url.repo_id, checksums)
    _validate(card, url.repo_id)
    contents[CARD] = str(card).encode()
    contents[CHECKSUMS] = format_checksums({path.path: checksum for path, checksum in checksums.items()}).encode()
    sums_of_paths = {path.path: checksums[path] for path in files}
    operations = [
        _addition(path, content, sums_of_paths.get(path))
        for path, content in contents.items()
        if path not in before.files or not is_same_content(content, before.files[path], sums_of_paths.get(path))
    ]
    commit = before.commit
    if operations:
        commit = _upload(api, before, operations, request.revision or "main", failure)
        _verify(read_snapshot(api, url.repo_id, DATASET, commit, failure), contents, sums_of_paths)
    uploaded = [operation.path_in_repo for operation in operations]
    return PushResult(
        repo_id=url.repo_id,
        url=str(url),
        commit=commit,
        uploaded=uploaded,
        num_bytes=sum(operation.upload_info.size for operation in operations),
        unchanged=[path for path in contents if path not in uploaded],
        not_uploaded=others,
    )


def _hash_files(files: Mapping[DatasetPath, Path]) -> dict[DatasetPath, str]:
    checksums = {}
    with progress("files hashed", len(files)) as bar:
        for path, file in files.items():
            checksums[path] = sha256_file(file)
            bar.advance()
    return checksums


def _require_no_annotation(request: PushRequest, before: HubSnapshot) -> None:
    """Check that without an annotation none of an earlier upload is left.

    Raises:
        UserError: there is one.
    """
    paths = [path for path in before.files if (parsed := DatasetPath.parse(path)) and parsed.stream is None]
    if paths and not request.with_annotation:
        raise UserError(
            f"{before.repo_id} has {summarize_names(paths)} of an earlier upload; delete them on the hub, also from "
            "the history, or choose another repository. Nothing was uploaded."
        )


def _merge_checksums(api: HfApi, before: HubSnapshot, checksums: Mapping[DatasetPath, str]) -> dict[DatasetPath, str]:
    """`checksums`, and those of the splits and streams in the repository that are not replaced."""
    replaced = {(path.split, path.stream) for path in checksums}
    earlier = read_checksums(api, before) if CHECKSUMS in before.files else {}
    kept = {path: checksum for path, checksum in earlier.items() if (path.split, path.stream) not in replaced}
    if superseded := sorted(path.path for path in earlier if path not in kept and path not in checksums):
        count = format_count(len(superseded), "file of an earlier upload is", "files of an earlier upload are")
        warning(f"{count} no longer part of the dataset ({summarize_names(superseded)}); delete them on the hub")
    return {**kept, **checksums}


def _make_card(request: PushRequest, repo_id: str, checksums: Mapping[DatasetPath, str]) -> DatasetCard:
    """The card, with the statistics of the splits and streams that the repository has and the folder too."""
    root = request.root
    splits_in_repository = {path.split for path in checksums}
    splits = [split for split in list_splits(root) if split in splits_in_repository]
    streams = sorted({path.stream for path in checksums if path.stream})
    widths = {stream: _width(root, stream, splits) for stream in streams}
    description = describe_dataset(root, splits)
    return dataset_card(repo_id, description, widths, request.license, request.languages, request.with_annotation)


def _validate(card: DatasetCard, repo_id: str) -> None:
    """Let the hub check the metadata of the card, before large files are uploaded.

    Raises:
        UserError: it refuses them.
    """
    with hub_errors(f"{repo_id} was not uploaded"):
        try:
            card.validate()
        except ValueError as error:
            with contextlib.suppress(ValueError, TypeError, KeyError):  # else it is a text
                errors = json.loads(str(error))["errors"]
                error = ValueError("; ".join(each["message"] for each in errors))
            raise UserError(
                f"{repo_id} was not uploaded: the hub refuses the metadata of its card ({first_line(error)}); change "
                "--license or --language."
            ) from None


def _width(root: Path, stream: str, splits: Sequence[str]) -> int:
    """The numbers per frame of a stream in the first split that has it; 0 if none has."""
    for split in splits:
        if stream in (streams := list_streams(root, split)):
            return int(open_index(root, split, streams).widths(stream).max())
    return 0


def _addition(path: str, content: Path | bytes, checksum: str | None) -> CommitOperationAdd:
    operation = CommitOperationAdd(path_in_repo=path, path_or_fileobj=content)
    if checksum:
        operation.upload_info.sha256 = bytes.fromhex(checksum)  # so that it is not computed again
    return operation


def _upload(
    api: HfApi, before: HubSnapshot, operations: list[CommitOperationAdd], revision: str, failure: str
) -> str:
    """Upload the large files, then commit all at once; the commit."""
    options: dict[str, Any] = {"repo_type": DATASET, "revision": revision}
    with hub_errors(failure):
        with progress("files uploaded", len(operations)) as bar:
            for start in range(0, len(operations), FILES_PER_UPLOAD):
                batch = operations[start : start + FILES_PER_UPLOAD]
                api.preupload_lfs_files(before.repo_id, batch, free_memory=False, **options)
                bar.advance(len(batch))
        return api.create_commit(
            before.repo_id,
            operations,
            commit_message="Add a dataset folder of signllava",
            parent_commit=before.commit,
            **options,
        ).oid


def _verify(after: HubSnapshot, contents: Mapping[str, Path | bytes], checksums: Mapping[str, str]) -> None:
    """Check that the hub has all files as they were read.

    Raises:
        UserError: it has not: a file was changed in the meantime, or the repository's .gitignore excludes it.
    """
    wrong = [
        path
        for path, content in contents.items()
        if path not in after.files or not is_same_content(content, after.files[path], checksums.get(path))
    ]
    if wrong:
        count = format_count(len(wrong), "file is", "files are")
        raise UserError(
            f"{after.repo_id}: {count} missing or different on the hub ({summarize_names(wrong)}); do not change "
            "the folder during the upload, remove .gitignore from the repository, and run the command again."
        )
