"""Recipes that merge nothing: one model as it is; and what can be said of any recipe."""

from __future__ import annotations

from typing import Any

from morphing.merging.recipe import Recipe
from morphing.runs.spec import RunSpec


def alone(name: str, spec: RunSpec) -> Recipe:
    """The recipe that is one model of a run as it is, asked in the words that merges are."""
    return unmerged(name, spec.dtype, spec.template)


def unmerged(name: str, dtype: str, chat_template: str | None = None) -> Recipe:
    """The recipe that is one model as it is, in ``dtype``."""
    config: dict[str, Any] = {
        "merge_method": "linear",
        "models": [{"model": name, "parameters": {"weight": 1.0}}],
        "dtype": "float32",
        "out_dtype": dtype,
        **({"chat_template": chat_template} if chat_template else {}),
    }
    return Recipe(config)


def layer_count(recipe: Recipe) -> int:
    """How many layers a recipe of slices has; 0 for a recipe of whole models, which decide it."""
    ranges = (piece["sources"][0]["layer_range"] for piece in recipe.config.get("slices") or ())
    return sum(end - start for start, end in ranges)
