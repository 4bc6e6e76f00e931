"""`signllava recipes import` converts a configuration of Sign_LLaVA into a recipe, and reports on every key."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Ended

from signllava_cli.recipe import Recipe, build_recipe, read_recipe, require_stage
from signllava_cli.recipe.sign_llava_import import import_recipe

Signllava = Callable[..., Ended]

PRETRAIN = """\
ModelArguments:
  model_name_or_path: some/llama
  version: llava_sign_llama_3
  tune_mm_mlp_adapter: True
TrainingArguments:
  output_dir: old/out
  model_max_length: 1024
  bf16: True
  per_device_train_batch_size: 3
  per_device_eval_batch_size: 1
  resume_from_checkpoint: False
  do_train: True
  evaluation_strategy: steps
  eval_steps: 7
  save_steps: 9
  save_total_limit: 4
  logging_steps: 5
  num_train_epochs: 6
  learning_rate: 5e-4
  lr_scheduler_type: linear
  warmup_ratio: 0.03
  weight_decay: 0.2
  label_smoothing_factor: 0.1
  dataloader_num_workers: 2
  bits: 16
  quant_type: nf4
  double_quant: False
  lora_enable: False
  lora_r: 8
  lora_alpha: 32
  lora_dropout: 0.1
  lora_weight_path: ""
  lora_bias: "none"
  seed: 42
  data_seed: 42
SignDataArguments:
  use_paraphrases: False
  context_window_size: 3
  prelude_window_size: 1
  data_dir: /data/H2S
  annotation_path:
    train: annotation.train.json
    dev: annotation.val.json
  visual_features:
    pose:
      enable_input: False
      train: pose/metadata_pose.train.json
      dev: pose/metadata_pose.val.json
    sign2vec:
      enable_input: True
      train: sign2vec/metadata_sign2vec.train.json
      dev: sign2vec/metadata_sign2vec.val.json
    mae:
      enable_input: True
      train: from/elsewhere/H2S.mae.train.json
      dev: from/elsewhere/H2S.mae.val.json
SignModelArguments:
  projectors:
    sign2vec:
      dim: 768
      projector_type: mlp2x_gelu
    mae:
      dim: 640
      projector_type: linear
    pose:
      dim: 208
      projector_type: mlp2x_gelu
SignMultiTaskArguments:
  translation:
    enable: True
    sample_weight: 0.5
  multi_word_present:
    enable: True
    sample_weight: 0.3
    max_num_words: 4
  is_reversed:
    enable: False
    sample_weight: 0.2
"""

FINETUNE = """\
ModelArguments: {model_name_or_path: some/llama, tune_mm_mlp_adapter: True}
TrainingArguments:
  bits: 4
  lora_enable: True
  lora_r: 32
  learning_rate: 1.0e-5
  mm_projector_lr: 2.0e-5
  auto_find_batch_size: True
  deepspeed: zero2.json
  metric_for_best_model: eval_bleu
  surprise: 3
SignDataArguments:
  use_paraphrases: True
  context_window_size: 0
  prelude_window_size: 0
  data_dir: H2S
  annotation_path: {train: h2s.annotations.train.json, dev: annotation.dev.json}
  visual_features:
    mae: {enable_input: True, train: mae/metadata_mae.train.json, dev: mae/other.dev.json}
SignModelArguments:
  projectors:
    pretrained_projector_ckpt: my old/checkpoint-10/global_step10/mp_rank_00_model_states.pt
    mae: {dim: 768, projector_type: identity}
SignMultiTaskEvalArguments:
  translation: {sample_weight: 1}
  is_reversed: {sample_weight: 1}
"""

GENERATE = """\
GenerateArguments:
  model_path: my old/out
  checkpoint_num: 40
  num_datapoints: -1
  task: translation
  generate_des: generation.json
  model_base: some/llama
  conv_mode: llava_sign_llama_3
  top_p: 0.9
  min_length: 2
  temperature: 0.1
  do_sample: False
  skip_special_tokens: True
  num_beams: 4
  remove_invalid_values: True
  max_new_tokens: 50
  do_verbose: True
  seed: 7
  bf16: True
