"""Where a checkpoint's tensors stand: before the layers, in one of them, or after them.

Told from the tensors' names, so that any architecture has a layout. Where mergekit's tables know
the architecture they say which tensors stand before the layers, which are indexed by tokens, which
a model may lack, and which other names a tensor goes by; else the usual names do.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from morphing.sources.naming import is_derived
from morphing.sources.source import TensorInfo

if TYPE_CHECKING:
    from mergekit.architecture import WeightInfo

_NUMBER = re.compile(r"\.(\d+)\.")  # as `metadata.layer_index` finds it
_GAP = ".#."
_HEAD = re.compile(r"(^|\.)(lm_head|embed_out|output|output_layer)(\.linear)?\.(weight|bias)$")
_EMBEDDING = re.compile(
    r"(^|\.)(embed_tokens|wte|word_embeddings|embed_in|tok_embeddings|embeddings)\.weight$"
)
_BEFORE = re.compile(r"embed|wte|wpe")


@dataclass(frozen=True)
class Slot:
    """A tensor's place in a model: its name but for the layer, and the layer."""

    template: str
    layer: int | None = None

    @property
    def name(self) -> str:
        if self.layer is None:
            return self.template
        return self.template.replace(_GAP, f".{self.layer}.", 1)

    @property
    def stack(self) -> str:
        """What the numbers in the names of its stack of layers follow."""
        return self.template.partition(_GAP)[0]


@dataclass(frozen=True)
class Table:
    """What mergekit knows of an architecture, by template; empty where it knows nothing."""

    architectures: tuple[str, ...] = ()
    sides: Mapping[str, bool] = field(default_factory=dict)
    """Of the tensors outside the layers: whether they stand before the layers."""
    axes: Mapping[str, int | None] = field(default_factory=dict)
    optional: frozenset[str] = frozenset()
    aliases: Mapping[str, str] = field(default_factory=dict)
    stacks: frozenset[str] = frozenset()

    def slot(self, name: str) -> Slot:
        """A tensor's slot, under the name mergekit gives it where it goes by several."""
        template, layer = _split(name)
        slot = Slot(self.aliases.get(template, template), layer)
        # Numbers elsewhere in a known architecture count no layers of its own.
        foreign = layer is not None and self.stacks and slot.stack not in self.stacks
        return Slot(name) if foreign else slot

    def before(self, template: str) -> bool:
        """Whether a tensor outside the layers is on the input side."""
        known = self.sides.get(template)
        return known if known is not None else is_before(template)

    def vocabulary_axis(self, slot: Slot) -> int | None:
        """The axis that token ids index."""
        if slot.layer is not None:
            return None
        if slot.template in self.axes:
            return self.axes[slot.template]
        named = _EMBEDDING.search(slot.template) or _HEAD.search(slot.template)
        return 0 if named else None

    @property
    def head(self) -> str:
        """The name of the output matrix."""
        heads = (name for name in self.sides if self.is_head(Slot(name)))
        return next(heads, "lm_head.weight")

    def is_head(self, slot: Slot) -> bool:
        """Whether this is the output matrix, which a tied model lacks."""
        axis = self.vocabulary_axis(slot)
        weight = slot.template.endswith("weight")
        return axis is not None and weight and not self.before(slot.template)


@dataclass(frozen=True)
class Layout:
    """A model's own tensors by slot."""

    table: Table
    tensors: Mapping[Slot, str]
    """The name of each in the model's checkpoint."""
    headers: Mapping[str, TensorInfo]
    """By those names."""
    stacks: Mapping[str, int]
    """How many layers each stack of layers has; a text model has one stack."""
    embedding: Slot | None
    """The token embeddings, which are a tied model's head."""

    def shape(self, slot: Slot) -> tuple[int, ...]:
        return self.headers[self.tensors[slot]].shape

    @property
    def outside(self) -> tuple[Slot, ...]:
        """The slots outside the layers, in the checkpoint's order."""
        return tuple(slot for slot in self.tensors if slot.layer is None)

    def templates(self, stack: str) -> dict[int, list[str]]:
        """What each layer of a stack is made of."""
        layers: dict[int, list[str]] = {}
        for slot in self.tensors:
            if slot.layer is not None and slot.stack == stack:
                layers.setdefault(slot.layer, []).append(slot.template)
        return layers


