"""Access to the Hugging Face hub: if the hub cannot be reached, its local cache is used immediately."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from huggingface_hub import constants, get_session, is_offline_mode

from signllava_cli.errors import UserError

PAUSE = 1.0  # seconds before the second attempt
# Class names, because the classes of httpx or httpx2 are raised, depending on the version of huggingface_hub. A read
# timeout is not included: the hub was reached, and is slow.
CONNECTION_ERRORS = {"ConnectError", "ConnectTimeout", "ProxyError"}


@contextlib.contextmanager
def hub_options(location: str) -> Iterator[dict[str, Any]]:
    """The options of transformers' `from_pretrained` for `location`, a folder or a hub id.

    Without them, transformers retries each file for 23 s if the hub cannot be reached, with a message per retry, and
    prompts at the terminal for whether to run Python files of the LLM's folder; they are never run.

    Raises:
        UserError: the hub cannot be reached, and the code inside this block needs a file that is not in the cache.
    """
    error = None if Path(location).is_dir() else hub_error()
    try:
        yield {"local_files_only": error is not None, "trust_remote_code": False}
    except OSError:
        if error is None:
            raise
        raise UserError(
            f"{location} cannot be loaded: it is not in the cache {constants.HF_HUB_CACHE}, and {error}; connect to "
            "the network, or name a folder that has it."
        ) from None


def hub_error() -> str | None:
    """Why the hub cannot be reached, or None."""
    if is_offline_mode():
        return "HF_HUB_OFFLINE is set"
    error = _connection_error()
    if error and error[0] != "ConnectTimeout":
        time.sleep(PAUSE)
        error = _connection_error()
    return f"{constants.ENDPOINT} cannot be reached ({error[1]})" if error else None


def _connection_error() -> tuple[str, str] | None:
    """The class name and the message of the error of a connection to the hub, or None."""
    try:
        get_session().head(constants.ENDPOINT, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    except Exception as error:
        kind = type(error).__name__
        return (kind, str(error) or kind) if kind in CONNECTION_ERRORS else None
    return None
