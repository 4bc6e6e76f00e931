"""Compares the layout of features (what their numbers are, and their normalization) with that of a checkpoint."""

from collections.abc import Mapping

from signllava_cli.console import warning
from signllava_cli.data.sign_llava_pose import SIGN_LLAVA
from signllava_cli.data.split import Split
from signllava_cli.errors import UserError

SIGN_LLAVA_WIDTH = 208  # of its pose streams: 104 points (x, y), JSALT2024/PoseEstimation


def require_layouts(trained: Mapping[str, str], split: Split, source: str) -> None:
    """Check that the streams of `split` have the layouts that `source` was trained on; warn if one is unknown.

    Args:
        trained: stream -> layout, of the checkpoint.
        source: the name of the checkpoint for messages.

    Raises:
        UserError: a stream has another layout.
    """
    for stream in split.streams:
        expected, actual = trained.get(stream.name), stream.layout
        if expected == actual:
            continue
        where = f"split {split.name} of {split.root}"
        key = f"streams.{stream.name}.layout"
        if expected and actual:
            raise UserError(
                f"Stream {stream.name}: {source} has layout {expected}, but {where} has layout {actual}, whose "
                f"numbers mean something else. Pack features of layout {expected}; if these are of that layout, "
                f"--set {key}={expected}."
            )
        if expected:
            warning(
                f"Stream {stream.name}: {source} has layout {expected}; the shards of {where} have no layout. If it "
                f"is the same, --set {key}={expected}."
            )
        else:
            warning(f"Stream {stream.name}: {where} has layout {actual}; that of {source} is unknown.")


def infer_layouts(streams: Mapping[str, tuple[int, str | None]]) -> dict[str, str]:
    """The known layouts of converted projectors, by stream.

    Args:
        streams: stream -> its width, and the layout that the user gave.
    """
    layouts = {name: layout or _layout_of_width(width) for name, (width, layout) in streams.items()}
    return {name: layout for name, layout in layouts.items() if layout}


def _layout_of_width(width: int) -> str | None:
    return SIGN_LLAVA if width == SIGN_LLAVA_WIDTH else None
