"""Layer paths: folded scales do what scaling the residual stream does, in mergekit's own hands."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from morphing.errors import MorphingError
from morphing.merging.paths import (
    REFUSED,
    WRITERS,
    LayerPath,
    Step,
    describe,
    initial_slots,
    path_from_slots,
    read_path,
)
from morphing.merging.recipe import Recipe
from tests.merging.tiny import save_tokenizer

LAYERS = 3  # of each source
MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
# What a tiny model of each architecture needs beside SIZES; a second entry is a variant.
KINDS: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "ApertusForCausalLM": ("apertus", [{}]),
    "ArceeForCausalLM": ("arcee", [{"mlp_bias": True, "attention_bias": True}]),
    "Cohere2ForCausalLM": ("cohere2", [{}]),
    "CohereForCausalLM": ("cohere", [{}]),
    "FalconForCausalLM": (
        "falcon",
        [
            {"new_decoder_architecture": True, "num_kv_heads": 2},
            {"new_decoder_architecture": False, "parallel_attn": False, "bias": True},
            {"new_decoder_architecture": False, "parallel_attn": True, "multi_query": True},
        ],
    ),
    "GPT2LMHeadModel": ("gpt2", [{"n_positions": 64}]),
    "GPTBigCodeForCausalLM": ("gpt_bigcode", [{"n_positions": 64}]),
    "GPTNeoXForCausalLM": ("gpt_neox", [{}, {"use_parallel_residual": False}]),
    "GemmaForCausalLM": ("gemma", [{"head_dim": 8}]),
    "LlamaForCausalLM": ("llama", [{}, {"mlp_bias": True, "attention_bias": True}]),
    "MistralForCausalLM": ("mistral", [{}]),
    "MixtralForCausalLM": ("mixtral", [{"num_local_experts": 4}]),
    "OlmoForCausalLM": ("olmo", [{}]),
    "OlmoeForCausalLM": ("olmoe", [MOE]),
    "Phi3ForCausalLM": ("phi3", [{}]),
    "PhiForCausalLM": ("phi", [{}, {"qk_layernorm": True}]),
    "Qwen2ForCausalLM": ("qwen2", [{}]),
    "Qwen2MoeForCausalLM": ("qwen2_moe", [{**MOE, "shared_expert_intermediate_size": 24}]),
    "Qwen3ForCausalLM": ("qwen3", [{"head_dim": 8}]),
    "Qwen3MoeForCausalLM": ("qwen3_moe", [{**MOE, "head_dim": 8}]),
    "SmolLM3ForCausalLM": ("smollm3", [{}]),
    "StableLmForCausalLM": ("stablelm", [{}, {"use_parallel_residual": True}]),
    "Starcoder2ForCausalLM": ("starcoder2", [{}]),
    # Not foldable; here to see that the refusal is for a reason.
    "Gemma2ForCausalLM": ("gemma2", [{"head_dim": 8}]),
    "Olmo2ForCausalLM": ("olmo2", [{}]),
}
SIZES = {
    "vocab_size": 40,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
    **{"bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 2},
}
# Norms' epsilon goes by many names.
TINY_EPSILON = dict.fromkeys(("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon"), 1e-12)
TINY_EPSILON["norm_epsilon"] = 1e-12


def config_of(kind: str, layers: int, **extra: Any) -> PretrainedConfig:
    return AutoConfig.for_model(kind, **{**SIZES, "num_hidden_layers": layers, **extra})


def save_source(folder: Path, config: PretrainedConfig, seed: int, dtype: torch.dtype) -> str:
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            spread = 0.1 if parameter.ndim == 1 else parameter.shape[-1] ** -0.5
            start = parameter if "norm" in name else torch.zeros_like(parameter)
            parameter.copy_(start + spread * torch.randn_like(parameter))
    model.to(dtype).save_pretrained(folder)
    save_tokenizer(folder)
    return str(folder)


def scale_of(config: Mapping[str, Any], place: int, name: str) -> float:
    """What mergekit resolves passthrough's scale to, for a tensor of slice ``place``."""
    from mergekit import merge_methods
    from mergekit.config import ConfigReader, MergeConfiguration
    from mergekit.parameter_resolver import resolve_parameters

    configuration = MergeConfiguration.model_validate(config)
    model = configuration.slices[place].sources[0].model
    reader = ConfigReader(config=configuration, t=0, slice_out=configuration.slices[place])
    _, own = resolve_parameters(
        merge_methods.get("passthrough").spec,
        tensor_name=name,
        inputs={model: name},
        sources=reader.parameter_sources,
    )
    scale = own[model]["scale"]
    return 1.0 if scale is None else scale


