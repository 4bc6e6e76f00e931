"""`signllava study`: recipes with seeds, trained in order, resumed, and compared in one table."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Ended, sets

from signllava_cli.errors import UserError
from signllava_cli.files import write_json, write_link
from signllava_cli.generation.predictions_folder import META_FILE, PREDICTIONS_FILE
from signllava_cli.model.checkpoint import CONFIG
from signllava_cli.recipe import read_recipe
from signllava_cli.study import Study, StudyConfig, _find_predictions

Command = Callable[..., Ended]
RECIPES = ["toy/tiny_pretrain", "toy/tiny_finetune"]
NAMES = ["tiny_pretrain", "tiny_finetune"]


@pytest.fixture
def options(settings: list[str], tmp_path: Path) -> list[str]:
    """The options of a study with short runs."""
    kept = [setting for setting in settings if not setting.startswith("run.output_dir")]
    return [*RECIPES, "--out", str(tmp_path / "study"), *sets([*kept, "train.max_steps=2", "train.save_steps=2"])]


def test_a_study_trains_all_recipes_with_all_seeds_and_compares_them(
    signllava: Command, commands_in_process: list[list[str]], options: list[str], tmp_path: Path
) -> None:
    study, commands = tmp_path / "study", commands_in_process
    options = [*options, "--seeds", "1,2", "--context-sources", "none,gold"]
    ended = signllava("study", *options)
    assert ended.code == 0, ended.err
    assert [words[0] for words in commands] == ["pretrain", "generate"] * 2 + ["finetune", "generate"] * 2 + ["eval"]
    for seed in (1, 2):
        resolved = (study / NAMES[1] / f"seed-{seed}" / "recipe.yaml").read_text()
        assert f"seed: {seed}\n" in resolved
        assert f"projector: {study / NAMES[0] / f'seed-{seed}'}\n" in resolved
    scores = json.loads((study / "scores.json").read_text())
    groups = {summary["name"]: summary["runs"] for summary in scores["seeds"]}
    expected = [f"{name} {source}" for source in ("none", "gold") for name in NAMES]
    assert list(groups) == expected
    assert all(len(runs) == 2 for runs in groups.values())
    for result in scores["results"]:
        assert Path(result["file"]).is_relative_to(study / result["name"].split()[0])
        assert result["context_source"] == result["name"].split()[1]
    assert all(name.replace("_", r"\_") in (study / "table.tex").read_text() for name in expected)
    assert (study / "report.html").is_file()
    commands.clear()
    assert signllava("study", *options).code == 0
    assert [words[0] for words in commands] == ["eval"]
    plan = signllava("study", *options, "--plan")
    assert plan.code == 0
    assert "to do" not in plan.out
    assert "to do" in signllava("study", *options, "--plan", "--set", "train.learning_rate=1").out


@pytest.mark.drill
def test_the_jobs_of_an_array_share_a_study_and_the_last_one_scores_it(
    signllava: Command, commands_in_process: list[list[str]], options: list[str], tmp_path: Path
) -> None:
    study, commands = tmp_path / "study", commands_in_process
    options = [*options, "--seeds", "1,2", "--context-sources", "none"]
    first = signllava("study", *options, "--shard", "2/2")
    assert first.code == 0, first.err
    assert "2 of 4 runs are complete" in first.out
    assert [words[0] for words in commands] == ["pretrain", "generate", "finetune", "generate"]
    assert all("seed-2" in " ".join(words) for words in commands)
    assert not (study / "scores.json").exists()
    commands.clear()
    assert signllava("study", *options, "--shard", "1/2").code == 0
    assert [words[0] for words in commands] == ["pretrain", "generate", "finetune", "generate", "eval"]


@pytest.mark.drill
def test_a_failed_run_stops_only_the_runs_that_start_from_it(
    signllava: Command,
    commands_in_process: list[list[str]],
    options: list[str],
    tmp_path: Path,
) -> None:
    study, commands = tmp_path / "study", commands_in_process
    (study / NAMES[0] / "seed-1").mkdir(parents=True)
    (study / NAMES[0] / "seed-1" / "step-000002").mkdir()  # a damaged checkpoint, which cannot be resumed
    ended = signllava("study", *options, "--seeds", "1,2", "--context-sources", "none")
    assert ended.code == 2
    assert f"2 runs of the study failed ({NAMES[1]}, seed 1; {NAMES[0]}, seed 1)" in ended.err
    assert [words[0] for words in commands] == ["pretrain", "pretrain", "generate", "finetune", "generate"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["toy/tiny_pretrain", "toy/tiny_pretrain"], "Two recipes are called tiny_pretrain"),
        (["a/b=toy/tiny_pretrain"], "a name has letters"),
        (["toy/tiny_pretrain", "--seeds", "1,1"], "each seed may be named once"),
        (["toy/tiny_pretrain", "--seeds", "one"], "expected whole numbers"),
        (["toy/tiny_pretrain", "--set", "run.seed=3"], "use --out and --seeds"),
        (["toy/tiny_pretrain", "other=toy/tiny_pretrain"], "the same run.output_dir"),
        (["toy/tiny_pretrain", "--shard", "3/2"], "expected I/N"),
        (["toy/tiny_pretrain", "--preset", "phoenix"], "unknown preset; expected one of how2sign, phoenix14t"),
        (["toy/tiny_pretrain", "toy/tiny_pretrain+pose", "toy/tiny_pretrain+pose"], "tiny_pretrain+pose: give each"),
        (["toy/tiny_pretrain+poes"], "No variant at poes. Did you mean `pose`?"),
        (["toy/tiny_pretrain", "--context-sources", "prepared:a.json,prepared:b.json"], "prepared is named twice"),
        (
            ["toy/tiny_pretrain", "--context-sources", "none,glod", "--plan"],
            "glod: expected none, gold, predicted",
        ),
        (["toy/tiny_pretrain", "--context-sources", "prepared:absent.csv", "--plan"], "absent.csv is missing"),
        (["toy/tiny_pretrain", "--baseline", "tiny_pretrain", "--plan"], "expected one of tiny_pretrain none, tiny"),
        (["toy/tiny_pretrain", "--seeds", "1,2", "--baseline", "tiny_pretrain gold 3"], "tiny_pretrain gold 2, "),
        (["toy/tiny_pretrain", "--shard", "3/2", "--plan"], "expected I/N"),
    ],
)
def test_a_study_that_cannot_be_run_is_refused_before_its_first_run(
    signllava: Command, corpus: Path, tmp_path: Path, words: list[str], message: str
) -> None:
    ended = signllava("study", *words, "--out", tmp_path / "study", "--set", f"data.root={corpus}")
    assert ended.code == 2
    assert message in ended.err
    assert not (tmp_path / "study").exists()


def test_each_name_of_the_table_is_a_baseline(corpus: Path, tmp_path: Path) -> None:
    for seeds, names in (((), ["gold"]), ((1, 2), ["none", "none 1", "none 2"])):
        for name in names:
            baseline = f"tiny_pretrain {name}"
            Study(StudyConfig(RECIPES[:1], tmp_path, seeds, baseline=baseline, overrides=[f"data.root={corpus}"]))


def test_the_plan_of_a_job_has_its_runs_only(signllava: Command, corpus: Path, tmp_path: Path) -> None:
    words = ["toy/tiny_pretrain", "--seeds", "1,2", "--out", tmp_path, "--set", f"data.root={corpus}", "--plan"]
    assert "2 runs: 0 trained" in signllava("study", *words).out
    assert "1 run: 0 trained" in signllava("study", *words, "--shard", "1/2").out


def test_recipes_that_translate_other_clips_are_refused(signllava: Command, corpus: Path, tmp_path: Path) -> None:
    for name, split in (("one", "dev"), ("other", "test")):
        text = f"run: {{output_dir: runs/{name}}}\ndata: {{root: {corpus}}}\ngenerate: {{split: {split}}}\n"
        (tmp_path / f"{name}.yaml").write_text(text + "llm: {path: x}\nstreams: {mae: {width: 64}}\n")
    ended = signllava("study", tmp_path / "one.yaml", tmp_path / "other.yaml", "--out", tmp_path / "study")
    assert ended.code == 2
    assert "The recipes translate different clips" in ended.err


def test_the_table_is_of_predictions_with_the_settings_of_the_study(corpus: Path, tmp_path: Path) -> None:
    """A run may have predictions of other commands, such as those of an ablation or of another context."""
    study = Study(StudyConfig(["toy/tiny_pretrain"], tmp_path, overrides=[f"data.root={corpus}"]))
    (run,) = study.runs
    (run.folder / "step-000002").mkdir(parents=True)
    (run.folder / "step-000002" / CONFIG).write_text("{}")
    write_link(run.folder / "best", "step-000002")
    generate = {**run.recipe.to_dict()["generate"], "context_source": "gold"}
    for key in ("split", "context_from", "batch_size", "max_tokens_per_batch"):
        del generate[key]
    window, prelude = run.recipe.context.window, run.recipe.context.prelude
    for label, n, decoding in (
        ("gold-n2", window, generate),
        ("gold-n9", window + 1, generate),
        ("without-mae.gold-n2", window, {**generate, "ablate": ["mae"]}),
    ):
        folder = run.folder / "predictions" / f"step-000002.{run.recipe.generate.split}.{label}"
        folder.mkdir(parents=True)
        (folder / PREDICTIONS_FILE).touch()
        write_json(folder / META_FILE, {"decoding": decoding, "window": n, "prelude": prelude})
    found = _find_predictions(run, study.config)
    assert [Path(file).parent.name.rpartition(".")[2] for file in found.values()] == ["gold-n2"]
    assert "without" not in found["gold"]


@pytest.mark.parametrize("last", [0, 1])
def test_of_equal_settings_the_predictions_that_were_made_last_are_scored(
    corpus: Path, tmp_path: Path, last: int
) -> None:
    """Those of weights that were trained anew are in a second folder."""
    study = Study(StudyConfig(["toy/tiny_pretrain"], tmp_path, overrides=[f"data.root={corpus}"]))
    (run,) = study.runs
    (run.folder / "step-000002").mkdir(parents=True)
    (run.folder / "step-000002" / CONFIG).write_text("{}")
    write_link(run.folder / "best", "step-000002")
    decoding = {**run.recipe.to_dict()["generate"], "context_source": "none"}
    for key in ("split", "context_from", "batch_size", "max_tokens_per_batch"):
        del decoding[key]
    folders = [run.folder / "predictions" / f"step-000002.test.none{suffix}" for suffix in ("", ".2")]
    for number, folder in enumerate(folders):
        folder.mkdir(parents=True)
        (folder / PREDICTIONS_FILE).touch()
        write_json(folder / META_FILE, {"decoding": decoding, "window": 0, "prelude": 0})
        os.utime(folder / META_FILE, (100 + (number == last), 100 + (number == last)))
    assert _find_predictions(run, study.config) == {"none": str(folders[last] / PREDICTIONS_FILE)}


def test_variants_of_a_recipe_are_recipes_of_a_study(signllava: Command, corpus: Path, tmp_path: Path) -> None:
    """A finetune recipe starts from the pretrain run with the same variants; the preset is that of the scores."""
    kinds = [f"{recipe}{variant}" for recipe in RECIPES for variant in ("", "+no-context")]
    options = ["--out", tmp_path / "study", "--set", f"data.root={corpus}"]
    plan = signllava("study", *kinds, *options, "--preset", "phoenix14t", "--plan")
    assert plan.code == 0, plan.err
    assert "4 runs: 0 trained, 0 translated" in plan.out
    study = Study(StudyConfig(kinds, tmp_path, preset="phoenix14t", overrides=[f"data.root={corpus}"]))
    parents = {run.name: run.parent and run.parent.name for run in study.runs}
    assert parents == {
        NAMES[0]: None,
        f"{NAMES[0]}+no-context": None,
        NAMES[1]: NAMES[0],
        f"{NAMES[1]}+no-context": f"{NAMES[0]}+no-context",
    }
    assert study.eval_command()[-8:-6] == ["--preset", "phoenix14t"]
    assert not (tmp_path / "study").exists()


@pytest.mark.drill
def test_a_study_of_variants_ends_in_one_table(
    signllava: Command, commands_in_process: list[list[str]], options: list[str], tmp_path: Path
) -> None:
    options = [word for word in options if word not in RECIPES]
    kinds = [f"{recipe}{variant}" for recipe in RECIPES for variant in ("", "+no-context")]
    ended = signllava("study", *kinds, *options, "--context-sources", "none,gold", "--preset", "phoenix14t")
    assert ended.code == 0, ended.err
    assert len(commands_in_process) == 9
    scores = json.loads((tmp_path / "study" / "scores.json").read_text())
    names = {result["name"] for result in scores["results"]}
    assert {f"{NAMES[1]}+no-context none", f"{NAMES[0]} gold", f"{NAMES[1]} gold"} <= names
    assert all("tok:none" in str(result["signatures"]) for result in scores["results"])


@pytest.mark.parametrize(("profile", "expected"), [("zero2", "multi_gpu"), ("zero2_cpu", "multi_cpu")])
@pytest.mark.parametrize("is_in_recipe", [True, False])
def test_a_study_trained_with_deepspeed_is_translated_without_it(
    corpus: Path, tmp_path: Path, profile: str, expected: str, is_in_recipe: bool
) -> None:
    """The checkpoint that `generate` reads has the profile of the training, from wherever that came."""
    recipe, overrides = "toy/tiny_pretrain", [f"data.root={corpus}"]
    if is_in_recipe:
        recipe = str(tmp_path / "mine.yaml")
        Path(recipe).write_text(read_recipe("toy/tiny_pretrain", [f"launch.profile={profile}"]).to_yaml())
    else:
        overrides.append(f'launch.profile="{profile}"')
    study = Study(StudyConfig([recipe], tmp_path, overrides=overrides))
    (run,) = study.runs
    assert run.recipe.launch.profile == profile
    assert f"launch.profile={expected}" not in study.train_command(run)
    assert study.generate_command(run)[-1] == f"launch.profile={expected}"


@pytest.mark.parametrize("profile", ["multi_gpu", "null"])
def test_other_profiles_are_those_of_the_translation_too(corpus: Path, tmp_path: Path, profile: str) -> None:
    overrides = [f"data.root={corpus}", f"launch.profile={profile}"]
    study = Study(StudyConfig(["toy/tiny_pretrain"], tmp_path, overrides=overrides))
    (run,) = study.runs
    assert study.generate_command(run)[-1] == f"launch.profile={profile}"


def test_a_study_with_other_decoding_settings_keeps_its_old_predictions(
    signllava: Command, commands_in_process: list[list[str]], options: list[str], tmp_path: Path
) -> None:
    """It is translated again, into a folder beside the old one, and the table is of the new predictions."""
    options = [*options, "--context-sources", "none"]
    options.remove(RECIPES[1])
    assert signllava("study", *options).code == 0
    commands_in_process.clear()
    ended = signllava("study", *options, "--set", "generate.max_new_tokens=4")
    assert ended.code == 0, ended.err
    assert [words[0] for words in commands_in_process] == ["generate", "eval"]
    folders = sorted((tmp_path / "study" / NAMES[0] / "seed-0" / "predictions").iterdir())
    assert [folder.name.rpartition(".")[2] for folder in folders] == ["none", "2"]
    (result,) = json.loads((tmp_path / "study" / "scores.json").read_text())["results"]
    assert Path(result["file"]).parent == folders[1]


def test_several_lines_of_an_error_stay_lines(
    signllava: Command, options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(words: list[str]) -> None:
        raise UserError("finetune recipe has 2 errors:", "  llm.bits: wrong", "  llm.dtype: wrong")

    monkeypatch.setattr("signllava_cli.study.run_signllava", fail)
    ended = signllava("study", *options)
    assert ended.code == 2
    assert "\\n" not in ended.out + ended.err
    lines = [line.strip() for line in ended.out.splitlines()]
    assert "warning: tiny_pretrain, seed 0: finetune recipe has 2 errors:" in lines
    assert "llm.bits: wrong" in lines
