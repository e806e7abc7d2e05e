"""Recipes that mergekit's schema reads in another spelling, or refuses in pydantic's words."""

from __future__ import annotations

from typing import Any

import pytest

from morphing.errors import MorphingError
from morphing.merging.recipe import Recipe

SLICE = {"model": "a", "layer_range": [0, 2]}


def made(**config: Any) -> Recipe:
    return Recipe.from_data({"merge_method": "linear", **config})


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("0.5", 0.5), (" 1 ", 1), ("-2", -2), ("1e-3", 0.001), (".5", 0.5), ("1_0.0", 10.0),
        (["0.5", 1], [0.5, 1]), ({"value": "0.25", "filter": "3"}, {"value": 0.25, "filter": "3"}),
        ([{"value": ["0", "1"], "filter": "mlp"}, {"value": "2"}],
         [{"value": [0, 1], "filter": "mlp"}, {"value": 2}]),
    ],
)  # fmt: skip
def test_numbers_may_be_written_as_text(written: Any, meant: Any) -> None:
    entry = {"model": "007", "parameters": {"weight": written}}
    recipe = made(models=[entry], parameters={"normalize": "false"})
    assert recipe.config["models"] == [{"model": "007", "parameters": {"weight": meant}}]
    assert recipe.config["parameters"] == {"normalize": "false"}
    assert recipe.remarks == []


@pytest.mark.parametrize("written", ["half", "", "0.5.1", "nan", "-", "1,5"])
def test_text_that_is_no_number_is_refused(written: str) -> None:
    with pytest.raises(MorphingError, match=r"weight is the text .*: it must be a number"):
        made(models=[{"model": "a", "parameters": {"weight": written}}])


def test_a_dtype_may_be_torchs() -> None:
    recipe = made(models=[{"model": "a"}], dtype="torch.bfloat16", out_dtype="torch.float16")
    assert (recipe.config["dtype"], recipe.config["out_dtype"]) == ("bfloat16", "float16")


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"models": {"model": "a"}}, "models is {'model': 'a'}: it must be a list of models"),
        ({"models": "a"}, "models is 'a': it must be a list of models, as in `- model: org/name`"),
        ({"models": ["a"]}, "models.0 is 'a': it must be a mapping that names a model"),
        ({"models": [{"model": None}]}, "models.0.model is None: it must be a model's name"),
        ({"models": [{"model": 7}]}, "models.0.model is 7: it must be a model's name, as text"),
        ({"models": [{"weight": 1}]}, "models.0 has no model: it must be a model's name"),
        ({"models": [{"model": "a", "parameters": [{"weight": 1}]}]}, "a mapping of names and val"),
        ({"models": [{"model": "a"}], "base_model": 3}, "base_model is 3: it must be a model's"),
        ({"models": [{"model": "a"}], "tokenizer": "union"}, "a mapping, as in {source: union}"),
        ({"models": [{"model": "a"}], "tokenizer_source": 3}, "union, base or a model's name"),
        ({"models": [{"model": "a"}], "tokenizer": {"tokens": ["x"]}}, "a mapping of tokens"),
        ({"models": [{"model": "a"}], "tokenizer": {"tokens": {"x": "y"}}}, "{source: org/name}"),
        ({"models": [{"model": "a"}], "chat_template": 3}, "chat_template is 3: it must be text"),
        ({"slices": {"sources": []}}, "it must be a list of slices, each with sources"),
        ({"slices": ["a"]}, "slices.0 is 'a': it must be a mapping with sources"),
        ({"slices": [{}]}, "slices.0 has no sources: it must be a list of models"),
        ({"slices": [{"sources": SLICE}]}, "it must be a list of models with a layer_range each"),
        ({"slices": [{"sources": [{"model": "a"}]}]}, "has no layer_range: it must be two whole"),
        *(
            ({"slices": [{"sources": [{"model": "a", "layer_range": ends}]}]}, "two whole numbers")
            for ends in ("0-2", [0], [0, 1, 2], [0, "x"], [0, 2.5], 8, {"from": 0})
        ),
        ({"models": [{"model": "a/b+c/d+e/f"}]}, "names a/b+c/d+e/f, which is more than a model"),
        ({"models": [{"model": "a"}, {"model": "a"}]}, "lists a more than once: keep one of them"),
        ({"slices": [{"sources": [SLICE, SLICE]}]}, "lists a more than once in slice 1: keep one"),
    ],
)
def test_what_does_not_fit_the_schema_is_said_in_plain_words(
    config: dict[str, Any], words: str
) -> None:
    with pytest.raises(MorphingError) as error:
        made(**config)
    text = str(error.value)
    assert words in text and text.startswith("The recipe") and "\n" not in text
    assert not any(word in text for word in ("Input", "valid dictionary", "tuple", "Field"))


@pytest.mark.parametrize(
    ("method", "models", "base", "words"),
    [
        ("slerp", "ab", None, "requires a base input: name one as base_model."),
        ("ties", "a", None, "requires a base input: name one as base_model."),
        ("slerp", "ab", "c", "exactly 2 inputs; got 3 (base_model counts as one)."),
        ("model_stock", "a", "c", "at least 3 inputs; got 2 (base_model counts as one)."),
        ("passthrough", "ab", None, "exactly 1 inputs; got 2."),
    ],
)
def test_how_many_models_a_method_takes_is_said_with_the_base(
    method: str, models: str, base: str | None, words: str
) -> None:
    config = {"merge_method": method, "models": [{"model": model} for model in models]}
    with pytest.raises(MorphingError) as error:
        Recipe.from_data(config | ({"base_model": base} if base else {}))
    assert str(error.value).endswith(words)
