"""Recipes: mergekit YAML in and out, and refusals in one sentence."""

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


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[", "not valid YAML"),
        ("ties", "must be a mapping"),
        ("merge_method: blend\nmodels: [{model: a}]", "'blend': choose one of linear"),
        ("merge_method: ties\nbase_model: b", "'models'"),
        (
            "merge_method: ties\nbase_model: b\nmodels: [{modl: a}]",
            "models.0.model: Field required",
        ),
        ("merge_method: ties\nbase_model: b\nmodels: [{model: a, parameters: 3}]", "models.0"),
        ("merge_method: ties\nmodels: [{model: a}]", "requires a base"),
        ("merge_method: slerp\nbase_model: b\nmodels: [{model: a}, {model: c}]", "exactly 2"),
        ("merge_method: ties\nbase_model: b\nmodels: [{model: a}, {model: a}]", "Duplicate"),
        ("merge_method: linear\nslices: [{sources: []}]", "uses slices"),
        ("merge_method: linear\nmodels: [{model: a}]\ntokenizer_source: union", "tokenizer_source"),
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
