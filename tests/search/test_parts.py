"""Parts of a model as mergekit reads them, on the tensor names of real architectures."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from morphing.errors import MorphingError
from morphing.search.options import SpaceOptions
from morphing.search.parts import KINDS, Parts, cut

LAYERS = 4
# Tensor names by kind, as checkpoints have them, layers as #.
LLAMA = {
    "attention": [
        "model.layers.#.self_attn.q_proj.weight",
        "model.layers.#.self_attn.k_norm.weight",
    ],
    "mlp": ["model.layers.#.mlp.gate_proj.weight", "model.layers.#.mlp.experts.3.up_proj.weight"],
    "embeddings": ["model.embed_tokens.weight", "lm_head.weight"],
    "norms": [
        "model.layers.#.input_layernorm.weight",
        "model.layers.#.post_attention_layernorm.weight",
        "model.norm.weight",
    ],
}
ARCHITECTURES: dict[str | None, dict[str, list[str]]] = {
    "LlamaForCausalLM": LLAMA,
    "Qwen3MoeForCausalLM": LLAMA,
    None: LLAMA,
    "PhiForCausalLM": {
        "attention": ["model.layers.#.self_attn.dense.bias"],
        "mlp": ["model.layers.#.mlp.fc1.weight"],
        "embeddings": ["model.embed_tokens.weight", "lm_head.weight", "lm_head.bias"],
        "norms": ["model.layers.#.input_layernorm.bias", "model.final_layernorm.weight"],
    },
    "GPT2LMHeadModel": {
        "attention": ["h.#.attn.c_attn.weight", "transformer.h.#.attn.c_proj.bias"],
        "mlp": ["h.#.mlp.c_fc.weight"],
        "embeddings": ["wte.weight", "transformer.wpe.weight", "lm_head.weight"],
        "norms": ["h.#.ln_1.weight", "transformer.ln_f.weight"],
    },
    "GPTNeoXForCausalLM": {
        "attention": ["gpt_neox.layers.#.attention.query_key_value.weight"],
        "mlp": ["gpt_neox.layers.#.mlp.dense_h_to_4h.bias"],
        "embeddings": ["gpt_neox.embed_in.weight", "embed_out.weight", "lm_head.weight"],
        "norms": [
            "gpt_neox.layers.#.post_attention_layernorm.weight",
            "gpt_neox.final_layer_norm.weight",
        ],
    },
    "FalconForCausalLM": {
        "attention": ["transformer.h.#.self_attention.dense.weight"],
        "mlp": ["transformer.h.#.mlp.dense_4h_to_h.weight"],
        "embeddings": ["transformer.word_embeddings.weight", "lm_head.weight"],
        "norms": ["transformer.h.#.ln_attn.weight", "transformer.ln_f.bias"],
    },
    "MixtralForCausalLM": {
        "attention": ["model.layers.#.self_attn.o_proj.weight"],
        "mlp": [
            "model.layers.#.block_sparse_moe.experts.2.w1.weight",
            "model.layers.#.mlp.gate.weight",
        ],
        "embeddings": ["model.embed_tokens.weight", "lm_head.weight"],
        "norms": ["model.layers.#.input_layernorm.weight", "model.norm.weight"],
    },
    "OPTForCausalLM": {
        "attention": ["model.decoder.layers.#.self_attn.out_proj.bias"],
        "mlp": ["model.decoder.layers.#.fc1.weight", "model.decoder.layers.#.fc2.bias"],
        "embeddings": [
            "model.decoder.embed_tokens.weight",
            "model.decoder.embed_positions.weight",
            "lm_head.weight",
        ],
        "norms": [
            "model.decoder.layers.#.self_attn_layer_norm.weight",
            "model.decoder.final_layer_norm.weight",
        ],
    },
}


def tensors(architecture: str | None) -> list[tuple[str, str, int | None]]:
    """Name, kind and layer of every tensor."""
    found: list[tuple[str, str, int | None]] = []
    for kind, names in ARCHITECTURES[architecture].items():
        for name in names:
            if "#" not in name:
                found.append((name, kind, None))
            else:
                found += [(name.replace("#", str(i)), kind, i) for i in range(LAYERS)]
    return found


def make(architecture: str | None = "LlamaForCausalLM", **options: Any) -> Parts:
    return cut(SpaceOptions(**options), LAYERS, architecture)


def read(parts: Parts, tensor: str, layer: int | None) -> dict[str, float]:
    """What mergekit's own reader makes of each part's number for a tensor, the others at 0."""
    from mergekit.config import MergeConfiguration, evaluate_setting

    before = any(name in tensor for name in parts.names.embeddings)
    t = layer / (LAYERS - 1) if layer is not None else 0.0 if before else 1.0
    shares = {}
    for label in parts.labels:
        setting = parts.setting({other: float(other == label) for other in parts.labels})
        parsed = MergeConfiguration.model_validate(
            {
                "merge_method": "linear",
                "models": [{"model": "a/b", "parameters": {"weight": setting}}],
            }
        )
        value = evaluate_setting(tensor, parsed.models[0].parameters["weight"], t, validate=float)
        if value:
            shares[label] = value
    return shares


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_kinds_as_mergekit_reads_them(architecture: str | None) -> None:
    parts = make(architecture, module_kinds=True)
    assert set(parts.labels) == set(KINDS)
    for tensor, kind, layer in tensors(architecture):
        assert read(parts, tensor, layer) == {kind: 1.0}, tensor


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_groups_and_kinds_together(architecture: str | None) -> None:
    parts = make(architecture, module_kinds=True, layer_groups=((0, 0), (1, 3)))
    for tensor, kind, layer in tensors(architecture):
        group = 0 if layer == 0 else 1
        wanted = kind if kind == "embeddings" else f"{group}.{kind}"
        assert read(parts, tensor, layer) == {wanted: 1.0}, tensor


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_some_kinds_and_the_rest(architecture: str | None) -> None:
    parts = make(architecture, module_kinds=("mlp", "norms"))
    assert parts.labels == ("mlp", "norms", "rest")
    for tensor, kind, layer in tensors(architecture):
        wanted = kind if kind in ("mlp", "norms") else "rest"
        assert read(parts, tensor, layer) == {wanted: 1.0}, tensor


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_groups_alone_take_embeddings_and_head_along(architecture: str | None) -> None:
    parts = make(architecture, layer_groups=2)
    assert parts.labels == ("0", "1")
    for tensor, _, layer in tensors(architecture):
        before = any(name in tensor for name in parts.names.embeddings)
        group = layer // 2 if layer is not None else 0 if before else 1
        assert read(parts, tensor, layer) == {str(group): 1.0}, tensor


@pytest.mark.parametrize("kinds", [(), ("embeddings",), True])
@pytest.mark.parametrize("architecture", ["LlamaForCausalLM", "GPT2LMHeadModel"])
def test_curves_run_from_the_embeddings_to_the_head(architecture: str, kinds: Any) -> None:
    """Three points over four layers lie at the layers 0, 1.5 and 3."""
    curve = {0: {0: 1.0}, 1: {0: 1 / 3, 1: 2 / 3}, 2: {1: 2 / 3, 2: 1 / 3}, 3: {2: 1.0}}
    parts = make(architecture, gradient=3, module_kinds=kinds)
    for tensor, kind, layer in tensors(architecture):
        if kind == "embeddings" and kinds:
            wanted = {"embeddings": 1.0}
        else:
            before = any(name in tensor for name in parts.names.embeddings)
            points = curve[layer if layer is not None else 0 if before else 3]
            end = f".{kind}" if kinds is True else ""
            wanted = {f"{point}{end}": share for point, share in points.items()}
        assert read(parts, tensor, layer) == pytest.approx(wanted), tensor


def test_a_curve_is_mergekits_gradient() -> None:
    assert make(gradient=3).setting({"0": 0.1, "1": 0.5, "2": 0.2}) == [0.1, 0.5, 0.2]
    assert make().setting({"": 0.4}) == 0.4


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_shares_are_what_mergekit_reads(architecture: str | None) -> None:
    groupings: list[dict[str, Any]] = [{}, {"layer_groups": "each"}, {"gradient": 2}]
    kinds: list[Any] = [False, True, ("embeddings",), ("attention", "norms")]
    for grouping, own in product(groupings, kinds):
        parts = make(architecture, module_kinds=own, **grouping)
        for tensor, _, layer in tensors(architecture):
            assert parts.shares(tensor) == pytest.approx(read(parts, tensor, layer)), tensor
        parts.check(name for name, _, _ in tensors(architecture))


def test_parts_without_tensors_are_refused() -> None:
    names = [f"encoder.block.{i}.mixer.weight" for i in range(LAYERS)]
    with pytest.raises(MorphingError, match=r"No tensor.*the part '0'.*layer_groups"):
        make(layer_groups=2).check(names)
    with pytest.raises(MorphingError, match="the part 'attention'"):
        make(module_kinds=True).check(names)
    make().check(names)
