"""The sections of a recipe and their settings, each with its type, bounds and default."""

import dataclasses
from typing import Annotated, Any, Literal, TypeVar, cast, dataclass_transform

import yaml
from pydantic import ConfigDict, Field, TypeAdapter
from pydantic.dataclasses import dataclass

from signllava_cli.recipe.lr_schedules import LRSchedulerType

Stage = Literal["pretrain", "finetune"]
Positive = Annotated[int, Field(gt=0, lt=2**31)]
Count = Annotated[int, Field(ge=0, lt=2**31)]
Probability = Annotated[float, Field(ge=0, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0, le=1e6)]
Rate = Annotated[float, Field(gt=0, le=1e6)]
LRSchedulerArg = Annotated[  # left to right: YAML takes 1e-7 for a text
    Annotated[float, Field(allow_inf_nan=False)] | str, Field(union_mode="left_to_right")
]

# Stands where prompts.py takes a chat template apart, so no text of the template may hold it.
PLACEHOLDER = "\N{OBJECT REPLACEMENT CHARACTER}mark\N{OBJECT REPLACEMENT CHARACTER}"

SectionType = TypeVar("SectionType")


@dataclass_transform(kw_only_default=True, frozen_default=True)
def section(cls: type[SectionType]) -> type[SectionType]:
    """A section of the recipe: a frozen dataclass whose values pydantic checks."""
    return cast(type[SectionType], dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))(cls))


@section
class Run:
    """Where the run lives and which random draws it makes."""

    output_dir: str = "runs/signllava"
    seed: Count = 0


@section
class LLM:
    """The language model: a Hugging Face folder or hub id, and the precision it is held in.

    `bits` 16 and 32 hold the weights in `dtype`; 8 and 4 quantize the linear layers with bitsandbytes and
    compute in `dtype`. 4 bits are `bnb_4bit_quant_type`, with quantized constants when `bnb_4bit_use_double_quant`
    (QLoRA, arXiv:2305.14314).
    """

    path: str = "meta-llama/Meta-Llama-3-8B-Instruct"
    revision: str | None = None
    bits: Literal[4, 8, 16, 32] = 16
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    bnb_4bit_quant_type: Literal["nf4", "fp4"] = "nf4"
    bnb_4bit_use_double_quant: bool = True
    attn_implementation: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"


@section
class Stream:
    """One feature stream and its projector.

    `stride` keeps every n-th frame and `max_frames` thins a longer clip evenly. `folder` (default: the
    stream's name under `data.root`), `metadata` and `shards` name files that do not follow the layout of
    the data folder; the last two are patterns with `{split}` and `{shard}`. `layout` names what the numbers of
    the features are (which points, how normalized), where the shards do not say so or are known to be wrong.
    """

    width: Positive
    projector: Annotated[str, Field(pattern=r"^(linear|mlp[1-9]x_gelu)$")] = "mlp2x_gelu"
    normalize_input: bool = True
    normalize_output: bool = True
    stride: Positive = 1
    max_frames: Positive | None = None
    folder: str | None = None
    metadata: str | None = None
    shards: str | None = None
    layout: str | None = None


@section
class Data:
    """The dataset folder, its splits, and what one sequence may hold.

    A sequence longer than `max_seq_len` loses frames first, down to `min_frames` a stream, then context
    sentences; its question and its answer stay whole.
    """

    root: str = "data"
    train: str = "train"
    dev: str = "dev"
    missing: Literal["error", "skip"] = "error"
    max_seq_len: Positive = 2048
    min_frames: Positive = 16
    num_workers: Count = 0


@section
class TaskWeights:
    """How often each task is drawn, in relation to the others."""

    translation: Weight = 1.0
    one_word_present: Weight = 0.0
    multi_word_present: Weight = 0.0
    is_reversed: Weight = 0.0


@section
class Tasks:
    """What is asked of a clip. The texts are stored in every checkpoint.

    `{word}` and `{words}` stand for what is asked about, at most `max_words` at a time; the answers are `yes` and
    `no`. `train` and `dev` weigh the tasks; of the translations in training, a share of `paraphrases` is one of the
    clip's paraphrases.
    """

    system: str = "You are a skilled interpreter who translates sign language into text."
    streams: str = "The signing of one sentence:"
    context: str = "Sentences signed before it:"
    translation: str = "What is signed?"
    one_word_present: str = 'Is the word "{word}" signed? Answer yes or no.'
    multi_word_present: str = "Is each of these words signed: {words}? Answer yes or no for each, in this order."
    is_reversed: str = "Is the video played backwards? Answer yes or no."
    yes: str = "yes"
    no: str = "no"
    max_words: Annotated[int, Field(ge=2, le=100)] = 5
    paraphrases: Share = 0.0
    train: TaskWeights = TaskWeights()
    dev: TaskWeights = TaskWeights()

    def texts(self) -> dict[str, str]:
        """The settings that are texts."""
        return {key: value for key, value in vars(self).items() if isinstance(value, str)}


