"""What a recipe says that turns out to change nothing, or other than it seems, for these models.

`recipe_checks.remarks` tells what the recipe's text alone shows; here are what its filters match,
which settings are read at all, and which layers the output has.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from morphing.merging.planning.layout import Layout
from morphing.merging.planning.pieces import Piece
from morphing.merging.planning.settings import Scope
from morphing.yaml_files import did_you_mean

if TYPE_CHECKING:
    from mergekit.config import ParameterSetting
    from mergekit.merge_methods.base import MergeMethodSpec

Entry = tuple[str, str, int]
"""The place of ``parameters``, a parameter's name, and the number of an entry with a filter."""


@dataclass(frozen=True)
class _Setting:
    """One value that a recipe gives a parameter: all of it, or an entry of a list with filters."""

    value: Any
    filter: str | None
    listed: bool

    @property
    def matches_all(self) -> bool:
        return self.filter in (None, "*")


@dataclass
class _Read:
    """Which settings the tensors of a plan read."""

    entries: set[Entry] = field(default_factory=set)
    in_layers: set[Entry] = field(default_factory=set)
    names: set[str] = field(default_factory=set)
    """The tensors' names, as filters see them."""
    heads: set[str] = field(default_factory=set)
    """The names that output matrices have in models that are not tied."""


def remarks(
    spec: MergeMethodSpec,
    stacks: Mapping[str, Sequence[Piece]],
    scopes: Sequence[tuple[Scope, bool]],
    layouts: Mapping[str, Layout],
    sliced: bool,
) -> list[str]:
    """One sentence for each thing that a person would want to know before merging.

    Args:
        spec: mergekit's, of the method.
        stacks: the pieces of every stack of layers.
        scopes: of every planned tensor that reads parameters, and whether it is in a layer.
        layouts: of the models merged.
        sliced: whether the recipe has slices, so that layers are chosen.
    """
    read = _read(spec, stacks, scopes, sliced)
    # A tied model has no head of its own, and recipes for any model may speak of heads.
    read.heads = {layout.table.head for layout in layouts.values()}
    found = [
        sentence
        for place, parameter, settings, layers in _all_settings(spec, stacks, sliced)
        for sentence in _unread(place, parameter, settings, layers, read)
    ]
    if sliced:
        for stack, pieces in stacks.items():
            found += _layers(pieces, stack, layouts)
    return list(dict.fromkeys(found))


def _places(number: int, index: int | None, piece: Piece, sliced: bool) -> list[str]:
    """Where the settings of `Piece.settings` stand in the recipe, in their order."""
    reference = None if index is None else piece.references[index]
    count = len(piece.settings[reference])
    own = (
        []
        if index is None
        else [f"slices.{number}.sources.{index}" if sliced else f"models.{index}"]
    )
    outer = [f"slices.{number}" if sliced else "models", "modules.default", ""]
    if count - len(own) < len(outer):
        del outer[1]
    return [f"{place}.parameters" if place else "parameters" for place in (*own, *outer)]


def _entries(setting: ParameterSetting) -> list[_Setting]:
    entries = setting if isinstance(setting, list) else [setting]
    if entries and hasattr(entries[0], "filter"):
        return [_Setting(entry.value, entry.filter, True) for entry in entries]
    return [_Setting(setting, None, False)]


def _read(
    spec: MergeMethodSpec,
    stacks: Mapping[str, Sequence[Piece]],
    scopes: Sequence[tuple[Scope, bool]],
    sliced: bool,
) -> _Read:
    read = _Read()
    for scope, in_layer in scopes:
        stack, number = scope.piece
        piece = stacks[stack][number]
        wanted: list[tuple[str, int | None, str]] = [
            (p.name, None, scope.name) for p in spec.shared_parameters
        ]
        wanted += [
            (p.name, index, name)
            for p in spec.input_parameters
            for index, name in enumerate(scope.inputs)
            if piece.references[index] != piece.base or p.scope.value == "input"
        ]
        read.names |= {scope.name, *scope.inputs}
        for parameter, index, name in wanted:
            entry = _first(parameter, index, name, number, piece, sliced)
            if entry is not None:
                read.entries.add(entry)
                if in_layer:
                    read.in_layers.add(entry)
    return read


def _first(
    parameter: str, index: int | None, name: str, number: int, piece: Piece, sliced: bool
) -> Entry | None:
    """The setting that a tensor reads: the first that is for it, from the inside out."""
    reference = None if index is None else piece.references[index]
    for place, settings in zip(
        _places(number, index, piece, sliced), piece.settings[reference], strict=True
    ):
        for entry, setting in enumerate(
            _entries(settings[parameter]) if settings and parameter in settings else ()
        ):
            if setting.matches_all or str(setting.filter) in name:
                return place, parameter, entry
    return None


