"""`prepare pack` names the files of its folders that no clip of the split has, and those whose case differs."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import Ended
from test_pack import annotate, pack, report

from signllava_cli.errors import UserError
from signllava_cli.prepare.extract.find_videos import find_videos

Command = Callable[..., Ended]


def test_files_of_no_clip_and_of_another_case_are_counted_and_named(signllava: Command, tmp_path: Path) -> None:
    data = annotate(tmp_path / "data", {"-v-5-rgb_front": [f"-v_{number}-5-rgb_front" for number in range(3)]})
    source = tmp_path / "source"
    source.mkdir()
    for name in ("-v_0-5-rgb_front.npy", "-V_1-5-RGB_FRONT.npy", "other.npy"):
        with open(source / name, "wb") as file:
            np.save(file, np.ones((3, 4)))
    (source / "notes.txt").write_text("no features")
    ended = pack(signllava, data, source)
    assert ended.code == 0, ended.err
    assert "2 clips have no file and are skipped" in ended.out
    assert (
        f"warning: 1 of these clips has a file whose name differs in upper and lower case "
        f"({source}/-V_1-5-RGB_FRONT.npy); rename it, and pack with --overwrite." in ended.out
    )
    assert f"1 file is of no clip of split train ({source}/other.npy)" in ended.out
    assert report(data)["missing_other_case"] == {"-v-5-rgb_front/-v_1-5-rgb_front": f"{source}/-V_1-5-RGB_FRONT.npy"}
    assert report(data)["files_of_no_clip"] == [f"{source}/other.npy"]


def test_a_missing_folder_of_dev_names_that_of_val(signllava: Command, tmp_path: Path) -> None:
    (tmp_path / "val").mkdir()
    hint = f"there is {tmp_path}/val, and split val of a source is dev here."
    ended = pack(signllava, annotate(tmp_path / "data", {"v": ["v_0"]}), tmp_path / "dev")
    assert ended.code == 2
    assert hint in ended.err
    with pytest.raises(UserError, match=re.escape(hint)):
        find_videos(tmp_path / "dev", [])
