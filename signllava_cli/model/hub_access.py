"""Reading from the Hugging Face hub: where the hub cannot be reached, its local cache is used at once."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from huggingface_hub import constants, get_session, is_offline_mode

from signllava_cli.errors import UserError

PAUSE = 1.0  # seconds before the second attempt
# By name: whether they are httpx's or httpx2's depends on the version of huggingface_hub. A read timeout is none of
# them: the hub was reached, and is slow.
_NOT_CONNECTED = {"ConnectError", "ConnectTimeout", "ProxyError"}


@contextlib.contextmanager
def hub_options(location: str) -> Iterator[dict[str, Any]]:
    """The options of transformers' `from_pretrained` for `location`, a folder or a hub id.

    Without them, each file of a hub that cannot be reached is retried for 23 s, with a line printed for each retry, and
    transformers asks at the terminal whether to run the Python files of the LLM's folder: they are never run.

    Raises:
        UserError: the hub cannot be reached, and the code inside this block does not find what it wants in the cache.
    """
    error = None if Path(location).is_dir() else hub_error()
    try:
        yield {"local_files_only": error is not None, "trust_remote_code": False}
    except OSError:
        if error is None:
            raise
        raise UserError(
            f"{location} cannot be loaded: it is not in the cache {constants.HF_HUB_CACHE}, and {error}. Connect to "
            "the network, or name a folder that holds it."
        ) from None


def hub_error() -> str | None:
    """Why the hub cannot be asked; None where it answers anything, however slowly."""
    if is_offline_mode():
        return "HF_HUB_OFFLINE is set"
    error = _connection_error()
    if error and error[0] != "ConnectTimeout":
        time.sleep(PAUSE)
        error = _connection_error()
    return f"{constants.ENDPOINT} cannot be reached ({error[1]})" if error else None


def _connection_error() -> tuple[str, str] | None:
    """The class and the message of the error with which a connection to the hub fails."""
    try:
        get_session().head(constants.ENDPOINT, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    except Exception as error:
        kind = type(error).__name__
        return (kind, str(error) or kind) if kind in _NOT_CONNECTED else None
    return None