LoraArguments: {bits: 16, quant_type: nf4, double_quant: True, lora_enable: False, lora_r: 64}
SignDataArguments:
  prepared_predicted_context: False
  on_the_fly_predicted_context: False
  context_window_size: 2
  prelude_window_size: 2
  data_dir: /data/H2S/
  annotation_path: /data/H2S/annotation.dev.json
  visual_features:
    mae: {enable_input: True, test: mae/metadata_mae.dev.json}
SignModelArguments:
  projectors:
    mae: {dim: 768, projector_type: mlp2x_gelu}
"""


def leaf_keys(content: Any, prefix: str = "") -> list[str]:
    """The full key of every value of a YAML file."""
    if not isinstance(content, dict) or not content:
        return [prefix]
    return [leaf for key, value in content.items() for leaf in leaf_keys(value, f"{prefix}.{key}" if prefix else key)]


def import_old(signllava: Signllava, folder: Path, old: str, *options: object) -> tuple[Recipe, str, Ended]:
    """Import the configuration `old`; returns the recipe, the text of its file, and the output."""
    (folder / "old.yaml").write_text(old)
    ended = signllava("recipes", "import", folder / "old.yaml", "--out", folder / "new.yaml", *options)
    assert ended.code == 0, ended.err
    assert signllava("recipes", "validate", folder / "new.yaml").code == 0
    return read_recipe(folder / "new.yaml"), (folder / "new.yaml").read_text(), ended


def comment_on(key: str, text: str) -> str:
    """The comment line of the recipe about a key of Sign_LLaVA."""
    return next(line for line in text.splitlines() if line.startswith("#") and f" {key}: " in line)


def test_a_pretrain_configuration_becomes_a_recipe_of_the_same_run(signllava: Signllava, tmp_path: Path) -> None:
    recipe, text, _ = import_old(signllava, tmp_path, PRETRAIN, "--num-processes", 4)
    require_stage(recipe, "pretrain")
    assert (recipe.run.output_dir, recipe.run.seed, recipe.llm.path, recipe.llm.bits) == (
        "old/out",
        42,
        "some/llama",
        16,
    )
    assert (recipe.llm.dtype, recipe.llm.bnb_4bit_use_double_quant) == ("bfloat16", False)
    train = recipe.train
    assert (train.micro_batch_size, train.batch_size, train.num_train_epochs, train.learning_rate) == (3, 12, 6, 5e-4)
    assert (train.lr_scheduler_type, train.warmup_ratio, train.weight_decay, train.label_smoothing) == (
        "linear",
        0.03,
        0.2,
        0.1,
    )
    assert (train.eval_steps, train.save_steps, train.save_total_limit, recipe.track.logging_steps) == (7, 9, 4, 5)
    assert (recipe.lora.enabled, recipe.lora.r, recipe.lora.lora_alpha, recipe.lora.lora_dropout) == (
        False,
        8,
        32,
        0.1,
    )
    assert (recipe.context.window, recipe.context.prelude, recipe.data.max_seq_len) == (3, 1, 1024)
    assert (recipe.data.root, recipe.data.train, recipe.data.dev, recipe.data.num_workers) == (
        "/data/H2S",
        "train",
        "val",
        2,
    )
    weights = recipe.tasks.train
    assert (weights.translation, weights.one_word_present, weights.multi_word_present) == (0.5, 0, 0.3)
    assert (weights.is_reversed, recipe.tasks.max_words, recipe.tasks.paraphrases) == (0, 4, 0)
    assert list(recipe.streams) == ["mae", "sign2vec"]  # the order of Sign_LLaVA's code, not of the file
    mae, sign2vec = recipe.streams.values()
    assert (mae.width, mae.projector, mae.normalize_input, mae.normalize_output) == (640, "linear", False, False)
    assert (mae.folder, mae.metadata) == ("/data/H2S/from/elsewhere", "H2S.mae.{split}.json")
    assert (sign2vec.folder, sign2vec.metadata) == (None, None)
    assert "enable_input is false" in comment_on("SignModelArguments.projectors.pose.dim", text)


def test_a_finetune_configuration_lists_the_decisions_of_the_user(signllava: Signllava, tmp_path: Path) -> None:
    recipe, text, ended = import_old(signllava, tmp_path, FINETUNE)
    require_stage(recipe, "finetune")
    assert (recipe.llm.bits, recipe.lora.r, recipe.lora.enabled) == (4, 32, True)
    assert (recipe.train.learning_rate, recipe.train.projector_learning_rate) == (1e-5, 2e-5)
    assert recipe.tasks.dev.is_reversed == 1
    assert recipe.init.projector is not None
    decisions = {
        "ModelArguments.tune_mm_mlp_adapter": "adapter",
        "TrainingArguments.auto_find_batch_size": "--dry-run",
        "TrainingArguments.deepspeed": "--launch",
        "TrainingArguments.metric_for_best_model": "train.metric_for_best_model",
        "TrainingArguments.surprise": "not known",
        "TrainingArguments.label_smoothing_factor": "not in the file",
        "SignDataArguments.use_paraphrases": "tasks.paraphrases",
        "SignDataArguments.annotation_path.train": "annotation.train.json",
        "SignDataArguments.visual_features.mae.dev": "streams.mae.metadata",
        "SignModelArguments.projectors.mae.projector_type": "identity",
        "SignModelArguments.projectors.pretrained_projector_ckpt": (
            "signllava checkpoint convert 'my old/checkpoint-10/"
        ),
    }
    for key, words in decisions.items():
        assert f"to decide: {key}: " in comment_on(key, text)
        assert words in comment_on(key, text)
        assert f"warning: {key}: " in ended.out
    # keys that the file does not set have the defaults of Sign_LLaVA, not ours
    assert (recipe.train.lr_scheduler_type, recipe.train.num_train_epochs, recipe.run.seed) == ("linear", 3, 42)
    assert (recipe.data.max_seq_len, recipe.track.logging_steps) == (512, 500)


@pytest.mark.parametrize(
    ("change", "source"),
    [
        ({}, "gold"),
        (
            {"context_window_size: 2": "context_window_size: 0", "prelude_window_size: 2": "prelude_window_size: 0"},
            "none",
        ),
        ({"on_the_fly_predicted_context: False": "on_the_fly_predicted_context: True"}, "predicted"),
        (
            {
                "prepared_predicted_context: False": "prepared_predicted_context: True",
                "/data/H2S/annotation.dev.json": "old/generation.json",
            },
            "prepared:/data/H2S/old/generation.json",
        ),
    ],
)
def test_a_generate_configuration_keeps_its_context_source(
    signllava: Signllava, tmp_path: Path, change: dict[str, str], source: str
) -> None:
    old = GENERATE
    for before, after in change.items():
        assert before in old
        old = old.replace(before, after)
    recipe, text, _ = import_old(signllava, tmp_path, old)
    generate = recipe.generate
    assert (generate.context_source, generate.split, recipe.data.root) == (source, "dev", "/data/H2S/")
    assert (generate.num_beams, generate.max_new_tokens, generate.min_new_tokens, generate.seed) == (4, 50, 2, 7)
    assert (generate.temperature, generate.top_p) == (None, 1.0)  # do_sample is false
    assert "do_sample" in comment_on("GenerateArguments.temperature", text)
    command = comment_on("GenerateArguments.model_path", text)
    assert "signllava checkpoint convert 'my old/out/checkpoint-40' " in command


def test_an_annotation_file_that_is_already_in_its_place_needs_no_decision(
    signllava: Signllava, tmp_path: Path
) -> None:
    """Sign_LLaVA's generation opens `annotation_path` relative to the working directory, not to `data_dir`."""
    config = yaml.safe_load(GENERATE)
    config["SignDataArguments"] |= {"data_dir": "data/H2S/", "annotation_path": "data/H2S/annotation.dev.json"}
    recipe, text, _ = import_old(signllava, tmp_path, yaml.safe_dump(config))
    assert recipe.generate.split == "dev"
    assert "translated: SignDataArguments.annotation_path: generate.split: dev" in text


