"""A recipe's parameters for each tensor, read by mergekit's own resolver, each answer once.

Reading takes mergekit a good part of a millisecond, a model has hundreds of tensors, and a search
reads them for every candidate. Tensors that no filter tells apart, at the same depth where there is
a gradient, have the same parameters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from morphing.errors import MorphingError
from morphing.merging.planning.pieces import Piece

Parameters = tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]]
"""Those for all inputs, and those of each."""


@dataclass(frozen=True)
class Scope:
    """What parameters are read for."""

    piece: tuple[str, int]
    """A stack of layers, and the number of the piece in it."""
    name: str
    """Of the output tensor."""
    inputs: tuple[str, ...]
    """Its name in each input, which a filter of that input's parameters reads."""
    t: float
    """Where a gradient is read, in [0, 1]."""


class Settings:
    """The parameters of one recipe."""

    def __init__(self, method: str, stacks: Mapping[str, Sequence[Piece]]) -> None:
        from mergekit import merge_methods

        self._spec = merge_methods.get(method).spec
        self._pieces = {
            (stack, number): piece
            for stack, pieces in stacks.items()
            for number, piece in enumerate(pieces)
        }
        self._distinctions = {place: _distinctions(p) for place, p in self._pieces.items()}
        self._known: dict[tuple[Any, ...], Parameters] = {}

    def read(self, scope: Scope) -> Parameters:
        """The parameters for one tensor.

        Raises:
            MorphingError: one is missing or is no value for its kind.
        """
        filters, gradients = self._distinctions[scope.piece]
        matches = (tuple(f in name for name in (scope.name, *scope.inputs)) for f in filters)
        key = (scope.piece, scope.t if gradients else None, *matches)
        if key not in self._known:
            self._known[key] = self._resolve(scope)
        return self._known[key]

    def _resolve(self, scope: Scope) -> Parameters:
        from mergekit.parameter_resolver import resolve_parameters

        piece = self._pieces[scope.piece]
        try:
            shared, own = resolve_parameters(
                self._spec,
                tensor_name=scope.name,
                inputs=dict(zip(piece.references, scope.inputs, strict=True)),
                sources=piece.settings.__getitem__,
                base_model=piece.base,
                t=scope.t,
            )
        except (RuntimeError, ValueError) as error:
            problem = " ".join(str(error).split())
            raise MorphingError(f"The recipe's parameters do not resolve: {problem}.") from error
        return shared, [own[reference] for reference in piece.references]


def _distinctions(piece: Piece) -> tuple[list[str], bool]:
    """The filters by which a piece's settings tell tensors apart, and whether depth does."""
    filters: dict[str, None] = {}
    gradients = False

    def note(setting: Any) -> None:
        nonlocal gradients
        entries = setting if isinstance(setting, list) else [setting]
        for entry in entries:
            if hasattr(entry, "filter"):
                if entry.filter is not None:
                    filters[entry.filter] = None
                note(entry.value)
            elif len(entries) > 1:
                gradients = True

    for scopes in piece.settings.values():
        for scope in scopes:
            for setting in (scope or {}).values():
                note(setting)
    return list(filters), gradients
