"""Whether features are of the layout that a checkpoint was trained on: the same numbers, normalized the same way."""

from collections.abc import Mapping

from signllava_cli.console import warning
from signllava_cli.data.split import Split
from signllava_cli.errors import UserError

SIGN_LLAVA = "sign-llava"
SIGN_LLAVA_WIDTH = 208  # of its pose streams; JSALT2024/PoseEstimation, 104 points (x, y)


def require_layouts(trained: Mapping[str, str], split: Split, source: str) -> None:
    """Check the streams of `split` against the layouts that `source` was trained on; warn where one is not known.

    Raises:
        UserError: a stream is of another layout.
    """
    for stream in split.streams:
        expected, found = trained.get(stream.name), stream.layout
        if expected == found:
            continue
        where = f"split {split.name} of {split.root}"
        key = f"streams.{stream.name}.layout"
        if expected and found:
            raise UserError(
                f"Stream {stream.name}: {source} is of layout {expected} and {where} of layout {found}, whose "
                f"numbers mean something else. Pack features of layout {expected}; if these are, "
                f"--set {key}={expected}."
            )
        if expected:
            warning(
                f"Stream {stream.name}: {source} is of layout {expected}; the shards of {where} "
                f"do not say theirs. If it is the same, --set {key}={expected}."
            )
        else:
            warning(f"Stream {stream.name}: {where} is of layout {found}; that of {source} is not known.")


def layouts_of_conversion(streams: Mapping[str, tuple[int, str | None]]) -> dict[str, str]:
    """The layouts of converted projectors, as far as they can be known.

    Args:
        streams: stream -> its width, and the layout that the user named.
    """
    known = {name: layout or _layout_of_width(width) for name, (width, layout) in streams.items()}
    return {name: layout for name, layout in known.items() if layout}


def _layout_of_width(width: int) -> str | None:
    return SIGN_LLAVA if width == SIGN_LLAVA_WIDTH else None
