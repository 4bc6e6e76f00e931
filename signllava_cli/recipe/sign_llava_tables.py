"""The keys of Sign_LLaVA's YAML, and the settings of those that depend on no other key.

Sign_LLaVA (github.com/JSALT2024/Sign_LLaVA) merges its sections over transformers' `TrainingArguments`, so the keys
and defaults of these are part of it.
"""

from collections.abc import Iterable
from typing import Any

SECTIONS = (
    "ModelArguments",
    "TrainingArguments",
    "GenerateArguments",
    "LoraArguments",
    "SignDataArguments",
    "SignModelArguments",
    "SignMultiTaskArguments",
    "SignMultiTaskEvalArguments",
)
STREAMS = ("mae", "sign2vec", "dino", "pose")  # the order in which Sign_LLaVA joins them, INPUT_TYPES

RENAMED = {
    "model_name_or_path": "llm.path",
    "model_base": "llm.path",
    "quant_type": "llm.bnb_4bit_quant_type",
    "double_quant": "llm.bnb_4bit_use_double_quant",
    "lora_enable": "lora.enabled",
    "lora_r": "lora.r",
    "lora_alpha": "lora.lora_alpha",
    "lora_dropout": "lora.lora_dropout",
    "output_dir": "run.output_dir",
    "model_max_length": "data.max_seq_len",
    "num_train_epochs": "train.num_train_epochs",
    "learning_rate": "train.learning_rate",
    "mm_projector_lr": "train.projector_learning_rate",
    "lr_scheduler_type": "train.lr_scheduler_type",
    "lr_scheduler_kwargs": "train.lr_scheduler_kwargs",
    "warmup_ratio": "train.warmup_ratio",
    "weight_decay": "train.weight_decay",
    "max_grad_norm": "train.max_grad_norm",
    "label_smoothing_factor": "train.label_smoothing",
    "gradient_checkpointing": "train.gradient_checkpointing",
    "eval_steps": "train.eval_steps",
    "save_steps": "train.save_steps",
    "save_total_limit": "train.save_total_limit",
    "logging_steps": "track.logging_steps",
    "dataloader_num_workers": "data.num_workers",
    "context_window_size": "context.window",
    "prelude_window_size": "context.prelude",
    "task": "generate.task",
    "num_beams": "generate.num_beams",
    "max_new_tokens": "generate.max_new_tokens",
    "min_length": "generate.min_new_tokens",
    "length_penalty": "generate.length_penalty",
    "repetition_penalty": "generate.repetition_penalty",
    "no_repeat_ngram_size": "generate.no_repeat_ngram_size",
}

WITHOUT_EQUIVALENT = {
    "version": "prompts are built with the LLM's own chat template; their texts are tasks.*",
    "conv_mode": "prompts are built with the LLM's own chat template; their texts are tasks.*",
    "freeze_backbone": "the LLM's own weights are always frozen",
    "freeze_embed_tokens": "the LLM's own weights are always frozen",
    "per_device_eval_batch_size": "the dev loss is computed in batches of train.micro_batch_size",
    "resume_from_checkpoint": "the same command resumes a run; `--resume never` starts a new one",
    "run_name": "the name of run.output_dir is the name of the run",
    "cache_dir": "HF_HOME says where the hub's files are",
    "remove_unused_columns": "a setting of transformers' Trainer, which is not used",
    "greater_is_better": "follows from train.metric_for_best_model",
    "mpt_attn_impl": "a setting of another LLM",
    "generate_des": "predictions go to a folder named after checkpoint, split and context",
    "remove_invalid_values": "values that are not finite are an error that names the clip",
    "do_verbose": "predictions.jsonl has what it prints",
    "save_on_each_node": "the first process alone writes checkpoints",
    "overwrite_output_dir": "a run folder is resumed, never overwritten",
}

# Key -> the values that are equal to what signllava does in any case, and what to do for another value.
BUILT_IN: dict[str, tuple[tuple[Any, ...], str]] = {
    "do_train": ((True,), "pretrain and finetune train; `signllava generate` does not"),
    "do_eval": ((True,), "the dev split is always scored, every train.eval_steps steps"),
    "evaluation_strategy": (("steps",), "the dev split is scored every train.eval_steps steps"),
    "eval_strategy": (("steps",), "the dev split is scored every train.eval_steps steps"),
    "save_strategy": (("steps",), "checkpoints are saved every train.save_steps steps"),
    "load_best_model_at_end": ((True,), "the link `best` of the run folder is always the best checkpoint"),
    "metric_for_best_model": (("eval_loss", "loss"), "train.metric_for_best_model is dev_loss or dev_bleu"),
    "group_by_modality_length": ((False,), "train.max_tokens_per_batch groups clips of similar length"),
    "group_by_length": ((False,), "train.max_tokens_per_batch groups clips of similar length"),
    "freeze_mm_mlp_adapter": ((False,), "projectors are always trained"),
    "pretrain_mm_mlp_adapter": (("", None), "convert it with `signllava checkpoint convert`; set init.projector"),
    "lora_bias": (("none",), "the adapter has no biases"),
    "lora_weight_path": (("", None), "convert it with `signllava checkpoint convert --recipe finetune`"),
    "optim": (("adamw_torch", "adamw_hf"), "the optimizer is AdamW"),
    "adam_epsilon": ((1e-8,), "epsilon is 1e-8"),
    "warmup_steps": ((0,), "train.warmup_ratio is the share of the steps in which the rate rises"),
    "auto_find_batch_size": (
        (False,),
        "the batch size is not in the file: set train.batch_size, and find with --dry-run "
        "which train.micro_batch_size fits",
    ),
    "skip_special_tokens": ((True,), "special tokens are never part of a translation"),
    "num_datapoints": ((-1,), "generate translates the whole split"),
    "deepspeed": ((None, ""), "choose a profile: --launch zero2, zero3, ... (docs/launching.md)"),
}

# The defaults of Sign_LLaVA in training that differ from those of a recipe.
TRAINING_DEFAULTS = {
    "num_train_epochs": 3,
    "learning_rate": 5e-5,
    "lr_scheduler_type": "linear",
    "model_max_length": 512,
    "logging_steps": 500,
    "per_device_train_batch_size": 8,
    "seed": 42,
}


def sections_in(content: object) -> list[str]:
    """The sections of Sign_LLaVA's YAML among the keys of `content`; none if it is another file."""
    keys: Iterable[object] = content if isinstance(content, dict) else ()
    return [key for key in SECTIONS if key in keys]
