"""Options that set a recipe key take type, bounds, choices and help from its field, and beat --set."""

import re
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from conftest import Ended
from typer.main import get_command

from signllava_cli.cli.main import app
from signllava_cli.recipe.descriptions import settings_by_key

Command = Callable[..., Ended]
STAGES = ("generate", "pretrain", "finetune")
SET_BY_OPTIONS = [
    *(f"generate.{key}" for key in ("split", "num_beams", "temperature", "num_return_sequences", "mbr", "abstain")),
    *(f"generate.{key}" for key in ("max_new_tokens", "seed", "batch_size", "task", "task_prompt", "features")),
    *(f"generate.{key}" for key in ("missing_context", "context_from", "ablate")),
    *("context.window", "context.prelude", "init.projector", "launch.profile", "launch.num_processes"),
    *("launch.num_machines", "launch.machine_rank", "launch.main_process_ip", "launch.main_process_port"),
]


def setting_options(command: str) -> dict[str, click.Option]:
    """The options of a command that set a recipe key, by this key."""
    options = get_command(app).commands[command].params  # type: ignore[attr-defined]
    matches = {option: re.search(r"Sets ([a-z_.]+)\.$", getattr(option, "help", None) or "") for option in options}
    return {match.group(1): option for option, match in matches.items() if match}


def test_options_that_set_a_recipe_key_are_described_by_its_field() -> None:
    described = {key: option for command in STAGES for key, option in setting_options(command).items()}
    assert sorted(described) == sorted(SET_BY_OPTIONS)
    for key, option in described.items():
        assert (option.help or "").startswith(settings_by_key()[key].summary)
    source = (get_command(app).commands["generate"].params, settings_by_key()["generate.context_source"])  # type: ignore[attr-defined]
    assert any(source[1].summary in (getattr(option, "help", None) or "") for option in source[0])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--beams", 0], "greater than or equal to 1"),
        (["--beams", "two"], "--beams"),
        (["--abstain", 1], "less than or equal to 0"),
        (["--mbr", "rouge"], "'chrf', 'bleu'"),
        (["--task", "sing"], "'translation', 'one_word_present'"),
        (["--features", "none"], "'own', 'shuffled', 'zero'"),
        (["--missing-context", "drop"], "'skip', 'gold'"),
        (["--main-process-port", 70000], "65535"),
    ],
)
def test_values_outside_the_bounds_of_a_field_are_refused(
    signllava: Command, tmp_path: Path, words: list[object], message: str
) -> None:
    ended = signllava("generate", "--checkpoint", tmp_path, *words)
    assert ended.code == 2
    assert message in " ".join(ended.err.split())


def test_an_option_beats_set_and_lists_are_split_or_repeated(run: Path, signllava: Command) -> None:
    options = ["--set", "generate.num_beams=3", "--set", "generate.temperature=-1", "--beams", 2]
    ended = signllava("generate", "-c", run, *options, "--ablate-stream", "x", "--ablate-stream", "y")
    assert ended.code == 2
    assert "generate.temperature: input should be greater than 0, got -1" in ended.err
    ended = signllava(
        "generate", "-c", run, "--set", "generate.num_beams=3", "--beams", 2, "--num-return-sequences", 3
    )
    assert "generate.num_return_sequences: 3 is more than generate.num_beams (2)" in ended.err
    ended = signllava("generate", "-c", run, "--ablate-stream", "x", "--ablate-stream", "y")
    assert "generate.ablate: x, y" in ended.err
    ended = signllava("generate", "-c", run, "--context-from", "train, gone", "--beams", 1)
    assert "annotation.gone.json" in ended.err
