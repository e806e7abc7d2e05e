"""What a recipe does to every tensor: which tensors of which models, by which method, how.

A plan is a function of the recipe and the models' headers; no weights are read. It follows
mergekit's own planner: settings are read by mergekit's resolver, from the innermost scope (a model
in a slice) outwards; a gradient runs over the layers of a slice; tensors before the layers come
from the first slice, those after them from the last, and read a gradient at its beginning. Names
come from the headers, so that an architecture needs no table.

It goes its own way in three places where mergekit's output would be wrong:

- A model with a tied head has no head in its file. Where one input has a head and another is tied,
  the tied one's head is its embedding, as in mergekit. But where slices take the end of the model
  from other models than its beginning, and none of them has a head of its own, mergekit writes no
  head either, and so ties the last layers' output to the first models' embeddings. Here the output
  gets an untied head, merged from the embeddings of the last slice's models.
- A tensor the models have and mergekit's table of the architecture does not list, such as the bias
  of some attention, is merged like the others, where mergekit leaves it out.
- Where the last slice has more sources than the first, mergekit leaves the surplus out of what
  comes after the layers. Here all of them are merged.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import chain
from typing import TYPE_CHECKING, Any

from morphing.errors import MorphingError
from morphing.merging.methods import TASK_VECTORS
from morphing.merging.planning.fit import (
    check_architectures,
    check_shapes,
    check_sizes,
    check_vocabularies,
)
from morphing.merging.planning.layout import Layout, Slot, Table, make_layout, vocabulary_axis
from morphing.merging.planning.pieces import Piece, cut
from morphing.merging.planning.remarks import remarks
from morphing.merging.planning.settings import Scope, Settings
from morphing.merging.recipe import Recipe
from morphing.sources.metadata import layer_index
from morphing.sources.source import TensorInfo

if TYPE_CHECKING:
    from mergekit.merge_methods import MergeMethod

__all__ = ["Input", "ModelInfo", "Plan", "PlannedTensor", "make_plan", "vocabulary_axis"]

_PASSTHROUGH = "passthrough"


@dataclass(frozen=True, eq=False)
class ModelInfo:
    """What planning needs to know of a model; of an adapter, its base's."""

    config: Mapping[str, Any]
    """``config.json``."""
    tensors: Mapping[str, TensorInfo]

    @cached_property
    def layout(self) -> Layout:
        """Where its tensors stand."""
        return make_layout(self.config, self.tensors)


@dataclass(frozen=True)
class Input:
    """One tensor of one model."""

    model: str
    """As the recipe writes it."""
    tensor: str
    """Its name in that model's checkpoint: of a tied head, the embedding's."""


@dataclass(frozen=True)
class PlannedTensor:
    """How one tensor of the output is made."""

    name: str
    method: str
    """The recipe's; ``passthrough`` for a lone optional tensor, and for integers, whose inputs
    must all be equal."""
    inputs: tuple[Input, ...]
    """In mergekit's order; models that lack an optional tensor are left out."""
    base: int | None
    """The base's place among the inputs."""
    shared: Mapping[str, Any]
    """``t``, ``normalize``, ``lambda``, ...: defaults filled in."""
    own: tuple[Mapping[str, Any], ...]
    """``weight``, ``density``, ...: one mapping an input."""
    positions: tuple[int, ...]
    """Each input's place among the recipe's sources, -1 for the base: the key of its masks."""


@dataclass(frozen=True)
class Plan:
    """A recipe's output, tensor by tensor."""

    tensors: tuple[PlannedTensor, ...]
    """In checkpoint order: embeddings, layers, final norm, head."""
    layers: int
    donor: str
    """The model whose config.json and tokenizer the output starts from: the base, else the first
    model. (mergekit takes any model where there is no base.)"""
    tied: bool
    """Whether the output has no head of its own."""


def make_plan(recipe: Recipe, models: Mapping[str, ModelInfo]) -> Plan:
    """Plan every tensor of a recipe's output.

    Args:
        recipe: any mergekit configuration of text models.
        models: every model the recipe merges, by the name the recipe writes.

    Raises:
        MorphingError: the recipe is malformed, lacks a parameter for some tensor, names a model
            that is not in ``models`` or layers that a model does not have, or merges tensors that
            do not fit each other.
    """
    configuration = recipe.check()
    unknown = [name for name in recipe.inputs if name not in models]
    if unknown:
        raise MorphingError(
            f"The recipe merges {', '.join(unknown)}, which this run has not loaded: its models"
            f" are {', '.join(models)}."
        )
    structure = _drafts(recipe, models)
    layouts = {name: models[name].layout for name in recipe.inputs}
    settings = Settings(recipe.method, cut(configuration, layouts))
    return Plan(
        tensors=tuple(_planned(draft, settings) for draft in structure.drafts),
        layers=structure.layers,
        donor=structure.donor,
        tied=structure.tied,
    )