def layers_of(config: Mapping[str, Any]) -> Iterator[tuple[int, str, int]]:
    """Slice, source and source's layer of each layer of a recipe."""
    for place, piece in enumerate(config["slices"]):
        (source,) = piece["sources"]
        for layer in range(*source["layer_range"]):
            yield place, source["model"], layer


def split(name: str) -> tuple[str, int, str] | None:
    """A tensor's name around its layer's number."""
    for marker in (".layers.", ".h."):
        before, found, after = name.partition(marker)
        if found:
            number, _, rest = after.partition(".")
            return before + marker, int(number), "." + rest
    return None


def by_hand(recipe: Recipe, kind: str, folder: Path, scaled: bool = True, **extra: Any) -> Path:
    """The checkpoint a path's recipe stands for, put together tensor by tensor."""
    walked = list(layers_of(recipe.config))
    sources = {name: load_file(Path(name) / "model.safetensors") for _, name, _ in walked}
    slices = len(recipe.config["slices"])
    out = {}
    for name, tensor in sources[walked[0][1]].items():
        if split(name) is None:  # embeddings; norm and head are overwritten below
            out[name] = tensor * scale_of(recipe.config, 0, name)
    for name, tensor in sources[walked[-1][1]].items():
        if split(name) is None and not is_embedding(name):
            out[name] = tensor * scale_of(recipe.config, slices - 1, name)
    for place, (piece, source, layer) in enumerate(walked):
        for name, tensor in sources[source].items():
            if (parts := split(name)) and parts[1] == layer:
                scale = scale_of(recipe.config, piece, name) if scaled else 1.0
                out[f"{parts[0]}{place}{parts[2]}"] = tensor * scale
    folder.mkdir(parents=True, exist_ok=True)
    config_of(kind, len(walked), **extra).save_pretrained(folder)
    written = json.loads((folder / "config.json").read_text())
    written["architectures"] = json.loads((Path(walked[0][1]) / "config.json").read_text())[
        "architectures"
    ]
    (folder / "config.json").write_text(json.dumps(written))
    save_file(out, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def is_embedding(name: str) -> bool:
    return any(part in name for part in ("embed", "wte", "wpe")) and "embed_out" not in name


def load(folder: Path | str, dtype: torch.dtype) -> PreTrainedModel:
    model, seen = AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, output_loading_info=True, attn_implementation="eager"
    )
    assert not seen["missing_keys"] and not seen["mismatched_keys"]
    return model.eval()


def scale_stream(model: PreTrainedModel, path: LayerPath) -> PreTrainedModel:
    """Really scale the residual stream where it enters each layer."""
    (stack,) = (
        module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.ModuleList) and name.rsplit(".", 1)[-1] in ("layers", "h")
    )
    for layer, step in zip(stack, path.steps, strict=True):

        def scale(_: Any, args: tuple, kwargs: dict, factor: float = step.scale) -> Any:
            if args:
                return (args[0] * factor, *args[1:]), kwargs
            return args, {**kwargs, "hidden_states": kwargs["hidden_states"] * factor}

        layer.register_forward_pre_hook(scale, with_kwargs=True)
    return model