@section
class Context:
    """How many sentences of the same recording a clip sees: its first `prelude` and the last `window`.

    In training, each example draws its numbers anew where `min_window` or `min_prelude` is given, from there up
    to `window` and `prelude`. It sees the references (`source: gold`), an earlier model's hypotheses
    (`predicted:FILE`, as `generate` wrote them for the training split), or with probability `predicted_share` the
    hypotheses and else the references (`mixed:FILE`). It loses each sentence with probability `sentence_dropout`, and
    all of them with probability `dropout`. The dev split is always scored under all of its gold context.
    """

    window: Count = 0
    prelude: Count = 0
    min_window: Count | None = None
    min_prelude: Count | None = None
    source: str = "gold"
    predicted_share: Share = 0.5
    dropout: Probability = 0.0
    sentence_dropout: Probability = 0.0

    @property
    def predictions(self) -> str | None:
        """The FILE of `predicted:FILE` or `mixed:FILE`."""
        return self.source.partition(":")[2] or None


@section
class Lora:
    """The LoRA adapter that finetune trains (arXiv:2106.09685)."""

    enabled: bool = False
    r: Positive = 64
    lora_alpha: Rate = 16
    lora_dropout: Probability = 0.05
    target_modules: list[str] = dataclasses.field(
        default_factory=lambda: ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    )


@section
class Init:
    """Where trained weights come from: a run, a checkpoint, or a projector.safetensors."""

    projector: str | None = None


@section
class Train:
    """The optimization.

    `batch_size` is the number of clips of one optimizer step over all processes; `micro_batch_size` is what
    one process holds at a time. With `max_tokens_per_batch`, clips of similar length share a step, and one process holds
    as many of them at a time as have that many positions, padding included; `micro_batch_size` then counts in the
    dev loss alone. `learning_rate` is that of whatever the stage adds: the projectors in pretrain, the adapter in
    finetune, where projectors have their own, `projector_learning_rate`. `lr_scheduler_type` is the name of one of
    transformers' schedules, `warmup_ratio` the share of the steps in which the rate rises from zero, also that of
    `constant`; `lr_scheduler_kwargs` go to transformers (recipe/schedules.py names them).

    `reuse_prefix` computes the constant text before the streams once instead of in every sequence. `metric_for_best_model` names
    what decides which checkpoint is best; `dev_bleu` decodes `dev_clips` clips of the dev split (all of them unless
    given) by greedy or beam search, and so excludes `generate.temperature`. `early_stopping_patience` ends the run after so many
    evaluations without a better one. A step whose loss or gradients are not finite stops the run, except that the
    first `skip_nonfinite` such steps are left out. `preflight` tries the longest batch, the dev split and a
    checkpoint before the first step. The run stops, saved, after `stop_at_step` or `max_hours`.
    """

    num_train_epochs: Rate = 1.0
    max_steps: Positive | None = None
    batch_size: Positive = 8
    micro_batch_size: Positive = 8
    max_tokens_per_batch: Positive | None = None
    learning_rate: Rate = 2e-3
    projector_learning_rate: Rate | None = None
    lr_scheduler_type: LRSchedulerType = "cosine"
    lr_scheduler_kwargs: dict[str, LRSchedulerArg] = dataclasses.field(default_factory=dict)
    warmup_ratio: Probability = 0.0
    weight_decay: Annotated[float, Field(ge=0, le=1e6)] = 0.0
    betas: tuple[Probability, Probability] = (0.9, 0.999)
    max_grad_norm: Rate | None = 1.0
    label_smoothing: Probability = 0.0
    gradient_checkpointing: bool = False
    reuse_prefix: bool = True
    torch_compile: bool = False
    eval_steps: Positive = 500
    save_steps: Positive = 500
    save_total_limit: Positive = 2
    metric_for_best_model: Literal["dev_loss", "dev_bleu"] = "dev_loss"
    dev_clips: Positive | None = None
    early_stopping_patience: Positive | None = None
    skip_nonfinite: Count = 0
    preflight: bool = True
    stop_at_step: Positive | None = None
    max_hours: Rate | None = None


