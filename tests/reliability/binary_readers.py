"""The readers of binary files, as the fuzz tests call them: an unusable clip counts as an error of one line."""

import contextlib
import faulthandler
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from binary_seeds import CLIPS

from signllava_cli.data.clip_source import ClipSource, UnreadableClip
from signllava_cli.data.feature_files import HDF5FileCache, read_features, read_shape
from signllava_cli.data.index import Index
from signllava_cli.data.stream_files import DefaultLocation
from signllava_cli.errors import UserError
from signllava_cli.prepare.extract.recording_files import read_arrays, read_fingerprint, read_result
from signllava_cli.prepare.extract.video_cuts import VideoCut, decode_cut, read_video_info
from signllava_cli.prepare.validation.shard_reader import ShardFacts, read_shard
from signllava_cli.processes import BeforeFile, call_in_child
from signllava_cli.serving.uploads import UploadedClip, read_uploads

OUT_OF_MEMORY = ("unable to allocate", "memoryerror", "memory allocation failed", "out of memory")


@contextlib.contextmanager
def clip_errors() -> Iterator[None]:
    """Turn the error of a clip into that of a user, notice warnings, and allocations that failed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            yield
    except UnreadableClip as error:
        require_no_allocation(str(error))
        raise UserError(str(error)) from None
    except UserError as error:
        require_no_allocation(str(error))
        raise


def require_no_allocation(message: str) -> None:
    if any(text in message.lower() for text in OUT_OF_MEMORY):
        raise MemoryError(message)


def read_feature_file(format: str, key: str = "") -> Callable[[Path], None]:
    """Reads a clip as `prepare pack` does."""

    def read(file: Path) -> None:
        source = ClipSource(file, format, key)
        with HDF5FileCache() as handles, clip_errors():
            read_shape(source, handles)
            read_features(source, handles)

    return read


def read_hdf5_clips(file: Path) -> None:
    """Reads the clips of a shard as `prepare pack` does, in a process of its own."""
    call_in_child(_read_hdf5_clips, file)


def _read_hdf5_clips(before_file: BeforeFile, file: Path) -> None:
    faulthandler.disable()  # a crash is expected
    with HDF5FileCache(before_file) as handles:
        for clip in CLIPS:
            with contextlib.suppress(UserError), clip_errors():
                read_shape(ClipSource(file, "hdf5", clip), handles)
                read_features(ClipSource(file, "hdf5", clip), handles)


def check_shard(file: Path) -> None:
    """Reads a shard as `prepare check` does when it has crashed a worker.

    HDF5 may fail to allocate what a damaged object asks for: the child process has a memory limit of its own.
    """
    facts = call_in_child(_check_shard, file)
    errors = [facts.error, *(error for array in facts.arrays for error in array.failed_checks.values())]
    for error in errors:
        if len(error.splitlines()) > 1:
            raise UserError(error)


def _check_shard(before_file: BeforeFile, file: Path) -> ShardFacts:
    faulthandler.disable()
    return read_shard(before_file, file, False)


def read_index(root: Path) -> Callable[[Path], None]:
    """Reads all that an index of the dataset `root` holds."""

    def read(file: Path) -> None:
        index = Index(file, root)
        for row in range(min(len(index), 10)):
            clip = index.clip(row)
            for stream in index.streams:
                index.dataset_path(stream, clip)
        index.ids().to_pylist()
        for stream in index.streams:
            files = index.files(stream)
            assert all(number < len(files) for number in index.file_indices(stream))
            assert (index.frame_counts(stream) >= 0).all()
            assert (index.widths(stream) >= 0).all()
            index.offsets(stream), index.layout(stream), index.changed_file(stream)
        index.text_bytes.sum(), index.recordings, index.vocabulary, index.fingerprint(index.streams)
        index.stale_reason("dev", {"mae": DefaultLocation()})

    return read


def read_checkpoint(folder: Path) -> Callable[[Path], None]:
    """Reads a projector.safetensors as `checkpoint inspect`, and as training and generation do."""
    from torch import nn

    from signllava_cli.data.projector_inputs import projector_inputs
    from signllava_cli.model.checkpoint import RECIPE, find_tensor_damage, load_projectors
    from signllava_cli.model.inspection import inspect
    from signllava_cli.recipe import read_recipe

    projector: Any = nn.Module()
    projector.input = projector_inputs(read_recipe(folder / RECIPE).streams)["mae"]
    projector.layers = nn.ModuleList([nn.Linear(4, 8)])
    model: Any = SimpleNamespace(projectors=nn.ModuleDict({"mae": projector}))

    def read(file: Path) -> None:
        with contextlib.suppress(UserError):
            load_projectors(model, file)
        find_tensor_damage(file)
        file.replace(folder / "projector.safetensors")
        inspect(folder)

    return read


def read_states(file: Path) -> None:
    """Reads a checkpoint of Sign_LLaVA as `checkpoint convert` does."""
    from signllava_cli.model.sign_llava_file import read_sign_llava
    from signllava_cli.model.sign_llava_tensors import parse_tensors

    original = read_sign_llava(file)
    parse_tensors(original.tensors, file)


def read_video(file: Path) -> None:
    """Reads a video as `prepare extract` does, up to its landmarks."""
    with clip_errors():
        read_video_info(file)
        for _ in decode_cut(VideoCut(file)):
            pass
    with clip_errors():
        for _ in decode_cut(VideoCut(file, 0.1, 0.2)):
            pass


def read_upload(name: str) -> Callable[[Path], None]:
    """Reads an upload as the web app does."""
    return lambda file: check_uploads(read_uploads([(name, file)], {"mae": 4}, 1 << 20))


def check_uploads(clips: list[UploadedClip]) -> None:
    assert all(frames.shape[1] == 4 for clip in clips for frames in clip.features.values())


def read_extracted(file: Path) -> None:
    """Reads the file of a recording between extraction and packing."""

    def read_all(before_file: BeforeFile) -> None:
        for read in (read_result, read_fingerprint, read_arrays):
            before_file(file)
            with contextlib.suppress(UserError):
                read(file)

    call_in_child(read_all)
