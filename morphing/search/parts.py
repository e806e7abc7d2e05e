"""Which tensors share a number of a search space: layer groups, module kinds, curves over depth.

A part is written into recipes as mergekit reads settings: entries, of which the first whose filter
is contained in a tensor's name counts. So parts are told from the usual names of tensors.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, get_args

from morphing.errors import MorphingError
from morphing.search.options import Kind, SpaceOptions

KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class Names:
    """How an architecture names its tensors: parts of names that are found in no others."""

    layers: str = "layers"
    """What the number of a layer follows."""
    attention: tuple[str, ...] = ("self_attn",)
    mlp: tuple[str, ...] = ("mlp",)
    embeddings: tuple[str, ...] = ("embed_tokens",)
    head: tuple[str, ...] = ("lm_head",)


_LLAMA = Names()
_GPT2 = Names("h", attention=("attn",), embeddings=("wte.", "wpe."))
_FALCON = Names("h", attention=("self_attention",), embeddings=("word_embeddings.",))
_NAMES: Mapping[str, Names] = {
    "BloomForCausalLM": _FALCON,
    "CodeGenForCausalLM": _GPT2,
    "ExaoneForCausalLM": _GPT2,
    "FalconForCausalLM": _FALCON,
    "GPT2LMHeadModel": _GPT2,
    "GPTBigCodeForCausalLM": _GPT2,
    "GPTJForCausalLM": _GPT2,
    "GPTNeoXForCausalLM": Names(
        attention=("attention",), embeddings=("embed_in",), head=("embed_out", "lm_head")
    ),
    "InternLM2ForCausalLM": Names(
        attention=("attention",),
        mlp=("feed_forward",),
        embeddings=("tok_embeddings",),
        head=("output.weight",),
    ),
    "JAISLMHeadModel": _GPT2,
    "MixtralForCausalLM": Names(mlp=("block_sparse_moe", "mlp")),
    "MptForCausalLM": Names("blocks", attention=("attn",), mlp=("ffn",), embeddings=("wte.",)),
    "OPTForCausalLM": Names(mlp=("fc1", "fc2"), embeddings=("embed_tokens", "embed_positions")),
    "QWenLMHeadModel": _GPT2,
}


def names_of(architecture: str | None) -> Names:
    """An architecture's names; Llama's, which most have taken over, where it is not known."""
    return _NAMES.get(architecture or "", _LLAMA)


@dataclass(frozen=True)
class Entry:
    """A setting's entry: the tensors it is for, and the parts whose numbers it is made of."""

    filter: str | None
    parts: tuple[str, ...]
    """One; or the control points of a curve from the first layer to the last."""