@section
class Generate:
    """How hypotheses are decoded, unless the command line says otherwise.

    Hypotheses are searched for by `num_beams` (1: greedily) or, with a `temperature`, sampled, each clip by random
    numbers of its own from `seed`, among the `top_k` likeliest tokens (0: all) that make up `top_p`. Of the
    `num_return_sequences` best or sampled, the first is the translation; with `mbr`, the one that agrees most with the others.
    A translation whose score, its mean log-probability, is below `abstain` is left empty, and counted.

    `batch_size` clips are decoded at a time, fewer where they would take more than `max_tokens_per_batch` positions.
    A clip before, without features, leaves nothing in the context (`missing_context: skip`) or its reference.
    Gold context may also come from the splits `context_from`, where a benchmark divides recordings over splits.

    `task` is what is asked, or `task_prompt`, a question of your own. `ablate` leaves streams out, and `features`
    shows another clip's frames or zeros instead: a model that looks at the video must be worse for it.
    """

    split: str = "test"
    context_source: str = "gold"
    missing_context: Literal["skip", "gold"] = "skip"
    context_from: list[str] = dataclasses.field(default_factory=list)
    task: Literal["translation", "one_word_present", "multi_word_present", "is_reversed"] = "translation"
    task_prompt: Annotated[str, Field(min_length=1)] | None = None
    num_beams: Positive = 5
    max_new_tokens: Positive = 100
    min_new_tokens: Count = 0
    length_penalty: Annotated[float, Field(allow_inf_nan=False)] = 1.0
    repetition_penalty: Rate = 1.0
    no_repeat_ngram_size: Count = 0
    temperature: Rate | None = None
    top_k: Count = 0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    seed: Count = 0
    num_return_sequences: Positive = 1
    mbr: Literal["chrf", "bleu"] | None = None
    abstain: Annotated[float, Field(le=0, allow_inf_nan=False)] | None = None
    batch_size: Positive = 8
    max_tokens_per_batch: Positive | None = None
    ablate: list[str] = dataclasses.field(default_factory=list)
    features: Literal["own", "shuffled", "zero"] = "own"


@section
class Track:
    """How often and where the run reports: every `logging_steps` optimizer steps, to metrics.jsonl and the trackers `report_to`.

    `project` is what wandb and trackio call a project, and mlflow an experiment.
    """

    logging_steps: Positive = 10
    report_to: list[Literal["tensorboard", "wandb", "mlflow", "trackio"]] = dataclasses.field(default_factory=list)
    project: Annotated[str, Field(min_length=1)] = "signllava"


@section
class Launch:
    """The launch profile of `accelerate_configs/` (a name or a file); none: this process alone.

    `num_processes` (over all machines) and `num_machines` beat the profile's. On several machines the same command
    runs on each, with its own `machine_rank` from 0 on, and the `main_process_address` (HOST:PORT) of machine 0.
    """

    profile: str | None = None
    num_processes: Positive | None = None
    num_machines: Positive | None = None
    machine_rank: Count = 0
    main_process_address: Annotated[str, Field(pattern=r"^[^:\s]+:[0-9]{1,5}$")] | None = None


@section
class Recipe:
    """Everything about a run. Read with `read_recipe`, written with `Recipe.to_yaml`."""

    run: Run = Run()
    llm: LLM = LLM()
    streams: dict[str, Stream] = dataclasses.field(default_factory=dict)
    data: Data = Data()
    tasks: Tasks = Tasks()
    context: Context = Context()
    lora: Lora = dataclasses.field(default_factory=Lora)
    init: Init = Init()
    train: Train = Train()
    generate: Generate = Generate()
    track: Track = Track()
    launch: Launch = Launch()

    def to_dict(self) -> dict[str, Any]:
        """The resolved settings as plain YAML/JSON values."""
        return cast(dict[str, Any], TypeAdapter(Recipe).dump_python(self, mode="json", by_alias=True))

    def to_flat_dict(self) -> dict[str, Any]:
        """The resolved settings, each under its whole key, such as `train.learning_rate`."""

        def flat(config: dict[str, Any], prefix: str) -> dict[str, Any]:
            found: dict[str, Any] = {}
            for key, value in config.items():
                found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
            return found

        return flat(self.to_dict(), "")

    def to_yaml(self) -> str:
        """The resolved recipe as a YAML file that reads back to the same recipe."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, allow_unicode=True, width=100)