def logits(model: PreTrainedModel) -> torch.Tensor:
    tokens = torch.arange(3, 27).reshape(2, 12)
    with torch.inference_mode():
        return model(input_ids=tokens).logits


def distance(one: torch.Tensor, other: torch.Tensor) -> float:
    """Largest difference, in spreads of the reference's logits."""
    return float((one - other).abs().max() / other.std())


def crossing(a: str, b: str) -> LayerPath:
    """Jumps forwards, backwards, into a repetition, and a scale on the embeddings."""
    first = Step(a, 0, 1.3)
    tail = (Step(b, 1, 0.6), Step(b, 2), Step(a, 1, 0.4), Step(a, 2), Step(b, 2, 1.7))
    return LayerPath((first, Step(a, 1), *tail))


def pair(
    folder: Path, kind: str, dtype: torch.dtype = torch.float32, layers: int = LAYERS, **extra: Any
) -> tuple[str, str]:
    config = config_of(kind, layers, **extra)
    return (
        save_source(folder / "org" / "a", config, 1, dtype),
        save_source(folder / "org" / "b", config, 2, dtype),
    )


VARIANTS = [
    pytest.param(name, variant, id=f"{name}-{i}")
    for name in WRITERS
    for i, variant in enumerate(KINDS[name][1])
]


@pytest.mark.parametrize(("architecture", "variant"), VARIANTS)
def test_folded_scales_are_scales_of_the_stream(
    architecture: str, variant: dict[str, Any], tmp_path: Path
) -> None:
    kind, extra = KINDS[architecture][0], {**variant, **TINY_EPSILON}
    path = crossing(*pair(tmp_path, kind, **extra))
    recipe = path.recipe(architecture)
    plain = by_hand(recipe, kind, tmp_path / "plain", scaled=False, **extra)
    folded = logits(load(by_hand(recipe, kind, tmp_path / "folded", **extra), torch.float32))

    model = load(plain, torch.float32)
    assert type(model).__name__ == architecture
    unscaled = logits(model)
    # Once more by the names in the model, which are mergekit's names of stacked experts.
    renamed = dict(model.state_dict())
    for place, (piece, _, _) in enumerate(layers_of(recipe.config)):
        for name, tensor in renamed.items():
            if (parts := split(name)) and parts[1] == place:
                renamed[name] = tensor * scale_of(recipe.config, piece, name)
    scaled = logits(scale_stream(load(plain, torch.float32), path))
    model.load_state_dict(renamed)
    limit = 2e-3 if kind == "olmo" else 5e-5  # OLMo's epsilon is 1e-5, whatever its config says
    assert distance(folded, scaled) < limit
    assert distance(logits(model), scaled) < limit
    assert distance(unscaled, scaled) > 0.05  # the scales matter


@pytest.mark.parametrize("architecture", ["GPT2LMHeadModel", "GPTNeoXForCausalLM"])
def test_folding_is_exact_in_double_precision(architecture: str, tmp_path: Path) -> None:
    """For architectures that do not compute their norms in float32 whatever the model is in."""
    kind, extra = KINDS[architecture][0], {"n_positions": 64, **TINY_EPSILON}
    path = crossing(*pair(tmp_path, kind, torch.float64, **extra))
    recipe = path.recipe(architecture)
    plain = by_hand(recipe, kind, tmp_path / "plain", scaled=False, **extra)
    folded = by_hand(recipe, kind, tmp_path / "folded", **extra)
    scaled = logits(scale_stream(load(plain, torch.float64), path))
    assert distance(logits(load(folded, torch.float64)), scaled) < 1e-9


