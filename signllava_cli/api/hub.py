"""Checkpoints saved for others: in a folder, or in a repository of the Hugging Face hub."""

import contextlib
import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import HfApi, snapshot_download
from safetensors import safe_open
from safetensors.torch import save_file

from signllava_cli.api.model_card import HUB_ID, model_card
from signllava_cli.errors import UserError, first_line
from signllava_cli.files import atomic_folder, read_json, write_json, write_text
from signllava_cli.model.checkpoint import ADAPTER, CONFIG, PROJECTOR, RECIPE, find_checkpoint
from signllava_cli.model.llm import read_tensors
from signllava_cli.model.lora import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from signllava_cli.recipe import Recipe, read_recipe

CARD = "README.md"
SAVED_FILES = {PROJECTOR, ADAPTER, CONFIG, RECIPE, CARD}
STREAM_PATH_KEYS = ("folder", "metadata", "shards")


def find_pretrained(name: str | Path, revision: str | None = None) -> Path:
    """The checkpoint folder of `name`: a local run or checkpoint, or else a hub repository, downloaded or cached.

    Raises:
        UserError: there is no such checkpoint.
    """
    if Path(name).expanduser().exists() or not re.fullmatch(HUB_ID, str(name)):
        return find_checkpoint(name)
    try:
        folder = snapshot_download(
            str(name), revision=revision, allow_patterns=[PROJECTOR, CONFIG, RECIPE, f"{ADAPTER}/*"]
        )
    except Exception as error:  # of the hub, or of the HTTP library that it uses
        raise UserError(
            f"{name} is not a local folder, and cannot be downloaded from the hub: {first_line(error)}"
        ) from None
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
    if folder.is_file() or (folder.exists() and not {file.name for file in folder.iterdir()} <= SAVED_FILES):
        raise UserError(f"{folder} holds other files than those of a saved model; choose another folder.")
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
    with _as_user_error(repo_id):
        url = api.create_repo(repo_id, private=private, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        saved = save_checkpoint(checkpoint, Path(temporary) / "saved", llm, url.repo_id)
        with _as_user_error(repo_id):
            api.upload_folder(
                repo_id=url.repo_id, folder_path=saved, commit_message=f"Add {checkpoint.resolve().name}"
            )
    return str(url)


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
    return read_recipe(checkpoint / RECIPE, [f"{key}={json.dumps(value)}" for key, value in settings.items()])


@contextlib.contextmanager
def _as_user_error(repo_id: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # of the hub, or of the HTTP library that it uses
        raise UserError(f"{repo_id} was not uploaded: {first_line(error)}") from None
