"""The names of GPUs for `--gpu`."""

import pytest

from signllava_cli.errors import UserError
from signllava_cli.model.gpus import GPUS, find_gpu


def test_a_gpu_is_found_by_its_name_and_without_its_memory() -> None:
    for name, gpu in GPUS.items():
        assert find_gpu(name.upper()) is gpu
    assert find_gpu("H200") is GPUS["h200-141gb"]
    assert find_gpu("rtx-4090") is GPUS["rtx-4090-24gb"]
    assert find_gpu("24GiB").memory == 24 * 2**30


@pytest.mark.parametrize("name", ["a100", "rtx", "h1000", "0GiB", ""])
def test_a_name_of_no_gpu_or_of_several_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=f"--gpu {name}: unknown; use one of a100-40gb, a100-80gb"):
        find_gpu(name)
