"""Variants: partial recipes that `RECIPE+VARIANT` applies to a recipe."""

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from conftest import Ended

from signllava_cli.errors import UserError
from signllava_cli.recipe import Recipe, Stage, read_recipe, require_stage, shipped_recipes, shipped_variants

Command = Callable[..., Ended]
STAGES: tuple[Stage, ...] = ("pretrain", "finetune")
STREAMS, CONTEXTS = ("pose", "sign2vec"), ("no-context", "mixed-context")
LLMS, DATA = ("llama-3.2-1b", "llama-3.2-3b", "qwen3-8b", "gemma-3-4b"), ("youtube-asl", "phoenix14t")
GROUPS = (STREAMS, CONTEXTS, LLMS, DATA)


def changed(recipe: Recipe, base: Recipe) -> dict[str, object]:
    """The settings that differ from those of `base`, without the folders of runs; None for those it lacks."""
    new, old = recipe.to_flat_dict(), base.to_flat_dict()
    keys = (old.keys() | new.keys()) - {"run.output_dir", "init.projector"}
    return {key: new.get(key) for key in keys if new.get(key) != old.get(key)}


def test_every_variant_is_in_the_tables_of_this_file() -> None:
    assert {name for group in GROUPS for name in group} == {*shipped_variants()}
    assert not {name for name in shipped_recipes() if "variants" in name}


@pytest.mark.parametrize("stage", STAGES)
def test_variants_of_different_kinds_can_be_combined(stage: Stage) -> None:
    """Streams, context, LLM, dataset: each changes its own settings and no others, so their order has no effect."""
    base = read_recipe(stage)
    pairs = [names for one, other in itertools.combinations(GROUPS, 2) for names in itertools.product(one, other)]
    alone = {name: changed(read_recipe(f"{stage}+{name}"), base) for name in shipped_variants()}
    for names in [*pairs, ("mixed-context", "pose", "phoenix14t", "qwen3-8b")]:
        suffix = "".join(f"+{name}" for name in names)
        recipe = read_recipe(stage + suffix)
        require_stage(recipe, stage)
        assert changed(recipe, base) == {key: value for name in names for key, value in alone[name].items()}
        assert recipe.run.output_dir == f"runs/{stage}{suffix}"
        assert recipe.init.projector == (f"runs/pretrain{suffix}" if stage == "finetune" else None)


def test_variants_do_what_their_names_say() -> None:
    assert list(read_recipe("pretrain+pose").streams) == ["pose"]
    assert list(read_recipe("finetune+sign2vec").streams) == ["sign2vec"]
    none, mixed = read_recipe("pretrain+no-context"), read_recipe("pretrain+mixed-context")
    assert (none.context.window, none.context.prelude, none.generate.context_source) == (0, 0, "none")
    assert (mixed.context.window, mixed.context.prelude, mixed.context.predicted_share) == (2, 2, 0.5)
    assert mixed.context.source.startswith("mixed:")
    llms = {name: read_recipe(f"finetune+{name}").llm.path.rpartition("/")[2] for name in LLMS}
    assert llms == {
        "llama-3.2-1b": "Llama-3.2-1B-Instruct",
        "llama-3.2-3b": "Llama-3.2-3B-Instruct",
        "qwen3-8b": "Qwen3-8B",
        "gemma-3-4b": "gemma-3-4b-it",
    }
    asl, phoenix = read_recipe("pretrain+youtube-asl"), read_recipe("pretrain+phoenix14t")
    assert (asl.data.root, asl.generate.split) == ("data/youtube_asl", "dev")
    assert (phoenix.data.root, phoenix.generate.split) == ("data/phoenix14t", "test")
    assert (phoenix.tasks.yes, phoenix.tasks.no) == ("ja", "nein")


def test_a_variant_of_your_own_is_a_file_and_overrides_beat_it(tmp_path: Path) -> None:
    (tmp_path / "low.yaml").write_text("train: {learning_rate: 1.0e-4}\nstreams: {mae: {stack: 4}}\n")
    recipe = read_recipe(f"pretrain+{tmp_path / 'low.yaml'}+pose", ["streams.pose.stack=2"])
    assert (recipe.train.learning_rate, recipe.train.label_smoothing) == (1e-4, 0.1)
    assert recipe.run.output_dir == "runs/pretrain+low+pose"
    assert {name: stream.stack for name, stream in recipe.streams.items()} == {"pose": 2}
    (tmp_path / "my+recipe.yaml").write_text(read_recipe("toy/tiny_pretrain").to_yaml())
    assert read_recipe(tmp_path / "my+recipe.yaml") == read_recipe("toy/tiny_pretrain")
    assert read_recipe(f"{tmp_path}/my+recipe.yaml+no-context").context.window == 0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pretrain+poes", "No variant at poes. Did you mean `pose`?"),
        ("pretrian+pose", "No recipe at pretrian. Did you mean `pretrain`?"),
        ("pretrain+", "No variant at ."),
        ("pretrain+{folder}/list.yaml", "list.yaml is not a variant: it must contain sections"),
        ("pretrain+{folder}/unknown.yaml", "train.learningrate: unknown key; did you mean `learning_rate`?"),
        ("pretrain+{folder}/text.yaml", "streams: input should be a valid dictionary"),
    ],
)
def test_what_is_not_a_variant_is_named(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "list.yaml").write_text("- 1\n")
    (tmp_path / "unknown.yaml").write_text("train: {learningrate: 1}\n")
    (tmp_path / "text.yaml").write_text("streams: mae\n")
    with pytest.raises(UserError) as error:
        read_recipe(name.format(folder=tmp_path))
    assert message in str(error.value)


def test_the_list_has_the_variants_and_a_copy_is_complete(signllava: Command, tmp_path: Path) -> None:
    listed = signllava("recipes", "list").out.splitlines()
    assert {"pretrain", "finetune", "+pose", "+phoenix14t"} <= {*listed}
    assert signllava("recipes", "copy", "finetune+pose+no-context", tmp_path / "mine.yaml").code == 0
    text = (tmp_path / "mine.yaml").read_text()
    assert read_recipe(tmp_path / "mine.yaml") == read_recipe("finetune+pose+no-context")
    assert "# finetune+pose+no-context" in text
    assert "  # learning_rate: " not in text
    assert yaml.safe_load(text)["streams"] == {"pose": {"width": 208, "projector": "mlp2x_gelu"}}


@pytest.mark.drill
def test_a_run_stores_the_complete_recipe(signllava: Command, settings: list[str], tmp_path: Path) -> None:
    (tmp_path / "short.yaml").write_text("train: {max_steps: 1, eval_steps: 1, save_steps: 1}\n")
    name, overrides = f"toy/tiny_pretrain+no-context+{tmp_path / 'short.yaml'}", [*settings[:3], "llm.dtype=float32"]
    options = [word for setting in overrides for word in ("--set", setting)]
    ended = signllava("pretrain", "--recipe", name, *options)
    assert ended.code == 0, ended.err
    for folder in (tmp_path / "run", tmp_path / "run" / "step-000001"):
        assert read_recipe(folder / "recipe.yaml") == read_recipe(name, overrides)
