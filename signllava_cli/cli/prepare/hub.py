"""`signllava prepare push` and `signllava prepare pull`."""

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from signllava_cli.cli.options import (
    DatasetArgument,
    PrivateOption,
    RepoArgument,
    RevisionOption,
    SplitsOption,
)

StreamsOption = Annotated[
    list[str] | None, typer.Option("--stream", help="A stream. Repeatable. Default: all streams of the splits.")
]


def push(
    data: DatasetArgument,
    repo_id: RepoArgument,
    license_id: Annotated[
        str,
        typer.Option(
            "--license",
            metavar="ID",
            help="License of what is uploaded, as the hub names it: `cc-by-nc-4.0`, `other`, ...",
        ),
    ],
    license_name: Annotated[
        str | None, typer.Option(help="With `--license other`: the name of the license.", show_default=False)
    ] = None,
    license_link: Annotated[
        str | None, typer.Option(metavar="URL", help="With `--license other`: its text.", show_default=False)
    ] = None,
    languages: Annotated[
        list[str] | None,
        typer.Option("--language", metavar="CODE", help="ISO 639 code: `en`, `ase`, ... Repeatable."),
    ] = None,
    without_annotation: Annotated[
        bool,
        typer.Option(
            "--without-annotation", help="Upload no texts, where their license does not allow it, only features."
        ),
    ] = False,
    splits: SplitsOption = None,
    streams: StreamsOption = None,
    private: PrivateOption = False,
    revision: Annotated[
        str | None, typer.Option(help="The branch, which is made if needed. Default: `main`.", show_default=False)
    ] = None,
) -> None:
    """Upload a dataset to the Hugging Face hub, with a card. After a kill, run it again to continue."""
    from signllava_cli.console import info, is_json, print_document
    from signllava_cli.errors import UserError, format_count, summarize_names
    from signllava_cli.prepare.dataset_card import DatasetLicense
    from signllava_cli.prepare.hub_push import PushRequest, push_dataset

    if (license_id == "other") != bool(license_name) or (license_link and not license_name):
        raise UserError("--license other needs --license-name, and only it has --license-name and --license-link.")
    request = PushRequest(
        root=data,
        repo_id=repo_id,
        license=DatasetLicense(license_id, license_name, license_link),
        splits=splits,
        streams=streams,
        with_annotation=not without_annotation,
        languages=languages or [],
        private=private,
        revision=revision,
    )
    pushed = push_dataset(request)
    count = format_count(len(pushed.uploaded), "file")
    unchanged = format_count(len(pushed.unchanged), "was", "were")
    info(f"uploaded {count} ({pushed.num_bytes:,} bytes) to {pushed.url}; {unchanged} there already")
    info(f"commit {pushed.commit}, license {license_id}")
    if names := pushed.not_uploaded:
        info(f"not uploaded: {format_count(len(names), 'other file')} in {data} ({summarize_names(names)})")
    if is_json():
        print_document(asdict(pushed))


def pull(
    repo_id: RepoArgument,
    out: Annotated[Path, typer.Option(metavar="DATA", help="The dataset folder.")],
    revision: RevisionOption = None,
    splits: Annotated[
        list[str] | None, typer.Option("--split", help="A split. Repeatable. Default: all in the repository.")
    ] = None,
    streams: StreamsOption = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files of the folder that have another content.")
    ] = False,
) -> None:
    """Download a dataset from the Hugging Face hub, check and index it. After a kill, run it again to continue."""
    from signllava_cli.cli.pulled_files import print_pulled_files
    from signllava_cli.console import info, is_json, print_document, warning
    from signllava_cli.errors import format_count
    from signllava_cli.prepare.hub_pull import pull_dataset

    pulled = pull_dataset(repo_id, out, revision, splits, streams, overwrite)
    print_pulled_files(pulled)
    for split, num_clips in pulled.indexed.items():
        info(f"split {split}: {format_count(num_clips, 'clip')}, indexed")
    for split in pulled.without_annotation:
        warning(
            f"split {split} has no annotation in the repository: import annotation.{split}.json into {out}, "
            f"then run `signllava prepare index {shlex.quote(str(out))}`"
        )
    if is_json():
        print_document(asdict(pulled))
