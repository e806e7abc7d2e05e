"""Merging rows of weights: one pass over memory, float32 arithmetic whatever the storage.

Every function takes tensors of shape (rows, `ROW`), in any floating dtype, and columns of shape
(rows, 1) with that row's parameters, so that many tensors are merged by one call. Lists have one
entry a source. ``out`` (rows, `ROW`) is written in its own dtype. What is returned has one value a
row. The functions are plain torch, and weights are elementwise in them, so that they are the same
compiled and eager, on any number of threads and for any division into calls; `runner` decides how
they are run.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from morphing.merging.hashing import finalise

ROW = 4096
"""Elements a row; every tensor begins a row of its own."""

PART = 256
"""Elements whose magnitudes are summed by the kernels where a sum must be exact."""

FIXED_POINT = 1 << 16
"""What a row's largest entry is scaled to before it is rounded: `PART` such add up exactly."""


def weighted_sum(
    inputs: Sequence[Tensor], weights: Sequence[Tensor], origin: Tensor, out: Tensor
) -> list[Tensor]:
    """``sum of weight * input``: model soups, and task arithmetic by its weights.

    https://arxiv.org/abs/2203.05482, https://arxiv.org/abs/2212.04089.

    Returns:
        The L1 distance of what was written to ``origin``, one float32 (rows,).
    """
    total = inputs[0].float() * weights[0]
    for tensor, weight in zip(inputs[1:], weights[1:], strict=True):
        total = total + tensor.float() * weight
    return _write(total, origin.float(), out)


def trimmed(
    base: Tensor,
    sources: Sequence[Tensor],
    weights: Sequence[Tensor],
    shares: Sequence[Tensor],
    factor: Tensor,
    thresholds: Sequence[Tensor],
    values: Sequence[Tensor],
    out: Tensor,
    *,
    normalize: bool,
) -> list[Tensor]:
    """TIES (https://arxiv.org/abs/2306.01708, Algorithm 1): trim by magnitude, elect signs, merge.

    Step 1, trimming, keeps magnitudes of at least the threshold; `_elect` has steps 2 and 3.
    ``weights`` may carry a rescaling of the task vector, ``shares`` are the recipe's own weights,
    which ``normalize`` divides by where they count.

    Returns:
        The L1 distance of what was written to ``base``, and for each source how many of the row's
        magnitudes equal ``values``: float32 (rows,) each.
    """
    origin = base.float()
    deltas, counts = [], []
    for i, source in enumerate(sources):
        delta = source.float() - origin
        magnitude = delta.abs()
        deltas.append(torch.where(magnitude >= thresholds[i], delta * weights[i], 0.0))
        counts.append(_count(magnitude == values[i]))
    return [*_write(origin + _elect(deltas, shares, normalize) * factor, origin, out), *counts]


def trimmed_by_column(
    base: Tensor,
    sources: Sequence[Tensor],
    weights: Sequence[Tensor],
    shares: Sequence[Tensor],
    factor: Tensor,
    values: Sequence[Tensor],
    last_columns: Sequence[Tensor],
    out: Tensor,
    *,
    normalize: bool,
) -> list[Tensor]:
    """`trimmed` where magnitudes equal to ``values`` are kept up to the last column only.

    Returns:
        The L1 distance of what was written to ``base``, one float32 (rows,).
    """
    origin = base.float()
    columns = torch.arange(ROW, dtype=torch.int32, device=base.device)
    deltas = []
    for i, source in enumerate(sources):
        delta = source.float() - origin
        magnitude = delta.abs()
        kept = (magnitude > values[i]) | ((magnitude == values[i]) & (columns <= last_columns[i]))
        deltas.append(torch.where(kept, delta * weights[i], 0.0))
    return _write(origin + _elect(deltas, shares, normalize) * factor, origin, out)


def dropped(
    base: Tensor,
    sources: Sequence[Tensor],
    weights: Sequence[Tensor],
    shares: Sequence[Tensor],
    factor: Tensor,
    hashing: Sequence[Tensor],
    own_factors: Sequence[Tensor],
    own_offsets: Sequence[Tensor],
    limits: Sequence[Tensor],
    out: Tensor,
    *,
    consensus: bool,
    normalize: bool,
) -> list[Tensor]:
    """DARE (https://arxiv.org/abs/2311.03099): drop at random, then add, or elect signs first.

    The paper's rescaling by 1 / density is in ``weights``, as the ratio of L1 norms before and
    after dropping, which is mergekit's. What is kept is what hashes to at most the limit, so masks
    nest as density grows. ``hashing`` has factor and offset of the part of the hash that sources
    share.

    Returns:
        The L1 distance of what was written to ``base``, one float32 (rows,).
    """
    origin = base.float()
    shared = _hash(base, *hashing)
    deltas = []
    for i, source in enumerate(sources):
        kept = shared * own_factors[i] + own_offsets[i] <= limits[i]
        deltas.append(torch.where(kept, (source.float() - origin) * weights[i], 0.0))
    mixed = _elect(deltas, shares, normalize) if consensus else _sum(deltas)
    return _write(origin + mixed * factor, origin, out)


