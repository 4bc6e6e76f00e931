"""The model file of MediaPipe's HolisticLandmarker: one of the user's, or the official one in the user's cache."""

import hashlib
import urllib.request
from pathlib import Path

from signllava_cli.console import info
from signllava_cli.errors import UserError
from signllava_cli.files import atomic_file, sha256_file, user_cache

# Address and SHA-256 are those of mediapipe's own build (third_party/external_files.bzl), which pins a generation.
MODEL_URL = "https://storage.googleapis.com/mediapipe-assets/holistic_landmarker.task?generation=1699635090585884"
MODEL_SHA256 = "e2dab61191e2dcd0a15f943d8e3ed1dce13c82dfa597b9dd39f562975a50c3f8"
MODEL_NAME = "holistic_landmarker.task"
TIMEOUT_SECONDS = 60


def cached_model_file() -> Path:
    """Where the official model is in the user's cache."""
    return user_cache() / "models" / MODEL_NAME


def find_pose_model(file: Path | None, download: bool = False, url: str = MODEL_URL) -> Path:
    """The model file: `file`, or the official one, which is downloaded into the user's cache if `download`.

    Raises:
        UserError: the file is missing, or the download fails or has another checksum.
    """
    if file is not None:
        if not file.is_file():
            raise UserError(
                f"--pose-model {file}: no such file; name the file of the model, holistic_landmarker.task."
            )
        return file.resolve()
    cached = cached_model_file()
    if not cached.is_file():
        if not download:
            raise UserError(
                f"The landmark model is not in {cached.parent}: name its file with --pose-model, or fetch the "
                f"official one (13.7 MB) once, by `signllava prepare extract ... --download-pose-model` from {url}."
            )
        _download(url, cached)
    if sha256_file(cached) != MODEL_SHA256:
        raise UserError(f"{cached} is not the official model (its SHA-256 differs); remove it, and fetch it again.")
    return cached


def _download(url: str, file: Path) -> None:
    """Fetch the official model to `file`.

    Raises:
        UserError: the address cannot be reached, or the file has another checksum; nothing is kept.
    """
    info(f"fetching {url}")
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response:
            content = response.read()
    except (OSError, ValueError) as error:
        raise UserError(
            f"{url} cannot be fetched ({error}); fetch it elsewhere, and name the file with --pose-model."
        ) from None
    if (digest := hashlib.sha256(content).hexdigest()) != MODEL_SHA256:
        raise UserError(f"{url} has SHA-256 {digest}, expected {MODEL_SHA256}; it was not kept.")
    with atomic_file(file, is_shared=True) as temporary:
        temporary.write_bytes(content)
