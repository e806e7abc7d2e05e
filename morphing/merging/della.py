"""DELLA (https://arxiv.org/abs/2406.11617): drop by magnitude rank, with masks that are a hash.

An entry of a task vector is kept with a probability that rises with the rank of its magnitude among
the entries of its row, from density - epsilon to density + epsilon. As DARE's, our masks are
stateless: whether an entry is kept depends on its key, its index, its rank and these two numbers,
so masks are the same on any device and, at one epsilon, nest as the density grows. At epsilon 0
they are DARE's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from morphing.errors import MorphingError
from morphing.merging.hashing import MaskKey, hash_indices

BLOCK = 1 << 17
"""Elements a block, so that its temporaries stay in the processor's cache."""

_EPSILON = 1e-7  # mergekit leaves tensors with a smaller L1 norm as they are


def della(
    base: Tensor,
    sources: Sequence[Tensor],
    weights: Sequence[float],
    densities: Sequence[float],
    epsilons: Sequence[float],
    keys: Sequence[MaskKey],
    *,
    consensus: bool,
    normalize: bool,
    rescale: bool,
    factor: float,
) -> Tensor:
    """``base + factor * sum of weight * kept part of (source - base)``.

    ``rescale`` restores the L1 norm each task vector had before dropping, as mergekit does; the
    paper divides each entry by its own probability. ``consensus`` and ``normalize`` are those of
    task arithmetic and TIES.

    Args:
        base: any shape and float dtype.
        sources: tensors of the base's shape and device.
        weights: one a source.
        densities: one a source; at 1 or more all is kept, at 0 or less nothing.
        epsilons: one a source.
        keys: one a source, from ``hashing.mask_key``.

    Returns:
        float32 of the base's shape; beyond it one byte an element and source is needed.

    Raises:
        MorphingError: a probability would not lie inside (0, 1).
    """
    rows = _rows(base)
    kept = torch.empty((len(sources), base.numel()), dtype=torch.bool, device=base.device)
    scales = [1.0] * len(sources)
    for place, (source, density, epsilon) in enumerate(
        zip(sources, densities, epsilons, strict=True)
    ):
        if density <= 0 or density >= 1:
            kept[place] = density >= 1
            continue
        limits = rank_limits(rows.shape[1], density, epsilon).to(base.device)
        sums = _keep(rows, _rows(source), limits, keys[place], kept[place].view(rows.shape))
        before, after = sums.cpu().double().sum(0).tolist()
        if rescale and before >= _EPSILON and after >= _EPSILON:
            scales[place] = before / after
    return _mix(base, sources, kept, scales, weights, consensus, normalize, factor)


def rank_limits(length: int, density: float, epsilon: float) -> Tensor:
    """Of each rank in a row, smallest first, the largest int32 hash that is kept: (length,).

    An entry alone in its row is kept with probability ``density``; mergekit divides by zero there.

    Raises:
        MorphingError: density - epsilon or density + epsilon is outside (0, 1).
    """
    if not abs(epsilon) < min(density, 1 - density):
        raise MorphingError(
            f"DELLA's density is {density:g} and its epsilon {epsilon:g}: choose them so that"
            " density - epsilon and density + epsilon lie between 0 and 1."
        )
    share = np.linspace(0.0, 1.0, length) if length > 1 else np.full(length, 0.5)
    probability = density + epsilon * (2 * share - 1)
    # (hash + 2**31) / 2**32 is uniform in [0, 1): below the probability iff the hash is up to this.
    limits = np.clip(np.ceil(probability * 2**32), 1, 2**32) - 2**31 - 1
    return torch.from_numpy(limits.astype(np.int32))


