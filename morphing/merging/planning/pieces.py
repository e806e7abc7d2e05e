"""A recipe's output as pieces: runs of layers, and whose layers they are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from morphing.errors import MorphingError
from morphing.merging.planning.layout import Layout

if TYPE_CHECKING:
    from mergekit.common import ModelReference
    from mergekit.config import ConfigReader, MergeConfiguration, OutputSliceDefinition


@dataclass(frozen=True)
class Piece:
    """Consecutive layers of the output, made of as many layers of every input."""

    references: tuple[ModelReference, ...]
    names: tuple[str, ...]
    """The references as a recipe writes them."""
    starts: tuple[int, ...]
    """The first layer taken from each."""
    layers: int
    base: ModelReference | None
    settings: Mapping[ModelReference | None, Sequence[Any]]
    """What is set for each input, and for all (None), from the innermost scope to the outermost."""


def cut(configuration: MergeConfiguration, layouts: Mapping[str, Layout]) -> dict[str, list[Piece]]:
    """The pieces of every stack of layers, in the output's order; a text model has one stack.

    ``models`` are one piece over all layers; a base that they do not list is added to them.

    Raises:
        MorphingError: a slice takes layers that a model does not have, unequal numbers of them,
            or cuts a model of several stacks.
    """
    from mergekit.config import ConfigReader, InputSliceDefinition, OutputSliceDefinition

    module = (configuration.modules or {}).get("default")
    part = module or configuration
    reader = ConfigReader(config=configuration, module=module, t=0)
    if part.slices:
        stacks = _stacks(layouts, layouts)
        if len(stacks) > 1:
            raise MorphingError(
                f"The recipe cuts slices out of models with several stacks of layers"
                f" ({', '.join(stacks)}), which mergekit's slices cannot say: write it with models."
            )
        for place, definition in enumerate(part.slices, 1):
            _check_ranges(place, definition, stacks[0], layouts)
        return {stacks[0]: [_piece(definition, reader) for definition in part.slices]}

    inputs = [(entry.model, entry.parameters) for entry in part.models or ()]
    base = configuration.base_model
    if base is not None and all(model != base for model, _ in inputs):
        inputs.append((base, None))
    names = [str(model) for model, _ in inputs]
    pieces = {}
    for stack in _stacks(names, layouts):
        whole = (0, _common_depth(names, stack, layouts))
        sources = [
            InputSliceDefinition(model=model, layer_range=whole, parameters=parameters)
            for model, parameters in inputs
        ]
        pieces[stack] = [_piece(OutputSliceDefinition(sources=sources), reader)]
    return pieces


def _piece(definition: OutputSliceDefinition, reader: ConfigReader) -> Piece:
    reader = reader.for_out_slice(definition)
    references = tuple(source.model for source in definition.sources)
    start, end = definition.sources[0].layer_range
    return Piece(
        references=references,
        names=tuple(str(reference) for reference in references),
        starts=tuple(source.layer_range[0] for source in definition.sources),
        layers=end - start,
        base=reader.base_model,
        settings={model: tuple(reader.parameter_sources(model)) for model in (None, *references)},
    )


def _stacks(names: Sequence[str] | Mapping[str, Any], layouts: Mapping[str, Layout]) -> list[str]:
    """The stacks of these models; one without a name where no tensor is in a layer."""
    return list(dict.fromkeys(stack for name in names for stack in layouts[name].stacks)) or [""]


def _common_depth(names: Sequence[str], stack: str, layouts: Mapping[str, Layout]) -> int:
    first, *others = names
    depth = layouts[first].stacks.get(stack, 0)
    for name in others:
        if (other := layouts[name].stacks.get(stack, 0)) != depth:
            raise MorphingError(
                f"{first} has {depth} layers and {name} has {other}, and models are merged layer by"
                " layer: choose models of one depth, or write slices of as many layers of each."
            )
    return depth


def _check_ranges(
    place: int, definition: OutputSliceDefinition, stack: str, layouts: Mapping[str, Layout]
) -> None:
    lengths = []
    for source in definition.sources:
        start, end = source.layer_range
        depth = layouts[str(source.model)].stacks.get(stack, 0)
        if not 0 <= start <= end <= depth:
            raise MorphingError(
                f"Slice {place} takes the layer_range [{start}, {end}] of {source.model}, which has"
                f" {depth} layers: choose a range between [0, {depth}]'s ends."
            )
        lengths.append(end - start)
    if len(set(lengths)) > 1:
        raise MorphingError(
            f"Slice {place} takes {', '.join(map(str, lengths))} layers of its sources, and they"
            " are merged one to one: give all its layer_ranges the same length."
        )
