"""The sections of a recipe about the network: the LLM, the streams with their projectors, the LoRA adapter."""

import dataclasses
from typing import Annotated, Literal

from pydantic import Field

from signllava_cli.recipe.setting_types import ALL_LINEAR, Modules, Positive, Probability, Rate, section


@section
class LLM:
    """The language model: where it is, and the precision that its weights are held in."""

    path: str = "meta-llama/Meta-Llama-3-8B-Instruct"
    """Folder or Hugging Face hub id of the LLM; docs/llms.md lists what was tried. The default is the LLM of
    Sign_LLaVA. In Sign_LLaVA: `model_name_or_path` in training, `model_base` in generation."""
    revision: str | None = None
    """Branch, tag or commit of the LLM on the hub. `null`: the main branch. Name a commit to be able to repeat a run
    exactly. In transformers: `revision` of `from_pretrained`."""
    bits: Literal[4, 8, 16, 32] = 16
    """Bits per weight of the LLM. 16 and 32 hold the weights in `llm.dtype`; 8 and 4 quantize the linear layers with
    bitsandbytes and compute in `llm.dtype`. Llama-3-8B takes about 16 GB at 16 bits and 6 GB at 4. The default loses
    no precision; finetune recipes use 4 (QLoRA, arXiv:2305.14314). In transformers: `load_in_8bit`,
    `load_in_4bit`."""
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    """Data type of the LLM's weights that are not quantized, and of its arithmetic. bfloat16 has the range of float32
    at half the memory; float16 is accepted in generation alone, as training would need loss scaling. Projectors and
    adapter are held in float32 whatever this is. In transformers: `dtype`, `bf16`, `fp16`."""
    bnb_4bit_quant_type: Literal["nf4", "fp4"] = "nf4"
    """Number format of 4-bit weights. Has an effect with `llm.bits: 4` alone; nf4 is the more exact one (QLoRA). In
    transformers: `bnb_4bit_quant_type` of `BitsAndBytesConfig`; in Sign_LLaVA: `quant_type`."""
    bnb_4bit_use_double_quant: bool = True
    """Whether the quantization constants of 4-bit weights are quantized too. Saves about 0.4 bits per weight at no
    measurable loss (QLoRA), hence the default. In transformers: `bnb_4bit_use_double_quant`; in Sign_LLaVA:
    `double_quant`."""
    attn_implementation: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    """Attention kernel of the LLM. `sdpa` is PyTorch's own. For a class that has it, only with `sdpa` is the constant
    text of a prompt computed once (`train.reuse_prefix`) and are clips decoded in one running batch.
    Classes that lack it (such as GPT-OSS, Gemma-2, BLOOM) get `eager`, which is printed. In transformers:
    `attn_implementation`."""


@section
class Conv:
    """Convolutions over time before the layers of a projector."""

    kernel: Positive = 3
    """Frames that one output of a convolution reads. At least `stride`, so that no frame is skipped; 3 is that of
    Whisper (arXiv:2212.04356)."""
    stride: Positive = 2
    """Frames from one output of a convolution to the next. Each layer divides the length by it, rounded up; 2 is that
    of Whisper."""
    layers: Annotated[int, Field(gt=0, lt=10)] = 1
    """Number of convolutions, all alike. Two of stride 2 leave a quarter of the length."""