def is_before(name: str) -> bool:
    """The rule for architectures mergekit does not know: embeddings stand before the layers."""
    return _BEFORE.search(name) is not None and _HEAD.search(name) is None


def vocabulary_axis(name: str, config: Mapping[str, Any]) -> int | None:
    """The axis of a tensor that token ids index; None where no axis is.

    Args:
        name: a tensor's name in a checkpoint: embeddings and heads have an axis, and a head's
            bias; position embeddings have none.
        config: the checkpoint's ``config.json``.
    """
    table = architecture(config)
    return table.vocabulary_axis(table.slot(name))


def make_layout(config: Mapping[str, Any], tensors: Mapping[str, TensorInfo]) -> Layout:
    """The layout of a checkpoint, from its ``config.json`` and its headers.

    Left out is what is none of the model's own: tied heads, rotary tables and causal masks that
    are stored all the same.
    """
    table = architecture(config)
    slots: dict[Slot, str] = {}
    stacks: dict[str, int] = {}
    embedding: Slot | None = None
    for name, info in tensors.items():
        if is_derived(name, info, config):
            continue
        slot = table.slot(name)
        slots[slot] = name
        if slot.layer is not None:
            stacks[slot.stack] = max(stacks.get(slot.stack, 0), slot.layer + 1)
        elif embedding is None and table.vocabulary_axis(slot) == 0 and table.before(slot.template):
            embedding = slot
    return Layout(table, slots, tensors, stacks, embedding)


def architecture(config: Mapping[str, Any]) -> Table:
    """mergekit's table for the architecture ``config.json`` names; no network, no weights."""
    names = config.get("architectures") or ()
    return _table(json.dumps(config, sort_keys=True, default=str)) if len(names) == 1 else Table()


@lru_cache(maxsize=64)
def _table(text: str) -> Table:
    from mergekit.architecture import arch_info_for_config
    from mergekit.architecture.json_definitions import NAME_TO_ARCH

    # mergekit reads plain attributes of transformers' configuration object.
    config: Any = json.loads(text, object_hook=lambda fields: SimpleNamespace(**fields))
    if config.architectures[0] not in NAME_TO_ARCH:
        return Table(tuple(config.architectures))
    try:
        info = arch_info_for_config(config)
        if info is None:
            return Table(tuple(config.architectures))
        weights = list(_weights(info, config))
    # The configuration lacks a field that mergekit asks for, or has text where a number should be.
    except (RuntimeError, AttributeError, TypeError, ValueError, KeyError):
        return Table(tuple(config.architectures))
    aliases: dict[str, str] = {}
    for slot, weight, _ in weights:
        aliases |= {_split(alias)[0]: slot.template for alias in weight.aliases or ()}
    return Table(
        architectures=tuple(info.architectures),
        sides={slot.template: side for slot, _, side in weights if side is not None},
        axes={slot.template: w.vocabulary_axis for slot, w, side in weights if side is not None},
        optional=frozenset(slot.template for slot, w, _ in weights if w.optional),
        aliases=aliases,
        stacks=frozenset(slot.stack for slot, _, side in weights if side is None),
    )


def _weights(info: Any, config: Any) -> Iterator[tuple[Slot, WeightInfo, bool | None]]:
    """mergekit's weights with their slots, and of those outside the layers the side."""
    for module in info.modules.values():
        prefix, part = module.weight_prefix or "", module.architecture
        for weight in part.pre_weights(config):
            yield Slot(prefix + weight.name), weight, True
        for weight in part.layer_weights(0, config) or ():
            yield Slot(*_split(prefix + weight.name)), weight, None
        for weight in part.post_weights(config):
            yield Slot(prefix + weight.name), weight, False


def _split(name: str) -> tuple[str, int | None]:
    """A name's template and layer."""
    match = _NUMBER.search(name)
    if match is None:
        return name, None
    return name[: match.start()] + _GAP + name[match.end() :], int(match[1])
