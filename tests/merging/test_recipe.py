"""Recipes: mergekit YAML in and out, and refusals in one sentence."""

from __future__ import annotations

import subprocess
import sys

import pytest

from morphing.errors import MorphingError
from morphing.merging.recipe import Recipe

TIES = """
merge_method: ties
base_model: zoo:base
models:
  - model: zoo:one
    parameters: {weight: 0.5, density: [0.1, 0.9]}
  - model: org/two@main
    parameters:
      weight:
        - {filter: mlp, value: 1e-3}
        - {value: 1.0}
parameters: {normalize: true}
dtype: float32
"""

SLICES = """
merge_method: ties
base_model: org/base@v1
slices:
  - sources:
      - {model: org/one@v2+org/adapter@v3, layer_range: [0, 8], parameters: {weight: 0.5}}
      - {model: {model: {path: org/base, revision: v1}}, layer_range: [0, 8]}
    parameters: {density: [0.2, 0.8]}
  - sources:
      - {model: org/two, layer_range: [8, 16], parameters: {weight: {filter: mlp, value: 0.3}}}
      - {model: org/one@v2+org/adapter@v3, layer_range: [8, 16]}
    base_model: org/two
    residual_weight: 0.1
parameters: {weight: 0.7, normalize: true, lambda: 0.9, int8_mask: true}
tokenizer:
  source: org/tokens
  tokens:
    <a>: {source: org/two, force: true}
    <b>: {source: {kind: model_token, model: org/one, token_id: 3}}
    <c>: {source: {kind: zero}}
    <d>: {source: null}
  pad_to_multiple_of: 8
chat_template: auto
dtype: float32
out_dtype: bfloat16
"""


def test_a_recipe_survives_yaml() -> None:
    recipe = Recipe.from_yaml(TIES, mask_seed=3)
    assert (recipe.method, recipe.base) == ("ties", "zoo:base")
    assert recipe.sources == ("zoo:one", "org/two@main")
    assert recipe.inputs == ("zoo:one", "org/two@main", "zoo:base")
    assert Recipe.from_yaml(recipe.to_yaml(), mask_seed=3) == recipe


def test_a_base_among_the_models_is_no_source() -> None:
    text = "merge_method: slerp\nbase_model: b\nmodels: [{model: a}, {model: b}]"
    recipe = Recipe.from_yaml(text)
    assert recipe.sources == ("a",)
    assert recipe.inputs == ("a", "b")


def test_every_reference_is_renamed() -> None:
    renamed = Recipe.from_yaml(TIES).with_names(lambda name: name.replace("zoo:", "/zoo/"))
    assert renamed.inputs == ("/zoo/one", "org/two@main", "/zoo/base")
    mapped = renamed.with_names(lambda name: {"model": {"path": name + "+x"}})
    assert mapped.inputs == ("/zoo/one+x", "org/two@main+x", "/zoo/base+x")
    assert Recipe.from_yaml(mapped.to_yaml()) == mapped


def test_a_recipe_of_slices_names_its_models_once() -> None:
    recipe = Recipe.from_yaml(SLICES)
    one = "org/one@v2+org/adapter@v3"
    assert (recipe.base, recipe.sources) == ("org/base@v1", (one, "org/two"))
    assert recipe.inputs == (one, "org/base@v1", "org/two")
    assert recipe.references == (*recipe.inputs, "org/tokens", "org/one")
    assert Recipe.from_yaml(recipe.to_yaml()) == recipe
    # A base that no slice merges gives its configuration and tokenizer.
    apart = Recipe.from_yaml(
        "merge_method: passthrough\nbase_model: b\n"
        "slices: [{sources: [{model: a, layer_range: [0, 1]}]}]"
    )
    assert (apart.sources, apart.inputs) == (("a",), ("a", "b"))


