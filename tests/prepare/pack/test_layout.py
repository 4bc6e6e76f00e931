"""The layout of a stream (the meaning of its numbers) is stored in the shards and in the index."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import Ended
from test_link import by_recording, link, write_hdf5
from test_pack import annotate, arrays, assert_refused, dataset, npy_folder, pack, report
from test_pack_keypoints import frames_of, pixels, write_json

from signllava_cli.data.keypoints import LAYOUT_DESCRIPTION
from signllava_cli.errors import UserError
from signllava_cli.prepare.indexing import open_index
from signllava_cli.recipe import Stream

Command = Callable[..., Ended]


def index_layout(root: Path, width: int) -> str | None:
    return open_index(root, "train", {"mae": Stream(width=width)}).layout("mae")


def set_layout(file: Path, layout: str) -> Path:
    with h5py.File(file, "a") as handle:
        handle.attrs["layout"] = layout
    return file


def test_pack_link_and_index_keep_the_layout_of_keypoints(signllava: Command, tmp_path: Path) -> None:
    source = write_json(tmp_path / "source/rec/a.json", frames_of(pixels(3))).parent
    data = annotate(tmp_path / "data", {"rec": ["a"]})
    assert pack(signllava, data, source).code == 0
    assert report(data)["layout"] == LAYOUT_DESCRIPTION == "mediapipe-104-shoulders"
    assert index_layout(data, 208) == LAYOUT_DESCRIPTION
    linked = annotate(tmp_path / "linked", {"rec": ["a"]})
    assert link(signllava, linked, data / "mae/mae.train.0.h5").code == 0
    assert index_layout(linked, 208) == LAYOUT_DESCRIPTION
    packed_again = annotate(tmp_path / "again", {"rec": ["a"]})
    assert pack(signllava, packed_again, data / "mae/mae.train.0.h5").code == 0
    assert index_layout(packed_again, 208) == LAYOUT_DESCRIPTION


def test_features_of_other_tools_get_the_layout_option(signllava: Command, tmp_path: Path) -> None:
    content = arrays()
    data, source = dataset(tmp_path / "data", content), npy_folder(tmp_path / "source", content)
    assert pack(signllava, data, source).code == 0
    assert index_layout(data, 4) is None
    assert_refused(pack(signllava, data, source, "--layout", "mine"), 'layout (null, now "mine")', "--overwrite")
    assert pack(signllava, data, source, "--layout", "mine", "--overwrite").code == 0
    assert index_layout(data, 4) == "mine"
    assert_refused(pack(signllava, data, source, "--layout", ""), "--layout")


def test_clips_of_another_layout_are_faulty(signllava: Command, tmp_path: Path) -> None:
    content = arrays(2)
    data = dataset(tmp_path / "data", content)
    files = [
        set_layout(write_hdf5(tmp_path / f"{recording}.h5", by_recording(content, recording)), layout)
        for recording, layout in (("rec0", "one"), ("rec1", "two"))
    ]
    result = pack(signllava, data, *files)
    assert result.code == 0, result.err
    assert index_layout(data, 4) == "one"
    reasons = report(data)["faulty"]
    assert isinstance(reasons, dict)
    assert list(reasons) == [name for name in content if name.startswith("rec1")]
    assert "layout two, but the first clip's is one" in str(reasons)
    assert (
        pack(signllava, data, *files, "--layout", "two", "--overwrite").code == 0
    )  # the option overrides the sources
    assert (report(data)["clips_packed"], index_layout(data, 4)) == (8, "two")


def test_shards_of_two_layouts_are_refused(signllava: Command, tmp_path: Path) -> None:
    content = arrays(2)
    data = dataset(tmp_path / "data", content)
    files = [write_hdf5(tmp_path / f"{n}.h5", by_recording(content, f"rec{n}")) for n in range(2)]
    assert link(signllava, data, set_layout(files[0], "one"), files[1]).code == 0
    assert index_layout(data, 4) == "one"
    set_layout(files[1], "two")
    with pytest.raises(UserError, match=r"mae\.train\.0\.h5 has layout one, but .*mae\.train\.1\.h5 has layout two"):
        index_layout(data, 4)


def test_the_shard_describes_points_and_normalization(signllava: Command, tmp_path: Path) -> None:
    data = annotate(tmp_path / "data", {"rec": ["a"]})
    assert pack(signllava, data, write_json(tmp_path / "source/a.json", frames_of(pixels(1)))).code == 0
    with h5py.File(data / "mae/mae.train.0.h5") as file:
        assert file.attrs["layout"] == LAYOUT_DESCRIPTION
        assert "104 points (x, y)" in file.attrs["points"]
        assert np.isfinite(file["rec/a"].attrs["scale"])
