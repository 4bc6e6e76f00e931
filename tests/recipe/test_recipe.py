"""Recipes: every error at once, overrides, and the shipped ones."""

from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest
import yaml
from conftest import Ended, sets

from signllava_cli.errors import UserError
from signllava_cli.recipe import build_recipe, format_override, read_recipe, require_stage, shipped_recipes

Command = Callable[..., Ended]


def test_all_errors_are_reported_at_once_each_with_its_key() -> None:
    with pytest.raises(UserError) as error:
        build_recipe(
            {
                "strems": {},
                "train": {"learningrate": 1, "num_train_epochs": -1},
                "streams": {"mae": {"widht": 3}, "x": 4},
                "llm": {"bits": 5},
            }
        )
    report = str(error.value)
    for line in (
        "strems: unknown key; did you mean `streams`?",
        "train.learningrate: unknown key; did you mean `learning_rate`?",
        "train.num_train_epochs: input should be greater than 0, got -1",
        "streams.mae.width: missing",
        "streams.mae.widht: unknown key; did you mean `width`?",
        "streams.x: expected a section",
        "llm.bits: input should be 4, 8, 16 or 32, got 5",
    ):
        assert line in report


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"train": {"batch_size": 8, "micro_batch_size": 3}}, "train.batch_size"),
        ({"llm": {"bits": 16, "dtype": "float32"}}, "llm.dtype"),
        ({"generate": {"context_source": "oracle"}}, "generate.context_source"),
        ({"streams": {"a.b": {"width": 3}}}, "streams.a.b"),
        ({"train": {"learning_rate": float("inf")}}, "train.learning_rate"),
        ({"run": {"seed": 10**30}}, "run.seed"),
        ({"tasks": {"system": "\ud800"}}, "tasks.system"),
        ({"tasks": {"chat_template_kwargs": {"a": "\ud800"}}}, "tasks.chat_template_kwargs.a"),
        ({"tasks": {"chat_template_kwargs": {"a": [1]}}}, "tasks.chat_template_kwargs.a"),
        (
            {"tasks": {"chat_template_kwargs": {"date_string": date(2024, 7, 26)}}},
            "tasks.chat_template_kwargs.date_st",
        ),
        ({"tasks": {"one_word_present": "Is it there?"}}, r"tasks.one_word_present: must contain \{word\}"),
        ({"tasks": {"train": {"translation": 0}}}, "tasks.train: no task has a weight above 0"),
        ({"generate": {"mbr": "chrf"}}, "generate.mbr: chooses between several hypotheses"),
        ({"generate": {"min_new_tokens": 9, "max_new_tokens": 8}}, "generate.min_new_tokens: 9 is more than"),
        ({"generate": {"task": "is_reversed", "task_prompt": "Who?"}}, "generate.task_prompt: cannot be combined"),
        ({"streams": {"a": {"width": 3}}, "generate": {"ablate": ["b"]}}, "generate.ablate: b is none of the"),
        ({"streams": {"a": {"width": 3}}, "generate": {"ablate": ["a"]}}, "generate.ablate: removes every stream"),
        ({"streams": {"a": {"width": 3, "metadata": "{stream}.json"}}}, "streams.a.metadata"),
        ({"streams": {"a": {"width": 3, "metadata": "{split}.{shard}.json"}}}, "streams.a.metadata"),
        *(
            ({"streams": {"a": {"width": 3, "shards": pattern}}}, "streams.a.shards")
            for pattern in ("{split.x}", "{shard[x]}", "{split:999999999999}", "{shard!r}", "{}", "{0}", "{split")
        ),
    ],
)
def test_contradictions_are_errors(settings: dict[str, object], key: str) -> None:
    with pytest.raises(UserError, match=key):
        build_recipe(settings)


def test_all_errors_of_stack_conv_and_join_are_reported_at_once() -> None:
    streams: dict[str, dict[str, object]] = {
        "mae": {"width": 8, "stack": 2, "conv": {"kernel": 2, "stride": 3}},
        "left": {"width": 8, "join": "mae", "stack": 4, "projector": "linear"},
        "right": {"width": 4, "join": "mae", "normalize_output": False},
        "face": {"width": 4, "join": "mea"},
    }
    with pytest.raises(UserError, match="recipe has 8 errors") as error:
        build_recipe({"streams": streams})
    for line in (
        "streams.mae.stack: cannot be combined with streams.mae.conv; remove one of them",
        "streams.mae.conv.kernel: 2 is less than streams.mae.conv.stride (3), so frames would be skipped; raise it",
        "streams.left.join: mae is the name of a stream; choose another name",
        "streams.right.join: mae is the name of a stream; choose another name",
        "streams.right.projector: must be that of streams.left.projector, because join=mae gives both one projector",
        "streams.right.normalize_output: must be that of streams.left.normalize_output",
        "streams.right.stack: must be that of streams.left.stack",
        "streams.face.join: no other stream has join=mea; correct the name, or remove it",
    ):
        assert line in str(error.value)
    with pytest.raises(UserError) as error:
        build_recipe(
            {"streams": {"mae": {"width": 8, "stack": 0, "join": "a.b", "conv": {"kernl": 3, "layers": 99}}}}
        )
    for line in (
        "streams.mae.stack: input should be greater than 0, got 0",
        "streams.mae.join: string should match pattern",
        "streams.mae.conv.kernl: unknown key; did you mean `kernel`?",
        "streams.mae.conv.layers: input should be less than 10, got 99",
    ):
        assert line in str(error.value)