@section
class Stream:
    """One feature stream NAME and its projector. Streams follow each other in the order of the recipe."""

    width: Positive
    """Numbers in one feature vector of the stream. It has no default: it is that of the feature files, such as 768
    for MAE. In Sign_LLaVA: `dim`."""
    projector: Annotated[str, Field(pattern=r"^(linear|mlp[1-9]x_gelu)$")] = "mlp2x_gelu"
    """Architecture of the projector: `linear`, or `mlpNx_gelu` with N layers. `mlp2x_gelu` is that of LLaVA-1.5 and
    Sign_LLaVA. In Sign_LLaVA: `projector_type`."""
    normalize_input: bool = True
    """Whether a layer norm stands before the projector. Streams of different tools differ in scale, hence the
    default; Sign_LLaVA has none."""
    normalize_output: bool = True
    """Whether a layer norm stands after the projector. It brings vectors to the scale of the LLM's embeddings from
    the first step on, hence the default; Sign_LLaVA has none."""
    stack: Positive = 1
    """Frames in a row that the projector concatenates into one embedding. It divides the length of the stream,
    rounded up: the last group is filled with zeros. 1 makes an embedding of each frame; 5 is that of SLAM-ASR
    (arXiv:2402.08846) and LLaMA-Omni (arXiv:2409.06666). In SLAM-ASR: `encoder_projector_ds_rate`."""
    conv: Conv | None = None
    """Convolutions over time before the layers of the projector, each followed by GELU. They shorten the stream as
    those of speech LLMs do, such as Qwen2-Audio's pooling (arXiv:2407.10759), and cannot be combined with `stack`.
    `null`, the default: none."""
    join: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")] | None = None
    """Name of a group of streams with one projector, which reads their frames side by side. So they take the length
    of one stream instead of standing one after the other. They need the same number of frames per second; a few
    frames at the end that not all of them have are cut. `null`: the stream has a projector of its own."""
    stride: Positive = 1
    """Keep every n-th frame. 1 keeps all frames; 2 halves sequence length and memory of the stream."""
    max_frames: Positive | None = None
    """Frames of a clip at most; a longer clip is subsampled evenly. `null`: no bound but `data.max_seq_len`."""
    folder: str | None = None
    """Folder of the stream's files. `null`: the folder of the stream's name in `data.root`."""
    metadata: str | None = None
    """Name of the metadata file, with `{split}` in it. `null`: the name in the layout of the dataset folder. In
    Sign_LLaVA: `visual_features.NAME.train` and its like."""
    shards: str | None = None
    """Name of the shards, with `{split}` and `{shard}` in it. `null`: the name in the layout of the dataset
    folder."""
    layout: str | None = None
    """What the numbers of a feature vector are: which points, how normalized. `null`: as the shards state it. Set it
    where the shards do not state it or are known to be wrong; a checkpoint refuses features of another layout."""

    @property
    def architecture(self) -> str:
        """The projector in words, such as `mlp2x_gelu, stack 4`."""
        parts = [self.projector]
        if self.stack > 1:
            parts.append(f"stack {self.stack}")
        if self.conv:
            parts.append(f"conv of kernel {self.conv.kernel}, stride {self.conv.stride}, layers {self.conv.layers}")
        if self.join:
            parts.append(f"joined in {self.join}")
        return ", ".join(parts)


@section
class Lora:
    """The LoRA adapter that finetune trains (arXiv:2106.09685). The keys are those of PEFT's `LoraConfig`."""

    enabled: bool = False
    """Whether the LLM gets a LoRA adapter. finetune needs true, pretrain false. In Sign_LLaVA: `lora_enable`."""
    r: Positive = 64
    """Rank of the adapter's matrices. Parameters and optimizer state grow with it; 64 is that of QLoRA and
    Sign_LLaVA. In PEFT: `r`; in Sign_LLaVA: `lora_r`."""
    lora_alpha: Rate = 16
    """Scale of the adapter: its output is multiplied by `lora_alpha / r`. 16 is that of QLoRA and Sign_LLaVA. In PEFT
    and Sign_LLaVA: `lora_alpha`."""
    lora_dropout: Probability = 0.05
    """Dropout probability on the adapter's input. 0.05 is that of Sign_LLaVA; it must be 0 if parameters get an
    adapter, such as the experts of a mixture of experts. In PEFT and Sign_LLaVA: `lora_dropout`."""
    target_modules: Modules = ALL_LINEAR
    """Names of the LLM's modules that get an adapter. `all-linear` is every linear layer except the LM head, which
    QLoRA found necessary to match full finetuning, and is what Sign_LLaVA adapts. The run prints the share of the
    layers' weights that is adapted. Experts of a mixture of experts are parameters, not modules: for some LLMs PEFT
    includes them in `all-linear`, for others they are `lora.target_parameters`. In PEFT: `target_modules`."""
    target_parameters: list[str] = dataclasses.field(default_factory=list)
    """Names of parameters outside of linear layers that get an adapter, such as experts. Those of GPT-OSS are
    `[experts.gate_up_proj, experts.down_proj]`. They need `lora.lora_dropout: 0`, because PEFT adds the adapter to
    the parameter, not to the output of a layer. In PEFT: `target_parameters`."""


@section
class Init:
    """Where trained weights come from at the start of a run."""

    projector: str | None = None
    """Pretrained projectors: a run (its best checkpoint), a checkpoint or a projector.safetensors. `null`: drawn at
    random from `run.seed`. In Sign_LLaVA: `pretrained_projector_ckpt`, after `signllava checkpoint convert`."""