def row_peaks(base: Tensor, sources: Sequence[Tensor]) -> list[Tensor]:
    """The largest entry of each row of each task vector, float32 (rows,)."""
    origin = base.float()
    return [(source.float() - origin).abs().amax(1) for source in sources]


def count_between(
    base: Tensor, sources: Sequence[Tensor], low: Sequence[Tensor], high: Sequence[Tensor]
) -> list[Tensor]:
    """How many magnitudes of each row of each task vector are in [low, high): float32 (rows,)."""
    origin = base.float()
    counts = []
    for i, source in enumerate(sources):
        magnitude = (source.float() - origin).abs()
        counts.append(_count((magnitude >= low[i]) & (magnitude < high[i])))
    return counts


def norms(base: Tensor, sources: Sequence[Tensor], scales: Sequence[Tensor]) -> list[Tensor]:
    """L1 norms of the parts of each row of each task vector, in units of 1 / scale.

    Entries are rounded to whole units and float32 holds their sums exactly, so that they are the
    same in any order and on every device.

    Returns:
        For each source float32 (rows, `ROW` / `PART`).
    """
    origin = base.float()
    return [
        _part_sums((source.float() - origin).abs(), scale)
        for source, scale in zip(sources, scales, strict=True)
    ]


def norms_above(
    base: Tensor, sources: Sequence[Tensor], scales: Sequence[Tensor], values: Sequence[Tensor]
) -> list[Tensor]:
    """`norms` over the magnitudes that are greater than ``values``."""
    origin = base.float()
    sums = []
    for i, source in enumerate(sources):
        magnitude = (source.float() - origin).abs()
        sums.append(_part_sums(torch.where(magnitude > values[i], magnitude, 0.0), scales[i]))
    return sums


def dropped_norms(
    base: Tensor,
    sources: Sequence[Tensor],
    scales: Sequence[Tensor],
    hashing: Sequence[Tensor],
    own_factors: Sequence[Tensor],
    own_offsets: Sequence[Tensor],
    limits: Sequence[Tensor],
) -> list[Tensor]:
    """`norms` over what `dropped` keeps."""
    origin = base.float()
    shared = _hash(base, *hashing)
    sums = []
    for i, source in enumerate(sources):
        kept = shared * own_factors[i] + own_offsets[i] <= limits[i]
        magnitude = (source.float() - origin).abs()
        sums.append(_part_sums(torch.where(kept, magnitude, 0.0), scales[i]))
    return sums


def products(base: Tensor, other: Tensor) -> list[Tensor]:
    """Each row's sums of squares of two tensors and of their products: three float32 (rows,)."""
    a, b = base.float(), other.float()
    return [(a * a).sum(1), (b * b).sum(1), (a * b).sum(1)]


def distance(tensor: Tensor, origin: Tensor) -> list[Tensor]:
    """Each row's L1 distance, float32 (rows,)."""
    return [(tensor.float() - origin.float()).abs().sum(1)]


def _elect(deltas: Sequence[Tensor], shares: Sequence[Tensor], normalize: bool) -> Tensor:
    """Steps 2 and 3 of TIES' Algorithm 1: elect each entry's sign, and add up what agrees with it.

    The elected sign is that of the sum over sources; a sum of zero counts as positive. With
    ``normalize`` the result is divided by the weights of the sources that agree, the paper's
    disjoint mean.
    """
    total = _sum(deltas)  # its sign is the elected one
    # The entries of the elected sign add up to (|sum| + sum of magnitudes) / 2 in magnitude, for
    # those of the other sign cancel in it: fewer steps than choosing entry by entry.
    agreeing = (total.abs() + _sum([delta.abs() for delta in deltas])) * 0.5
    mixed = torch.copysign(agreeing, total)
    if not normalize:
        return mixed
    positive = total >= 0
    counted = _sum(
        [
            torch.where((delta != 0) & ((delta > 0) == positive), share, 0.0)
            for delta, share in zip(deltas, shares, strict=True)
        ]
    )
    return mixed / torch.where(counted == 0, 1.0, counted)


def _sum(tensors: Sequence[Tensor]) -> Tensor:
    total = tensors[0]
    for tensor in tensors[1:]:
        total = total + tensor
    return total


def _count(mask: Tensor) -> Tensor:
    # Float sums of up to ROW ones are exact, and far faster than converting masks to integers.
    return torch.where(mask, 1.0, 0.0).sum(1)


def _hash(like: Tensor, factor: Tensor, offset: Tensor) -> Tensor:
    columns = torch.arange(ROW, dtype=torch.int32, device=like.device)
    return finalise(columns * factor + offset)


def _part_sums(magnitude: Tensor, scale: Tensor) -> Tensor:
    # Whole numbers as floats: converting to integers takes longer than all the rest.
    units = torch.floor(magnitude * scale + 0.5)
    return units.view(-1, ROW // PART, PART).sum(2)


def _write(merged: Tensor, origin: Tensor, out: Tensor) -> list[Tensor]:
    rounded = merged.to(out.dtype)
    out.copy_(rounded)
    return [(rounded.float() - origin).abs().sum(1)]
