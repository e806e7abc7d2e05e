"""Seeds: recipes a search tries first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from morphing.errors import MorphingError
from morphing.merging.recipe import Recipe
from morphing.runs.spec import RunSpec
from morphing.runs.spec_parts import SEEDS
from morphing.runs.stages import Space
from morphing.search.space import finish, short_names
from morphing.yaml_files import read_text

SOURCES, UNIFORM = SEEDS


@dataclass(frozen=True)
class Seed:
    """A recipe to try first: a point of the space, or else a recipe outside it."""

    label: str
    """A source's short name, ``uniform``, or ``recipe-1`` and so on for a user's own."""
    params: Mapping[str, float] | None = None
    recipe: Recipe | None = None
    """None where ``params`` are given: the recipe is the space's at that point."""


def seed_trials(spec: RunSpec, space: Space) -> list[Seed]:
    """The seeds of a pinned spec, in its order, each once; ``space`` is the first stage's.

    A source alone, and the sources' uniform merge, are points of the space where it has them, so
    that samplers can learn from them; else they are ``linear`` recipes. A uniform point of a method
    on task vectors weighs each by 1/K and drops nothing; where the method makes signs agree, that
    is the sources' average but for the entries whose signs do not.

    Args:
        spec: as `pin_seeds` leaves it.
        space: the first stage's.
    """
    seeds: list[Seed] = []
    numbers = count(1)
    for given in spec.search.seeds:
        if given == SOURCES:
            for source, label in zip(spec.sources, short_names(spec.sources), strict=True):
                seeds.append(_seed(label, space.alone(source), average((source,), spec)))
        elif given == UNIFORM:
            seeds.append(_seed(UNIFORM, space.uniform(), average(spec.sources, spec)))
        else:
            if isinstance(given, str):
                raise ValueError(f"the seed {given!r} has not been read: prepare the spec first")
            seeds.append(Seed(f"recipe-{next(numbers)}", recipe=_completed(Recipe(given), spec)))
    kept: list[Seed] = []
    for seed in seeds:
        if not any((seed.params, seed.recipe) == (k.params, k.recipe) for k in kept):
            kept.append(seed)
    return kept


def _seed(label: str, params: Mapping[str, float] | None, otherwise: Recipe) -> Seed:
    return Seed(label, params) if params is not None else Seed(label, recipe=otherwise)


def average(names: tuple[str, ...], spec: RunSpec) -> Recipe:
    """The equal average of models, as a recipe."""
    models = [{"model": name, "parameters": {"weight": 1.0}} for name in names]
    return _completed(Recipe({"merge_method": "linear", "models": models}), spec)


def _completed(recipe: Recipe, spec: RunSpec) -> Recipe:
    """The recipe with the run's dtype, mask seed and, if it has none, vocabulary and template."""
    config = dict(recipe.config)
    tokenizer = None if {"tokenizer", "tokenizer_source"} & set(config) else spec.tokenizer_source
    template = None if config.get("chat_template") else spec.template
    config |= finish(spec.base, tokenizer, "float32", spec.dtype, template)
    return Recipe(config, spec.search.seed)


def pin_seeds(
    seeds: tuple[str | dict[str, Any], ...], names: Mapping[str, str], pin: Callable[[str], str]
) -> tuple[str | dict[str, Any], ...]:
    """The seeds of a spec with files read and models named as the run names them.

    Args:
        seeds: as a person writes them.
        names: the run's models, pinned, by their names in the spec; the base first.
        pin: pins a name that is written in another way.

    Raises:
        MorphingError: a file cannot be read, is no recipe, or names a model that is not the run's.
    """
    return tuple(
        seed if seed in (SOURCES, UNIFORM) else _pinned(*_read(seed), names, pin) for seed in seeds
    )


def _read(seed: str | dict[str, Any]) -> tuple[str, Recipe]:
    """What error messages call a seed, and the recipe that the seed is."""
    if isinstance(seed, dict):
        recipe = Recipe(seed)
        recipe.check()
        return "of the spec", recipe
    try:
        text = read_text(Path(seed).expanduser(), "seed")
    except MorphingError as error:
        raise MorphingError(
            f"{str(error).removesuffix('.')}; search.seeds takes {SOURCES}, {UNIFORM}, the path of"
            " a mergekit YAML or its contents."
        ) from error
    return seed, Recipe.from_yaml(text, where=f"The seed {seed}")


def _pinned(
    label: str, recipe: Recipe, names: Mapping[str, str], pin: Callable[[str], str]
) -> dict[str, Any]:
    known = tuple(names.values())

    def rename(name: str) -> str:
        model, plus, adapter = name.partition("+")
        if plus and name not in names and rename(model) == known[0]:
            return rename(adapter)  # mergekit's way to write an adapter of the base
        pinned = names.get(name) or pin(name)
        if pinned not in known:
            raise MorphingError(
                f"The seed {label} merges {name}, which is no model of this run: its models are"
                f" {', '.join(names)}."
            )
        return pinned

    return dict(recipe.with_names(rename).config)
