"""What would ruin a model is named: values that are no numbers, tensors and layers missing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from morphing.errors import MorphingError
from morphing.merging.merge import merge_recipe
from morphing.merging.methods import METHODS
from morphing.merging.morph import Morpher
from morphing.merging.recipe import Recipe
from morphing.runs.single import load_single
from morphing.sources.find import download, inspect
from morphing.sources.source import Source
from tests.merging.tiny import LAYERS

CPU = torch.device("cpu")
LAST = f"model.layers.{LAYERS - 1}.mlp.down_proj.weight"
Change = Callable[[dict[str, torch.Tensor]], object]


def copies(family: list[Source], folder: Path, change: Change, **config: Any) -> list[Source]:
    """The family in new folders, with tensors and configuration of each changed."""
    made = []
    for number, source in enumerate(family):
        copy = Path(shutil.copytree(source.folder, folder / str(number)))
        tensors = load_file(copy / "model.safetensors")
        change(tensors)
        save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
        settings = json.loads((copy / "config.json").read_text())
        (copy / "config.json").write_text(json.dumps({**settings, **config}))
        made.append(replace(source, name=str(copy), folder=copy, digest=None))
    return made


def large(tensors: dict[str, torch.Tensor]) -> None:
    tensors[LAST][3, 5] = 6e4


def recipe_of(method: str, sources: list[Source], dtype: str) -> Recipe:
    """Every source counts for more than it is, so that 60000 goes beyond 65504."""
    known = METHODS[method]
    values = {"weight": 1.2, "scale": 1.2, "t": 0.5, "density": 0.9, "epsilon": 0.05}
    parameters = {p.name: values[p.name] for p in known.parameters if p.name in values}
    shared = {n: v for n, v in parameters.items() if known.by_name[n].shared}
    own = {n: v for n, v in parameters.items() if not known.by_name[n].shared}
    shared |= {"normalize": False} if "normalize" in known.by_name else {}
    count = known.most or 2
    config: dict[str, Any] = {
        "merge_method": method,
        "models": [{"model": s.name, "parameters": own} for s in sources[1 : 1 + count]],
        "parameters": shared,
        "dtype": dtype,
    }
    if known.based:
        config["base_model"] = sources[0].name
    return Recipe(config)


GROWING = ("linear", "passthrough", "task_arithmetic", "ties", "dare_ties", "della")


@pytest.mark.parametrize("method", GROWING)
def test_a_value_beyond_the_dtype_is_named_in_a_merge_and_a_morph(
    method: str, family: list[Source], tmp_path: Path
) -> None:
    sources = copies(family, tmp_path / "in", large)
    # The base's value is small, so that a task vector holds nearly all of it.
    base = load_file(sources[0].folder / "model.safetensors")
    base[LAST][3, 5] = 0.0
    save_file(base, sources[0].folder / "model.safetensors", metadata={"format": "pt"})
    recipe = recipe_of(method, sources, "float16")
    words = f"1 merged values of {LAST} are beyond float16.*65504.*set dtype: bfloat16 or float32"
    with pytest.raises(MorphingError, match=words):
        merge_recipe(recipe, tmp_path / "out", CPU, lambda *_: None)
    assert not (tmp_path / "out").exists()
    morpher = Morpher(sources[0], sources[1:], CPU, torch.float16)
    with pytest.raises(MorphingError, match=words):
        morpher.morph(recipe)
    fine = Recipe({**recipe.config, "dtype": "bfloat16"})
    merge_recipe(fine, tmp_path / "out", CPU, lambda *_: None)
    morpher.morph(Recipe({**recipe_of("slerp", sources, "float16").config}))
    assert all(bool(torch.isfinite(p).all()) for p in morpher.model.parameters())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_values_that_are_no_numbers_are_counted_and_named(
    value: float, family: list[Source], tmp_path: Path
) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors[LAST][0, :3] = value

    (bad,) = copies(family[1:2], tmp_path, change)
    words = rf"{LAST} of .* holds NaN or infinity in 3 of its \d+ values"
    with pytest.raises(MorphingError, match=words):
        merge_recipe(
            recipe_of("linear", [family[0], bad, family[2]], "float32"),
            tmp_path / "out",
            CPU,
            lambda *_: None,
        )
    with pytest.raises(MorphingError, match=words):
        Morpher(family[0], [bad], CPU, torch.float32)
    with pytest.raises(MorphingError, match=words):
        load_single(bad.name, device="cpu")


def test_a_dtype_too_small_for_a_model_is_named(family: list[Source], tmp_path: Path) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors[LAST][0, 0] = 1e5

    (big,) = copies(family[:1], tmp_path, change)
    with pytest.raises(MorphingError, match=f"{LAST} of .* in 1 of .* loaded as float16"):
        Morpher(big, [], CPU, torch.float16)


def without(name: str) -> Change:
    return lambda tensors: tensors.pop(name)


@pytest.mark.parametrize("name", ["model.norm.weight", "model.embed_tokens.weight", LAST])
def test_a_tensor_that_no_model_has_is_named(
    name: str, family: list[Source], tmp_path: Path
) -> None:
    """Loading would fill it in at random."""
    sources = copies(family, tmp_path / "in", without(name))
    with pytest.raises(MorphingError, match=f"lacks .*{name}.*random weights"):
        merge_recipe(recipe_of("ties", sources, "float32"), tmp_path / "out", CPU, lambda *_: None)
    assert not (tmp_path / "out").exists()
    for load in (
        lambda: Morpher(sources[0], sources[1:], CPU, torch.float32),
        lambda: load_single(sources[0].name, device="cpu"),
    ):
        with pytest.raises(MorphingError, match=f"lacks .*{name}.*random weights"):
            load()


@pytest.mark.parametrize("layers", [LAYERS - 1, LAYERS + 1])
def test_a_configuration_of_other_layers_than_the_files_is_refused(
    layers: int, family: list[Source], tmp_path: Path
) -> None:
    sources = copies(family, tmp_path / "in", lambda _: None, num_hidden_layers=layers)
    words = f"says num_hidden_layers: {layers}, and its files hold {LAYERS} layers"
    for look in (inspect, download):
        with pytest.raises(MorphingError, match=words):
            look(sources[0].name)
    with pytest.raises(MorphingError, match=words):
        merge_recipe(recipe_of("ties", sources, "float32"), tmp_path / "out", CPU, lambda *_: None)


@pytest.mark.parametrize(
    ("config", "tensors", "fits"),
    [
        ({"num_hidden_layers": 2}, ("model.layers.1.a", "model.embed"), True),
        ({"num_hidden_layers": 3}, ("model.layers.1.a",), False),
        ({"n_layer": 3}, ("transformer.h.1.a",), False),
        ({"n_layer": 2}, ("h.1.a",), True),
        ({"text_config": {"num_hidden_layers": 3}}, ("model.layers.1.a",), False),
        ({"num_hidden_layers": 2, "num_nextn_predict_layers": 1}, ("model.layers.2.a",), True),
        ({"num_hidden_layers": 2}, ("vision.layers.4.a", "text.layers.1.a"), True),
        ({"num_layers": 2, "num_decoder_layers": 3}, ("e.block.1.a", "d.block.2.a"), True),
        ({"num_hidden_layers": "x"}, ("model.layers.1.a",), True),
        ({}, ("model.layers.1.a",), True),
    ],
)  # fmt: skip
def test_where_the_number_of_layers_is_told(
    config: dict[str, Any], tensors: tuple[str, ...], fits: bool
) -> None:
    from morphing.sources.metadata import describe
    from morphing.sources.source import TensorInfo

    headers = {name: TensorInfo((2, 2), "F32") for name in tensors}
    try:
        describe("it", config, headers, {}, adapter=False)
    except MorphingError as error:
        assert not fits, error
    else:
        assert fits