def _all_settings(
    spec: MergeMethodSpec, stacks: Mapping[str, Sequence[Piece]], sliced: bool
) -> Iterator[tuple[str, str, list[_Setting], int]]:
    """Every setting that could be read where it stands, and how many layers it is for."""
    shared = {p.name for p in spec.shared_parameters}
    known = {p.name for p in spec.parameters}
    seen: set[tuple[str, str]] = set()
    for pieces in stacks.values():
        for number, piece in enumerate(pieces):
            for index in (None, *range(len(piece.references))):
                reference = None if index is None else piece.references[index]
                places = _places(number, index, piece, sliced)
                for level, (place, settings) in enumerate(
                    zip(places, piece.settings[reference], strict=True)
                ):
                    own = index is not None and level == 0
                    for name, setting in (settings or {}).items():
                        pointless = name not in known or (own and name in shared)
                        pointless = pointless or (own and reference == piece.base)
                        if not pointless and (place, name) not in seen:
                            seen.add((place, name))
                            yield place, name, _entries(setting), piece.layers


def _unread(
    place: str, parameter: str, settings: Sequence[_Setting], layers: int, read: _Read
) -> Iterator[str]:
    for number, setting in enumerate(settings):
        entry = (place, parameter, number)
        where = f"{place}.{parameter}" + (f".{number}" if setting.listed else "")
        if entry in read.entries:
            yield from _gradient(where, setting, layers, entry in read.in_layers)
        elif not setting.matches_all and any(str(setting.filter) in n for n in read.heads):
            continue
        elif not setting.matches_all and not any(str(setting.filter) in n for n in read.names):
            yield f"{where} changes nothing: {_no_tensor(str(setting.filter), read.names)}"
        else:
            yield (
                f"{where} changes nothing: whatever would read it has a value that stands before"
                " it or further inside."
            )


def _gradient(where: str, setting: _Setting, layers: int, in_layers: bool) -> Iterator[str]:
    if not isinstance(setting.value, list) or len(setting.value) < 2:
        return
    if not in_layers:
        yield f"{where} uses its first value only: no tensor that reads it is in a layer."
    elif len(setting.value) > max(layers, 2):
        yield (
            f"{where} has {len(setting.value)} values for {layers} layers, so that some are never"
            " used."
        )


def _no_tensor(wanted: str, names: set[str]) -> str:
    parts = sorted({part for name in names for part in name.split(".") if not part.isdecimal()})
    near = did_you_mean(wanted, parts)
    if near:
        return f"no tensor's name has {wanted!r} in it; did you mean {near}?"
    example = min(names, key=len, default="nothing")
    return f"no tensor's name has {wanted!r} in it; names are like {example}."


def _layers(pieces: Sequence[Piece], stack: str, layouts: Mapping[str, Layout]) -> Iterator[str]:
    """Which layers an output of slices lacks, has more than once, or merges out of step."""
    taken = [piece.starts[0] + step for piece in pieces for step in range(piece.layers)]
    depth = max(layouts[name].stacks.get(stack, 0) for piece in pieces for name in piece.names)
    missing = [layer for layer in range(depth) if layer not in taken]
    repeated = [layer for layer, count in sorted(Counter(taken).items()) if count > 1]
    if missing:
        yield f"The slices leave out {_numbers(missing)} of {depth}."
    if repeated:
        yield f"The slices take {_numbers(repeated)} more than once."
    if not repeated and taken != sorted(taken):
        yield f"The slices take the layers in another order: {', '.join(map(str, taken))}."
    for number, piece in enumerate(pieces):
        if len(set(piece.starts)) > 1:
            pairs = zip(piece.starts, piece.names, strict=True)
            yield (
                f"slices.{number} merges layers of different places:"
                f" {' with '.join(f'layer {start} of {name}' for start, name in pairs)}."
            )


def _numbers(layers: Sequence[int]) -> str:
    """``layer 3``, ``layers 1, 4 to 7``."""
    runs: list[list[int]] = []
    for layer in layers:
        if runs and layer == runs[-1][1] + 1:
            runs[-1][1] = layer
        else:
            runs.append([layer, layer])
    words = [str(a) if a == b else f"{a} to {b}" for a, b in runs]
    return f"layer{'s' if len(layers) > 1 else ''} {', '.join(words)}"
