"""The sections of a recipe about training: the run, the optimization, and what is reported."""

import dataclasses
from typing import Annotated, Literal

from pydantic import Field

from signllava_cli.recipe.lr_schedules import LRSchedulerType
from signllava_cli.recipe.setting_types import Count, Positive, Probability, Rate, section

LRSchedulerArg = Annotated[  # left to right: YAML reads 1e-7 as a text
    Annotated[float, Field(allow_inf_nan=False)] | str, Field(union_mode="left_to_right")
]


@section
class Run:
    """Where the run is stored, and its random numbers."""

    output_dir: str = "runs/signllava"
    """The run folder: checkpoints, metrics.jsonl and log.txt. The same command on an existing run resumes it. In
    transformers and Sign_LLaVA: `output_dir`."""
    seed: Count = 0
    """Seed of every random choice in training: initial weights, order, tasks, context and dropout. In transformers
    and Sign_LLaVA: `seed`, where `data_seed` alone decides the order."""


@section
class Train:
    """The optimization. The loss of a step is the mean over its target tokens, however the step is divided."""

    num_train_epochs: Rate = 1.0
    """Passes over the training split; fractions are allowed. In transformers and Sign_LLaVA: `num_train_epochs`."""
    max_steps: Positive | None = None
    """Optimizer steps of the run, instead of `train.num_train_epochs`. The schedule ends there. `null`: as many as
    the epochs take. In transformers: `max_steps`."""
    batch_size: Positive = 8
    """Clips of one optimizer step, over all processes. In transformers: `per_device_train_batch_size` x
    `gradient_accumulation_steps` x processes. In DeepSpeed: `train_batch_size`."""
    micro_batch_size: Positive = 8
    """Clips that one process holds at a time. It changes memory and speed, not the loss; `train.batch_size` must be a
    multiple of it. In transformers and Sign_LLaVA: `per_device_train_batch_size`; in DeepSpeed:
    `train_micro_batch_size_per_gpu`."""
    max_tokens_per_batch: Positive | None = None
    """Tokens that one process holds at a time, padding included, instead of `micro_batch_size` clips. Clips of
    similar length then share a step, which saves padding. `null`: batches are counted in clips, in random order. In
    fairseq: `max_tokens`; in transformers: `group_by_length` is related."""
    learning_rate: Rate = 2e-3
    """Peak learning rate: of the projectors in pretrain, of the adapter in finetune. 2e-3 suits projectors, as in
    Sign_LLaVA's pretraining; an adapter needs about 2e-5. In transformers and Sign_LLaVA: `learning_rate`."""
    projector_learning_rate: Rate | None = None
    """Peak learning rate of the projectors in finetune. `null`: `train.learning_rate`. In Sign_LLaVA:
    `mm_projector_lr`."""
    lr_scheduler_type: LRSchedulerType = "cosine"
    """Learning-rate schedule, by its name in transformers. cosine is that of LLaVA and Sign_LLaVA's configurations.
    In transformers and Sign_LLaVA: `lr_scheduler_type`."""
    lr_scheduler_kwargs: dict[str, LRSchedulerArg] = dataclasses.field(default_factory=dict)
    """Options of the schedule, such as `{min_lr_rate: 0.1}`. docs/tracking.md lists those of each schedule. In
    transformers and Sign_LLaVA: `lr_scheduler_kwargs`."""
    warmup_ratio: Probability = 0.0
    """Share of the steps in which the learning rate rises from zero. It also applies to `constant`. In transformers
    and Sign_LLaVA: `warmup_ratio`."""
    weight_decay: Annotated[float, Field(ge=0, le=1e6)] = 0.0
    """Weight decay of AdamW. Biases, norms and boundary vectors do not decay. In transformers and Sign_LLaVA:
    `weight_decay`."""
    betas: tuple[Probability, Probability] = (0.9, 0.999)
    """Decay rates of AdamW's first and second moment. The default is PyTorch's. In transformers: `adam_beta1`,
    `adam_beta2`."""
    max_grad_norm: Rate | None = 1.0
    """Norm that gradients are clipped to, over all trained parameters. `null`: no clipping. In transformers and
    Sign_LLaVA: `max_grad_norm`."""
    label_smoothing: Probability = 0.0
    """Label smoothing of the cross-entropy. In transformers and Sign_LLaVA: `label_smoothing_factor`."""
    gradient_checkpointing: bool = False
    """Whether activations are computed again in the backward pass instead of stored. Less memory, about a third more
    time. In transformers and Sign_LLaVA: `gradient_checkpointing`."""
    reuse_prefix: bool = True
    """Whether the constant text before the streams is computed once instead of in every sequence. Saves time in
    pretrain, where the LLM is frozen; compared with the plain computation at the start, and switched off where the
    LLM gives other results with it."""
    deterministic: bool = False
    """Whether GPUs sum in a fixed order, as CPUs do. A run that is repeated or resumed on the same number and kind of
    GPUs then has the same weights, bit for bit; some sums take longer. In transformers: `full_determinism`."""
    torch_compile: bool = False
    """Whether torch.compile compiles the LLM's layers. The first step takes a minute more; on GPUs all others are
    about a third faster and need a fifth less memory (docs/gpu.md). In transformers: `torch_compile`."""
    eval_steps: Positive = 500
    """Optimizer steps between two evaluations of the dev split. In transformers and Sign_LLaVA: `eval_steps`."""
    save_steps: Positive = 500
    """Optimizer steps between two checkpoints. A killed run loses at most so many steps. In transformers and
    Sign_LLaVA: `save_steps`."""
    save_total_limit: Positive = 2
    """Checkpoints that are kept, the newest ones. The best one is kept in any case. In transformers and Sign_LLaVA:
    `save_total_limit`."""
    metric_for_best_model: Literal["dev_loss", "dev_bleu"] = "dev_loss"
    """What decides which checkpoint is best. `dev_bleu` decodes clips of the dev split with the settings of
    `generate`, so it takes longer and excludes `generate.temperature`. In transformers: `metric_for_best_model`."""
    dev_clips: Positive | None = None
    """Clips that dev BLEU is computed on, evenly spread over the split. `null`: all of them. Has an effect with
    `train.metric_for_best_model: dev_bleu` alone."""
    early_stopping_patience: Positive | None = None
    """Evaluations without a better one after which the run ends. `null`: never. In transformers:
    `early_stopping_patience` of `EarlyStoppingCallback`."""
    skip_nonfinite: Count = 0
    """Steps with a loss or gradients that are not finite that are skipped at most. The next such step stops the run
    and names its clips; 0 stops at the first, since it mostly means damaged features."""
    preflight: bool = True
    """Whether the longest batch, the dev split and a checkpoint are tried before the first step. Finds out-of-memory
    and a full disk in the first minute."""
    stop_at_step: Positive | None = None
    """Optimizer step after which the run saves and stops once; the same command resumes it. Unlike `train.max_steps`,
    the schedule does not end there."""
    max_hours: Rate | None = None
    """Hours after the start of the process at which the run saves and stops, with exit code 75. For jobs with a time
    limit; the same command resumes the run."""


@section
class Track:
    """How often a run reports, and to which trackers."""

    logging_steps: Positive = 10
    """Optimizer steps between two lines of metrics.jsonl. In transformers and Sign_LLaVA: `logging_steps`."""
    report_to: list[Literal["tensorboard", "wandb", "mlflow", "trackio"]] = dataclasses.field(default_factory=list)
    """Trackers that metrics are sent to, besides metrics.jsonl. They are packages of their own (`pip install
    "signllava[track]"`). In transformers: `report_to`, which means all that are installed by default."""
    project: Annotated[str, Field(min_length=1)] = "signllava"
    """Project of wandb and trackio, experiment of mlflow. In wandb: `WANDB_PROJECT`."""
