"""Installs the lowest versions that pyproject.toml allows, and runs tests of each area with them.

    python3 tests/packaging/oldest_versions.py [--torch 2.13.0] [--keep FOLDER] [-- PYTEST ARGUMENTS]

`--torch`: another version than the lowest, where no index offers that one for the CPU.
"""

import argparse
import re
import sys
import tempfile
import time
import tomllib
from pathlib import Path

from clean_environment import CONSTRAINTS, ROOT, CleanEnvironment, make_environment, print_rows

EXTRAS = ("bleurt", "deepspeed", "demo", "plot", "pose", "serve", "video")
TOOLS = (
    "jsonschema_rs",
    "pytest",
    "pytest-timeout",
    "scikit-learn",
)  # not what is tested: the versions of constraints.txt
TEST_SECONDS = 1800
# One or a few tests of each area; then the whole job is done by the command.
SELECTION = (
    "tests/training/test_resume.py::test_resume_equals_uninterrupted",  # 16 bits, and 4 bits with LoRA
    "tests/training/test_launchers.py::test_every_launcher_gives_the_losses_and_weights_of_one_process",
    "tests/training/test_plot.py::test_a_real_run_is_drawn",
    "tests/model/test_signllava.py::test_loss_equals_full_logits_and_label_smoother",
    "tests/model/test_merge.py::test_the_merged_llm_has_the_logits_of_llm_and_adapter",
    "tests/model/test_families.py::test_hypotheses_are_those_of_generate",
    "tests/generation/test_decoding.py::test_hypotheses_are_those_of_transformers_one_clip_at_a_time",
    "tests/data/test_chat_templates.py::test_prompt_and_answer_have_the_ids_of_the_whole_dialogue",
    "tests/data/test_features.py",
    "tests/prepare/importers/test_importers.py",
    "tests/prepare/pack/test_pack.py::test_every_source_format_is_packed_unchanged",
    "tests/prepare/pack/test_pack_keypoints.py",
    "tests/prepare/test_toy.py",
    "tests/prepare/extract/test_pose.py",
    "tests/prepare/extract/test_extract.py::test_each_clip_gets_the_frames_of_its_cut",
    "tests/evaluation/test_metrics.py",
    "tests/evaluation/test_score.py",
    "tests/evaluation/test_learned.py",
    "tests/recipe",
    "tests/cli/test_help.py",
    "tests/test_api.py",
    "tests/serving/test_serve.py::test_a_recording_of_the_dataset_is_translated_as_by_the_api",
    "tests/serving/test_serve.py::test_uploads_of_every_format_give_the_same_translations",
)
PYTEST = ("-m", "not drill", "-p", "no:cacheprovider", "-q", "--disable-warnings")
PYTEST_IN_CHECKOUT = f"import os, sys, pytest; os.chdir({str(ROOT)!r}); sys.exit(pytest.main(sys.argv[1:]))"
PRINT_VERSIONS = "import sys; from importlib.metadata import version; print(*map(version, sys.argv[1:]), sep=chr(10))"
WHOLE_JOB = ("signllava", "demo", "--llm", "tiny")


def lowest_versions() -> dict[str, str]:
    """Each package that pyproject.toml requires, with the lower bound, which names a version that exists."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [each for extra in EXTRAS for each in project["optional-dependencies"][extra]]
    bounds = [re.fullmatch(r"([\w.-]+)>=([\w.]+)", each) for each in [*project["dependencies"], *extras]]
    return {bound[1]: bound[2] for bound in bounds if bound}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--torch", help="this version instead of the lowest")
    parser.add_argument("--keep", type=Path, help="make the environment in this folder, or use the one there")
    parser.add_argument("pytest", nargs="*", help="its arguments, instead of the selection and the demo")
    options = parser.parse_args()
    versions = lowest_versions() | ({"torch": options.torch} if options.torch else {})
    with tempfile.TemporaryDirectory(prefix="signllava-oldest-") as temporary:
        folder = options.keep or Path(temporary)
        check_oldest(folder.absolute(), versions, options.pytest)


def check_oldest(folder: Path, versions: dict[str, str], arguments: list[str]) -> None:
    """Install `versions`, check that these are what is installed, run pytest, and the whole job."""
    start_time = time.monotonic()
    if (folder / "venv").exists():
        environment = CleanEnvironment(folder / "venv", folder / "empty")
    else:
        environment = make_environment(folder, sys.executable)
        install(environment, versions, folder / "lowest.txt")
    require_versions(environment, versions)
    print_rows(versions | {"installed": f"in {time.monotonic() - start_time:.0f} s"})
    start_time = time.monotonic()
    command = ("python", "-c", PYTEST_IN_CHECKOUT, *(arguments or [*PYTEST, *SELECTION]))
    print(environment.run(*command, seconds=TEST_SECONDS).rstrip(), flush=True)
    print_rows({"tests": f"in {time.monotonic() - start_time:.0f} s"})
    if not arguments:
        start_time = time.monotonic()
        environment.run(*WHOLE_JOB, seconds=TEST_SECONDS)
        print_rows({"demo on the tiny LLM": f"in {time.monotonic() - start_time:.0f} s"})


def install(environment: CleanEnvironment, versions: dict[str, str], constraints: Path) -> None:
    """Install this checkout with its extras at `versions`, and pytest."""
    tested = CONSTRAINTS.read_text().splitlines()
    tools = [line for line in tested if line.partition("==")[0] in TOOLS]
    lowest = [f"{name}=={version}" for name, version in versions.items()]
    constraints.write_text("\n".join([*lowest, *tools]) + "\n")
    environment.install(f"torch=={versions['torch']}", constraints=constraints)
    environment.install("--editable", f"{ROOT}[{','.join(EXTRAS)}]", *TOOLS, constraints=constraints)


def require_versions(environment: CleanEnvironment, versions: dict[str, str]) -> None:
    """What is installed are these versions, and pip sees no conflict."""
    environment.run("python", "-m", "pip", "check")
    installed = environment.run("python", "-c", PRINT_VERSIONS, *versions).splitlines()
    for name, expected, version in zip(versions, versions.values(), installed, strict=True):
        if not re.fullmatch(rf"{re.escape(expected)}(\.0)*(\+\w+)?", version):
            raise SystemExit(f"{name} {version} is installed, not {expected}")


if __name__ == "__main__":
    main()