def plan_remarks(recipe: Recipe, models: Mapping[str, ModelInfo]) -> list[str]:
    """What a recipe says that changes nothing for these models, or other than it seems.

    Args:
        recipe: one that `make_plan` plans.
        models: every model the recipe merges, by the name the recipe writes.
    """
    configuration = recipe.check()
    layouts = {name: models[name].layout for name in recipe.inputs}
    module = (configuration.modules or {}).get("default") or configuration
    drafts = _drafts(recipe, models).drafts
    read = [(d.scope, layer_index(d.name) is not None) for d in drafts if d.scope is not None]
    from mergekit import merge_methods

    spec = merge_methods.get(recipe.method).spec
    return remarks(spec, cut(configuration, layouts), read, layouts, bool(module.slices))


def _drafts(recipe: Recipe, models: Mapping[str, ModelInfo]) -> _Structure:
    """All of a plan but the parameters: a search changes only these, so it is kept."""
    text = json.dumps(_without_parameters(recipe.config), default=str, sort_keys=True)
    return _structure(text, tuple((name, models[name]) for name in recipe.inputs))


@dataclass(frozen=True)
class _Draft:
    """A planned tensor but for its parameters."""

    name: str
    method: str
    inputs: tuple[Input, ...]
    base: int | None
    positions: tuple[int, ...]
    scope: Scope | None
    """What its parameters are read for; None where there are none to read."""
    kept: tuple[int, ...]
    """The inputs' places among the piece's."""


@dataclass(frozen=True)
class _Structure:
    """A plan but for its parameters."""

    drafts: tuple[_Draft, ...]
    layers: int
    donor: str
    tied: bool


def _planned(draft: _Draft, settings: Settings) -> PlannedTensor:
    shared: Mapping[str, Any] = {}
    own: Sequence[Mapping[str, Any]] = [{"scale": None}] * (max(draft.kept) + 1)
    if draft.scope is not None:
        shared, own = settings.read(draft.scope)
        if draft.method == "linear" and shared["normalize"]:
            _check_weights(draft.name, [own[i]["weight"] for i in draft.kept])
    return PlannedTensor(
        name=draft.name,
        method=draft.method,
        inputs=draft.inputs,
        base=draft.base,
        shared=shared,
        own=tuple(own[i] for i in draft.kept),
        positions=draft.positions,
    )


def _without_parameters(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _without_parameters(v) for k, v in value.items() if k != "parameters"}
    if isinstance(value, list | tuple):
        return [_without_parameters(item) for item in value]
    return value


@lru_cache(maxsize=16)
def _structure(text: str, named: tuple[tuple[str, ModelInfo], ...]) -> _Structure:
    """The structure of a recipe's plan, from its configuration less parameters, as JSON."""
    recipe = Recipe(json.loads(text))
    configuration = recipe.check()
    models = dict(named)
    layouts = {name: models[name].layout for name in recipe.inputs}
    check_architectures(layouts)
    stacks = cut(configuration, layouts)
    pieces = next(iter(stacks.values()))
    first, last = pieces[0], pieces[-1]
    donor = recipe.base or recipe.inputs[0]
    if configuration.tokenizer is None and configuration.tokenizer_source is None:
        check_vocabularies(
            {n: layouts[n] for n in dict.fromkeys((*first.names, *last.names, donor))}
        )
    if len(pieces) > 1:
        check_sizes(layouts)

    planner = _Planner(recipe, layouts, layouts[donor].table)
    before = planner.outside(first, before=True)
    after = planner.outside(last, before=False)
    head = any(planner.table.is_head(slot) for slot in after)
    if not head and planner.loses_its_head(first, last):
        after.append(Slot(planner.table.head))
        head = True
    stack, end = next(iter(stacks)), len(pieces) - 1
    drafts = [planner.draft(s, [s] * len(first.names), first, (stack, 0), 0.0) for s in before]
    for stack_, of_stack in stacks.items():
        drafts += planner.layers(stack_, of_stack)
    drafts += [planner.draft(s, [s] * len(last.names), last, (stack, end), 0.0) for s in after]
    return _Structure(
        drafts=tuple(draft for draft in drafts if draft is not None),
        layers=max(sum(piece.layers for piece in of_stack) for of_stack in stacks.values()),
        donor=donor,
        tied=not head,
    )