@pytest.mark.parametrize("scale", [2.0**-6, 2.0**6])
def test_only_epsilon_tells_a_folded_model_from_a_scaled_one(scale: float, tmp_path: Path) -> None:
    """Powers of two round nothing, so with epsilon / W² the logits are equal bit for bit."""
    a, b = pair(tmp_path, "llama")
    path = LayerPath((Step(a, 0), Step(b, 1, scale), Step(b, 2), Step(a, 1, scale), Step(a, 2)))
    recipe = path.recipe("LlamaForCausalLM")
    plain = by_hand(recipe, "llama", tmp_path / "plain", scaled=False)
    scaled = logits(scale_stream(load(plain, torch.float32), path))
    folded = load(by_hand(recipe, "llama", tmp_path / "folded"), torch.float32)
    assert not torch.equal(logits(folded), scaled)
    products = [1.0, scale, scale, scale**2, scale**2]
    for layer, product in zip(folded.model.layers, products, strict=True):
        for norm in (layer.input_layernorm, layer.post_attention_layernorm):
            norm.variance_epsilon /= product**2
    folded.model.norm.variance_epsilon /= products[-1] ** 2
    assert torch.equal(logits(folded), scaled)


def test_epsilon_counts_where_the_stream_is_small(tmp_path: Path) -> None:
    a, b = pair(tmp_path, "llama", rms_norm_eps=1e-6)

    def error(*scales: float) -> float:
        jumps = [Step((b, a)[i % 2], 1, scale) for i, scale in enumerate(scales)]
        rest = [Step(a, 1)] * (4 - len(scales))
        path = LayerPath((Step(a, 0), *jumps, *rest, Step(a, 2)))
        recipe = path.recipe("LlamaForCausalLM")
        folder = tmp_path / f"{scales}"
        plain = by_hand(recipe, "llama", folder / "plain", scaled=False, rms_norm_eps=1e-6)
        folded = by_hand(recipe, "llama", folder / "folded", rms_norm_eps=1e-6)
        scaled = logits(scale_stream(load(plain, torch.float32), path))
        return distance(logits(load(folded, torch.float32)), scaled)

    assert error(1.0) == 0
    assert error(0.5) < 2e-4
    assert error(0.1) < 5e-3
    assert error(100.0) < 1e-3
    assert error(0.01) > 0.02
    assert error(0.1, 0.1) < 2e-3  # the same product, but a layer has written in between


@pytest.mark.parametrize("architecture", ["Gemma2ForCausalLM", "Olmo2ForCausalLM"])
def test_post_norms_are_refused_for_a_reason(architecture: str, tmp_path: Path) -> None:
    """Folding as if they were Llamas gives another model."""
    kind, (extra, *_) = KINDS[architecture]
    path = crossing(*pair(tmp_path, kind, **extra))
    recipe = path.recipe("LlamaForCausalLM")
    plain = by_hand(recipe, kind, tmp_path / "plain", scaled=False, **extra)
    folded = by_hand(recipe, kind, tmp_path / "folded", **extra)
    scaled = logits(scale_stream(load(plain, torch.float32), path))
    assert distance(logits(load(folded, torch.float32)), scaled) > 0.1
    assert architecture in REFUSED


def test_a_path_generates_alike_with_and_without_a_cache(tmp_path: Path) -> None:
    """A layer that occurs twice is two layers, each with keys and values of its own."""
    path = crossing(*pair(tmp_path, "llama"))
    folder = by_hand(path.recipe("LlamaForCausalLM"), "llama", tmp_path / "out")
    model = load(folder, torch.float32)
    tokens = torch.arange(3, 11).reshape(1, 8)
    made = [
        model.generate(
            tokens, max_new_tokens=16, min_new_tokens=16, do_sample=False, use_cache=cached
        )
        for cached in (True, False)
    ]
    assert made[0].shape == (1, 24)
    assert torch.equal(*made)


# ---------------------------------------------------------------------------------------------
# mergekit


