"""Wheels for a GPU machine without a package index: what signllava needs beside the torch of that machine.

    python benchmarks/gpu_wheels.py --out .whl --have numpy torch ...

Downloads the versions of constraints.txt for Python 3.12 on x86-64 Linux, builds those that exist as source only, and
keeps one native library of bitsandbytes, that of the CUDA version at hand. Then names each requirement that neither
the folder nor the machine has; `--have` names the packages of the machine, as `pip list` shows them. There:

    python3 -m pip install --no-index --no-deps --target site .whl/*.whl; export PYTHONPATH=site
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
BINARY = (
    "accelerate annotated-doc annotated-types anyio click datasets defusedxml dill evaluate filelock "
    "fsspec hf-xet hjson httpcore2 httpx2 huggingface_hub idna multiprocess nltk packaging peft pydantic "
    "pydantic_core RapidFuzz rich shellingham tokenizers tqdm transformers truststore typer "
    "typing-inspection typing_extensions webvtt-py "
)
SOURCE = ("rouge_score", "deepspeed")  # without building DeepSpeed's operators, which are compiled when they are used
PYTHON, MANYLINUX = "3.12", (5, 17, 24, 26, 27, 28, 31, 34, 35, 39)
TARGET = {"python_version": PYTHON, "sys_platform": "linux", "platform_system": "Linux", "extra": ""}


def constraints() -> dict[str, str]:
    """Package -> `NAME==VERSION` in constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return {canonicalize_name(line.partition("==")[0]): line for line in lines if "==" in line}


def pip(*words: str) -> None:
    environment = {**os.environ, "DS_BUILD_OPS": "0"}
    subprocess.run([sys.executable, "-m", "pip", *words, "--quiet", "--no-deps"], check=True, env=environment)


def download(names: Iterable[str], out: Path) -> None:
    """Download the wheels of these packages for the GPU machine."""
    versions = constraints()
    platforms = [f"manylinux_2_{number}_x86_64" for number in MANYLINUX] + ["manylinux2014_x86_64"]
    options = ["--only-binary=:all:", "--python-version", PYTHON, "--implementation", "cp", "--dest", str(out)]
    for platform in platforms:
        options += ["--platform", platform]
    pip("download", *options, *(versions[canonicalize_name(name)] for name in names))


def strip_bitsandbytes(out: Path, cuda: str) -> None:
    """Write the wheel of bitsandbytes with the native libraries for the CPU and for this CUDA version alone."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        download(["bitsandbytes"], folder)
        original = next(folder.glob("*.whl"))
        with zipfile.ZipFile(original) as source, zipfile.ZipFile(out / original.name, "w") as target:
            kept = {name for name in source.namelist() if is_kept(name, cuda)}
            assert any(f"cuda{cuda}" in name for name in kept), f"bitsandbytes has no library for CUDA {cuda}"
            for name in source.namelist():
                if name in kept:
                    content = source.read(name)
                    if name.endswith(".dist-info/RECORD"):
                        lines = content.decode().splitlines(keepends=True)
                        content = "".join(line for line in lines if line.split(",")[0] in kept).encode()
                    target.writestr(name, content, zipfile.ZIP_DEFLATED)


def is_kept(name: str, cuda: str) -> bool:
    return not re.search(r"\.(so|dll|dylib)$", name) or name.endswith((f"_cuda{cuda}.so", "_cpu.so"))


def missing_requirements(out: Path, have: Iterable[str]) -> list[str]:
    """The requirements of the wheels, and of signllava, that are met by neither wheels nor installed packages."""
    carried, requirements = {}, []
    for wheel in sorted(out.glob("*.whl")):
        name, version, *_ = wheel.name.split("-")
        carried[canonicalize_name(name)] = version
        with zipfile.ZipFile(wheel) as archive:
            metadata = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
            lines = archive.read(metadata).decode().partition("\n\n")[0].splitlines()
        requirements += [
            (name, Requirement(line.partition(": ")[2])) for line in lines if line.startswith("Requires-Dist: ")
        ]
    pyproject = (ROOT / "pyproject.toml").read_text()
    own = re.search(r"^dependencies = \[(.*?)^\]", pyproject, re.DOTALL | re.MULTILINE)
    assert own is not None
    requirements += [("signllava", Requirement(text)) for text in re.findall(r'"(.+?)"', own[1])]
    installed, missing = {canonicalize_name(name) for name in have}, []
    for owner, requirement in requirements:
        name = canonicalize_name(requirement.name)
        if requirement.marker and not requirement.marker.evaluate(dict(TARGET)):
            continue
        if name in carried and not requirement.specifier.contains(carried[name], prereleases=True):
            missing.append(f"{owner} needs {requirement}, but the wheel has {carried[name]}")
        elif name not in carried and name not in installed:
            missing.append(f"{owner} needs {requirement}")
    return missing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / ".whl")
    parser.add_argument("--cuda", default="130", help="CUDA version of the machine's torch, such as 130 for 13.0")
    parser.add_argument("--have", nargs="*", default=[], help="packages that the machine has")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for wheel in options.out.glob("*.whl"):
        wheel.unlink()  # two versions of one package stop pip
    download(BINARY.split(), options.out)
    versions = constraints()
    pip("wheel", "--no-build-isolation", "--wheel-dir", str(options.out), *(
        versions[canonicalize_name(name)] for name in SOURCE
    ))  # fmt: skip
    strip_bitsandbytes(options.out, options.cuda)
    wheels = sorted(options.out.glob("*.whl"))
    print(f"{len(wheels)} wheels, {sum(wheel.stat().st_size for wheel in wheels) / 2**20:.1f} MiB in {options.out}")
    for line in missing_requirements(options.out, options.have):
        print(f"missing: {line}")


if __name__ == "__main__":
    main()
