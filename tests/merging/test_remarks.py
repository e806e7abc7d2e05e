"""What only the models show of a recipe: filters that match nothing, settings unread, layers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from morphing.merging.merge import merge_recipe
from morphing.merging.planning.plan import ModelInfo, plan_remarks
from morphing.merging.recipe import Recipe
from morphing.sources import local
from morphing.sources.compatibility import check
from morphing.sources.find import inspect
from morphing.sources.source import Source
from tests.merging.tiny import LAYERS

NAMES = ("base", "one", "two", "three")
TIES = """\
merge_method: ties
base_model: base
models:
- {model: one, parameters: {weight: WEIGHT, density: 0.5}}
- {model: two, parameters: {weight: 0.5}}
"""
UNREAD = "whatever would read it has a value that stands before it or further inside."


@pytest.fixture(scope="module")
def infos(family: list[Source]) -> dict[str, ModelInfo]:
    def info(source: Source) -> ModelInfo:
        config = local.read_json(source.folder / "config.json")
        places = local.read_checkpoint(source.folder, config)
        return ModelInfo(config, {name: place.info for name, place in places.items()})

    return {name: info(source) for name, source in zip(NAMES, family, strict=True)}


def told(text: str, infos: dict[str, ModelInfo]) -> list[str]:
    return plan_remarks(Recipe.from_yaml(text), infos)


@pytest.mark.parametrize(
    ("weight", "extra", "words"),
    [
        ("0.5", "", None),
        ("[0.1, 0.9, 0.3]", "", None),
        ("[{filter: mlp, value: 1}, {value: 0.3}]", "", None),
        ("[{filter: attn, value: [0, 1]}, {value: 0.3}]", "parameters: {density: 0.4}", None),
        ("{value: 0.3}", "", None),
        ("[{filter: '*', value: 1}]", "", None),
        ("[{filter: self_atn, value: 1}, {value: 1}]", "", "weight.0 changes nothing.*self_attn?"),
        ("[{filter: query, value: 1}, {value: 1}]", "", "no tensor's name has 'query'.*names are"),
        ("[{filter: layers.9., value: 1}, {value: 1}]", "", "no tensor's name has 'layers.9.'"),
        ("[{value: 1}, {filter: mlp, value: 1}]", "", f"weight.1 changes nothing: {UNREAD}"),
        ("[{filter: '*', value: 1}, {value: 1}]", "", f"weight.1 changes nothing: {UNREAD}"),
        ("0.5", "parameters: {weight: 1}", f"^parameters.weight changes nothing: {UNREAD}"),
        ("0.5", "parameters: {lambda: [1, 2, 3, 4]}", "lambda has 4 values for 3 layers"),
        ("[{filter: norm.weight, value: [1, 2]}, {value: 1}]", "", None),
        ("[{filter: embed, value: [1, 2]}, {value: 1}]", "", "weight.0 uses its first value only"),
    ],
)
def test_settings_that_no_tensor_reads_are_told(
    weight: str, extra: str, words: str | None, infos: dict[str, ModelInfo]
) -> None:
    import re

    found = told(TIES.replace("WEIGHT", weight) + extra, infos)
    if words is None:
        assert found == []
    else:
        assert len(found) == 1 and re.search(words.replace("?", r"\?"), found[0]), found


def slices(*pieces: str) -> str:
    sources = "".join(
        f"- sources: [{{model: {model}, layer_range: [{start}, {end}]}}]\n"
        for model, start, end in (piece.split() for piece in pieces)
    )
    return f"merge_method: passthrough\nslices:\n{sources}"


@pytest.mark.parametrize(
    ("pieces", "words"),
    [
        (("one 0 3",), []),
        (("one 0 1", "two 1 3"), []),
        (("one 0 1", "one 2 3"), ["The slices leave out layer 1 of 3."]),
        (("one 0 1",), ["The slices leave out layers 1 to 2 of 3."]),
        (("one 1 2",), ["The slices leave out layers 0, 2 of 3."]),
        (("one 0 2", "two 1 3"), ["The slices take layer 1 more than once."]),
        (("one 1 3", "one 0 1"), ["The slices take the layers in another order: 1, 2, 0."]),
        (
            ("one 0 2", "one 0 2"),
            [
                "The slices leave out layer 2 of 3.",
                "The slices take layers 0 to 1 more than once.",
            ],
        ),
    ],
)
def test_layers_left_out_repeated_or_moved_are_told(
    pieces: tuple[str, ...], words: list[str], infos: dict[str, ModelInfo]
) -> None:
    assert LAYERS == 3
    assert told(slices(*pieces), infos) == words


def test_layers_of_different_places_and_settings_of_one_slice_are_told(
    infos: dict[str, ModelInfo],
) -> None:
    text = """\
merge_method: linear
slices:
- sources:
  - {model: one, layer_range: [0, 2], parameters: {weight: 1}}
  - {model: two, layer_range: [1, 3], parameters: {weight: [{filter: x, value: 1}, {value: 1}]}}
- sources:
  - {model: one, layer_range: [2, 3]}
  - {model: two, layer_range: [2, 3]}
  parameters: {weight: 0.5}
"""
    assert told(text, infos) == [
        "slices.0.sources.1.parameters.weight.0 changes nothing: no tensor's name has 'x' in it;"
        " names are like model.norm.weight.",
        "slices.0 merges layers of different places: layer 0 of one with layer 1 of two.",
    ]


def test_recipes_of_a_search_leave_nothing_to_tell(infos: dict[str, ModelInfo]) -> None:
    from morphing.merging.methods import METHODS
    from morphing.search.options import SpaceOptions
    from morphing.search.space import SearchSpace

    for name, method in METHODS.items():
        if method.numbers:
            for options in (SpaceOptions(), SpaceOptions(layer_groups=2, module_kinds=True)):
                space = SearchSpace(
                    name, "base", NAMES[1:3][: method.most], LAYERS, options, "LlamaForCausalLM"
                )
                point = {n: (d.low + d.high) / 2 for n, d in space.distributions().items()}
                assert plan_remarks(space.recipe(point), infos) == [], name


def test_a_source_with_other_settings_is_told_of_in_a_search_and_a_merge(
    family: list[Source], tmp_path: Path
) -> None:
    """Adapters have no configuration of their own."""
    other = Path(shutil.copytree(family[1].folder, tmp_path / "other"))
    config = json.loads((other / "config.json").read_text())
    changed = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}, "rms_norm_eps": 1e-3}
    (other / "config.json").write_text(json.dumps({**config, **changed}))
    base = inspect(str(family[0].folder))
    assert check(base, [inspect(str(family[1].folder))]) == ()
    (told,) = check(base, [inspect(str(other))])
    assert "rope.theta 1e+06 where the base has 10000" in told
    assert "rms_norm_eps 0.001 where the base has 1e-06" in told
    models = [{"model": str(m), "parameters": {"weight": 0.5}} for m in (other, family[2].folder)]
    recipe = Recipe(
        {"merge_method": "task_arithmetic", "base_model": str(family[0].folder), "models": models}
    )
    noted: list[str] = []
    merge_recipe(recipe, tmp_path / "out", torch.device("cpu"), lambda *_: None, told=noted.extend)
    assert noted == [told]
