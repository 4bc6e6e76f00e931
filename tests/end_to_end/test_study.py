"""`signllava study`: recipes with seeds, trained in order, resumed, and compared in one table."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Ended, sets

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
    ],
)
def test_a_study_that_cannot_be_run_is_refused_before_its_first_run(
    signllava: Command, corpus: Path, tmp_path: Path, words: list[str], message: str
) -> None:
    ended = signllava("study", *words, "--out", tmp_path / "study", "--set", f"data.root={corpus}")
    assert ended.code == 2
    assert message in ended.err
    assert not (tmp_path / "study").exists()


def test_recipes_that_translate_other_clips_are_refused(signllava: Command, corpus: Path, tmp_path: Path) -> None:
    for name, split in (("one", "dev"), ("other", "test")):
        text = f"run: {{output_dir: runs/{name}}}\ndata: {{root: {corpus}}}\ngenerate: {{split: {split}}}\n"
        (tmp_path / f"{name}.yaml").write_text(text + "llm: {path: x}\nstreams: {mae: {width: 64}}\n")
    ended = signllava("study", tmp_path / "one.yaml", tmp_path / "other.yaml", "--out", tmp_path / "study")
    assert ended.code == 2
    assert "The recipes translate different clips" in ended.err
