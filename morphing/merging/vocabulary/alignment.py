"""Rows of one vocabulary moved into another's order, for several models together.

The rules are those of mergekit's `PermutedVocabulary`; its walk over every token of every tensor is
an index here, made once for a set of models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

ZERO, AVERAGE = -1, -2
"""In place of the model a row is copied from: no model, all that have the token."""


@dataclass(frozen=True)
class Alignment:
    """Rows to move, for M models and an output of N rows.

    K *spare* rows are those of tokens that some model has not, or whose row is forced on all.
    """

    indices: Tensor
    """int64 (M, N): where a model keeps an output row; 0 where it has none."""
    used: Tensor
    """int64: output rows that stand for a token, in order; the others are padding."""
    targets: Tensor
    """int64 (K,): the output rows of the spare rows."""
    takers: Tensor
    """bool (M, K): whether the model takes the spare row, not one of its own."""
    donors: Tensor
    """int64 (K,): the place of the model to copy from, `ZERO` or `AVERAGE`."""
    origins: Tensor
    """int64 (K,): the row to copy there."""
    own: Tensor
    """int64 (M, K): each model's own row, -1 where it has none."""

    def to(self, device: torch.device) -> Alignment:
        return Alignment(*(getattr(self, entry.name).to(device) for entry in fields(self)))

    def apply(self, views: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
        """The models' rows in the output's order.

        Args:
            views: one a model, (its rows, ...), rows alone may differ in number.
            dtype: of the result; every view's promotes to it.

        Returns:
            One (N, ...) tensor a model, the view itself where nothing moves and no dtype changes.
        """
        spare = self._spare_rows(views, dtype)
        return [self._aligned(model, view, spare) for model, view in enumerate(views)]

    def _spare_rows(self, views: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
        averaged = self.donors == AVERAGE
        spare = views[0].new_zeros((len(averaged), *views[0].shape[1:]), dtype=dtype)
        for model, view in enumerate(views):
            copied = self.donors == model
            spare[copied] = view[self.origins[copied]].to(dtype)
            summed = averaged & (self.own[model] >= 0)
            spare[summed] += view[self.own[model, summed]].to(dtype)
        count = (self.own[:, averaged] >= 0).sum(dim=0).to(dtype)
        spare[averaged] /= count.reshape(-1, *[1] * (spare.dim() - 1))
        return spare

    def _aligned(self, model: int, view: Tensor, spare: Tensor) -> Tensor:
        indices, takes = self.indices[model], self.takers[model]
        size = len(indices)
        full = len(self.used) == size
        if full and len(view) == size and not takes.any():
            order = torch.arange(size, device=indices.device)
            if torch.equal(indices, order):
                return view.to(spare.dtype)
        aligned = view.index_select(0, indices).to(spare.dtype)
        aligned[self.targets[takes]] = spare[takes]
        if not full:
            packed = int(self.used[-1]) == len(self.used) - 1
            mean = (aligned[: len(self.used)] if packed else aligned[self.used]).mean(dim=0)
            padding = torch.ones(size, dtype=torch.bool, device=indices.device)
            padding[self.used] = False
            aligned[padding] = mean
        return aligned


def spare_targets(places: Tensor, used: Tensor, forced: Tensor) -> Tensor:
    """The output rows that some model cannot fill from its own, or must not.

    Args:
        places: int64 (M, ids): where a model keeps the row of an output's token, -1 for nowhere.
        used: int64: the output's rows that stand for a token.
        forced: int64: those among them whose row is not the model's own.
    """
    needed = (places < 0).any(dim=0)
    needed[forced] = True
    return used[needed[used]]


def make_alignment(
    places: Tensor,
    used: Tensor,
    forced: Tensor,
    size: int,
    base: int | None,
    named: Mapping[int, tuple[int, int]],
) -> Alignment:
    """Say where every row comes from.

    A spare row is the one named; else that of the only model that has the token; else the base's;
    else the average over the models that have it; and zeros where none has.

    Args:
        places, used, forced: as for `spare_targets`.
        size: rows of the output, N.
        base: its place among the models, None if it is not one of them.
        named: by output row, the place of a model (or `ZERO`) and the row to take from it.
    """
    targets = spare_targets(places, used, forced)
    own = places[:, targets]
    has = own >= 0
    count = has.sum(dim=0)
    donors = torch.where(count == 1, has.int().argmax(dim=0), AVERAGE)
    donors[count == 0] = ZERO
    if base is not None:
        donors[(count > 1) & has[base]] = base
    origins = own.gather(0, donors.clamp(min=0).unsqueeze(0)).squeeze(0)
    for target, (donor, origin) in named.items():
        donors[targets == target] = donor
        origins[targets == target] = origin

    takers = ~has
    takers[:, torch.isin(targets, forced)] = True
    indices = torch.zeros(len(places), size, dtype=torch.int64)
    indices[:, : places.shape[1]] = places.clamp(min=0)
    return Alignment(indices, used, targets, takers, donors, origins, own)
