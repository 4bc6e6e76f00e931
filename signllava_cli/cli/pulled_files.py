"""Prints what `signllava checkpoint pull` and `signllava prepare pull` have downloaded."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from signllava_cli.api.hub import PulledCheckpoint
    from signllava_cli.prepare.hub_pull import PulledDataset


def print_pulled_files(pulled: "PulledCheckpoint | PulledDataset") -> None:
    """Print the counts, the license, and the files of the repository that were not downloaded."""
    from signllava_cli.console import info
    from signllava_cli.errors import format_count, summarize_names

    count = format_count(len(pulled.downloaded), "file")
    present = format_count(len(pulled.present), "was", "were")
    info(f"downloaded and checked {count} ({pulled.num_bytes:,} bytes); {present} there already")
    info(f"commit {pulled.commit}, license {pulled.license or 'unknown'}")
    if names := pulled.not_downloaded:
        info(f"not downloaded: {format_count(len(names), 'other file')} of the repository ({summarize_names(names)})")
