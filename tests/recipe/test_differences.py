"""The start of a run prints the settings that differ from the shipped recipe, not all 150."""

import re
from collections.abc import Callable
from pathlib import Path

from conftest import Ended, sets

from signllava_cli.recipe import find_recipe, read_recipe, recipe_differences

Command = Callable[..., Ended]


def test_a_start_prints_the_settings_that_differ_and_where_the_whole_recipe_is(
    signllava: Command, settings: list[str], tmp_path: Path
) -> None:
    more = ["train.max_steps=2", "train.eval_steps=2"]
    ended = signllava("pretrain", "-r", "toy/tiny_pretrain", *sets([*settings, *more]))
    assert ended.code == 0, ended.err
    head = ended.out.partition("Parameters")[0]
    assert "recipe: toy/tiny_pretrain except for 7 settings:\n" in head
    assert "\n  train.max_steps: 2 (300)\n" in head
    assert f'\n  run.output_dir: "{tmp_path}/run" ("runs/toy/tiny_pretrain")\n' in head
    assert len(re.findall(r"^  \S+: ", head, re.MULTILINE)) == 7
    assert "weight_decay" not in ended.out
    whole = tmp_path / "run" / "recipe.yaml"
    assert f"the whole recipe is in {whole}" in ended.out
    assert whole.read_text() == read_recipe("toy/tiny_pretrain", [*settings, *more]).to_yaml()


def test_a_finetuning_from_a_projector_prints_it(
    signllava: Command, settings: list[str], run: Path, tmp_path: Path
) -> None:
    ended = signllava("finetune", "-r", "toy/tiny_finetune", "--projector", run, "--dry-run", *sets(settings))
    assert ended.code == 0, ended.err
    assert "recipe: toy/tiny_finetune except for" in ended.out
    assert f'\n  init.projector: "{run}" ("runs/toy/tiny_pretrain")\n' in ended.out
    assert "weight_decay" not in ended.out
    assert "the whole recipe is in" not in ended.out  # a dry run writes none


def test_a_recipe_file_is_compared_with_the_nearest_shipped_recipe(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text(find_recipe("finetune").read_text().replace("max_seq_len: 2048", "max_seq_len: 1024"))
    assert recipe_differences(read_recipe(mine), mine) == ("finetune", ["data.max_seq_len: 1024 (2048)"])


def test_streams_that_are_removed_added_or_changed_are_a_line_each() -> None:
    changes = [
        "streams.pose=null",
        "streams.hands={width: 99, conv: {kernel: 5}}",
        "streams.mae.stride=3",
        "lora.r=8",
    ]
    assert recipe_differences(read_recipe("finetune", changes)) == (
        "finetune",
        [
            "lora.r: 8 (64)",
            'streams.hands: {"width": 99, "conv": {"kernel": 5, "stride": 2, "layers": 1}} (new)',
            "streams.mae.stride: 3 (1)",
            "streams.pose: removed",
        ],
    )
    assert recipe_differences(read_recipe("toy/pretrain")) == ("toy/pretrain", [])