def test_null_epochs_hint_at_max_steps() -> None:
    with pytest.raises(UserError, match=r"train\.num_train_epochs: .*null.* train\.max_steps"):
        read_recipe("pretrain", ["train.num_train_epochs=null"])


def test_dev_bleu_with_sampling_is_an_error_of_a_training_recipe(signllava: Command) -> None:
    """Reported with the other errors of the recipe; `generate` may sample from the checkpoint of such a run."""
    sampled = ["train.metric_for_best_model=dev_bleu", "generate.temperature=0.7", "generate.num_return_sequences=20"]
    read_recipe("toy/tiny_pretrain", sampled)
    for stage, recipe in (("pretrain", "toy/tiny_pretrain"), ("finetune", "toy/tiny_finetune")):
        ended = signllava(stage, "-r", recipe, *sets([*sampled, "llm.dtype=float16", "llm.bits=16"]))
        assert ended.code == 2
        assert f"{stage} recipe has 2 errors" in ended.err
        assert (
            "train.metric_for_best_model: dev_bleu is computed without sampling; remove generate.temperature (0.7)"
            in ended.err
        )
        assert "llm.dtype: float16" in ended.err
        ended = signllava("recipes", "validate", recipe, *sets(sampled))
        assert (ended.code, "train.metric_for_best_model: dev_bleu" in ended.err) == (2, True)


def test_overrides_beat_the_file_and_null_removes_a_stream() -> None:
    recipe = read_recipe("pretrain", ["train.learning_rate=1e-4", "streams.pose=null", "data.root=elsewhere"])
    assert recipe.train.learning_rate == 1e-4
    assert list(recipe.streams) == ["sign2vec", "mae", "dino"]
    assert recipe.data.root == "elsewhere"


@pytest.mark.parametrize("path", ["runs/\U0001f600 #1", "a: b", "é\U00020000", "x\ny"])
def test_any_path_can_be_an_override_in_json(path: str) -> None:
    """As commands pass paths on: YAML reads two characters where JSON escapes one beyond U+FFFF."""
    values = {"data.root": path, "tasks.chat_template_kwargs": {"a": path}, "lora.target_modules": [path]}
    recipe = read_recipe("pretrain", [format_override(*setting) for setting in values.items()])
    assert recipe.data.root == path
    assert recipe.tasks.chat_template_kwargs == {"a": path}
    assert recipe.lora.target_modules == [path]


@pytest.mark.parametrize("override", ["train.lr", "=3", "train.learning_rate.x=1", "a.b.c=[1"])
def test_malformed_overrides_are_errors(override: str) -> None:
    with pytest.raises(UserError, match=r"--set|unknown key"):
        read_recipe("pretrain", [override])


def test_resolved_recipe_reads_back_to_the_same_recipe() -> None:
    for name in shipped_recipes():
        recipe = read_recipe(name)
        assert build_recipe(yaml.safe_load(recipe.to_yaml())) == recipe


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: !!int x", "not YAML"),
        ("a: 2020-13-45", "not YAML"),
        ("a: [1", "not YAML"),
        ("- 1\n- 2", "not a recipe"),
        ("train: {epochs: 1}\ntrain: {epochs: 2}", "duplicate key"),
    ],
)
def test_files_that_are_not_recipes_are_errors(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(content)
    with pytest.raises(UserError, match=message):
        read_recipe(file)


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_shipped_recipe_is_valid_for_its_stage(name: str) -> None:
    stage = "finetune" if name.endswith("finetune") else "pretrain"
    require_stage(read_recipe(name), stage)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"lora\.enabled"):
        require_stage(read_recipe(name), "pretrain" if stage == "finetune" else "finetune")


def test_recipes_have_the_settings_of_sign_llava() -> None:
    pretrain, finetune = read_recipe("pretrain"), read_recipe("finetune")
    assert "Llama-3-8B-Instruct" in pretrain.llm.path
    assert (pretrain.llm.bits, pretrain.llm.dtype, pretrain.lora.enabled) == (16, "bfloat16", False)
    train = pretrain.train
    assert (train.learning_rate, train.lr_scheduler_type, train.warmup_ratio, train.weight_decay) == (
        2e-3,
        "cosine",
        0.0,
        0.1,
    )
    assert (train.label_smoothing, train.num_train_epochs) == (0.1, 40)
    assert (finetune.llm.bits, finetune.llm.bnb_4bit_quant_type, finetune.llm.bnb_4bit_use_double_quant) == (
        4,
        "nf4",
        True,
    )
    lora = finetune.lora
    assert (lora.enabled, lora.r, lora.lora_alpha, lora.lora_dropout) == (True, 64, 16, 0.05)
    assert (finetune.train.learning_rate, finetune.train.projector_learning_rate) == (2e-5, 2e-5)
    assert (finetune.generate.num_beams, finetune.generate.max_new_tokens) == (5, 100)
