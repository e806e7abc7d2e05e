"""The shape that a recipe must have before anything reads it: a light check of foreign data.

`Recipe.check` validates a recipe against mergekit's own schema, which takes seconds to import. The
app shows hundreds of recipes and merges none, so what it reads is checked here: which models are
named, where, and which layers. Everything else is left as it is, for `Recipe.check` to judge.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field

from morphing.runs.files import Name

_Layer = Annotated[int, Field(ge=0, le=100_000)]


class _Place(BaseModel):
    """A model in mergekit's mapping form."""

    path: Name


class _Adapted(BaseModel):
    """A model, mostly with an adapter, in mergekit's mapping form."""

    model: Name | _Place
    lora: Name | _Place | None = None


_Reference = Name | _Place | _Adapted


class _Entry(BaseModel):
    """A model to merge."""

    model: _Reference


class _Layers(_Entry):
    """Layers of a model to merge: the first, and the one after the last."""

    layer_range: Annotated[list[_Layer], Field(min_length=2, max_length=2)]


class _Zero(BaseModel):
    """A token whose row is zeros."""

    kind: Literal["zero"]


class _Token(BaseModel):
    """Where a token's row is from."""

    source: _Reference | _Zero | None = None


class _Tokenizer(BaseModel):
    source: _Reference | None = None
    tokens: dict[str, _Token] | None = None


class _Part(BaseModel):
    """What may name models: a recipe, a module of one, or a slice."""

    merge_method: Name | None = None
    models: list[_Entry] | None = None
    sources: list[_Layers] | None = None
    slices: list[_Slice] | None = None
    modules: dict[str, _Part] | None = None
    base_model: _Reference | None = None
    tokenizer_source: _Reference | None = None
    tokenizer: _Tokenizer | None = None


class _Slice(_Part):
    sources: Annotated[list[_Layers], Field(min_length=1)]


def _checked(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration as it is, once all that names models in it has its shape."""
    _Part.model_validate(config)
    return config


RecipeConfig = Annotated[dict[str, Any], AfterValidator(_checked)]
"""A recipe's configuration, mergekit's, as plain data."""
MaskSeed = Annotated[int, Field(ge=0, lt=2**63)]
