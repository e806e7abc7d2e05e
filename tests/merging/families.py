"""Tiny random families of the architectures that people merge: a base and two models near it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import PreTrainedModel

from tests.merging.tiny import save_tokenizer

NAMES = ("base", "one", "two")
_TEXT = {
    "vocab_size": 40,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": 1,
}
_HEADS = {"head_dim": 8}
_LOCAL = {"num_local_experts": 4, "num_experts_per_tok": 2}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
_ROUTED = {
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "topk_group": 1,
    "first_k_dense_replace": 1,
}
_LATENT = {
    "num_key_value_heads": 4,
    "q_lora_rank": None,
    "kv_lora_rank": 8,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
}


def _build(name: str, configuration: str | None = None, **extra: Any) -> PreTrainedModel:
    config = getattr(transformers, f"{configuration or name}Config")(**{**_TEXT, **extra})
    return getattr(transformers, f"{name}ForCausalLM")(config)


def _gemma3_with_eyes() -> PreTrainedModel:
    """Gemma 3 as its larger sizes are published: the text model beside one that sees."""
    vision = {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 16,
        "patch_size": 8,
    }
    config = transformers.Gemma3Config(
        text_config={**_TEXT, **_HEADS},
        vision_config=vision,
        mm_tokens_per_image=4,
        image_token_index=39,
        boi_token_index=38,
        eoi_token_index=37,
    )
    return transformers.Gemma3ForConditionalGeneration(config)


_KNOWN: Mapping[str, Callable[[], PreTrainedModel]] = {
    "llama": partial(_build, "Llama"),
    "qwen2": partial(_build, "Qwen2", tie_word_embeddings=True),
    "qwen3": partial(_build, "Qwen3", **_HEADS),
    "gemma2": partial(_build, "Gemma2", **_HEADS),
    "gemma3": partial(_build, "Gemma3", "Gemma3Text", **_HEADS),
    "phi3": partial(_build, "Phi3"),
    "mistral": partial(_build, "Mistral", **_HEADS),
    "olmo2": partial(_build, "Olmo2"),
    "smollm3": partial(_build, "SmolLM3"),
    "granite": partial(_build, "Granite"),
    "mixtral": partial(_build, "Mixtral", **_LOCAL),
    "qwen3_moe": partial(_build, "Qwen3Moe", **_HEADS, **_EXPERTS),
    "gpt_neox": partial(_build, "GPTNeoX"),
}
_OTHERS: Mapping[str, Callable[[], PreTrainedModel]] = {
    "gemma3 with eyes": _gemma3_with_eyes,
    "qwen2_moe": partial(_build, "Qwen2Moe", **_EXPERTS, shared_expert_intermediate_size=24),
    "olmoe": partial(_build, "Olmoe", num_experts=4, num_experts_per_tok=2),
    "deepseek_v3": partial(_build, "DeepseekV3", **{**_LATENT, **_ROUTED, "n_group": 2}),
    "glm4_moe": partial(_build, "Glm4Moe", **{**_HEADS, **_ROUTED, "n_group": 1}),
    "phimoe": partial(_build, "Phimoe", **_LOCAL),
    "granitemoe": partial(_build, "GraniteMoe", **_LOCAL),
    "gpt_oss": partial(
        _build, "GptOss", **_HEADS, **_LOCAL, layer_types=["sliding_attention", "full_attention"]
    ),
    "qwen3_next": partial(
        _build,
        "Qwen3Next",
        **_HEADS,
        **_EXPERTS,
        shared_expert_intermediate_size=24,
        linear_num_value_heads=4,
        linear_num_key_heads=2,
        linear_key_head_dim=8,
        linear_value_head_dim=8,
        layer_types=["linear_attention", "full_attention"],
    ),
    "olmo_hybrid": partial(
        _build,
        "OlmoHybrid",
        linear_num_key_heads=4,
        linear_num_value_heads=4,
        linear_key_head_dim=8,
        linear_value_head_dim=8,
        layer_types=["linear_attention", "full_attention"],
    ),
    "hrm_text": partial(_build, "HrmText", **_HEADS),
}
FAMILIES = {**_KNOWN, **_OTHERS}
"""By name. The first thirteen are those that most merges are of; the others are renamed, stacked,
joined or cut by transformers as it loads them, in ways of their own."""
MOST_MERGED = tuple(_KNOWN)


def save_models(root: Path, family: str) -> list[Path]:
    """The folders of a family's models, as transformers saves them, in float32."""
    torch.manual_seed(0)
    model = FAMILIES[family]()
    for name in NAMES:
        if name != "base":
            with torch.no_grad():
                for parameter in model.parameters():
                    step = 0.1 * parameter.std(unbiased=False) + 0.02
                    parameter.add_(step * torch.randn_like(parameter))
        model.save_pretrained(root / name)
        save_tokenizer(root / name)
    return [root / name for name in NAMES]
