"""Recipes whose model is another than the loaded one: other layers, another vocabulary."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

from morphing.merging.morph import Morpher
from morphing.merging.recipe import Recipe
from morphing.merging.writing.checkpoint import export
from morphing.sources.find import download
from morphing.sources.source import Source
from tests.merging.tiny import recipe, save_family, save_tokenizer

CPU = torch.device("cpu")
PROMPT = torch.arange(3, 15).view(1, -1)


def stack(*pieces: tuple[Source, int, int], **extra: Any) -> Recipe:
    """Layers of sources one after the other, as they are."""
    slices = [
        {"sources": [{"model": source.name, "layer_range": [first, end]}]}
        for source, first, end in pieces
    ]
    return Recipe({"merge_method": "passthrough", "slices": slices, "dtype": "float32", **extra})


def logits(model: torch.nn.Module, prompt: Tensor = PROMPT) -> Tensor:
    with torch.inference_mode():
        return model(prompt).logits


def state(morpher: Morpher) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in morpher.model.state_dict().items()}


def assert_same_states(found: Morpher, expected: Morpher) -> None:
    mine, other = state(found), state(expected)
    assert mine.keys() == other.keys()
    for name, tensor in other.items():
        assert mine[name].shape == tensor.shape and torch.equal(mine[name], tensor), name


def assert_exported_alike(morpher: Morpher, wanted: Recipe, folder: Path) -> torch.nn.Module:
    """What is loaded and what transformers loads from the export say the same."""
    export(morpher.engine, wanted, folder)
    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=morpher.model.dtype).eval()
    assert torch.equal(logits(loaded), logits(morpher.model))
    assert loaded.state_dict().keys() == morpher.model.state_dict().keys()
    return loaded


@pytest.mark.parametrize("kind", ["float32 tied", "bfloat16 untied"])
@pytest.mark.parametrize("layers", ["more", "fewer"])
def test_a_stack_of_layers_runs_as_its_export_does(
    kind: str, layers: str, family: list[Source], half_family: list[Source], tmp_path: Path
) -> None:
    half = kind.startswith("bfloat16")
    models, dtype = (half_family, torch.bfloat16) if half else (family, torch.float32)
    morpher = Morpher(models[0], models[1:], CPU, dtype)
    pieces = [(models[0], 0, 3), (models[1], 1, 3)] if layers == "more" else [(models[1], 0, 2)]
    wanted = stack(*pieces, out_dtype=str(dtype).removeprefix("torch."))
    morpher.morph(wanted)
    depth = sum(end - first for _, first, end in pieces)
    assert morpher.model.config.num_hidden_layers == len(morpher.model.model.layers) == depth
    loaded = assert_exported_alike(morpher, wanted, tmp_path / "out")

    asked = {"max_new_tokens": 20, "min_new_tokens": 20, "do_sample": False}
    cached, anew, exported = (
        model.generate(PROMPT, use_cache=cache, **asked)
        for model, cache in ((morpher.model, True), (morpher.model, False), (loaded, True))
    )
    assert torch.equal(cached, exported)
    if not half:  # in bfloat16 another order of operations may round to another token
        assert torch.equal(cached, anew)

    ordinary = recipe("ties", models)
    fresh = Morpher(models[0], models[1:], CPU, dtype)
    assert morpher.morph(ordinary) == fresh.morph(ordinary)
    assert_same_states(morpher, fresh)
    assert torch.equal(logits(morpher.model), logits(fresh.model))


def test_tied_models_stacked_from_different_models_get_a_head_of_the_last(
    family: list[Source], tmp_path: Path
) -> None:
    morpher = Morpher(family[0], family[1:], CPU, torch.float32)
    wanted = stack((family[1], 0, 2), (family[2], 1, 3))
    morpher.morph(wanted)
    model = morpher.model
    assert model.config.tie_word_embeddings is False
    assert model.lm_head.weight is not model.model.embed_tokens.weight
    one, two = (AutoModelForCausalLM.from_pretrained(source.folder) for source in family[1:3])
    assert torch.equal(model.model.embed_tokens.weight, one.model.embed_tokens.weight)
    assert torch.equal(model.lm_head.weight, two.model.embed_tokens.weight)
    assert_exported_alike(morpher, wanted, tmp_path / "out")
    morpher.morph(recipe("linear", family))
    assert morpher.model.lm_head.weight is morpher.model.model.embed_tokens.weight


def test_merged_slices_are_merged_layer_by_layer(family: list[Source], tmp_path: Path) -> None:
    """A stack whose pieces are merges, with distances to layers that the base has too."""
    own = {"parameters": {"weight": 0.5, "density": 0.6}}
    slices = [
        {"sources": [{"model": s.name, "layer_range": r} | own for s in family[:3]]}
        for r in ([0, 3], [0, 2])
    ]
    config = {"merge_method": "dare_ties", "base_model": family[0].name, "slices": slices}
    wanted = Recipe({**config, "dtype": "float32"}, 3)
    morpher = Morpher(family[0], family[1:], CPU, torch.float32)
    distance = morpher.morph(wanted)
    assert_exported_alike(morpher, wanted, tmp_path / "out")
    base = AutoModelForCausalLM.from_pretrained(family[0].folder).state_dict()
    merged = dict(morpher.tensors(wanted))
    expected = sum(
        float((tensor - base[name] if name in base else tensor).double().abs().sum())
        for name, tensor in merged.items()
    )
    own_norm = sum(float(base[n].double().abs().sum()) for n in base if n != "lm_head.weight")
    assert distance == pytest.approx(expected / own_norm, rel=1e-5)


def test_a_stack_ends_where_the_base_ends(family: list[Source], tmp_path: Path) -> None:
    """The end-of-turn tokens that the base's generation settings name."""
    folder = Path(shutil.copytree(family[0].folder, tmp_path / "base"))
    file = folder / "generation_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "eos_token_id": [1, 7]}))
    base = download(str(folder))
    morpher = Morpher(base, [], CPU, torch.float32)
    assert morpher.model.generation_config.eos_token_id == [1, 7]
    morpher.morph(stack((base, 0, 3), (base, 1, 3)))
    assert morpher.model.generation_config.eos_token_id == [1, 7]


