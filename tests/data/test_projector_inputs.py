"""The number of embeddings, and the frames that each of them reads, follow from the numbers of frames alone."""

import numpy as np
import pytest

from signllava_cli.data.projector_inputs import MAX_CUT, ProjectorInput, cut_to_shortest, join_all, projector_inputs
from signllava_cli.errors import UserError
from signllava_cli.recipe import Conv, Stream

CONFIGS = {
    "plain": Stream(width=2),
    "stack 4": Stream(width=2, stack=4),
    "conv 3/2": Stream(width=2, conv=Conv()),
    "conv 4/3 twice": Stream(width=2, conv=Conv(kernel=4, stride=3, layers=2)),
    "conv 5/1": Stream(width=2, conv=Conv(kernel=5, stride=1)),
}


def read_frames(config: Stream, num_frames: int) -> list[list[int]]:
    """The frames of one clip that each output of the first window layer reads, counted from 0; -1: outside of it."""
    kernel, stride = (config.conv.kernel, config.conv.stride) if config.conv else (config.stack, config.stack)
    first = -((kernel - 1) // 2) if config.conv else 0
    windows = []
    for start in range(0, num_frames, stride):
        frames = [start + first + offset for offset in range(kernel)]
        windows.append([frame if 0 <= frame < num_frames else -1 for frame in frames])
    return windows


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_counts_of_one_clip_of_an_index_and_of_the_windows_agree(config: Stream) -> None:
    projector_input = ProjectorInput("x", {"x": config})
    lengths = np.arange(60)
    of_index = projector_input.count_embeddings(lengths)
    for length in lengths.tolist():
        windows = projector_input.window_indices(np.array([length]))
        count = len(windows[-1]) if windows else length
        assert count == projector_input.count_embeddings(length) == of_index[length]
        most = count * projector_input.frames_per_embedding
        assert length <= most
        assert projector_input.count_embeddings(most) == count
        assert projector_input.count_embeddings(most + 1) == count + 1


@pytest.mark.parametrize("config", [config for name, config in CONFIGS.items() if name != "plain"])
def test_a_window_reads_its_own_clip_and_zeros_outside_of_it(config: Stream) -> None:
    lengths = [5, 1, 0, 8, 3, 4]
    indices = ProjectorInput("x", {"x": config}).window_indices(np.array(lengths))[0]
    expected, first = [], 0
    for length in lengths:
        expected += [
            [first + frame + 1 if frame >= 0 else 0 for frame in window] for window in read_frames(config, length)
        ]
        first += length
    assert indices.tolist() == expected
    read = set(indices.flatten().tolist()) - {0}
    assert read == set(range(1, sum(lengths) + 1)), "no frame is skipped, also not the last of a clip"


def test_joined_streams_are_one_input_at_the_place_of_the_first() -> None:
    streams = {
        "left": Stream(width=2, join="body", stack=2),
        "mae": Stream(width=3),
        "right": Stream(width=1, join="body", stack=2),
    }
    inputs = projector_inputs(streams)
    assert {name: (list(each.streams), each.width) for name, each in inputs.items()} == {
        "body": (["left", "right"], 3),
        "mae": (["mae"], 3),
    }
    left, right = np.arange(8, dtype=np.float16).reshape(4, 2), np.full((4, 1), 9, np.float16)
    joined = join_all({"right": right, "left": left}, inputs)
    assert list(joined) == ["body"]
    np.testing.assert_array_equal(joined["body"], np.concatenate([left, right], axis=1))
    only_right = join_all({"right": right}, inputs)["body"]
    np.testing.assert_array_equal(only_right, [[0, 0, 9]] * 4)
    assert only_right.dtype == np.float16


def test_joined_streams_of_another_rate_are_an_error() -> None:
    assert cut_to_shortest({"left": 20, "right": 20 - MAX_CUT}, "clip r/c") == 20 - MAX_CUT
    with pytest.raises(UserError, match=rf"clip r/c: .*more than {MAX_CUT} frames: left 20, right {19 - MAX_CUT}\."):
        cut_to_shortest({"left": 20, "right": 19 - MAX_CUT}, "clip r/c")
