"""The clips of a dataset with features as `SignLlava` takes them."""

from dataclasses import replace
from pathlib import Path

from signllava_cli.api.translator import SignLlava
from signllava_cli.data.split import Split
from signllava_cli.model.layouts import require_layouts
from signllava_cli.prepare.indexing import open_index


def open_model_split(model: SignLlava, split: str, data: str | Path | None = None) -> Split:
    """A split of a dataset with the model's streams, whose clips are read with all frames: the model subsamples them.

    Args:
        data: the dataset folder; by default that of the training.

    Raises:
        UserError: the dataset cannot be opened, or its streams have other widths or layouts than the model's.
    """
    streams = {
        name: replace(stream, stride=1, max_frames=None, join=None) for name, stream in model.recipe.streams.items()
    }
    root = Path(data or model.recipe.data.root).expanduser()
    opened_split = Split(open_index(root, split, streams), split, streams, missing="skip")
    require_layouts(model.layouts, opened_split, str(model.checkpoint))
    return opened_split
