"""Recipes of several YAML documents: merges that go before others, as mergekit-multi has them.

Each document is a recipe. One with a ``name`` makes a model that the others call by it; the one
that no other uses is the merge that is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from morphing.errors import MorphingError
from morphing.merging.recipe import Recipe
from morphing.yaml_files import read_documents

_PARTS = "@+"
"""In a model's name these set off a revision and an adapter."""


@dataclass(frozen=True)
class MergeStages:
    """One merge, and those that must be made before it."""

    final: Recipe
    earlier: Mapping[str, Recipe]
    """By name, in the order in which they can be made; empty for an ordinary recipe."""
    remarks: tuple[str, ...] = ()
    """What the documents say that changes nothing, one sentence each."""


def read_stages(text: str, mask_seed: int = 0, where: str = "The recipe") -> MergeStages:
    """Read a recipe of one document or of several.

    Args:
        text: YAML, or Markdown with YAML fences.
        mask_seed: of the random masks of every stage.
        where: begins the sentence of an error: the file's path.

    Raises:
        MorphingError: the text is no YAML, a document is no recipe, two have one name, stages need
            each other in a circle, or there is not exactly one final merge.
    """
    documents = read_documents(text, where)
    if len(documents) <= 1:
        recipe = Recipe.from_data(documents[0] if documents else None, mask_seed, where)
        return MergeStages(recipe, {}, tuple(recipe.remarks))
    named: dict[str, Recipe] = {}
    unnamed = []
    for number, data in enumerate(documents, 1):
        recipe = Recipe.from_data(data, mask_seed, f"{where}, document {number}")
        name = _name(recipe.config, number, where)
        if name is None:
            unnamed.append(recipe)
        elif name in named:
            raise MorphingError(f"{where} has two documents with the name {name!r}: rename one.")
        else:
            config = {key: value for key, value in recipe.config.items() if key != "name"}
            named[name] = Recipe(config, mask_seed)
    final = _final(named, unnamed, where)
    earlier = _in_order(final, named, where)
    idle = [name for name, recipe in named.items() if name not in earlier and recipe is not final]
    return MergeStages(
        final,
        {name: named[name] for name in earlier},
        (
            *(f"Stage {n} is not made: the final merge has no use for it." for n in idle),
            *(f"Stage {n}: {remark}" for n in earlier for remark in named[n].remarks),
            *final.remarks,
        ),
    )


def _name(config: Mapping[str, Any], number: int, where: str) -> str | None:
    name = config.get("name")
    if name is None:
        return None
    if not isinstance(name, str) or not name.strip() or set(name) & set(_PARTS):
        raise MorphingError(
            f"{where}, document {number}, has the name {name!r}: a stage's name is text without"
            " @ and +."
        )
    return name


def _uses(recipe: Recipe, names: Mapping[str, Recipe]) -> list[str]:
    """The stages that a recipe merges or takes an adapter or a tokenizer from."""
    parts = [part for name in recipe.references for part in (name, *name.split("+"))]
    return [name for name in names if name in parts]


def _final(named: Mapping[str, Recipe], unnamed: list[Recipe], where: str) -> Recipe:
    if len(unnamed) > 1:
        raise MorphingError(
            f"{where} has {len(unnamed)} documents without a name, and only the final merge may"
            " have none: name the others, and use them by it."
        )
    if unnamed:
        return unnamed[0]
    used = {name for recipe in named.values() for name in _uses(recipe, named)}
    ends = [name for name in named if name not in used]
    if len(ends) != 1:
        said = f"{', '.join(ends)} are used by no other" if ends else "each is used by another"
        raise MorphingError(
            f"{where} does not say which of its documents is the final merge ({said}): leave out"
            " the name of that one."
        )
    return named[ends[0]]


def _in_order(final: Recipe, named: Mapping[str, Recipe], where: str) -> list[str]:
    """The stages that the final merge needs, each after those it needs itself."""
    order: list[str] = []

    def visit(recipe: Recipe, above: tuple[str, ...]) -> None:
        for name in _uses(recipe, named):
            if name in above:
                circle = " -> ".join((*above[above.index(name) :], name))
                raise MorphingError(
                    f"{where} has stages that need each other ({circle}): take one of these models"
                    " from elsewhere."
                )
            if name not in order:
                visit(named[name], (*above, name))
                order.append(name)

    visit(final, ())
    return order