@pytest.mark.parametrize(
    "architecture",
    ["LlamaForCausalLM", "Qwen2ForCausalLM", "MixtralForCausalLM", "GPT2LMHeadModel"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_mergekit_runs_the_recipe(architecture: str, dtype: torch.dtype, tmp_path: Path) -> None:
    from mergekit.config import MergeConfiguration
    from mergekit.merge import MergeOptions, run_merge

    kind, (extra, *_) = KINDS[architecture]
    # mergekit 0.1.5 sets num_hidden_layers alone; Qwen2's config also lists its layers' types, so
    # that mergekit can write a path for it only if it is as long as the sources.
    layers = 7 if kind == "qwen2" else LAYERS
    path = crossing(*pair(tmp_path, kind, dtype, layers, **extra))
    recipe = path.recipe(architecture)
    configuration = MergeConfiguration.model_validate(yaml.safe_load(recipe.to_yaml()))
    run_merge(configuration, str(tmp_path / "theirs"), MergeOptions(quiet=True))
    theirs = load(tmp_path / "theirs", dtype)
    ours = load(by_hand(recipe, kind, tmp_path / "ours", **extra), dtype)
    assert theirs.config.num_hidden_layers == len(path.steps)
    weights = ours.state_dict()
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(tensor, weights[name]), name
    assert torch.equal(logits(theirs), logits(ours))
    plain = by_hand(recipe, kind, tmp_path / "plain", scaled=False, **extra)
    scaled = logits(scale_stream(load(plain, torch.float32), path))
    assert distance(logits(theirs).float(), scaled) < (1e-3 if dtype is torch.float32 else 0.2)


def test_embeddings_come_with_the_first_layer_and_the_head_with_the_last(tmp_path: Path) -> None:
    """A path that starts in the middle of the second source takes its embeddings."""
    from mergekit.config import MergeConfiguration
    from mergekit.merge import MergeOptions, run_merge

    a, b = pair(tmp_path, "llama")
    recipe = LayerPath((Step(b, 1, 0.8), Step(b, 2), Step(a, 2, 1.5))).recipe("LlamaForCausalLM")
    configuration = MergeConfiguration.model_validate(yaml.safe_load(recipe.to_yaml()))
    run_merge(configuration, str(tmp_path / "out"), MergeOptions(quiet=True))
    out, first, last = (load_file(Path(f) / "model.safetensors") for f in (tmp_path / "out", b, a))
    assert torch.equal(out["model.embed_tokens.weight"], first["model.embed_tokens.weight"])
    for name in ("model.norm.weight", "lm_head.weight"):
        assert torch.equal(out[name], last[name])
        assert not torch.equal(out[name], first[name])


# ---------------------------------------------------------------------------------------------
# The recipe


def test_the_recipe_is_readable() -> None:
    steps = [Step("A", i) for i in range(3)] + [Step("B", 1, 0.5), Step("B", 2), Step("A", 1, 2.0)]
    recipe = LayerPath(tuple(steps)).recipe("GPT2LMHeadModel", "float32", "bfloat16")
    folded = {"scale": [{"filter": "c_proj", "value": 2.0}, {"value": 1.0}]}
    assert recipe.config == {
        "merge_method": "passthrough",
        "slices": [
            {"sources": [{"model": "A", "layer_range": [0, 3]}]},
            {"sources": [{"model": "B", "layer_range": [1, 3], "parameters": folded}]},
            {"sources": [{"model": "A", "layer_range": [1, 2]}]},  # 0.5 · 2 = 1
        ],
        "dtype": "float32",
        "out_dtype": "bfloat16",
    }


def test_a_slice_ends_where_the_scale_changes() -> None:
    path = LayerPath((Step("A", 0), Step("A", 1), Step("A", 2, 0.5), Step("A", 3)))
    pieces = path.recipe("LlamaForCausalLM").config["slices"]
    assert [piece["sources"][0]["layer_range"] for piece in pieces] == [[0, 2], [2, 4]]


def test_a_path_without_scales_suits_every_architecture() -> None:
    path = LayerPath((Step("A", 0), Step("B", 0), Step("A", 1)))
    for architecture in ("UnheardOfForCausalLM", *REFUSED, *WRITERS):
        config = path.recipe(architecture).config
        assert "parameters" not in str(config)
        assert len(config["slices"]) == 3


@pytest.mark.parametrize("architecture", REFUSED)
def test_architectures_that_cannot_be_folded_are_refused_by_name(architecture: str) -> None:
    path = LayerPath((Step("A", 0), Step("B", 1, 0.9)))
    with pytest.raises(MorphingError, match=f"{architecture}.*because.*leave every scale at 1"):
        path.recipe(architecture)
    assert architecture not in WRITERS


def test_unknown_architectures_are_refused_with_those_known() -> None:
    with pytest.raises(MorphingError, match=r"UnheardOfForCausalLM.*LlamaForCausalLM"):
        LayerPath((Step("A", 0), Step("B", 1, 0.9))).recipe("UnheardOfForCausalLM")


@pytest.mark.parametrize("scale", [0.0, -1.0, math.inf, math.nan])
def test_scales_are_positive_numbers(scale: float) -> None:
    with pytest.raises(MorphingError, match=r"layer 1 of A .* positive"):
        Step("A", 1, scale)


def test_impossible_paths_are_refused() -> None:
    with pytest.raises(MorphingError, match="no layers"):
        LayerPath(())
    with pytest.raises(MorphingError, match="layer -1 of A"):
        Step("A", -1)
    with pytest.raises(MorphingError, match="nearer to 1"):
        LayerPath((Step("A", 0),) + (Step("B", 1, 1e-200),) * 2).recipe("LlamaForCausalLM")
    with pytest.raises(MorphingError, match="no slots"):
        initial_slots(2, 3, 0)


# ---------------------------------------------------------------------------------------------
# Decoding


@st.composite
def slots(draw: st.DrawFn) -> tuple[list[str], int, int, list[float], list[float]]:
    sources = ["A", "B", "C"][: draw(st.integers(1, 3))]
    layers, repeats = draw(st.integers(1, 5)), draw(st.integers(1, 3))
    total = len(sources) * layers * repeats
    indicators = draw(st.lists(st.floats(-1, 1), min_size=total, max_size=total))
    scales = draw(st.lists(st.floats(0.5, 2), min_size=total, max_size=total))
    indicators[draw(st.integers(0, total - 1))] = 1.0
    return sources, layers, repeats, indicators, scales


@given(slots())
def test_decoding(case: tuple[list[str], int, int, list[float], list[float]]) -> None:
    sources, layers, repeats, indicators, scales = case
    path = path_from_slots(*case)
    laid = [(s, i) for _ in range(repeats) for s in sources for i in range(layers)]
    on = [place for place, indicator in enumerate(indicators) if indicator > 0]
    assert [(step.source, step.layer) for step in path.steps] == [laid[place] for place in on]

    before, unused = None, set(range(len(laid))) - set(on)
    for place, step in zip(on, path.steps, strict=True):
        own = (step.source, step.layer - 1)
        jump = step.layer > 0 if before is None else before != own
        assert step.scale == (scales[place] if jump else 1.0)
        unused |= set() if jump else {place}
        before = laid[place]
    others = [-7.0 if place in unused else scale for place, scale in enumerate(scales)]
    assert path_from_slots(sources, layers, repeats, indicators, others) == path


@given(slots())
def test_a_recipe_is_its_path(case: tuple[list[str], int, int, list[float], list[float]]) -> None:
    path = path_from_slots(*case)
    text = path.recipe("LlamaForCausalLM").to_yaml()
    config = yaml.safe_load(text)
    assert config == path.recipe("LlamaForCausalLM").config
    walked, running = list(layers_of(config)), 1.0
    assert [(s, i) for _, s, i in walked] == [(s.source, s.layer) for s in path.steps]
    for (place, _, _), step in zip(walked, path.steps, strict=True):
        running *= step.scale
        (source,) = config["slices"][place]["sources"]
        settings = source.get("parameters", {"scale": [{"value": 1.0}] * 3})["scale"]
        assert [s["value"] for s in settings] == [1 / running, 1 / running, 1.0]


def test_the_search_begins_at_the_first_sources_own_path() -> None:
    indicators, scales = initial_slots(2, 4, 3)
    path = path_from_slots(["org/a", "org/b"], 4, 3, indicators, scales)
    assert path == LayerPath(tuple(Step("org/a", layer) for layer in range(4)))
    assert path.recipe("LlamaForCausalLM").config["slices"] == [
        {"sources": [{"model": "org/a", "layer_range": [0, 4]}]}
    ]


def test_decoding_refuses_an_empty_path_and_scales_in_use_that_are_not_positive() -> None:
    with pytest.raises(MorphingError, match="no layers"):
        path_from_slots(["A", "B"], 1, 1, [0.0, -1.0], [1.0, 1.0])
    with pytest.raises(MorphingError, match="positive"):
        path_from_slots(["A", "B"], 1, 1, [1.0, 1.0], [1.0, 0.0])
    with pytest.raises(ValueError, match="shorter"):
        path_from_slots(["A", "B"], 2, 1, [1.0, 1.0], [1.0, 1.0])


def test_numbers_of_a_search_are_written_as_yaml() -> None:
    import numpy as np

    drawn = np.array([1.0, 1.0])
    path = path_from_slots(["A", "B"], 1, 1, drawn, np.array([1.0, 0.7]))
    assert path_from_slots(["A", "B"], 1, 1, [1, 1], [1, 0.7]) == path
    direct = LayerPath((Step("A", 0), Step("B", 0, np.float64(0.7))))
    for each in (path, direct):
        recipe = each.recipe("LlamaForCausalLM")
        assert yaml.safe_load(recipe.to_yaml()) == recipe.config


# ---------------------------------------------------------------------------------------------
# In a line


def run(source: str, first: int, last: int, scale: float = 1.0) -> list[Step]:
    return [Step(source, first, scale), *(Step(source, i) for i in range(first + 1, last + 1))]


def test_a_path_in_a_line() -> None:
    a, b = "org/Alpha@0123abc", "/data/models/B/"
    path = LayerPath((*run(a, 0, 15), *run(b, 12, 29, 0.8712), *run(a, 3, 3, 12.0)))
    assert describe(path) == "Alpha 0–15 · B 12–29 ×0.871 · Alpha 3 ×12"
    assert describe(LayerPath((Step(a, 4, 0.5),))) == "Alpha 4 ×0.5"


def test_models_with_one_last_name_keep_their_whole_names() -> None:
    path = LayerPath((*run("one/m", 0, 1), *run("two/m", 1, 2), *run("one/m+x/lora@1", 0, 1)))
    assert describe(path) == "one/m 0–1 · two/m 1–2 · one/m+x/lora@1 0–1"
    path = LayerPath((*run("one/m@1", 0, 1), *run("one/m@1+x/lora@2", 0, 1)))
    assert describe(path) == "m 0–1 · m+lora 0–1"


def test_a_path_is_read_back_from_its_recipe() -> None:
    a, b = "org/Alpha", "org/Beta"
    path = LayerPath((*run(a, 0, 3), *run(b, 1, 2, 0.87), *run(a, 4, 4, 12.0), *run(b, 0, 1)))
    read = read_path(path.recipe("LlamaForCausalLM"))
    assert read is not None and describe(read) == describe(path)
    assert [(s.source, s.layer) for s in read.steps] == [(s.source, s.layer) for s in path.steps]
    assert read_path(Recipe({"merge_method": "linear", "models": [{"model": a}]})) is None
    single = [{"sources": [{"model": a, "layer_range": [0, 4], "parameters": {"scale": 0.5}}]}]
    assert read_path(Recipe({"merge_method": "passthrough", "slices": single})) is None