def test_decoding_keys_and_files_of_t5_for_slt_are_read_where_they_are(signllava: Signllava, tmp_path: Path) -> None:
    old = {
        "ModelArguments": {"do_sample": True, "num_beams": 1, "temperature": 0.7, "top_k": 50},
        "SignDataArguments": {
            "data_dir": "data",
            "visual_features": {
                "pose": {
                    "enable_input": True,
                    "train": "pose/metadata_pose.train.json",
                    "augmentation_type": "none",
                    "normalization": {"normalization_method": "sign_space"},
                }
            },
        },
        "SignModelArguments": {"projectors": {"pose": {"dim": 208}}},
    }
    recipe, text, _ = import_old(signllava, tmp_path, yaml.safe_dump(old))
    assert (recipe.generate.temperature, recipe.generate.top_k) == (0.7, 50)
    assert "do_sample is false" not in text
    assert "no split in the name" not in text  # neither key is a file
    for key in ("augmentation_type", "normalization.normalization_method"):
        assert f"to decide: SignDataArguments.visual_features.pose.{key}: not known to this import" in text


@pytest.mark.parametrize(
    ("window", "is_predicted", "source"), [(0, False, "none"), (2, False, "gold"), (2, True, "predicted")]
)
def test_the_context_of_a_data_section_alone_is_translated(
    signllava: Signllava, tmp_path: Path, window: int, is_predicted: bool, source: str
) -> None:
    """As in the three examples of the README of Sign_LLaVA."""
    keys = {
        "prepared_predicted_context": False,
        "on_the_fly_predicted_context": is_predicted,
        "context_window_size": window,
        "prelude_window_size": window,
    }
    (tmp_path / "old.yaml").write_text(yaml.safe_dump({"SignDataArguments": keys}))
    text = signllava("recipes", "import", tmp_path / "old.yaml").out
    settings = yaml.safe_load(text)
    assert settings["generate"]["context_source"] == source
    assert settings["context"] == {"window": window, "prelude": window}
    assert not [key for key in keys if "translated" not in comment_on(f"SignDataArguments.{key}", text)]


