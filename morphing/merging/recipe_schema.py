"""Recipes against mergekit's schema: values spelled in another way, and what does not fit said."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from morphing.merging.recipe_checks import DTYPES

if TYPE_CHECKING:
    from pydantic import ValidationError

_NUMBER = re.compile(r"[-+]?(?:\d+(?:_\d+)*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_WANTED: Mapping[str, str] = {
    "models": "a list of models, as in `- model: org/name`",
    "slices": "a list of slices, each with sources",
    "sources": "a list of models with a layer_range each, as in"
    " `- {model: org/name, layer_range: [0, 8]}`",
    "modules": "a mapping of modules",
    "model": "a model's name, as text",
    "base_model": "a model's name, as text",
    "layer_range": "two whole numbers, the first layer and the one after the last, as in [0, 8]",
    "parameters": "a mapping of names and values, as in {weight: 0.5}",
    "value": "a number",
    "tokenizer": "a mapping, as in {source: union}",
    "tokenizer_source": "union, base or a model's name",
    "source": "union, base or a model's name",
    "tokens": "a mapping of tokens, each with the source of its embedding",
    "pad_to_multiple_of": "a whole number",
    "chat_template": "text",
}
"""By the key, what may stand there."""
_ENTRIES: Mapping[str, str] = {
    "models": "a mapping that names a model, as in `- model: org/name`",
    "slices": "a mapping with sources",
    "sources": "a mapping with a model and a layer_range",
    "tokens": "a mapping, as in {source: org/name}",
}
"""By the key of a list or mapping, what each of its entries must be."""


def in_one_spelling(config: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe as plain data, with values that mergekit reads alike in one spelling.

    Numbers among parameters may be written as text (``"0.5"``), and a dtype may be ``torch``'s.
    """
    result = _numbers(config, inside=False)
    for key in ("dtype", "out_dtype"):
        name = str(result.get(key)).removeprefix("torch.")
        if name in DTYPES:
            result[key] = name
    return dict(result)


def schema_complaint(error: ValidationError, config: Any) -> str:
    """The first complaint of mergekit's schema about a recipe, in a sentence."""
    first = error.errors()[0]
    value, place = config, list[str | int]()
    for part in first["loc"]:
        inside = dict(enumerate(value)) if isinstance(value, list) else value
        if not isinstance(inside, Mapping) or part not in inside:
            break  # the name of a union's member, or a key that is missing
        place.append(part)
        value = inside[part]
    where = f"The recipe's {'.'.join(map(str, place))}" if place else "The recipe"
    missing = str(first["loc"][-1]) if first["type"] == "missing" else ""
    if missing in _WANTED:
        return f"{where} has no {missing}: it must be {_WANTED[missing]}."
    wanted = _wanted(place)
    if wanted is None:
        return f"{where} does not fit: {first['msg'][:1].lower()}{first['msg'][1:]}."
    text = repr(value)
    return f"{where} is {text if len(text) < 60 else f'{text[:60]}...'}: it must be {wanted}."


def _wanted(place: Sequence[str | int]) -> str | None:
    """What may stand at a place, by the nearest key that is known."""
    names = [str(part) for part in place]
    for depth in range(len(names) - 1, -1, -1):
        if depth == len(names) - 2 and names[depth] in _ENTRIES:
            return _ENTRIES[names[depth]]
        if names[depth] in _WANTED:
            return _WANTED[names[depth]]
    return None


def _numbers(value: Any, inside: bool) -> Any:
    """The value with text that is a number made one, where parameters are."""
    if isinstance(value, Mapping):
        return {
            key: item if key == "filter" else _numbers(item, inside or key == "parameters")
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [_numbers(item, inside) for item in value]
    if inside and isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        return float(value) if set(value) & set(".eE") else int(value)
    return value
