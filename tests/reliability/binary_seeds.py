"""Contents of small valid files of every binary format that the package reads: what the fuzz tests damage."""

import io
import json
import tempfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import h5py
import numpy as np

FRAMES = np.linspace(-1, 1, 40).astype(np.float16).reshape(10, 4)
CLIPS = ("rec/a", "rec/b", "other/c")


def npy_seeds() -> tuple[bytes, ...]:
    arrays = (FRAMES, FRAMES.astype(np.float32), np.asfortranarray(FRAMES.astype(np.int8)), FRAMES.astype(">f8"))
    return tuple(_written(lambda file, array=array: np.save(file, array)) for array in arrays)  # type: ignore[misc]


def npz_seeds() -> tuple[bytes, ...]:
    def compressed(method: int) -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", method) as archive:
            archive.writestr("frames.npy", npy_seeds()[1])
        return buffer.getvalue()

    methods = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2)
    return tuple(compressed(method) for method in methods)


def safetensors_seeds() -> tuple[bytes, ...]:
    import torch
    from safetensors.torch import save

    frames = torch.from_numpy(FRAMES.astype(np.float32))
    return save({"frames": frames}), save({"frames": frames.bfloat16()}, {"format": "pt"})


def hdf5_seeds() -> tuple[bytes, ...]:
    """Shards in the old and the new file format: contiguous, compressed, and with what else HDF5 can hold."""
    return (
        _hdf5(_write_plain, None),
        _hdf5(_write_plain, "v110"),
        _hdf5(_write_packed, "v110"),
        _hdf5(_write_odd, None),
    )


def _hdf5(write: Callable[[h5py.File], None], version: str | None) -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", libver=version) as file:
        file.attrs["layout"], file.attrs["skipped"] = "mediapipe-104-shoulders", "{}"
        file.attrs["fingerprint"], file.attrs["quality"] = "0" * 64, "{}"
        write(file)
        for clip in CLIPS[:2]:
            file[clip].attrs["center"], file[clip].attrs["scale"] = np.zeros(2), np.float64(2)
    return buffer.getvalue()


def _write_plain(file: h5py.File) -> None:
    for clip in CLIPS:
        file[clip] = FRAMES


def _write_packed(file: h5py.File) -> None:
    for clip in CLIPS:
        options = {"compression": "gzip", "shuffle": True, "fletcher32": True}
        file.create_dataset(clip, data=FRAMES.astype(np.float32), chunks=(3, 4), **options)


def _write_odd(file: h5py.File) -> None:
    file.create_dataset(CLIPS[0], data=FRAMES, chunks=(4, 4), compression="lzf", maxshape=(None, 4))
    file.create_dataset(CLIPS[1], data=FRAMES.astype(np.float64), chunks=(5, 2), scaleoffset=3)
    file.create_dataset(CLIPS[2], shape=(10, 4), dtype=">i2", chunks=(5, 4), fillvalue=3)
    file["rec/loop"] = h5py.SoftLink("/rec")
    file["rec/elsewhere"] = h5py.ExternalLink("missing.h5", "/rec/a")
    file["rec/compound"], file["rec/text"] = np.zeros(3, [("x", "f4"), ("y", "i2")]), "text"
    layout = h5py.VirtualLayout(shape=(10, 4), dtype="f2")
    layout[:] = h5py.VirtualSource("missing.h5", "data", shape=(10, 4))
    file.create_virtual_dataset("rec/virtual", layout)


def keypoint_seeds() -> tuple[bytes, ...]:
    """Keypoints of MediaPipe as JSON."""
    rng = np.random.default_rng(0)

    def points(count: int) -> list[list[float]]:
        return [[round(value, 1) for value in pair] for pair in (rng.random((count, 2)) * 500).tolist()]

    body = {"pose_landmarks": points(33), "right_hand_landmarks": points(21)}
    objects = [{"x": x, "y": y} for x, y in points(33)]
    frames = [body, {"pose_landmarks": objects}, {"pose_landmarks": None, "face_landmarks": []}]
    return (json.dumps({"keypoints": frames}).encode(),)


