"""The manifest of a run: with which toolkit, libraries, data, LLM, recipe and hardware each of its starts ran.

`manifest.json` in the run folder has one entry for each start of the command, the oldest first. A resume with other
versions, hardware or data is visible in it, and is named in one line when the run is resumed.
"""

import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from signllava_cli.console import IS_MAIN_PROCESS, warning
from signllava_cli.data.split import Split
from signllava_cli.errors import UserError, summarize_names
from signllava_cli.files import read_json, sample_hash, write_json
from signllava_cli.model.llm import local_llm_folder
from signllava_cli.recipe import LLM, flatten
from signllava_cli.redaction import redact
from signllava_cli.training.accelerator import distributed_type_name
from signllava_cli.training.machine import (
    describe_hardware,
    environment_variables,
    package_versions,
    toolkit_commit,
)
from signllava_cli.training.session import Session

MANIFEST = "manifest.json"
FORMAT = 1
# What must be equal for bit-identical results, as far as the recipe's check and that of the ranks do not name it.
COMPARED = ("versions", "toolkit", "hardware", "environment", "data", "llm")
NOT_COMPARED = ("hardware.ranks", "data.train.root", "data.dev.root", "llm.path")
LLM_SUFFIXES = (".safetensors", ".bin", ".json", ".model", ".txt", ".jinja")


def record_start(session: Session) -> None:
    """Add an entry to the manifest of the run folder, and name what differs from the start before.

    All ranks call this; the main process writes.

    Raises:
        UserError: the manifest cannot be written.
    """
    hardware = describe_hardware(session.accelerator)
    if not IS_MAIN_PROCESS:
        return
    file, entry = session.run_folder.path / MANIFEST, _describe_start(session, hardware)
    starts = _read_starts(file)
    if starts and session.state.step:
        _warn_about_differences(starts[-1], entry, file)
    write_json(file, {"format": FORMAT, "starts": [*starts, entry]})


def _describe_start(session: Session, hardware: dict[str, Any]) -> dict[str, Any]:
    recipe, state = session.recipe, session.state
    entry = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": ["signllava", *sys.argv[1:]],
        "stage": session.stage,
        "resumed_at_step": state.step or None,
        "seed": recipe.run.seed,
        "recipe": recipe.to_dict(),
        "data": {
            "train": {**_describe_split(session.training_set.split), "fingerprint": session.data_fingerprint},
            "dev": _describe_split(session.dev_set.split),
        },
        "llm": _describe_llm(recipe.llm),
        "versions": package_versions(),
        "toolkit": toolkit_commit(),
        "hardware": hardware,
        "launch": {
            "profile": recipe.launch.profile,
            "distributed_type": distributed_type_name(session.accelerator),
        },
        "environment": environment_variables(),
    }
    redacted: dict[str, Any] = redact_texts(entry)
    return redacted


def _describe_split(split: Split) -> dict[str, Any]:
    return {
        "root": str(split.root),
        "split": split.name,
        "clips": len(split.clips),
        "fingerprint": split.fingerprint(),
        "annotation_sha256": split.index.annotation_hash,
    }


def _describe_llm(config: LLM) -> dict[str, Any]:
    """Path and revision of the LLM, and size and hashed samples of each of its files, if they are on this machine."""
    folder = local_llm_folder(config)
    entries = sorted(folder.iterdir()) if folder else []
    files = [file for file in entries if file.suffix in LLM_SUFFIXES and file.is_file()]  # the cache has dead links
    return {
        "path": config.path,
        "revision": config.revision,
        "files": {file.name: {"size": file.stat().st_size, "sample": sample_hash(file)} for file in files},
    }


def _read_starts(file: Path) -> list[dict[str, Any]]:
    """The entries of the earlier starts; of a damaged manifest none, with a warning."""
    if not file.exists():
        return []
    try:
        starts = read_json(file)["starts"]
        if not isinstance(starts, list) or not all(isinstance(start, dict) for start in starts):
            raise UserError(f"{file} has no list of starts.")
        return starts
    except (UserError, KeyError) as error:
        kept = file.with_name(f"{file.name}.damaged")
        file.replace(kept)
        warning(f"{file} is damaged ({error}); it is now {kept.name}, and a new manifest begins with this start")
        return []


def _warn_about_differences(before: Mapping[str, Any], now: Mapping[str, Any], file: Path) -> None:
    old, new = flatten({key: before.get(key) for key in COMPARED}), flatten({key: now[key] for key in COMPARED})
    changed = [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]
    changes = [
        f"{key} {_shorten(old.get(key))} -> {_shorten(new.get(key))}" for key in changed if key not in NOT_COMPARED
    ]
    if changes:
        warning(
            f"resumed with other versions, hardware or data than at the start before ({summarize_names(changes)}): "
            f"weights may not be bit for bit those of an uninterrupted run; {file} has both"
        )


def _shorten(value: object) -> str:
    text = str(value)
    return f"{text[:40]}..." if len(text) > 40 else text


def redact_texts(value: Any) -> Any:
    """`value` (of JSON) without the secrets in its texts.

    >>> redact_texts(["track.api_key=abc", "https://me:abc@host/x", "train.max_tokens_per_batch=8"])
    ['track.api_key=***', 'https://***@host/x', 'train.max_tokens_per_batch=8']
    """
    if isinstance(value, dict):
        return {key: redact_texts(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [redact_texts(item) for item in value]
    return redact(value) if isinstance(value, str) else value
