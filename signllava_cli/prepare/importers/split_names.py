"""The names of splits: in sources, in file names, and in the layout."""

import re
from pathlib import Path

from signllava_cli.errors import UserError

LAYOUT_NAMES = {"train": "train", "val": "dev", "valid": "dev", "validation": "dev", "dev": "dev", "test": "test"}


def layout_split_name(name: str) -> str:
    """The layout's name of the split `name` of a source.

    >>> layout_split_name("valid"), layout_split_name("Train"), layout_split_name("unseen")
    ('dev', 'train', 'unseen')
    """
    return LAYOUT_NAMES.get(name.strip().lower(), name.strip())


def describe_renamed_split(folder: Path) -> str:
    """A hint for a message that `folder` does not exist, if a folder of the split's name in a source is beside it."""
    names = [name for name, layout_name in LAYOUT_NAMES.items() if layout_name == folder.name != name]
    found = next((other for name in names if (other := folder.with_name(name)).is_dir()), None)
    return f"; there is {found}, and split {found.name} of a source is {folder.name} here" if found else ""


def is_valid_split_name(split: str) -> bool:
    """Whether `split` is valid in a file name; `.fixed` is reserved for `prepare check --fix`."""
    return re.fullmatch(r"\w[\w.-]*", split) is not None and not split.endswith(".fixed")


def split_in_file_name(path: Path) -> str:
    """The split whose name is a word of the name of `path`, as the source calls it.

    >>> split_in_file_name(Path("how2sign_realigned_val.csv"))
    'val'

    Raises:
        UserError: the name contains no split, or more than one.
    """
    names = {word for word in re.split(r"[\W\d_]+", path.resolve().name.lower()) if word in LAYOUT_NAMES}
    if len(names) != 1:
        found = ", ".join(sorted(names)) or "none"
        raise UserError(f"{path}: the split is unknown; splits in the file name: {found}. Name it with --split.")
    return names.pop()
