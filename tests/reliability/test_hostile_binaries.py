"""Hostile indexes, checkpoints and videos: each kind was once a traceback, a crash or a large allocation."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from binary_readers import read_checkpoint
from binary_seeds import checkpoint_seeds, index_seeds, video_seeds
from safetensors.torch import load, save

from signllava_cli.data.clip_source import UnreadableClip
from signllava_cli.data.index import Index
from signllava_cli.data.stream_files import DefaultLocation
from signllava_cli.errors import UserError
from signllava_cli.prepare.extract import video_cuts
from signllava_cli.prepare.extract.video_cuts import VideoCut, decode_cut
from signllava_cli.prepare.indexing import index_files, open_index

pytestmark = pytest.mark.reliability(
    "Bad input", "damaged indexes, checkpoints, videos and uploads are refused: no crash, hang or large allocation"
)


def test_an_index_whose_offsets_lie_is_rebuilt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Arrow reads texts at the offsets of the file: a wrong one is outside of it."""
    [content] = index_seeds(tmp_path)
    offsets = np.array([0, 7, 14], np.int64).tobytes()  # of "A clip." and "A clip."
    assert offsets in content
    file = index_files(tmp_path, "dev")[0]
    file.write_bytes(content.replace(offsets, np.array([0, 2**40, 2**41], np.int64).tobytes()))
    with pytest.raises(UserError, match="is not a valid index"):
        Index(file, tmp_path)
    index = open_index(tmp_path, "dev", {"mae": DefaultLocation()})
    assert index.translation(1) == "A clip."
    assert "is not a valid index" in capsys.readouterr().out.replace("\n", " ")


@pytest.mark.parametrize(("column", "value"), [("file", 1), ("group", 0), ("frames", -1), ("offset", -2)])
def test_an_index_with_impossible_numbers_is_refused(tmp_path: Path, column: str, value: int) -> None:
    index_seeds(tmp_path)
    file = index_files(tmp_path, "dev")[0]
    with pa.memory_map(str(file)) as source:
        table = pa.ipc.open_file(source).read_all()
    name = f"mae/{column}"
    number = table.schema.get_field_index(name)
    table = table.set_column(
        number, table.schema.field(name), pa.array([value, value], table.schema.field(name).type)
    )
    with pa.OSFile(str(tmp_path / "bad.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(UserError, match=f"values from {value} to {value} are not possible"):
        Index(tmp_path / "bad.arrow", tmp_path)


@pytest.mark.parametrize("metadata", ["no JSON", "[]", '{"inputs": [1]}', '{"inputs": {"mae": 1}}', "[" * 9000])
def test_projectors_with_damaged_metadata_are_refused(tmp_path: Path, metadata: str) -> None:
    [content] = checkpoint_seeds(tmp_path)
    from signllava_cli.model.checkpoint import _parse_inputs

    assert load(content)
    (tmp_path / "p.safetensors").write_bytes(save(load(content), {"signllava": metadata}))
    with pytest.raises(UserError, match="its metadata cannot be read"):
        _parse_inputs(metadata, tmp_path / "p.safetensors")
    read_checkpoint(tmp_path)(tmp_path / "p.safetensors")


def test_frames_of_more_pixels_than_a_screen_has_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_cuts, "MAX_PIXELS", 64 * 48 - 1)
    for content in video_seeds():
        (tmp_path / "video").write_bytes(content)
        with pytest.raises(UnreadableClip, match=r"has frames of 64 x 48, and more than 3,071 pixels are not read"):
            list(decode_cut(VideoCut(tmp_path / "video")))
