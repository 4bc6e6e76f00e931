"""Checkpoints saved for others: in a folder, or in a repository of the Hugging Face hub."""

import json
import re
import shutil
import tempfile
from collections.abc import Set
from dataclasses import asdict, dataclass
from pathlib import Path

from huggingface_hub import HfApi, snapshot_download
from safetensors import safe_open
from safetensors.torch import save_file

from signllava_cli.api.model_card import HUB_ID, model_card
from signllava_cli.errors import UserError
from signllava_cli.files import LOCK_FILE, atomic_folder, read_json, write_json, write_text
from signllava_cli.model.checkpoint import ADAPTER, CONFIG, PROJECTOR, RECIPE, find_checkpoint
from signllava_cli.model.hub_repository import (
    STAGING,
    Download,
    create_repository,
    download_files,
    hub_errors,
    read_snapshot,
)
from signllava_cli.model.llm import read_tensors
from signllava_cli.model.lora import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from signllava_cli.recipe import Recipe, format_override, read_recipe

CARD = "README.md"
SAVED_FILES = {PROJECTOR, ADAPTER, CONFIG, RECIPE, CARD}
ADAPTER_FILES = (f"{ADAPTER}/{ADAPTER_WEIGHTS}", f"{ADAPTER}/{ADAPTER_CONFIG}")
# The config is the last file of a download, because a folder that has it is a checkpoint.
PULLED_FILES = (PROJECTOR, *ADAPTER_FILES, RECIPE, CARD, CONFIG)
MODEL = "model"  # the type of the repository
GIT_ATTRIBUTES = ".gitattributes"  # which the hub writes
STREAM_PATH_KEYS = ("folder", "metadata", "shards")


def find_pretrained(name: str | Path, revision: str | None = None) -> Path:
    """The checkpoint folder of `name`: a local run or checkpoint, or else a hub repository, downloaded or cached.

    Raises:
        UserError: there is no such checkpoint.
    """
    if Path(name).expanduser().exists() or not re.fullmatch(HUB_ID, str(name)):
        return find_checkpoint(name)
    with hub_errors(f"{name} is not a local folder, and cannot be downloaded from the hub"):
        folder = snapshot_download(
            str(name), revision=revision, allow_patterns=[PROJECTOR, CONFIG, RECIPE, f"{ADAPTER}/*"]
        )
    return find_checkpoint(folder)


def save_checkpoint(checkpoint: Path, folder: Path, llm: str | None, name: str | None = None) -> Path:
    """Copy the files of `checkpoint` that inference needs into `folder`, with a model card, without local data paths.

    Args:
        llm: the hub id of the LLM, saved instead of its local path.
        name: the model's name in the card; by default the folder's name.

    Raises:
        UserError: `folder` holds other files, or cannot be written.
    """
    if folder.resolve() == checkpoint.resolve():
        raise UserError(f"{folder} is the checkpoint itself; choose another folder.")
    _require_only(folder, SAVED_FILES)
    recipe = _portable_recipe(checkpoint, llm)
    config = read_json(checkpoint / CONFIG)
    config["llm"]["path"] = recipe.llm.path
    with atomic_folder(folder) as temporary:
        _copy_projector(checkpoint / PROJECTOR, temporary / PROJECTOR, recipe.llm.path)
        if recipe.lora.enabled:
            _copy_adapter(checkpoint / ADAPTER, temporary / ADAPTER, recipe.llm.path)
        write_json(temporary / CONFIG, config)
        write_text(temporary / RECIPE, recipe.to_yaml())
        write_text(temporary / CARD, str(model_card(checkpoint, recipe, name or folder.name)))
    return folder


def push_checkpoint(checkpoint: Path, repo_id: str, private: bool, llm: str | None, token: str | None) -> str:
    """Create the hub repository `repo_id` if it does not exist, upload the checkpoint, and return the URL.

    Raises:
        UserError: the name is not valid, or the hub refuses or cannot be reached.
    """
    api = HfApi(token=token)
    url = create_repository(api, repo_id, MODEL, private)
    with tempfile.TemporaryDirectory() as temporary:
        saved = save_checkpoint(checkpoint, Path(temporary) / "saved", llm, url.repo_id)
        with hub_errors(f"{repo_id} was not uploaded"):
            api.upload_folder(
                repo_id=url.repo_id, folder_path=saved, commit_message=f"Add {checkpoint.resolve().name}"
            )
    return str(url)


@dataclass(frozen=True)
class PulledCheckpoint(Download):
    """`not_downloaded`: other files of the repository."""

    folder: str
    not_downloaded: list[str]


def pull_checkpoint(
    repo_id: str, folder: Path, revision: str | None = None, overwrite: bool = False, token: str | None = None
) -> PulledCheckpoint:
    """Download the checkpoint in `repo_id` into `folder`; an interrupted download continues.

    Args:
        overwrite: replace files of another checkpoint.

    Raises:
        UserError: the repository has no checkpoint, `folder` holds other files, or the hub cannot be reached.
    """
    _require_only(folder, SAVED_FILES | {STAGING, LOCK_FILE})
    api = HfApi(token=token)
    snapshot = read_snapshot(api, repo_id, MODEL, revision, f"{repo_id} was not downloaded")
    if missing := [name for name in (PROJECTOR, RECIPE, CONFIG) if name not in snapshot.files]:
        raise UserError(f"{repo_id} has no {missing[0]}, so it is not a checkpoint of signllava; name another one.")
    paths = [path for path in PULLED_FILES if path in snapshot.files]
    download = download_files(api, snapshot, paths, folder, overwrite, checksums={})
    find_checkpoint(folder)
    others = sorted(path for path in snapshot.files if path not in (*paths, GIT_ATTRIBUTES))
    return PulledCheckpoint(**asdict(download), folder=str(folder), not_downloaded=others)


def _require_only(folder: Path, names: Set[str]) -> None:
    if folder.is_file() or (folder.exists() and not {file.name for file in folder.iterdir()} <= names):
        raise UserError(f"{folder} holds other files than those of a saved model; choose another folder.")


def _copy_adapter(source: Path, target: Path, llm: str) -> None:
    """Copy the two files of an adapter, and no other file or link that its folder may hold."""
    target.mkdir()
    shutil.copyfile(source / ADAPTER_WEIGHTS, target / ADAPTER_WEIGHTS)
    write_json(target / ADAPTER_CONFIG, {**read_json(source / ADAPTER_CONFIG), "base_model_name_or_path": llm})


def _copy_projector(source: Path, target: Path, llm: str) -> None:
    """Copy the projector file, with `llm` as the LLM in its metadata."""
    tensors = read_tensors(source)
    with safe_open(source, "pt") as stored:
        metadata = json.loads((stored.metadata() or {}).get("signllava", "{}"))
    save_file(tensors, target, metadata={"signllava": json.dumps({**metadata, "llm": llm})})


def _portable_recipe(checkpoint: Path, llm: str | None) -> Recipe:
    """The checkpoint's recipe without local paths, except that of the LLM if `llm` is None."""
    path_keys = [
        f"streams.{name}.{key}" for name in read_recipe(checkpoint / RECIPE).streams for key in STREAM_PATH_KEYS
    ]
    settings = {
        **dict.fromkeys(
            [*path_keys, "init.projector", "launch.profile", "launch.main_process_ip", "launch.main_process_port"]
        ),
        **{
            "run.output_dir": "runs/run",
            "data.root": "data",
            "context.source": "gold",
            "generate.context_source": "gold",
        },
        **({} if llm is None else {"llm.path": llm}),
    }
    return read_recipe(checkpoint / RECIPE, [format_override(*setting) for setting in settings.items()])
