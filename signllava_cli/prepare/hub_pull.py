"""`signllava prepare pull`: downloads a dataset repository of the Hugging Face hub as a dataset folder."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from huggingface_hub import HfApi

from signllava_cli.errors import UserError, format_count, summarize_names
from signllava_cli.model.hub_repository import Download, HubSnapshot, download_file, download_files, read_snapshot
from signllava_cli.prepare.dataset_folder import list_splits, list_streams, require_known
from signllava_cli.prepare.hub_layout import (
    CHECKSUMS,
    DATASET,
    REPOSITORY_FILES,
    DatasetPath,
    parse_checksums,
)
from signllava_cli.prepare.indexing import open_index


@dataclass(frozen=True)
class PulledDataset(Download):
    """`not_downloaded`: other files of the repository. `indexed`: split -> number of clips.

    `without_annotation`: splits that were not indexed.
    """

    not_downloaded: list[str]
    indexed: dict[str, int]
    without_annotation: list[str]


def pull_dataset(
    repo_id: str,
    root: Path,
    revision: str | None = None,
    splits: Sequence[str] | None = None,
    streams: Sequence[str] | None = None,
    overwrite: bool = False,
    token: str | None = None,
) -> PulledDataset:
    """Download the files in SHA256SUMS, check them, and index the splits that have an annotation.

    An interrupted download continues with the files that are missing.

    Raises:
        UserError: the repository has no such dataset, split or stream, a file is missing there or differs from its
            sum, a local file has another content, or the hub cannot be reached.
    """
    api = HfApi(token=token)
    snapshot = read_snapshot(api, repo_id, DATASET, revision, f"{repo_id} was not downloaded")
    if CHECKSUMS not in snapshot.files:
        raise UserError(
            f"{repo_id} has no {CHECKSUMS}, so it is not a dataset that `signllava prepare push` has uploaded; name "
            "another repository, or another --revision."
        )
    checksums = read_checksums(api, snapshot)
    chosen = _choose(repo_id, sorted(checksums), splits, streams)
    sums = {path.path: checksums[path] for path in chosen}
    _require_listed(snapshot, sums)
    download = download_files(api, snapshot, list(sums), root, overwrite, sums)
    listed = {path.path for path in checksums} | REPOSITORY_FILES
    annotated = list_splits(root) if list(root.glob("annotation.*.json")) else []
    pulled = list(dict.fromkeys(path.split for path in chosen))
    return PulledDataset(
        **asdict(download),
        not_downloaded=sorted(path for path in snapshot.files if path not in listed),
        indexed={
            split: len(open_index(root, split, list_streams(root, split))) for split in pulled if split in annotated
        },
        without_annotation=[split for split in pulled if split not in annotated],
    )


def read_checksums(api: HfApi, snapshot: HubSnapshot) -> dict[DatasetPath, str]:
    """Path -> SHA-256 in the SHA256SUMS of the repository.

    Raises:
        UserError: an error of `download_file` or `parse_checksums`.
    """
    with tempfile.TemporaryDirectory() as temporary:
        file = download_file(api, snapshot, CHECKSUMS, Path(temporary))
        return parse_checksums(file.read_text(encoding="utf-8", errors="replace"), snapshot.repo_id)


def _choose(
    repo_id: str, paths: Sequence[DatasetPath], splits: Sequence[str] | None, streams: Sequence[str] | None
) -> list[DatasetPath]:
    """The paths of these splits and streams, and the annotations of the splits. None stands for all."""
    require_known("split", splits or [], sorted({path.split for path in paths}), repo_id)
    require_known("stream", streams or [], sorted({path.stream for path in paths if path.stream}), repo_id)
    return [
        path
        for path in paths
        if (not splits or path.split in splits) and (not streams or path.stream is None or path.stream in streams)
    ]


def _require_listed(snapshot: HubSnapshot, checksums: Mapping[str, str]) -> None:
    """Check, before anything is downloaded, that the repository has these files, and large ones with these sums.

    Raises:
        UserError: it has not.
    """
    wrong = [
        path
        for path, checksum in checksums.items()
        if path not in snapshot.files or ((lfs := snapshot.files[path].lfs) and lfs.sha256 != checksum)
    ]
    if wrong:
        count = format_count(len(wrong), "file is", "files are")
        raise UserError(
            f"{snapshot.repo_id}: {count} missing, or not with the sum in {CHECKSUMS} ({summarize_names(wrong)}); "
            "nothing was downloaded. Ask the owner to upload the dataset again."
        )
