"""docs/from-sign-llava.md says of every key what its import does."""

import re
from pathlib import Path

import yaml
from doc_pages import ROOT

from signllava_cli.recipe.sign_llava_import import import_recipe
from signllava_cli.recipe.sign_llava_keys import _SPECIAL
from signllava_cli.recipe.sign_llava_tables import BUILT_IN, RENAMED, WITHOUT_EQUIVALENT

PAGE = (ROOT / "docs" / "from-sign-llava.md").read_text()
SECTION = PAGE.split("## Every key\n")[1]
SET, NOT_SET = SECTION.split("Nothing is to be set for these:")
# Keys whose meaning depends on where they stand; tests/cli/test_recipes_import.py converts them.
STRUCTURAL = {
    "annotation_path",
    "visual_features.X",
    "projectors.X.dim",
    "projectors.X.projector_type",
    "pretrained_projector_ckpt",
    "prepared_predicted_context",
    "on_the_fly_predicted_context",
    "SignMultiTaskArguments.TASK.sample_weight, enable",
    "SignMultiTaskEvalArguments.TASK.sample_weight, enable",
    "max_num_words",
}


def rows(table: str) -> dict[str, str]:
    return dict(re.findall(r"^\| `([^`]+)` \| (.*) \|$", table, re.MULTILINE))


def test_every_key_has_a_row() -> None:
    assert rows(SET).keys() == RENAMED.keys() | _SPECIAL.keys() | STRUCTURAL
    assert rows(NOT_SET).keys() == WITHOUT_EQUIVALENT.keys() | BUILT_IN.keys()


def test_rows_say_what_the_import_does() -> None:
    for key, setting in RENAMED.items():
        assert rows(SET)[key] == f"`{setting}`"
    for key, note in WITHOUT_EQUIVALENT.items():
        assert rows(NOT_SET)[key] == note
    for key, (_, note) in BUILT_IN.items():
        assert rows(NOT_SET)[key].endswith(note)


def test_a_key_that_is_not_in_the_table_is_to_decide(tmp_path: Path) -> None:
    file = tmp_path / "old.yaml"
    file.write_text(yaml.safe_dump({"TrainingArguments": {"neftune_noise_alpha": 5}}))
    reports = {report.key: report.outcome for report in import_recipe(file, 1).reports}
    assert reports["TrainingArguments.neftune_noise_alpha"] == "to decide"


def test_the_hand_edits_of_its_readme_are_explained() -> None:
    for edit in ("exclude_frozen_parameters=True", "load_module_strict=False", "compute_loss"):
        assert f"`{edit}`" in PAGE
