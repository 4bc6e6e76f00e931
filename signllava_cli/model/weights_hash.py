"""A hash of an LLM's weights, from a few bytes of each tensor in its safetensors files."""

import hashlib
import json
from pathlib import Path
from typing import Any

from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

from signllava_cli.files import read_json

SAMPLE_BYTES = 256  # at the start, in the middle and at the end of a tensor


def hash_weights(folder: Path) -> dict[str, Any]:
    """`weights_hash` (SHA-256) and `weights_dtypes` of the LLM in a folder.

    Neither the names of tensors nor their division into files matter, and a tensor that is stored twice counts once.
    Every change of training or merging changes each tensor as a whole, so that a few bytes show it. Empty if the LLM
    has no safetensors file.
    """
    digests, dtypes = set(), set()
    for file in _find_files(folder):
        with file.open("rb") as opened:
            header_size = int.from_bytes(opened.read(8), "little")
            for name, tensor in json.loads(opened.read(header_size)).items():
                if name == "__metadata__":
                    continue
                first, end = tensor["data_offsets"]
                dtypes.add(tensor["dtype"])
                digest = hashlib.sha256(repr(tensor["shape"]).encode())
                for start in (first, (first + end) // 2, max(first, end - SAMPLE_BYTES)):
                    opened.seek(8 + header_size + start)
                    digest.update(opened.read(min(SAMPLE_BYTES, end - start)))
                digests.add(digest.digest())
    if not digests:
        return {}
    return {
        "weights_hash": hashlib.sha256(b"".join(sorted(digests))).hexdigest(),
        "weights_dtypes": sorted(dtypes),
    }


def _find_files(folder: Path) -> list[Path]:
    """The files from which transformers loads an LLM."""
    if (folder / SAFE_WEIGHTS_NAME).is_file():
        return [folder / SAFE_WEIGHTS_NAME]
    index = folder / SAFE_WEIGHTS_INDEX_NAME
    names = set(read_json(index)["weight_map"].values()) if index.is_file() else set()
    return [folder / name for name in sorted(names) if name == Path(name).name]