def test_a_stream_without_a_width_is_reported_as_omitted(signllava: Signllava, tmp_path: Path) -> None:
    files = {"enable_input": True, "train": "metadata_mae.train.json"}
    old = {"SignDataArguments": {"data_dir": "/data", "visual_features": {"mae": files}}}
    (tmp_path / "old.yaml").write_text(yaml.safe_dump(old))
    text = signllava("recipes", "import", tmp_path / "old.yaml").out
    assert "streams" not in yaml.safe_load(text)
    comment = comment_on("SignDataArguments.visual_features.mae.enable_input", text)
    assert "to decide" in comment
    assert "the recipe has no stream mae: set streams.mae.width" in comment
    assert "translated: SignDataArguments.visual_features.mae.train: metadata_mae.{split}.json" in text


@pytest.mark.parametrize("old", [PRETRAIN, FINETUNE, GENERATE])
def test_every_key_is_reported_in_the_output_and_in_the_file(signllava: Signllava, tmp_path: Path, old: str) -> None:
    _, text, ended = import_old(signllava, tmp_path, old)
    for key in leaf_keys(yaml.safe_load(old)):
        assert comment_on(key, text)
        assert key in ended.out
    printed = signllava("recipes", "import", tmp_path / "old.yaml")
    assert (printed.out, printed.err) == (text, "")  # without --out, the recipe is printed on stdout