def _keep(base: Tensor, source: Tensor, limits: Tensor, key: MaskKey, kept: Tensor) -> Tensor:
    """Fill ``kept``; of each slice, the L1 norm before and after: float32 (slices, 2).

    All but ``limits`` (length,) and the result have shape (slices, length, inner).
    """
    slices, length, inner = base.shape
    size = length * inner
    step = max(1, BLOCK // max(1, size))
    indices = torch.arange(min(step, slices) * size, dtype=torch.int32, device=base.device)
    sums = torch.zeros((slices, 2), device=base.device)
    for start in range(0, slices, step):
        stop = min(start + step, slices)
        magnitude = (source[start:stop].float() - base[start:stop].float()).abs_()
        hashes = hash_indices(indices[: magnitude.numel()], start * size, [key])
        mask = torch.le(hashes.view(magnitude.shape), _by_rank(magnitude, limits))
        kept[start:stop] = mask
        # Slice by slice, so that the sums do not depend on the size of the blocks.
        flat = magnitude.view(stop - start, size)
        sums[start:stop, 0] = flat.sum(1)
        sums[start:stop, 1] = flat.mul_(mask.view(flat.shape)).sum(1)
    return sums


def _by_rank(magnitude: Tensor, values: Tensor) -> Tensor:
    """``values`` (length,) at each entry's rank along the middle axis; of equal ones by index."""
    lines = magnitude.movedim(1, 2).contiguous()
    length = lines.shape[2]
    if lines.device.type == "cpu":
        # numpy sorts int64 with vector instructions, several times as fast as torch sorts with
        # indices. The bits of non-negative floats are in the order of the floats; the index in the
        # low half goes along and decides among equals.
        packed = lines.view(torch.int32).long().bitwise_left_shift_(32)
        packed.bitwise_or_(torch.arange(length))
        packed.numpy().sort(axis=2)
        order = packed.bitwise_and_(0xFFFFFFFF)
    else:
        order = torch.sort(lines, dim=2, stable=True).indices
    ranked = torch.empty(lines.shape, dtype=values.dtype, device=lines.device)
    return ranked.scatter_(2, order, values.expand(lines.shape)).movedim(2, 1)


def _mix(
    base: Tensor,
    sources: Sequence[Tensor],
    kept: Tensor,
    scales: Sequence[float],
    weights: Sequence[float],
    consensus: bool,
    normalize: bool,
    factor: float,
) -> Tensor:
    """The weighted sum of what is kept, with or without TIES' agreement in sign."""
    result = torch.empty(base.shape, dtype=torch.float32, device=base.device)
    origin, merged = base.reshape(-1), result.view(-1)
    flat = [source.reshape(-1) for source in sources]
    own = torch.tensor(weights, dtype=torch.float32, device=base.device).unsqueeze(1)
    scaled = own * torch.tensor(scales, dtype=torch.float32, device=base.device).unsqueeze(1)
    whole = float(own.sum())
    for start, stop in _blocks(base.numel()):
        before = origin[start:stop].float()
        deltas = torch.stack([source[start:stop] for source in flat]).float().sub_(before)
        deltas.mul_(kept[:, start:stop]).mul_(scaled)
        mixed = deltas.sum(0)
        if consensus:
            sign = (mixed >= 0).float().mul_(2).sub_(1)  # a sum of zero counts as positive
            agrees = deltas.sign() == sign
            mixed = deltas.mul_(agrees).sum(0)
            if normalize:
                counted = (own * agrees).sum(0)
                mixed.div_(counted.masked_fill_(counted == 0, 1.0))
        elif normalize and abs(whole) >= 1e-8:
            mixed.div_(whole)
        torch.add(before, mixed, alpha=factor, out=merged[start:stop])
    return result


def _blocks(count: int) -> Iterator[tuple[int, int]]:
    return ((start, min(start + BLOCK, count)) for start in range(0, count, BLOCK))


def _rows(tensor: Tensor) -> Tensor:
    """The tensor as (slices, length, inner): mergekit ranks along the second axis of a tensor that
    has one, and along the only axis of one that has not."""
    if tensor.ndim < 2:
        return tensor.reshape(1, -1, 1)
    return tensor.reshape(*tensor.shape[:2], math.prod(tensor.shape[2:]))
