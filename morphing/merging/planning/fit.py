"""Whether the models of a recipe fit each other, told from their headers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

from morphing.errors import MorphingError
from morphing.merging.planning.layout import Layout, Slot
from morphing.sources.naming import family

Shape = tuple[int, ...]


def check_architectures(layouts: Mapping[str, Layout]) -> None:
    """Refuse models of different architectures, even where their tensors have the same names.

    Raises:
        MorphingError: naming two of them.
    """
    for (one, a), (other, b) in combinations(layouts.items(), 2):
        names, others = a.table.architectures, b.table.architectures
        if names and others and not set(map(family, names)) & set(map(family, others)):
            raise MorphingError(
                f"{one} is a {names[0]} and {other} a {others[0]}: choose models of one"
                " architecture."
            )


def check_vocabularies(layouts: Mapping[str, Layout]) -> None:
    """Refuse vocabularies of different sizes, for a recipe that does not say how to align them.

    Args:
        layouts: the models that give the output its embeddings, head and tokenizer.

    Raises:
        MorphingError: naming a tensor, two models and their shapes.
    """
    (one, first), *others = layouts.items()
    for slot in first.outside:
        axis = first.table.vocabulary_axis(slot)
        for other, layout in others:
            if axis is None or slot not in layout.tensors:
                continue
            a, b = first.shape(slot), layout.shape(slot)
            if a[axis] != b[axis]:
                raise MorphingError(
                    f"{slot.name} is {_words(a)} in {one} and {_words(b)} in {other}, whose"
                    " vocabularies differ: add tokenizer_source: union to the recipe, or"
                    " tokenizer_source: base where it has a base_model."
                )


def check_sizes(layouts: Mapping[str, Layout]) -> None:
    """Refuse models whose layers cannot follow each other; vocabularies may differ here.

    Layers of one model may differ in shape, so two models fit if they have a shape in common.

    Raises:
        MorphingError: naming a tensor, two models and their shapes.
    """
    seen: dict[str, tuple[str, dict[Shape, Slot]]] = {}
    for name, layout in layouts.items():
        own: dict[str, dict[Shape, Slot]] = {}
        for slot in layout.tensors:
            own.setdefault(slot.template, {}).setdefault(_inner(layout, slot), slot)
        for template, shapes in own.items():
            other, expected = seen.setdefault(template, (name, shapes))
            if not shapes.keys() & expected.keys():
                pair = {other: next(iter(expected.values())), name: next(iter(shapes.values()))}
                check_shapes(list(pair), list(pair.values()), layouts)


def check_shapes(
    names: Sequence[str], slots: Sequence[Slot], layouts: Mapping[str, Layout]
) -> None:
    """Refuse inputs of one tensor that differ in shape; in their vocabularies they may.

    Raises:
        MorphingError: naming the tensor, two models and their shapes, or the one model that has
            integers where the other has not.
    """
    first, integers = _inner(layouts[names[0]], slots[0]), _integers(layouts[names[0]], slots[0])
    for name, slot in zip(names, slots, strict=True):
        if _integers(layouts[name], slot) != integers:
            one, other = (names[0], name) if integers else (name, names[0])
            raise MorphingError(
                f"{slot.name} holds integers in {one} and not in {other}: if {one} is quantised,"
                " choose the model it was quantised from."
            )
        if _inner(layouts[name], slot) != first:
            a, b = layouts[names[0]].shape(slots[0]), layouts[name].shape(slot)
            raise MorphingError(
                f"{slot.name} is {_words(a)} in {names[0]} and {_words(b)} in {name}: choose models"
                " of one size."
            )


def _integers(layout: Layout, slot: Slot) -> bool:
    return not layout.headers[layout.tensors[slot]].dtype.startswith(("F", "BF"))


def _inner(layout: Layout, slot: Slot) -> Shape:
    """A tensor's shape without the axis that token ids index."""
    axis = layout.table.vocabulary_axis(slot)
    return tuple(size for i, size in enumerate(layout.shape(slot)) if i != axis)


def _words(shape: Shape) -> str:
    return " x ".join(map(str, shape)) or "a scalar"
