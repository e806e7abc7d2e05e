"""Recipes as people write them: what cannot be is refused, what changes nothing is told."""

from __future__ import annotations

import math
from typing import Any

import pytest

from morphing.errors import MorphingError
from morphing.merging.method import Parameter
from morphing.merging.methods import MERGEKITS, METHODS
from morphing.merging.recipe import Recipe
from morphing.merging.recipe_checks import CHAT_TEMPLATES, KEYS, check_recipe, remarks

TIES = """\
merge_method: ties
base_model: base
models:
- {model: one, parameters: {weight: 0.5, density: 0.5}}
- {model: two, parameters: {weight: 0.5}}
"""
SLICES = """\
merge_method: slerp
base_model: base
slices:
- sources:
  - {model: base, layer_range: [0, 2]}
  - {model: one, layer_range: [0, 2]}
parameters: {t: 0.5}
"""


def told(text: str) -> list[str]:
    return Recipe.from_yaml(text).remarks


def refused(config: dict[str, Any]) -> str:
    with pytest.raises(MorphingError) as error:
        check_recipe(config)
    text = str(error.value)
    assert "\n" not in text and len(text) < 400
    return text


def test_the_keys_are_those_of_mergekits_schema() -> None:
    from mergekit import config
    from mergekit.tokenizer.config import TokenEmbeddingConfig, TokenizerConfig

    models = {
        "recipe": config.MergeConfiguration,
        "model": config.InputModelDefinition,
        "slice": config.OutputSliceDefinition,
        "source": config.InputSliceDefinition,
        "module": config.OutputModuleDefinition,
        "condition": config.ConditionalParameter,
        "tokenizer": TokenizerConfig,
        "token": TokenEmbeddingConfig,
    }
    assert KEYS.keys() == models.keys()
    for kind, model in models.items():
        # A stage has a name; the prompts of a solved merge are ours.
        assert set(KEYS[kind]) - {"name", "prompts"} == set(model.model_fields), kind


def test_the_chat_templates_are_mergekits() -> None:
    from importlib import resources

    from mergekit._data import chat_templates

    files = [file.name for file in resources.files(chat_templates).iterdir()]
    assert set(CHAT_TEMPLATES) == {"auto", *(f[:-6] for f in files if f.endswith(".jinja"))}


@pytest.mark.parametrize("text", [TIES, SLICES, "name: x\n" + TIES, TIES + "chat_template: auto"])
def test_nothing_is_told_of_a_recipe_that_means_all_it_says(text: str) -> None:
    assert told(text) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (TIES + "dype: float32", "dype changes nothing: did you mean dtype?"),
        (TIES + "Dtype: float32", "Dtype changes nothing: did you mean dtype?"),
        (TIES + "out-dtype: float32", "did you mean out_dtype?"),
        (TIES + "select_topk: .15", "select_topk changes nothing: it belongs under parameters."),
        (TIES + "normalize: true", "normalize changes nothing: it belongs under parameters."),
        (TIES + "smooth: true", "smooth changes nothing: it is a setting of mergekit-evolve"),
        (TIES + "layer_granularity: 4", "a setting of mergekit-evolve"),
        (TIES + "tokens: {}", "it belongs under tokenizer."),
        (TIES + "weights: 3", "did you mean weight, under parameters?"),
        (TIES + "banana: 3", "banana changes nothing: a recipe has merge_method, models"),
        (TIES.replace("two, ", "two, layer_range: [0, 2], "), "models.1.layer_range changes"),
        (TIES.replace("two, ", "two, weight: 1, "), "models.1.weight changes nothing: it belongs"),
        (TIES.replace("two, ", "two, paramters: {}, "), "models.1.paramters changes"),
        (TIES.replace("density: 0.5", "density: [{filters: mlp, value: 1}]"),
         "models.0.parameters.density.0.filters changes nothing: did you mean filter?"),
        (TIES.replace("density: 0.5", "density: {filters: mlp, value: 1}"), "did you mean filter?"),
        (TIES.replace("density: 0.5", "desnity: 0.5"), "did you mean density?"),
        (TIES.replace("density: 0.5", "gamma: 0.5"), "ties has weight, density, lambda"),
        (TIES.replace("density: 0.5", "density: 0"), "is 0, so nothing is kept of one."),
        (TIES.replace("density: 0.5", "normalize: false"), "reads normalize for all models"),
        (TIES + "- {model: base, parameters: {weight: 0.5}}\n", "base is the base, and ties reads"),
        (TIES + "parameters: {t: 1}", "parameters.t changes nothing: ties has weight"),
        (TIES + "tokenizer: {sources: base}", "tokenizer.sources changes nothing: did you mean so"),
        (TIES + "tokenizer: {source: base, tokens: {x: {forced: true}}}", "did you mean force?"),
        (SLICES + "  weight: 3", None),
        (SLICES.replace("one, ", "one, parameters: {weight: 1}, "), "slices.0.sources.1.param"),
        (SLICES.replace("one, ", "one, parameters: {t: 1}, "), "reads t for all models at once"),
        (SLICES.replace("- sources", "- residual_weight: 0.1\n  sources"), "neither here nor in"),
        (SLICES.replace("- sources", "- merge_method: ties\n  sources"), "at the top of the reci"),
        (TIES.replace("ties", "task_arithmetic"), "task_arithmetic has weight, lambda"),
        ("merge_method: karcher\nmodels: [{model: a, parameters: {weight: 1}}, {model: b}]",
         "karcher has max_iter and tol."),
    ],
)  # fmt: skip
def test_what_changes_nothing_is_told_with_what_was_meant(text: str, words: str | None) -> None:
    if words is None:
        with pytest.raises(MorphingError):
            told(text)
        return
    found = told(text)
    assert len(found) == 1, found
    assert words in found[0] and found[0].endswith((".", "?"))


