"""The estimates that the study recipes and their variants state are those of `--estimate` today."""

from pathlib import Path

import pytest
from recipe_estimates import CONFIGS, PARAMETERS, STUDY_FILES, Stated, compute_line, read_estimates, write_config

from signllava_cli.recipe import read_recipe


def recipes_of(file: Path) -> list[str]:
    """The recipe of a file; of a variant, the study recipes with it."""
    return (
        [f"{stage}+{file.name.removesuffix('.yaml')}" for stage in ("pretrain", "finetune")]
        if (file.parent.name == "variants")
        else [file.stem]
    )


@pytest.mark.parametrize("file", STUDY_FILES, ids=lambda file: file.name)
def test_a_file_opens_with_what_it_is_its_commands_and_its_estimate(file: Path) -> None:
    lines = file.read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("# ")
    assert lines[0].endswith((".", "references,"))
    for name in recipes_of(file):
        stage = name.partition("+")[0]
        assert any(f"{stage} --recipe " in line and name.rpartition("/")[2] in line for line in lines), name
    assert [*read_estimates(file).lines] == recipes_of(file)


@pytest.mark.parametrize("file", STUDY_FILES, ids=lambda file: file.name)
def test_every_llm_of_a_study_has_an_estimate(file: Path) -> None:
    assert {read_recipe(name).llm.path for name in recipes_of(file)} <= CONFIGS.keys() == PARAMETERS.keys()


@pytest.mark.drill
@pytest.mark.parametrize("file", STUDY_FILES, ids=lambda file: file.name)
@pytest.mark.timeout(1800)
def test_a_stated_estimate_is_that_of_today(file: Path, tmp_path: Path) -> None:
    stated = read_estimates(file)
    for name in recipes_of(file):
        llm = read_recipe(name).llm.path
        line, estimate = compute_line(name, write_config(llm, tmp_path / "llm"), stated.num_clips)
        assert estimate.llm_parameters == PARAMETERS[llm]
        assert Stated(stated.num_clips, estimate.mean_len, {name: line}) == Stated(
            stated.num_clips, stated.mean_len, {name: stated.lines[name]}
        )
        assert estimate.memory[0].fits