def pose_seeds() -> tuple[bytes, ...]:
    """`.pose` files of two frames, with the 104 points of the package alone."""
    from pose_format import Pose
    from pose_format.numpy import NumPyPoseBody
    from pose_format.pose_header import PoseHeader, PoseHeaderComponent, PoseHeaderDimensions

    from signllava_cli.data.keypoints import POINT_NAMES, POSE_COMPONENTS, TOTAL_POINTS

    components = [
        PoseHeaderComponent(POSE_COMPONENTS[part], list(names), [], [], "XYZC") for part, names in POINT_NAMES.items()
    ]
    data = np.random.default_rng(0).random((2, 1, TOTAL_POINTS, 3)).astype(np.float32) * 300
    seeds = []
    for version in (0.1, 0.2):
        header = PoseHeader(version, PoseHeaderDimensions(640, 480, 1), components)
        body = NumPyPoseBody(25, data, np.ones((2, 1, TOTAL_POINTS), np.float32))
        seeds.append(_written(Pose(header, body).write))
    return tuple(seeds)


def video_seeds() -> tuple[bytes, ...]:
    """Videos of a few frames in the containers that are opened: MP4, Matroska, AVI, MPEG-TS."""
    import av

    def video(name: str, codec: str) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            with av.open(f"{folder}/{name}", "w") as container:
                stream = container.add_stream(codec, rate=25)
                assert isinstance(stream, av.VideoStream)
                stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
                for number in range(8):
                    picture = np.full((48, 64, 3), 30 * number, np.uint8)
                    container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
                container.mux(stream.encode(None))
            return Path(folder, name).read_bytes()

    return tuple(
        video(*names)
        for names in (("v.mp4", "libx264"), ("v.mkv", "mpeg4"), ("v.avi", "mpeg4"), ("v.ts", "mpeg2video"))
    )


def _written(write: Callable[[io.BytesIO], object]) -> bytes:
    buffer = io.BytesIO()
    write(buffer)
    return buffer.getvalue()


def index_seeds(root: Path) -> tuple[bytes, ...]:
    """The index of a dataset of one recording, which is written to `root`."""
    from signllava_cli.data.stream_files import DefaultLocation
    from signllava_cli.files import write_json
    from signllava_cli.prepare.dataset_writer import write_stream
    from signllava_cli.prepare.indexing import index_files, open_index

    clip = {"translation": "A clip.", "paraphrases": ["The clip."], "keywords": ["clip"], "start": 0.0, "end": 1.0}
    write_json(root / "annotation.dev.json", {"rec": {"clip_order": ["a", "b"], "a": clip, "b": clip}})
    write_stream(root, "dev", "mae", {"rec": {"a": FRAMES, "b": FRAMES}}, 1)
    open_index(root, "dev", {"mae": DefaultLocation()})
    return (index_files(root, "dev")[0].read_bytes(),)


def checkpoint_seeds(folder: Path) -> tuple[bytes, ...]:
    """The projector.safetensors of a checkpoint, whose other files are written to `folder`."""
    from safetensors.torch import save
    from torch import nn

    from signllava_cli.data.chat_turns import ChatTurns
    from signllava_cli.files import write_json, write_text
    from signllava_cli.recipe import build_recipe

    recipe = build_recipe({"streams": {"mae": {"width": 4}}})
    turns = asdict(ChatTurns("before", "after", 2))
    config = {"stage": "pretrain", "step": 1, "llm": {"path": "x"}, "turns": turns, "data": "", "versions": {}}
    write_json(folder / "config.json", {**config, "format": "signllava-checkpoint-1"})
    write_json(folder / "progress.json", {"step": 1})
    write_text(folder / "recipe.yaml", recipe.to_yaml())
    layer = nn.Linear(4, 8)
    tensors = {"mae.layers.0.weight": layer.weight, "mae.layers.0.bias": layer.bias}
    metadata = {"format": "signllava-checkpoint-1", "widths": {"mae": 4}, "inputs": {"mae": {"stack": 2}}}
    return (save({name: tensor.detach() for name, tensor in tensors.items()}, {"signllava": json.dumps(metadata)}),)


def states_seeds() -> tuple[bytes, ...]:
    """Checkpoint files of Sign_LLaVA: PyTorch's zip files and its older format."""
    import torch
    from torch import nn

    layer = nn.Linear(4, 8)
    tensors = {f"model.mae_projector.0.{name}": tensor.detach() for name, tensor in layer.named_parameters()}
    states = {"module": OrderedDict(tensors), "global_steps": 3, "optimizer": None}
    return (
        _written(lambda file: torch.save(states, file)),
        _written(lambda file: torch.save({name: tensor.half() for name, tensor in tensors.items()}, file)),
        _written(lambda file: torch.save(tensors, file, _use_new_zipfile_serialization=False)),
    )