@dataclass(frozen=True)
class _Planner:
    recipe: Recipe
    layouts: Mapping[str, Layout]
    table: Table

    @cached_property
    def method(self) -> MergeMethod:
        from mergekit import merge_methods

        return merge_methods.get(self.recipe.method)

    @cached_property
    def places(self) -> Mapping[str, int]:
        """Of a slice with a base of its own the recipe's base may be a source: it comes last."""
        names = (*self.recipe.sources, *self.recipe.inputs)
        return {name: place for place, name in enumerate(dict.fromkeys(names))}

    def outside(self, piece: Piece, before: bool) -> list[Slot]:
        """The slots on one side of the layers that any of a piece's models fills, heads last."""
        slots = dict.fromkeys(slot for name in piece.names for slot in self.layouts[name].outside)
        side = [slot for slot in slots if self.table.before(slot.template) == before]
        return sorted(side, key=self.table.is_head)

    def loses_its_head(self, first: Piece, last: Piece) -> bool:
        """Whether a tied output would read its last layers by other models' embeddings."""
        embedded = all(self.layouts[name].embedding is not None for name in last.names)
        return embedded and set(first.names) != set(last.names)

    def layers(self, stack: str, pieces: Sequence[Piece]) -> Iterator[_Draft | None]:
        """The layers of a stack, piece by piece; a gradient runs over each piece."""
        templates = {name: self.layouts[name].templates(stack) for name in self.layouts}
        done = 0
        for number, piece in enumerate(pieces):
            for step in range(piece.layers):
                t = step / (piece.layers - 1) if piece.layers > 1 else 1.0
                taken = [start + step for start in piece.starts]
                filled = [templates[n].get(i, ()) for n, i in zip(piece.names, taken, strict=True)]
                for template in dict.fromkeys(chain.from_iterable(filled)):
                    slots = [Slot(template, layer) for layer in taken]
                    yield self.draft(Slot(template, done), slots, piece, (stack, number), t)
                done += 1

    def draft(
        self, out: Slot, slots: Sequence[Slot], piece: Piece, place: tuple[str, int], t: float
    ) -> _Draft | None:
        """One tensor of the output, from a slot of each input; None where mergekit skips it."""
        held = [self._held(name, slot) for name, slot in zip(piece.names, slots, strict=True)]
        kept = tuple(i for i, slot in enumerate(held) if slot is not None)
        method: str | None = self.recipe.method
        if len(kept) < len(held):
            method = self._method_for(out, slots, kept, piece)
        if method is None:
            return None
        names = [piece.names[i] for i in kept]
        found = [slot for slot in held if slot is not None]
        check_shapes(names, found, self.layouts)
        inputs = tuple(
            Input(name, self.layouts[name].tensors[slot])
            for name, slot in zip(names, found, strict=True)
        )
        read = method == self.recipe.method and all(self._floating(item) for item in inputs)
        base = [i for i in kept if piece.references[i] == piece.base]
        if len(kept) == len(base) and self.recipe.method in TASK_VECTORS:
            read = False  # no task vector is added to the base
        return _Draft(
            name=out.name,
            method=method if read else _PASSTHROUGH,
            inputs=inputs,
            base=kept.index(base[0]) if base else None,
            positions=tuple(-1 if i in base else self.places[piece.names[i]] for i in kept),
            scope=Scope(place, out.name, tuple(slot.name for slot in slots), t) if read else None,
            kept=kept,
        )

    def _held(self, name: str, slot: Slot) -> Slot | None:
        """Where a model has what belongs in a slot: of a tied head, its embedding."""
        layout = self.layouts[name]
        if slot in layout.tensors:
            return slot
        return layout.embedding if self.table.is_head(slot) else None

    def _floating(self, item: Input) -> bool:
        return self.layouts[item.model].headers[item.tensor].dtype.startswith(("F", "BF"))

    def _method_for(
        self, out: Slot, slots: Sequence[Slot], kept: Sequence[int], piece: Piece
    ) -> str | None:
        """What mergekit does with a tensor that some inputs lack; None where it skips it."""
        from mergekit.merge_methods import OptionalTensorPolicy as Policy

        lacking = next(i for i in range(len(slots)) if i not in kept)
        if out.template not in self.table.optional:
            raise MorphingError(
                f"{piece.names[lacking]} lacks {slots[lacking].name}, which"
                f" {piece.names[kept[0]]} has: choose models of one architecture and size."
            )
        references = [piece.references[i] for i in kept]
        policy, least = (
            self.method.spec.optional_tensor_policy,
            self.method.spec.contract.min_inputs,
        )
        alone = {Policy.PASSTHROUGH_SINGLETON}
        if references == [piece.base]:
            alone |= {Policy.PASSTHROUGH_BASE_SINGLETON, Policy.BASE_OR_SKIP}
        if len(references) == 1 and policy in alone:
            return _PASSTHROUGH
        if len(references) < least and policy == Policy.BASE_OR_SKIP:
            return None
        try:
            self.method.validate_inputs(references, piece.base)
        except ValueError as error:
            raise MorphingError(
                f"{self.recipe.method} cannot merge {out.name}, which {piece.names[lacking]} lacks"
                f" ({error}): choose models that all have it."
            ) from error
        return self.recipe.method


def _check_weights(tensor: str, weights: Sequence[float]) -> None:
    if sum(weights) == 0:
        raise MorphingError(
            f"The recipe's weights for {tensor} sum to zero, so they cannot be normalised: change a"
            " weight or set normalize: false."
        )
