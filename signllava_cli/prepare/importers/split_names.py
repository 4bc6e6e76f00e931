"""What a split is called: in the source's words, in its file's name, and in the layout."""

import re
from pathlib import Path

from signllava_cli.errors import UserError

LAYOUT_NAMES = {"train": "train", "val": "dev", "valid": "dev", "validation": "dev", "dev": "dev", "test": "test"}


def layout_split_name(name: str) -> str:
    """The layout's name of the split that a source calls `name`.

    >>> split_in_layout("valid"), split_in_layout("Train"), split_in_layout("unseen")
    ('dev', 'train', 'unseen')
    """
    return LAYOUT_NAMES.get(name.strip().lower(), name.strip())


def is_valid_split_name(split: str) -> bool:
    """Whether `split` can stand in a file name."""
    return re.fullmatch(r"\w[\w.-]*", split) is not None and not split.endswith(".fixed")  # `check --fix` names so


def split_in_file_name(path: Path) -> str:
    """The split whose name stands as a word in the name of `path`, as the source calls it.

    >>> split_in_file_name(Path("how2sign_realigned_val.csv"))
    'val'

    Raises:
        UserError: no split, or more than one, stands there.
    """
    found = {word for word in re.split(r"[\W\d_]+", path.resolve().name.lower()) if word in LAYOUT_NAMES}
    if len(found) != 1:
        names = ", ".join(sorted(found)) or "none"
        raise UserError(f"{path}: which split is it? Splits named in the file name: {names}. Say it with --split.")
    return found.pop()