@dataclass(frozen=True)
class Parts:
    """A model cut into parts, each with numbers of its own; a part goes by its label.

    The label is empty where there is one part; else a layer group (``3``), a kind
    (``attention``), both (``3.attention``), or ``rest`` for the kinds without numbers of their own.
    The points of a curve count as groups.
    """

    layers: int
    names: Names
    entries: tuple[Entry, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """The parts in order of their groups, embeddings of their own last."""
        found = dict.fromkeys(part for entry in self.entries for part in entry.parts)
        return tuple(sorted(found, key=_order))

    def setting(self, values: Mapping[str, float]) -> float | list[Any]:
        """A number for each label, as a mergekit setting."""
        written: list[float | list[float]] = []
        for entry in self.entries:
            points = [float(values[part]) for part in entry.parts]
            written.append(points[0] if len(points) == 1 else points)
        if len(self.entries) == 1:
            return written[0]
        return [
            {"value": value} if entry.filter is None else {"filter": entry.filter, "value": value}
            for entry, value in zip(self.entries, written, strict=True)
        ]

    def shares(self, tensor: str) -> dict[str, float]:
        """What each part's number adds to a tensor's setting; shares sum to 1."""
        entry = next(e for e in self.entries if e.filter is None or e.filter in tensor)
        if len(entry.parts) == 1:
            return {entry.parts[0]: 1.0}
        place = self._depth(tensor) * (len(entry.parts) - 1)
        shares = {part: max(0.0, 1 - abs(place - i)) for i, part in enumerate(entry.parts)}
        return {part: share for part, share in shares.items() if share > 0}

    def check(self, tensors: Iterable[str]) -> None:
        """Refuse a model in which a part has no tensors: its numbers would change nothing.

        Raises:
            MorphingError: names the part.
        """
        tensors = list(tensors)
        found = {part for tensor in tensors for part in self.shares(tensor)}
        if lacking := [label for label in self.labels if label not in found]:
            raise MorphingError(
                f"No tensor of these models belongs to the part '{lacking[0]}' of the search space"
                f" (they are called like {tensors[len(tensors) // 2]}): choose other layer_groups"
                " and module_kinds, or none, in search.space."
            )

    def _depth(self, tensor: str) -> float:
        """Where mergekit reads a gradient: 0 at the first layer and before, 1 at the last."""
        if match := re.search(rf"\b{self.names.layers}\.(\d+)\.", tensor):
            return int(match[1]) / (self.layers - 1) if self.layers > 1 else 1.0
        return 0.0 if any(name in tensor for name in self.names.embeddings) else 1.0


def cut(options: SpaceOptions, layers: int, architecture: str | None) -> Parts:
    """The parts that ``options`` ask for.

    Embeddings without numbers of their own go with the first layer group, the final norm and the
    head with the last, so that a group's tensors are neighbours in depth. A curve has its first
    point at the embeddings and the first layer, its last at the last layer, the norm and the head.

    Raises:
        MorphingError: groups or points do not fit ``layers``; or explicit groups overlap, are not
            in order, or leave a layer out.
    """
    if options.gradient > layers:
        raise MorphingError(
            f"gradient is {options.gradient} and the models have {layers} layers: set it to"
            f" {layers} at most."
        )
    names, own, groups = names_of(architecture), _own_kinds(options), layer_groups(options, layers)
    numbered = len(groups) > 1 or options.gradient > 0

    def parts(group: int, kind: Kind) -> tuple[str, ...]:
        if kind == "embeddings" and kind in own:
            return (kind,)
        if not numbered:
            return (kind if kind in own else "rest" if own else "",)
        points = range(options.gradient) if options.gradient else (group,)
        return tuple(f"{point}.{kind}" if kind in own else f"{point}" for point in points)

    last = len(groups) - 1
    default = parts(last, "norms")
    entries = [Entry(name, parts(0, "embeddings")) for name in names.embeddings]
    for group, members in enumerate(groups):
        remaining = parts(group, "norms")
        inner = [(f"{name}.", parts(group, "attention")) for name in names.attention]
        inner += [(f"{name}.", parts(group, "mlp")) for name in names.mlp]
        inner = [(name, labels) for name, labels in inner if labels != remaining]
        if len(groups) == 1:
            entries += [Entry(f".{name}", labels) for name, labels in inner]
            continue
        for layer in members:
            stack = f"{names.layers}.{layer}."
            entries += [Entry(stack + name, labels) for name, labels in inner]
            entries.append(Entry(stack, remaining))
    entries += [Entry(name, parts(last, "embeddings")) for name in names.head]
    while entries and entries[-1].parts == default:  # the last entry says it anyway
        entries.pop()
    return Parts(layers, names, (*entries, Entry(None, default)))


def _own_kinds(options: SpaceOptions) -> tuple[Kind, ...]:
    if isinstance(options.module_kinds, tuple):
        return options.module_kinds
    return KINDS if options.module_kinds else ()


def layer_groups(options: SpaceOptions, layers: int) -> list[range]:
    """The layers of each group.

    Raises:
        MorphingError: as :func:`cut` does.
    """
    asked = options.layer_groups
    if isinstance(asked, tuple):
        return _explicit(asked, layers)
    count = layers if asked == "each" else asked
    if not 1 <= count <= layers:
        raise MorphingError(
            f"layer_groups is {count} and the models have {layers} layers:"
            f" set it between 1 and {layers}."
        )
    edges = [group * layers // count for group in range(count + 1)]
    return [range(start, end) for start, end in pairwise(edges)]


def _explicit(asked: tuple[tuple[int, int], ...], layers: int) -> list[range]:
    following = 0
    for first, last in asked:
        if first != following or last < first:
            raise MorphingError(
                f"layer_groups has the range {first} to {last} where one from layer {following} is"
                " due: list ranges in order, first and last layer included, so that every layer is"
                " in one."
            )
        following = last + 1
    if following != layers:
        raise MorphingError(
            f"layer_groups end at layer {following - 1} and the models' last layer is"
            f" {layers - 1}: list ranges so that every layer is in one."
        )
    return [range(first, last + 1) for first, last in asked]


def _order(label: str) -> tuple[int, int]:
    head, _, kind = label.rpartition(".")
    group, kind = (head, kind) if head else (label, "") if label.isdigit() else ("", label)
    # Embeddings have no group and come last.
    place = int(group) if group else 10**9 if kind == "embeddings" else 0
    return place, KINDS.index(kind) if kind in KINDS else len(KINDS)