def test_values_that_are_not_valid_in_a_recipe_are_reported_as_decisions(
    signllava: Signllava, tmp_path: Path
) -> None:
    old = PRETRAIN.replace("bits: 16", "bits: 5").replace("weight_decay: 0.2", "weight_decay: [1]")
    old = old.replace("lr_scheduler_type: linear", "lr_scheduler_type: reduce_lr_on_plateau")
    old = old.replace("multi_word_present:", "sing_along:")
    recipe, text, _ = import_old(signllava, tmp_path, old)
    assert recipe.llm.bits == 16
    for key, value in (("bits", "5"), ("weight_decay", "[1]"), ("lr_scheduler_type", "'reduce_lr_on_plateau'")):
        assert f"to decide: TrainingArguments.{key}: " in comment_on(f"TrainingArguments.{key}", text)
        assert f"got {value}" in comment_on(f"TrainingArguments.{key}", text)
    assert "to decide" in comment_on("SignMultiTaskArguments.sing_along.sample_weight", text)


def test_a_recipe_that_is_a_sign_llava_configuration_hints_at_the_import(
    signllava: Signllava, tmp_path: Path
) -> None:
    (tmp_path / "my old.yaml").write_text(PRETRAIN)
    for words in (["recipes", "validate"], ["pretrain", "--recipe"]):
        ended = signllava(*words, tmp_path / "my old.yaml")
        assert ended.code == 2
        assert f"signllava recipes import '{tmp_path / 'my old.yaml'}' " in ended.err
        assert "unknown key" not in ended.err


@pytest.mark.parametrize(
    ("old", "message"),
    [
        ("run: {folder: x}\n", "none of the sections of Sign_LLaVA"),
        ("- a\n", "none of the sections of Sign_LLaVA"),
        ("TrainingArguments: [\n", "is not YAML"),
        ("TrainingArguments: !!python/object/apply:os.system [touch /tmp/x]\n", "is not YAML"),
    ],
)
def test_a_file_that_cannot_be_imported_is_refused_in_one_line(
    signllava: Signllava, tmp_path: Path, old: str, message: str
) -> None:
    (tmp_path / "old.yaml").write_text(old)
    ended = signllava("recipes", "import", tmp_path / "old.yaml", "--out", tmp_path / "new.yaml")
    assert (ended.code, len(ended.err.strip().splitlines())) == (2, 1)
    assert message in ended.err
    assert not (tmp_path / "new.yaml").exists()


def set_value(config: dict[str, Any], key: str, value: object) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        config = config[parent]
    config[last] = value


@pytest.mark.parametrize("old", [PRETRAIN, FINETUNE, GENERATE])
def test_every_key_is_reported_for_any_value(old: str, tmp_path: Path) -> None:
    values: tuple[Any, ...] = (None, True, -1, "x", [], {}, {"a": {"b": 1}}, float("inf"))
    keys = leaf_keys(yaml.safe_load(old))
    changes = [dict.fromkeys(keys, value) for value in values]  # all keys, then one key at a time
    changes += [{key: values[number % len(values)]} for number, key in enumerate(keys)]
    for change in changes:
        config = yaml.safe_load(old)
        for key, value in change.items():
            set_value(config, key, value)
        (tmp_path / "old.yaml").write_text(yaml.safe_dump(config))
        result = import_recipe(tmp_path / "old.yaml")
        build_recipe(yaml.safe_load(result.to_yaml()))
        assert set(leaf_keys(config)) <= {report.key for report in result.reports}


def test_an_import_does_not_overwrite_a_file(signllava: Signllava, tmp_path: Path) -> None:
    (tmp_path / "old.yaml").write_text(PRETRAIN)
    ended = signllava("recipes", "import", tmp_path / "old.yaml", "--out", tmp_path / "old.yaml")
    assert (ended.code, (tmp_path / "old.yaml").read_text()) == (2, PRETRAIN)
    assert "exists: choose another name" in ended.err
    assert "No file" in signllava("recipes", "import", tmp_path / "none.yaml").err
