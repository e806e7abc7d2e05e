"""The recipes that are measured: a search's, other parameters at every draw."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from morphing.merging.recipe import Recipe

METHODS = ("linear", "task_arithmetic", "slerp", "ties", "dare_linear", "dare_ties")
WITH_DENSITY = ("ties", "dare_linear", "dare_ties")


def draw(method: str, base: Path, sources: Sequence[Path], number: int) -> Recipe:
    """The ``number``-th recipe of a search with one weight, and one density, a source."""
    chance = random.Random(f"{method} {number}")
    if method == "slerp":
        return _recipe(method, base, sources[:1], [{}], {"t": round(chance.uniform(0.1, 0.9), 4)})
    own = []
    for _ in sources:
        parameters = {"weight": round(chance.uniform(0.1, 0.9), 4)}
        if method in WITH_DENSITY:
            parameters["density"] = round(chance.uniform(0.1, 0.9), 4)
        own.append(parameters)
    shared = {} if method == "linear" else {"normalize": False}
    return _recipe(method, base, sources, own, shared)


def models(recipe: Recipe) -> list[str]:
    """The models merged, a base first."""
    return [*([recipe.base] if recipe.base else []), *recipe.sources]


def parameters(recipe: Recipe) -> dict[str, Any]:
    """For mergekit's in-memory API: shared ones as they are, others by the place in `models`."""
    given: dict[str, Any] = dict(recipe.config.get("parameters", {}))
    places = {name: place for place, name in enumerate(models(recipe))}
    for entry in recipe.config["models"]:
        for name, value in entry.get("parameters", {}).items():
            given.setdefault(name, {})[places[entry["model"]]] = value
    return given


def _recipe(
    method: str,
    base: Path,
    sources: Sequence[Path],
    own: Sequence[Mapping[str, float]],
    shared: Mapping[str, Any],
) -> Recipe:
    entries = [
        {"model": str(source), "parameters": dict(values)}
        for source, values in zip(sources, own, strict=True)
    ]
    config: dict[str, Any] = {"merge_method": method, "models": entries}
    if method != "linear":
        config["base_model"] = str(base)
    if shared:
        config["parameters"] = dict(shared)
    # What Morphing does whatever a recipe says: float32 arithmetic, rounded once.
    return Recipe({**config, "dtype": "float32", "out_dtype": "bfloat16"})
