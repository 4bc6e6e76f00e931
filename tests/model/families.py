"""Tiny random models of the architecture classes that people bring, each as a Hugging Face folder.

`write_family(name, folder)` builds the real class of transformers from its config. Settings that change what a model
computes (scales of logits and embeddings, soft caps, windows, per-layer inputs) have values that a mistake cannot
hide behind. Sizes fit bitsandbytes: multiples of 64.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

VOCABULARY, HIDDEN, WINDOW = 512, 64, 12
SEED = 3


@dataclass(frozen=True)
class Family:
    """An architecture: `config` are the keyword arguments of the config of `model_type` (transformers' name).

    `notes`: what is special about it. `auto_class`: the class of transformers that makes the model of the folder.
    """

    name: str
    model_type: str
    config: dict[str, Any] = field(default_factory=dict)
    notes: str = ""
    auto_class: str = "AutoModelForCausalLM"

    def make_config(self) -> Any:
        """The config of the tiny model."""
        from transformers import AutoConfig

        return AutoConfig.for_model(self.model_type, **self.config)


# Names that most configs share; those that lack one of them get only their own.
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": HIDDEN,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 1024,
    "initializer_range": 0.15,
    "tie_word_embeddings": False,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 2,
}
GPT2_SIZES = {
    "vocab_size": VOCABULARY,
    "n_embd": HIDDEN,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 1024,
    "initializer_range": 0.15,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 2,
}
MAMBA_SIZES = {
    "mamba_n_heads": 32,
    "mamba_d_head": 4,
    "mamba_d_ssm": 128,
    "mamba_d_state": 64,
    "mamba_n_groups": 1,
    "mamba_expand": 2,
    "mamba_chunk_size": 16,
}
LATENT_SIZES = {  # multi-head latent attention: keys of 32 + 32, values of 16
    "num_key_value_heads": 4,
    "q_lora_rank": 64,
    "kv_lora_rank": 64,
    "qk_nope_head_dim": 32,
    "qk_rope_head_dim": 32,
    "v_head_dim": 16,
    "head_dim": 32,
}
GRANITE = {
    "embedding_multiplier": 6.0,
    "logits_scaling": 0.25,
    "residual_multiplier": 0.6,
    "attention_multiplier": 0.1,
}
ALTERNATING = ["sliding_attention", "full_attention"]
GEMMA_ROPE = {
    "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
    "full_attention": {"rope_type": "default", "rope_theta": 1000000.0},
}


VISION = {
    "hidden_size": HIDDEN,
    "intermediate_size": 128,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "image_size": 32,
    "patch_size": 16,
}


def _without(config: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in keys}


def _sized(name: str, model_type: str, notes: str = "", /, **config: Any) -> Family:
    return Family(name, model_type, SIZES | config, notes)


def _gpt2_sized(name: str, model_type: str, notes: str = "", /, **config: Any) -> Family:
    return Family(name, model_type, GPT2_SIZES | config, notes)


_ALL = [
    _sized("llama", "llama"),
    _sized("llama4", "llama4_text", "chunked attention; mixture of experts",
           intermediate_size_mlp=128, num_local_experts=4, attention_chunk_size=16, num_hidden_layers=4),
    _sized("qwen2", "qwen2"),
    _sized("qwen3", "qwen3"),
    _sized("qwen3_moe", "qwen3_moe", "mixture of experts",
           moe_intermediate_size=64, num_local_experts=4, num_experts_per_tok=2),
    _sized("qwen3_5", "qwen3_5_text", "linear attention in most layers",
           num_hidden_layers=4, linear_key_head_dim=16, linear_value_head_dim=16, linear_num_key_heads=4,
           linear_num_value_heads=4),
    _sized("qwen3_next", "qwen3_next", "linear attention; mixture of experts",
           num_hidden_layers=4, linear_key_head_dim=16, linear_value_head_dim=16, linear_num_key_heads=4,
           linear_num_value_heads=4, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=64,
           shared_expert_intermediate_size=64),
    _sized("olmo", "olmo", "norms without weights"),
    _sized("olmo2", "olmo2"),
    _sized("olmo3", "olmo3", "windows in some layers", sliding_window=WINDOW, layer_types=ALTERNATING),
    _sized("olmoe", "olmoe", "mixture of experts", num_experts=4, num_experts_per_tok=2),
    _sized("mistral", "mistral", "a window in every layer", sliding_window=WINDOW),
    _sized("ministral", "ministral", "windows in some layers", sliding_window=WINDOW, layer_types=ALTERNATING),
    _sized("mixtral", "mixtral", "mixture of experts",
           num_local_experts=4, num_experts_per_tok=2, sliding_window=None),
    _sized("phi", "phi"),
    _sized("phi3", "phi3", "fused projections", sliding_window=None),
    _sized("phimoe", "phimoe", "mixture of experts; jitter", num_local_experts=4, input_jitter_noise=0.1),
    _sized("smollm3", "smollm3", "no rotation in some layers", num_hidden_layers=4),
    _sized("gemma", "gemma", "scaled embedding", tie_word_embeddings=True),
    _sized("gemma2", "gemma2", "scaled embedding; soft caps; windows", tie_word_embeddings=True,
           query_pre_attn_scalar=16, sliding_window=WINDOW, layer_types=ALTERNATING, final_logit_softcapping=3.0,
           attn_logit_softcapping=2.0),
    _sized("gemma3", "gemma3_text", "scaled embedding; windows, with a rotation of their own",
           tie_word_embeddings=True, query_pre_attn_scalar=16, sliding_window=WINDOW, layer_types=ALTERNATING,
           rope_parameters=GEMMA_ROPE),
    _sized("gemma3n", "gemma3n_text", "per-layer inputs; soft cap; windows", tie_word_embeddings=True,
           num_hidden_layers=4, sliding_window=WINDOW, layer_types=ALTERNATING * 2, final_logit_softcapping=3.0,
           vocab_size_per_layer_input=VOCABULARY, hidden_size_per_layer_input=64, num_kv_shared_layers=2,
           intermediate_size=[128] * 4, activation_sparsity_pattern=[0.0] * 4, altup_num_inputs=2, laurel_rank=64,
           rope_parameters=GEMMA_ROPE),
    _sized("gemma4", "gemma4_text", "soft cap; windows", tie_word_embeddings=True,
           sliding_window=WINDOW, layer_types=ALTERNATING, final_logit_softcapping=3.0, global_head_dim=16,
           vocab_size_per_layer_input=VOCABULARY, hidden_size_per_layer_input=0),
    _sized("gemma4_per_layer", "gemma4_text", "per-layer inputs; soft cap; windows", tie_word_embeddings=True,
           sliding_window=WINDOW, layer_types=ALTERNATING, final_logit_softcapping=3.0, global_head_dim=16,
           vocab_size_per_layer_input=VOCABULARY, hidden_size_per_layer_input=64),
    _sized("vaultgemma", "vaultgemma", "scaled embedding; soft caps; windows",
           query_pre_attn_scalar=16, sliding_window=WINDOW, layer_types=ALTERNATING, final_logit_softcapping=3.0,
           attn_logit_softcapping=2.0),
    _sized("recurrentgemma", "recurrent_gemma", "recurrent layers; soft cap; window",
           num_hidden_layers=3, lru_width=HIDDEN, attention_window_size=WINDOW, logits_soft_cap=3.0,
           w_init_variance_scale=1.0, tie_word_embeddings=True),
    _sized("cohere", "cohere", "scaled logits", logit_scale=0.3),
    _sized("cohere2", "cohere2", "scaled logits; windows",
           logit_scale=0.3, sliding_window=WINDOW, layer_types=ALTERNATING),
    _sized("granite", "granite", "scaled embedding, residuals, attention and logits", **GRANITE),
    _sized("granitemoe", "granitemoe", "as Granite; mixture of experts",
           num_local_experts=4, num_experts_per_tok=2, **GRANITE),
    _sized("granitemoehybrid", "granitemoehybrid", "as Granite; Mamba layers; mixture of experts",
           num_local_experts=4, num_experts_per_tok=2, shared_intermediate_size=64,
           layer_types=["mamba", "attention"], **(GRANITE | MAMBA_SIZES)),
    _sized("hyperclovax", "hyperclovax", "scaled embedding, residuals, attention and logits",
           **(GRANITE | {"logits_scaling": 3.0})),
    _sized("gpt_oss", "gpt_oss", "attention sinks; windows; mixture of experts",
           num_local_experts=4, num_experts_per_tok=2, sliding_window=WINDOW, layer_types=ALTERNATING),
    _gpt2_sized("gpt2", "gpt2", "learned positions; dropout"),
    _gpt2_sized("gpt_bigcode", "gpt_bigcode", "learned positions; one key head; dropout"),
    _gpt2_sized("gptj", "gptj", rotary_dim=8),
    _sized("gpt_neox", "gpt_neox", attention_bias=True),
    Family("bloom", "bloom", {
        "vocab_size": VOCABULARY, "hidden_size": HIDDEN, "n_layer": 2, "n_head": 4, "initializer_range": 0.15,
        "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 2, "tie_word_embeddings": False,
    }, "linear position biases"),
    _sized("opt", "opt", "learned positions; dropout",
           ffn_dim=128, word_embed_proj_dim=HIDDEN, init_std=0.15, dropout=0.1),
    Family("falcon", "falcon", _without(SIZES, "head_dim", "num_key_value_heads") | {
        "hidden_dropout": 0.1, "attention_dropout": 0.1,
    }, "one key head; fused projections; dropout"),
    _sized("falcon_h1", "falcon_h1", "embedding scaled for ids alone; scaled logits; Mamba in every layer",
           embedding_multiplier=5.0, lm_head_multiplier=0.3, **MAMBA_SIZES),
    _sized("bamba", "bamba", "Mamba layers", attn_layer_indices=[1], **MAMBA_SIZES),
    _sized("nemotron_h", "nemotron_h", "Mamba layers",
           layers_block_type=["mamba", "mlp", "attention"], ssm_state_size=64, mamba_num_heads=32, mamba_head_dim=4,
           n_groups=1, chunk_size=16),
    Family("mamba2", "mamba2", {
        "vocab_size": VOCABULARY, "hidden_size": HIDDEN, "num_hidden_layers": 2, "num_heads": 32, "head_dim": 4,
        "state_size": 64, "n_groups": 1, "chunk_size": 16, "initializer_range": 0.15, "pad_token_id": 0,
        "bos_token_id": 2, "eos_token_id": 2,
    }, "no attention"),
    _sized("jamba", "jamba", "Mamba layers; mixture of experts",
           num_experts=2, attn_layer_period=2, attn_layer_offset=1, mamba_d_state=16, mamba_dt_rank=64,
           use_mamba_kernels=False),
    _sized("lfm2", "lfm2", "convolutions in some layers",
           layer_types=["conv", "full_attention"], block_auto_adjust_ff_dim=False),
    _sized("deepseek_v2", "deepseek_v2", "values narrower than keys; mixture of experts",
           n_routed_experts=4, num_experts_per_tok=2, n_shared_experts=1, moe_intermediate_size=64,
           first_k_dense_replace=1, **LATENT_SIZES),
    _sized("deepseek_v3", "deepseek_v3", "values narrower than keys; mixture of experts",
           n_routed_experts=4, num_experts_per_tok=2, n_shared_experts=1, moe_intermediate_size=64, n_group=1,
           topk_group=1, first_k_dense_replace=1, **LATENT_SIZES),
    _sized("minicpm3", "minicpm3", "values narrower than keys; scaled embedding and logits",
           scale_emb=12, dim_model_base=16, **LATENT_SIZES),
    _sized("nanochat", "nanochat", "soft cap; norms without weights", final_logit_softcapping=3.0),
    _sized("seed_oss", "seed_oss", "dropout", attention_dropout=0.1, residual_dropout=0.1),
    _sized("starcoder2", "starcoder2", "a window in every layer; dropout",
           sliding_window=WINDOW, residual_dropout=0.1, embedding_dropout=0.1),
    _sized("stablelm", "stablelm", "part of each head is rotated"),
    _sized("glm4", "glm4", "part of each head is rotated"),
    _sized("exaone4", "exaone4", "windows in some layers",
           num_hidden_layers=4, sliding_window=WINDOW, sliding_window_pattern=4),
    _sized("nemotron", "nemotron", "squared ReLU; norms of 1 + weight"),
    _sized("helium", "helium"),
    _sized("ernie4_5", "ernie4_5"),
    _sized("arcee", "arcee"),
    _sized("apertus", "apertus"),
]  # fmt: skip
_TEXT = {family.name: family for family in _ALL}


def _multimodal(model_type: str, vision: dict[str, Any], **config: Any) -> Family:
    """The class with images of a family above: its text model is inside."""
    text, notes = _TEXT[model_type], "text model inside a class with images"
    names = {"pad_token_id": 0, "bos_token_id": None, "eos_token_id": 2, "tie_word_embeddings": False}
    text_config = text.config | {"model_type": text.model_type}
    parts = {"text_config": text_config, "vision_config": VISION | vision}
    return Family(
        f"{model_type}_multimodal", model_type, names | parts | config, notes, "AutoModelForImageTextToText"
    )


FAMILIES: dict[str, Family] = _TEXT | {
    family.name: family
    for family in [
        _multimodal("gemma3", {}, mm_tokens_per_image=4, tie_word_embeddings=True, image_token_index=500),
        _multimodal(
            "gemma4", {}, tie_word_embeddings=True, image_token_id=500, video_token_id=501, audio_token_id=502
        ),
        _multimodal("llama4", {"projector_input_dim": HIDDEN, "projector_output_dim": HIDDEN}),
    ]
}

TEXT = (
    "system\n user\n assistant\n You translate sign language videos. Translate the video into English. The cat sits."
)


def make_tokenizer() -> Any:
    """The tokenizer of the tiny LLM, of other texts."""
    from signllava_cli.model.tiny_llm import train_tokenizer

    return train_tokenizer([TEXT] * 10)


def make_llm(name: str) -> Any:
    """The tiny model of a family with seeded random weights, in float32 and eval mode."""
    import torch
    import transformers

    torch.manual_seed(SEED)
    family = FAMILIES[name]
    llm = getattr(transformers, family.auto_class).from_config(family.make_config(), dtype=torch.float32)
    with torch.no_grad():  # norms of ones and biases of zeros would hide that one of them is skipped
        for parameter in llm.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return llm.eval()


def write_family(name: str, folder: Path) -> Path:
    """Write the model and the tokenizer of a family to `folder`, which is returned."""
    make_llm(name).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder
