"""Settings under which weights mean something else: told where they differ, however spelled."""

from __future__ import annotations

from typing import Any

import pytest

from morphing.sources.configuration import difference_remark, differences

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-6,
    "vocab_size": 320,
}
GEMMA3 = {"model_type": "gemma3_text", "hidden_size": 64, "num_attention_heads": 4, "head_dim": 16}
NEOX = {"model_type": "gpt_neox", "hidden_size": 64, "num_attention_heads": 4}
DEFAULT: dict[str, Any] = {"rope_type": "default"}
GRANITE = {"model_type": "granite"}
UNKNOWN = {"model_type": "nobody-knows", "hidden_size": 64, "num_attention_heads": 4}


@pytest.mark.parametrize(
    ("base", "one", "other"),
    [
        (
            LLAMA,
            {"rope_theta": 5e5},
            {"rope_parameters": {"rope_theta": 500000, "rope_type": "default"}},
        ),
        (LLAMA, {}, {"rope_theta": 10000.0}),
        (LLAMA, {}, {"rope_scaling": None}),
        (LLAMA, {}, {"rope_parameters": {"rope_type": "default", "rope_theta": 10000}}),
        (
            LLAMA,
            {"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 2}},
            {"rope_parameters": {"rope_type": "linear", "rope_theta": 5e5, "factor": 2.0}},
        ),
        (
            LLAMA,
            {"rope_scaling": {"rope_type": "linear", "factor": 2.0}},
            {"rope_scaling": {"type": "linear", "factor": 2.0}},
        ),
        (LLAMA, {}, {"head_dim": 16}),
        (LLAMA, {}, {"hidden_act": "silu", "attention_bias": False, "mlp_bias": False}),
        (LLAMA, {}, {"torch_dtype": "bfloat16", "use_cache": False, "eos_token_id": 7}),
        (LLAMA, {}, {"vocab_size": 400, "max_position_embeddings": 9, "attention_dropout": 0.1}),
        (LLAMA, {}, {"initializer_range": 0.5, "tie_word_embeddings": True, "pretraining_tp": 2}),
        (LLAMA, {}, {"unsloth_fixed": True, "_name_or_path": "x", "transformers_version": "4.1"}),
        (
            GEMMA3,
            {"rope_theta": 1e6, "rope_local_base_freq": 1e4},
            {
                "rope_parameters": {
                    "full_attention": {"rope_type": "default", "rope_theta": 1e6},
                    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
                }
            },
        ),
        (GEMMA3, {}, {"sliding_window_pattern": 6}),
        (
            NEOX,
            {"rotary_pct": 0.25, "rotary_emb_base": 10000},
            {"rope_parameters": {"rope_theta": 10000, "partial_rotary_factor": 0.25}},
        ),
        (
            {"model_type": "gpt2"},
            {"n_embd": 64, "n_head": 4},
            {"hidden_size": 64, "num_attention_heads": 4},
        ),
        (
            UNKNOWN,
            {"rope_theta": 1e6},
            {"rope_parameters": {"rope_theta": 1000000, "rope_type": "default"}},
        ),
        (UNKNOWN, {"hidden_activation": "gelu"}, {"hidden_act": "gelu"}),
        (UNKNOWN, {"layer_norm_epsilon": 1e-5}, {"layer_norm_eps": 1e-5}),
    ],
)
def test_one_setting_in_two_spellings_is_no_difference(
    base: dict[str, Any], one: dict[str, Any], other: dict[str, Any]
) -> None:
    assert differences({**base, **one}, {**base, **other}) == {}
    assert difference_remark("a", {**base, **one}, "b", {**base, **other}) is None


@pytest.mark.parametrize(
    ("base", "change", "name", "values"),
    [
        (LLAMA, {"rope_theta": 1e6}, "rope.theta", (10000.0, 1e6)),
        (
            LLAMA,
            {"rope_parameters": {"rope_theta": 1e6, "rope_type": "default"}},
            "rope.theta",
            (10000.0, 1e6),
        ),
        (LLAMA, {"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope.factor", (None, 2.0)),
        (LLAMA, {"rms_norm_eps": 1e-5}, "rms_norm_eps", (1e-6, 1e-5)),
        (LLAMA, {"hidden_act": "gelu"}, "hidden_act", ("silu", "gelu")),
        (LLAMA, {"num_attention_heads": 8, "head_dim": 16}, "num_attention_heads", (4, 8)),
        (LLAMA, {"num_key_value_heads": 4}, "num_key_value_heads", (2, 4)),
        (LLAMA, {"head_dim": 32}, "head_dim", (16, 32)),
        (LLAMA, {"hidden_size": 128}, "hidden_size", (64, 128)),
        (LLAMA, {"attention_bias": True}, "attention_bias", (False, True)),
        (GEMMA3, {"rope_local_base_freq": 2e4}, "rope.sliding_attention.theta", (10000.0, 2e4)),
        (GEMMA3, {"final_logit_softcapping": 30.0}, "final_logit_softcapping", (None, 30.0)),
        (GEMMA3, {"query_pre_attn_scalar": 64}, "query_pre_attn_scalar", (256, 64)),
        (GEMMA3, {"sliding_window": 512}, "sliding_window", (4096, 512)),
        (NEOX, {"rotary_pct": 0.5}, "rope.partial_rotary_factor", (0.25, 0.5)),
        (NEOX, {"layer_norm_eps": 1e-6}, "layer_norm_eps", (1e-5, 1e-6)),
        (NEOX, {"use_parallel_residual": False}, "use_parallel_residual", (True, False)),
        (
            {"model_type": "granite"},
            {"residual_multiplier": 0.2},
            "residual_multiplier",
            (1.0, 0.2),
        ),
        ({"model_type": "cohere"}, {"logit_scale": 0.5}, "logit_scale", (0.0625, 0.5)),
        ({"model_type": "mistral"}, {"sliding_window": None}, "sliding_window", (4096, None)),
        ({"model_type": "mixtral"}, {"num_experts_per_tok": 1}, "num_experts_per_tok", (2, 1)),
        (UNKNOWN, {"rope_theta": 5.0}, "rope.theta", (None, 5.0)),
        (UNKNOWN, {"embedding_multiplier": 12}, "embedding_multiplier", (None, 12)),
        (UNKNOWN, {"text_config": {"head_dim": 8}}, "head_dim", (None, 8)),
    ],
)
def test_a_setting_that_changes_what_weights_mean_is_told_with_both_values(
    base: dict[str, Any], change: dict[str, Any], name: str, values: tuple[Any, Any]
) -> None:
    found = differences(base, {**base, **change})
    assert found.get(name) == values, found
    remark = difference_remark("org/base", base, "org/one", {**base, **change})
    assert remark is not None and remark.startswith("org/one was made with other settings than org")
    assert name in remark and "\n" not in remark


def test_a_configuration_that_transformers_refuses_is_compared_by_names() -> None:
    broken = {**LLAMA, "rope_scaling": {"type": "linear"}, "num_attention_heads": 7}
    assert "num_attention_heads" in differences(broken, {**broken, "num_attention_heads": 8})
    assert differences({}, {}) == {} and differences({"model_type": 3}, {"model_type": 3}) == {}


def test_text_inside_a_multimodal_configuration_is_compared() -> None:
    text = {**GEMMA3, "rope_theta": 1e6}
    whole = {"model_type": "gemma3", "text_config": text}
    assert differences(text, whole) == {}
    other = {"model_type": "gemma3", "text_config": {**text, "rope_theta": 1e5}}
    assert differences(whole, other)["rope.full_attention.theta"] == (1e6, 1e5)