def test_layers_in_another_order_keep_their_own_kind(tmp_path: Path) -> None:
    """As many layers of the same shapes, but attention slides in others than before."""
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=40,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        use_sliding_window=True,
        sliding_window=4,
        max_window_layers=2,
        tie_word_embeddings=True,
    )
    Qwen2ForCausalLM(config).save_pretrained(tmp_path / "qwen")
    save_tokenizer(tmp_path / "qwen")
    base = download(str(tmp_path / "qwen"))
    morpher = Morpher(base, [], CPU, torch.float32)
    before = logits(morpher.model)
    wanted = stack((base, 2, 4), (base, 0, 2))
    morpher.morph(wanted)
    assert morpher.model.config.layer_types[0] == "sliding_attention"
    assert_exported_alike(morpher, wanted, tmp_path / "out")
    morpher.morph(stack((base, 0, 4)))
    assert torch.equal(logits(morpher.model), before)


@pytest.mark.parametrize("method", ["ties", "dare_ties", "slerp", "linear"])
def test_vocabularies_come_and_go(method: str, tmp_path: Path) -> None:
    """Nothing of a recipe in one vocabulary is left for a recipe in another."""
    small = [download(str(path)) for path in save_family(tmp_path / "s", torch.float32, True, 400)]
    large = download(str(save_family(tmp_path / "l", torch.float32, True, 900)[1]))
    base, one = small[:2]

    def merge(*sources: Source, **extra: Any) -> Recipe:
        config = recipe(method, [base, *sources]).config
        if method == "slerp":
            config = {**config, "models": config["models"][:1]}
        elif method != "linear":
            config = {**config, "parameters": {"rescale": True}}
        return Recipe({**config, **extra})

    recipes = [
        merge(large, one, tokenizer_source="union"),
        merge(one),
        merge(large, one, tokenizer_source=base.name),
        merge(large, one, tokenizer_source="union"),
    ]
    morpher = Morpher(base, [one, large], CPU, torch.float32)
    for wanted, size in zip(recipes, (900, 400, 400, 900), strict=True):
        fresh = Morpher(base, [one, large], CPU, torch.float32)
        assert morpher.morph(wanted) == fresh.morph(wanted)
        assert_same_states(morpher, fresh)
        assert morpher.model.config.vocab_size == len(morpher.tokenizer) == size
    assert_exported_alike(morpher, recipes[-1], tmp_path / "out")
    exported = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert exported.get_vocab() == morpher.tokenizer.get_vocab()
