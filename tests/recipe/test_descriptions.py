"""Each setting is described once, under its field: explain, docs/recipe.md, copies and the schema come from it."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Ended
from jsonschema_rs import validator_for

from signllava_cli.recipe import comment_recipe, find_recipe, read_recipe, recipe_schema, shipped_recipes
from signllava_cli.recipe.descriptions import list_sections, settings_by_key
from signllava_cli.recipe.reference import describe_values
from signllava_cli.recipe.sign_llava_tables import RENAMED

Command = Callable[..., Ended]
ROOT = Path(__file__).parent.parent.parent


def test_every_setting_has_a_description_that_fits_a_comment() -> None:
    keys = {re.sub(r"^streams\.\w+", "streams.NAME", key) for key in read_recipe("pretrain").to_flat_dict()}
    null_sections = {section.key for section in list_sections()}  # such as streams.NAME.conv
    assert keys - {"train.lr_scheduler_kwargs"} - null_sections <= settings_by_key().keys()
    for section in list_sections():
        assert section.description.endswith("."), section.key
    for key, setting in settings_by_key().items():
        assert setting.description.endswith("."), key
        assert len(setting.summary) <= 100, key


def test_descriptions_name_the_keys_of_sign_llava_that_are_imported_under_them() -> None:
    for old, key in RENAMED.items():
        assert f"`{old}`" in settings_by_key()[key].description, (old, key)


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("generate.num_beams", "integer, at least 1; default 5"),
        ("train.learning_rate", "number, above 0; default 0.002"),
        ("train.label_smoothing", "number, at least 0, below 1; default 0.0"),
        ("train.max_steps", "integer, at least 1, or null; default null"),
        ("llm.bits", "4, 8, 16 or 32; default 16"),
        ("track.report_to", "list of tensorboard, wandb, mlflow or trackio; default []"),
        ("streams.NAME.width", "integer, at least 1; no default"),
        ("streams.NAME.conv.stride", "integer, at least 1; default 2"),
        ("lora.target_modules", "all-linear or a list of texts; default all-linear"),
        ("tasks.yes", "text; default 'yes'"),
    ],
)
def test_values_and_defaults_are_read_from_the_fields(key: str, values: str) -> None:
    assert describe_values(settings_by_key()[key]) == values


def test_explain_prints_a_setting_a_section_or_all(signllava: Command) -> None:
    one = signllava("recipes", "explain", "generate.num_beams")
    assert (one.code, one.err) == (0, "")
    assert one.out.startswith("generate.num_beams  (integer, at least 1; default 5)\n")
    assert "greedy" in one.out
    section = signllava("recipes", "explain", "lora").out
    assert section.startswith("lora\n")
    assert [line.split()[0] for line in section.splitlines() if line.startswith("lora.")] == [
        f"lora.{name}"
        for name in ("enabled", "r", "lora_alpha", "lora_dropout", "target_modules", "target_parameters")
    ]
    assert "tasks.train.translation" in signllava("recipes", "explain", "tasks").out
    everything = signllava("recipes", "explain").out
    assert all(f"\n{key}  (" in everything for key in settings_by_key())


def test_explain_takes_the_name_of_a_stream_and_the_last_part_of_a_key(signllava: Command) -> None:
    assert signllava("recipes", "explain", "streams.mae.width").out.startswith("streams.NAME.width")
    both = signllava("recipes", "explain", "batch_size").out
    assert "train.batch_size  (" in both
    assert "generate.batch_size  (" in both


@pytest.mark.parametrize(
    ("key", "nearest"),
    [("train.learningrate", "train.learning_rate"), ("num_beam", "generate.num_beams"), ("trian", "train")],
)
def test_explain_of_an_unknown_key_names_the_nearest(signllava: Command, key: str, nearest: str) -> None:
    ended = signllava("recipes", "explain", key)
    assert (ended.code, ended.out) == (2, "")
    assert f"{key}: unknown key. Did you mean `{nearest}`?" in ended.err
    assert "lists all keys" in signllava("recipes", "explain", "xyzzy").err


def test_the_page_of_settings_is_fresh(signllava: Command) -> None:
    page = signllava("recipes", "explain", "--markdown").out
    assert (ROOT / "docs" / "recipe.md").read_text() == page, (
        "run: signllava recipes explain --markdown > docs/recipe.md"
    )


@pytest.mark.parametrize("name", shipped_recipes())
def test_a_copy_describes_each_key_and_reads_as_the_same_recipe(
    signllava: Command, tmp_path: Path, name: str
) -> None:
    ended = signllava("recipes", "copy", name, tmp_path / "new" / "mine.yaml")
    assert (ended.code, ended.err) == (0, "")
    assert read_recipe(tmp_path / "new" / "mine.yaml") == read_recipe(name)
    text = (tmp_path / "new" / "mine.yaml").read_text()
    for section, settings in yaml.safe_load(text).items():
        for key in settings if section != "streams" else ():
            [line] = [
                index
                for index, line in enumerate(text.splitlines())
                if line.startswith(f"  {key}:") and section_at(text, index) == section
            ]
            summary = described(f"{section}.{key}")
            comments = text.splitlines()[:line]
            while comments[-1].startswith(f"  # {key}") or comments[-1].split(":")[0] in nested_comments(
                section, key
            ):
                comments.pop()
            assert comments[-1] == f"  # {summary}"
    assert f"  # width: {described('streams.NAME.width')}\n" in text
    assert text.count(described("streams.NAME.width")) == 1


def section_at(text: str, index: int) -> str:
    """The section that the line `index` is in."""
    return next(line.split(":")[0] for line in reversed(text.splitlines()[:index]) if re.match(r"\w+:", line))


def described(key: str) -> str:
    """The first sentence about a setting or a section."""
    if key in settings_by_key():
        return settings_by_key()[key].summary
    [section] = [section for section in list_sections() if section.key == key]
    return section.description.partition(". ")[0] + "."


def nested_comments(section: str, key: str) -> list[str]:
    """How the comments about the keys inside `key: {...}` begin."""
    prefix = f"{section}.{key}."
    return [f"  # {name.removeprefix(prefix)}" for name in settings_by_key() if name.startswith(prefix)]


def test_a_copy_keeps_the_comments_of_its_file_and_is_not_described_twice(signllava: Command, tmp_path: Path) -> None:
    own = "# my study\n\ntrain: # of ours\n  batch_size: 8 # as in the paper\n  # a line\n"
    (tmp_path / "own.yaml").write_text(own)
    for old, new in (("own", "first"), ("first", "second")):
        assert signllava("recipes", "copy", tmp_path / f"{old}.yaml", tmp_path / f"{new}.yaml").code == 0
    first, second = ((tmp_path / f"{name}.yaml").read_text() for name in ("first", "second"))
    assert first == second
    kept = [line for line in first.splitlines() if line in own.splitlines()]
    assert kept == own.splitlines()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{train: {batch_size: 16}, run: {seed: 3}}\n",
        "\ufefftrain:\n    batch_size: 16\n    micro_batch_size: 4",
        "train:\r\n  batch_size: 16\r\nrun:\r\n  seed: 1\r\n",
        "tasks:\n  system: |+\n    one\n\n    # no comment\n\n  streams: >\n    two\n    three\n\nrun: {seed: 1}\n",
        "tasks:\n  'system': first\n    second\n  \"yes\": !!str yes\ntrain: &a\n  betas:\n  - 0.9\n  - 0.8\n",
        "streams:\n  a: &a\n    width: 3\n  b: *a\n  c: {<<: *a, stride: 2}\n  d:\n    <<: *a\n    stride: 3\n",
        "lora:\n  enabled: true\n  target_modules: [q_proj,\n    v_proj]\ngenerate:\n  {num_beams: 3,\n  seed: 4}\n",
    ],
)
def test_any_recipe_reads_the_same_after_it_is_commented(signllava: Command, tmp_path: Path, text: str) -> None:
    (tmp_path / "old.yaml").write_bytes(text.encode())
    assert signllava("recipes", "copy", tmp_path / "old.yaml", tmp_path / "new.yaml").code == 0
    assert read_recipe(tmp_path / "new.yaml") == read_recipe(tmp_path / "old.yaml")


def test_a_file_with_errors_is_not_copied(signllava: Command, tmp_path: Path) -> None:
    (tmp_path / "old.yaml").write_text("train: {lr: 1}\n")
    ended = signllava("recipes", "copy", tmp_path / "old.yaml", tmp_path / "new.yaml")
    assert ended.code == 2
    assert "train.lr: unknown key" in ended.err
    assert [file.name for file in tmp_path.iterdir()] == ["old.yaml"]


def test_a_copy_names_a_schema_that_lies_beside_it(signllava: Command, tmp_path: Path) -> None:
    signllava("recipes", "copy", "toy/pretrain", tmp_path / "mine.yaml")
    line = (tmp_path / "mine.yaml").read_text().splitlines()[0]
    assert line.startswith("# yaml-language-server: $schema=")
    schema = json.loads((tmp_path / line.partition("$schema=")[2]).read_text())
    printed = signllava("recipes", "schema")
    assert (printed.code, json.loads(printed.out)) == (0, schema)


def test_the_schema_accepts_recipes_and_refuses_what_reading_refuses() -> None:
    schema = recipe_schema()
    validator = validator_for(schema)
    for name in shipped_recipes():
        assert validator.is_valid(yaml.safe_load(comment_recipe(find_recipe(name).read_text(), "x.json"))), name
    wrong: dict[str, Any]
    for wrong in (
        {"train": {"learningrate": 1}},
        {"train": {"batch_size": 0}},
        {"llm": {"bits": 5}},
        {"streams": {"mae": {"projector": "mlp2x_gelu"}}},
        {"streams": {"mae": {"width": 3, "projector": "conv"}}},
        {"trian": {}},
    ):
        assert not validator.is_valid(wrong), wrong
    assert validator.is_valid({"streams": {"mae": None}})  # takes the stream out
    train = schema["$defs"]["Train"]["properties"]
    assert "one optimizer step" in train["batch_size"]["description"]
    assert all("description" in setting for setting in train.values())