ALL = [(name, p) for name in MERGEKITS for p in METHODS[name].parameters]
NEVER = (math.nan, math.inf, -math.inf, "0.5", "heavy", "", None, [], {}, {"value": math.nan})
NEVER += ([0.5, math.nan], [{"value": 0.5}, 0.5], [{"filter": 3, "value": 0.5}], [[0.5]], 10**400)


def config_with(method: str, parameter: Parameter, value: Any) -> dict[str, Any]:
    """A recipe in which the value stands where the method reads it."""
    entry: dict[str, Any] = {"model": "one"}
    config = {"merge_method": method, "base_model": "base", "models": [entry]}
    (config if parameter.shared else entry)["parameters"] = {parameter.name: value}
    return config


@pytest.mark.parametrize(("method", "parameter"), ALL, ids=lambda x: getattr(x, "name", x))
def test_every_parameter_of_every_method_refuses_what_is_no_value(
    method: str, parameter: Parameter
) -> None:
    values = [*NEVER]
    low, high = parameter.allowed
    if parameter.kind == "switch":
        values += [2, 0.5, "maybe"]
        values.remove("")
        usual: Any = True
    else:
        values += [True, False]
        values += [low - 1e-9, [0.5, low - 1]] if math.isfinite(low) else []
        values += [high + 1e-9, {"filter": "mlp", "value": high + 1}] if math.isfinite(high) else []
        usual = 3 if parameter.kind == "whole number" else 0.5
        values += [2.5, [3, 4]] if parameter.kind == "whole number" else []
    for value in values:
        text = refused(config_with(method, parameter, value))
        place = "parameters" if parameter.shared else "models.0.parameters"
        assert f"{place}.{parameter.name}" in text, (value, text)
    for value in (usual, [usual], {"value": usual}, [{"filter": "mlp", "value": usual}]):
        check_recipe(config_with(method, parameter, value))
    for end in (low, high):
        if parameter.kind == "number" and math.isfinite(end):
            check_recipe(config_with(method, parameter, end))


def test_a_range_is_named() -> None:
    density = METHODS["ties"].by_name["density"]
    assert refused(config_with("ties", density, 1.5)) == (
        "The recipe's models.0.parameters.density is 1.5: it must be a number from 0 to 1."
    )
    assert "a number of 0 or more" in refused(
        config_with("nuslerp", METHODS["nuslerp"].by_name["weight"], -1)
    )
    check_recipe(config_with("ties", METHODS["ties"].by_name["weight"], -1))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"merge_method": "TIES"}, "did you mean 'ties'?"),
        ({"merge_method": ["ties"]}, "choose one of dare_ties"),
        ({"merge_method": None, "merge-method": "ties"}, "write merge_method for 'merge-method'"),
        ({"merge_method": None, "Merge_Method": "ties"}, "write merge_method for 'Merge_Method'"),
        ({"merge_method": None}, "has no merge_method: choose one of"),
        ({"tokenizer_source": "Union"}, "tokenizer_source is 'Union': did you mean 'union'?"),
        ({"tokenizer_source": "BASE"}, "did you mean 'base'?"),
        ({"tokenizer": {"source": " union"}}, "tokenizer.source is ' union': did you mean 'union'"),
        ({"dtype": "bf16"}, "did you mean bfloat16?"),
        ({"out_dtype": "torch.FP16"}, "did you mean float16?"),
        ({"dtype": "flaot32"}, "did you mean float32?"),
        ({"dtype": 16}, "choose one of float32, bfloat16, float16"),
        ({"chat_template": "chatML"}, "did you mean 'chatml'?"),
        ({"chat_template": "zephyr"}, "write one of auto, alpaca"),
    ],
)
def test_misspelt_words_are_refused_with_what_was_meant(change: dict[str, Any], words: str) -> None:
    config = {"merge_method": "ties", "base_model": "base", "models": [], **change}
    config = {key: value for key, value in config.items() if value is not None}
    assert words in refused(config)


@pytest.mark.parametrize("ends", [[0, 0], [3, 1], [-1, 2], [2, 2]])
def test_a_range_of_no_layers_is_refused(ends: list[int]) -> None:
    config = Recipe.from_yaml(SLICES).config
    config["slices"][0]["sources"][1]["layer_range"] = ends
    assert f"slices.0.sources.1.layer_range is [{ends[0]}, {ends[1]}]" in refused(dict(config))


def test_a_misspelt_key_that_is_needed_is_named_in_the_error() -> None:
    with pytest.raises(MorphingError, match=r"models\.0\.modl changes nothing: did you mean model"):
        Recipe.from_yaml("merge_method: linear\nmodels: [{modl: a}]")


def test_recipes_of_a_search_leave_nothing_to_tell() -> None:
    from morphing.search.options import SpaceOptions
    from morphing.search.space import SearchSpace

    for name, method in METHODS.items():
        if not method.numbers:
            continue
        sources = ("zoo:one", "zoo:two")[: method.most]
        space = SearchSpace(name, "zoo:base", sources, 4, SpaceOptions(layer_groups=2))
        for pick in ("low", "high"):
            point = {n: getattr(d, pick) for n, d in space.distributions().items()}
            recipe = space.recipe(point)
            recipe.check()
            assert [r for r in remarks(recipe.config) if "nothing is kept" not in r] == [], name