def test_every_reference_of_slices_and_tokenizer_is_renamed() -> None:
    recipe = Recipe.from_yaml(SLICES)
    renamed = recipe.with_names(lambda name: "new/" + name.replace("/", "-"))
    renamed.check()
    assert renamed.references == tuple("new/" + n.replace("/", "-") for n in recipe.references)
    assert renamed.config["slices"][1]["base_model"] == "new/org-two"
    tokens = renamed.config["tokenizer"]["tokens"]
    assert tokens["<a>"] == {"source": "new/org-two", "force": True}
    assert tokens["<b>"]["source"] == {"kind": "model_token", "model": "new/org-one", "token_id": 3}
    assert tokens["<c>"]["source"] == {"kind": "zero"}
    assert "residual_weight: 0.1" in renamed.to_yaml()
    assert recipe.with_names(lambda name: name).inputs == recipe.inputs


def test_mergekit_reads_a_renamed_tokens_model() -> None:
    recipe = Recipe.from_yaml(
        "merge_method: linear\nmodels: [{model: a}]\n"
        "tokenizer: {tokens: {x: {source: {kind: model_token, model: a, token_id: 3}}}}"
    )
    adapter = "org/base@v1+org/adapter@v2"
    renamed = recipe.with_names(lambda name: adapter)
    renamed.check()
    assert renamed.references == (adapter,)


@pytest.mark.parametrize("source", ["union", "base", "org/other"])
def test_a_tokenizers_source_is_renamed_only_where_it_is_a_model(source: str) -> None:
    text = f"merge_method: linear\nmodels: [{{model: a}}]\ntokenizer_source: {source}"
    recipe = Recipe.from_yaml(text)
    renamed = recipe.with_names(str.upper).config["tokenizer_source"]
    assert renamed == ("ORG/OTHER" if source == "org/other" else source)
    assert recipe.references == (("a", source) if source == "org/other" else ("a",))


def test_a_text_models_one_module_is_its_slices() -> None:
    text = "merge_method: linear\nmodules: {default: {models: [{model: a}, {model: b}]}}"
    recipe = Recipe.from_yaml(text)
    assert recipe.inputs == ("a", "b")
    assert recipe.with_names(str.upper).inputs == ("A", "B")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[", "not valid YAML"),
        ("ties", "must be a mapping"),
        ("merge_method: blend\nmodels: [{model: a}]", "'blend': choose one of dare_ties"),
        ("merge_method: ties\nbase_model: b", "'models'"),
        (
            "merge_method: ties\nbase_model: b\nmodels: [{modl: a}]",
            "models.0 has no model",
        ),
        ("merge_method: ties\nbase_model: b\nmodels: [{model: a, parameters: 3}]", "models.0"),
        ("merge_method: ties\nmodels: [{model: a}]", "requires a base"),
        ("merge_method: slerp\nbase_model: b\nmodels: [{model: a}, {model: c}]", "exactly 2"),
        (
            "merge_method: ties\nbase_model: b\nmodels: [{model: a}, {model: a}]",
            "lists a more than once",
        ),
        ("merge_method: linear\nslices: [{sources: []}]", "at least 1 inputs for slice 1"),
        ("merge_method: linear\nslices: [{sources: [{model: a}]}]", "has no layer_range"),
        ("merge_method: linear\nslices: [1]\nmodels: [{model: a}]", "slices.0"),
        (SLICES.replace("base_model: org/two", ""), "Base input is not present in merge inputs"),
        ("merge_method: linear\nmodules: {text: {models: [{model: a}]}}", "the modules text"),
        (
            "merge_method: linear\n"
            "modules: {default: {models: [{model: a}]}, b: {models: [{model: a}]}}",
            "the modules default, b",
        ),
        (
            "merge_method: linear\nmodels: [{model: a}]\n"
            "tokenizer_source: a\ntokenizer: {source: a}",
            "Cannot specify both",
        ),
        ("merge_method: passthrough\nmodels: [{model: a}, {model: b}]", "exactly 1 inputs"),
        ("merge_method: linear\nmodels: [{model: a}]\nout_dtype: int8", "out_dtype is 'int8'"),
    ],
)
def test_a_malformed_recipe_is_refused_in_one_sentence(text: str, complaint: str) -> None:
    with pytest.raises(MorphingError) as refusal:
        Recipe.from_yaml(text)
    assert complaint in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_importing_a_recipe_is_light() -> None:
    code = "import sys, morphing.merging.recipe; print({'torch', 'mergekit'} & set(sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "set()"
