"""Checkpoints that travel: as a folder, or as a repository of the Hugging Face hub."""

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
from signllava_cli.errors import UserError
from signllava_cli.files import atomic_folder, read_json, write_json, write_text
from signllava_cli.model.checkpoint import ADAPTER, CONFIG, PROJECTOR, RECIPE, find_checkpoint
from signllava_cli.model.llm import read_tensors
from signllava_cli.recipe import Recipe, read_recipe

CARD = "README.md"
SAVED_FILES = {PROJECTOR, ADAPTER, CONFIG, RECIPE, CARD}
STREAM_PATH_KEYS = ("folder", "metadata", "shards")


def find_pretrained(name: str | Path, revision: str | None = None) -> Path:
    """The checkpoint folder that `name` means: on this machine, or fetched from the hub (or its cache).

    Raises:
        UserError: there is none.
    """
    if Path(name).expanduser().exists() or not re.fullmatch(HUB_ID, str(name)):
        return find_checkpoint(name)
    try:
        folder = snapshot_download(
            str(name), revision=revision, allow_patterns=[PROJECTOR, CONFIG, RECIPE, f"{ADAPTER}/*"]
        )
    except Exception as error:  # of the hub, or of whichever HTTP library is below it
        raise UserError(f"{name} is no folder here, and not to be had from the hub: {_first_line(error)}") from None
    return find_checkpoint(folder)


def save_checkpoint(checkpoint: Path, folder: Path, llm: str | None, name: str | None = None) -> Path:
    """Copy what inference needs of `checkpoint` into `folder`, with a model card; no path of this machine's data.

    Args:
        llm: the hub id to name as the LLM's place.
        name: what the card calls it; by default the folder.

    Raises:
        UserError: `folder` holds something else, or cannot be written.
    """
    if folder.resolve() == checkpoint.resolve():
        raise UserError(f"{folder} is the checkpoint itself: choose another folder.")
    if folder.is_file() or (folder.exists() and not {file.name for file in folder.iterdir()} <= SAVED_FILES):
        raise UserError(f"{folder} holds something else than a saved model: choose another folder.")
    recipe = _portable_recipe(checkpoint, llm)
    config = read_json(checkpoint / CONFIG)
    config["llm"]["path"] = recipe.llm.path
    with atomic_folder(folder) as new:
        _copy_projector(checkpoint / PROJECTOR, new / PROJECTOR, recipe.llm.path)
        if recipe.lora.enabled:
            shutil.copytree(checkpoint / ADAPTER, new / ADAPTER)
            adapter = read_json(new / ADAPTER / "adapter_config.json")
            write_json(new / ADAPTER / "adapter_config.json", {**adapter, "base_model_name_or_path": recipe.llm.path})
            (new / ADAPTER / CARD).unlink(missing_ok=True)  # PEFT's, of placeholders
        write_json(new / CONFIG, config)
        write_text(new / RECIPE, recipe.to_yaml())
        write_text(new / CARD, str(model_card(checkpoint, recipe, name or folder.name)))
    return folder


def push_checkpoint(checkpoint: Path, repo_id: str, private: bool, llm: str | None, token: str | None) -> str:
    """Make the hub repository `repo_id` if it is not there, and upload the checkpoint to it; its address comes back.

    Raises:
        UserError: the name is none, or the hub refuses or is out of reach.
    """
    api = HfApi(token=token)
    with _as_user_error(repo_id):
        address = api.create_repo(repo_id, private=private, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        saved = save_checkpoint(checkpoint, Path(temporary) / "saved", llm, address.repo_id)
        with _as_user_error(repo_id):
            api.upload_folder(
                repo_id=address.repo_id, folder_path=saved, commit_message=f"Add {checkpoint.resolve().name}"
            )
    return str(address)


def _copy_projector(source: Path, target: Path, llm: str) -> None:
    """The same tensors; the place of the LLM, which their file names too, becomes `llm`."""
    tensors = read_tensors(source)
    with safe_open(source, "pt") as stored:
        metadata = json.loads((stored.metadata() or {}).get("signllava", "{}"))
    save_file(tensors, target, metadata={"signllava": json.dumps({**metadata, "llm": llm})})


def _portable_recipe(checkpoint: Path, llm: str | None) -> Recipe:
    """Its recipe without paths of this machine, but for that of an LLM without another name."""
    keys = [f"streams.{name}.{key}" for name in read_recipe(checkpoint / RECIPE).streams for key in STREAM_PATH_KEYS]
    settings = {
        **dict.fromkeys(
            [*keys, "init.projector", "launch.profile", "launch.main_process_ip", "launch.main_process_port"]
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
    except Exception as error:  # of the hub, or of whichever HTTP library is below it
        raise UserError(f"{repo_id} was not uploaded: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
