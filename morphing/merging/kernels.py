"""Merging one tensor: float32 arithmetic on any device, a function of its arguments alone.

All tensors of one call have the same shape; results are float32 of that shape. Work goes by
blocks, so that temporaries stay in the processor's cache and the memory needed beyond the result
is one byte an element and source (the masks), and for TIES two float32 copies of one task vector.
"""

import hashlib
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

BLOCK = 1 << 17
"""Elements a block: half a megabyte of float32."""

_EPSILON = 1e-7  # mergekit leaves tensors with a smaller L1 norm as they are


class Masks(NamedTuple):
    """What is kept of each task vector of one tensor."""

    kept: Tensor
    """bool (sources, elements)"""
    scales: tuple[float, ...]
    """One factor a source that restores the L1 norm of what was there before; 1 if not asked."""


def linear(tensors: Sequence[Tensor], weights: Sequence[float], normalize: bool) -> Tensor:
    """Weighted sum, divided by the sum of the weights when ``normalize``.

    Model soups: https://arxiv.org/abs/2203.05482.
    """
    result = torch.zeros(tensors[0].shape, dtype=torch.float32, device=tensors[0].device)
    for tensor, weight in zip(tensors, weights, strict=True):
        result.add_(tensor, alpha=weight)
    return result.div_(sum(weights)) if normalize else result


def slerp(base: Tensor, other: Tensor, t: float) -> Tensor:
    """Spherical interpolation between two weight vectors, from ``base`` (t = 0) to ``other``.

    Nearly parallel vectors (cosine beyond 0.9995) are interpolated linearly, as mergekit does.
    """
    a, b = base.flatten().float(), other.flatten().float()
    norms = [norm if (norm := float(torch.linalg.vector_norm(x))) > 1e-8 else 1.0 for x in (a, b)]
    cosine = min(1.0, max(-1.0, float(torch.dot(a / norms[0], b / norms[1]))))
    if abs(cosine) > 0.9995:
        share_a, share_b = 1 - t, t
    else:
        angle = math.acos(cosine)
        share_a = math.sin((1 - t) * angle) / math.sin(angle)
        share_b = math.sin(t * angle) / math.sin(angle)
    return (a * share_a).add_(b, alpha=share_b).reshape(base.shape)


def task_arithmetic(
    base: Tensor,
    sources: Sequence[Tensor],
    weights: Sequence[float],
    masks: Masks | None = None,
    *,
    consensus: bool,
    normalize: bool,
    factor: float = 1.0,
) -> Tensor:
    """``base + factor * sum of weight * (source - base)`` over what the masks keep.

    With ``consensus`` only the entries that agree with the sign of the weighted sum count (TIES,
    https://arxiv.org/abs/2306.01708, section 4). ``normalize`` divides by the sum of the weights,
    with ``consensus`` of those that count at an element. Task arithmetic:
    https://arxiv.org/abs/2212.04089.
    """
    result = torch.empty(base.shape, dtype=torch.float32, device=base.device)
    flat_base, flat_result = base.reshape(-1), result.view(-1)
    own = _column(weights, base)
    scaled = own if masks is None else own * _column(masks.scales, base)
    whole = sum(weights) if abs(sum(weights)) >= 1e-8 else 1.0
    for start, stop in _blocks(base.numel()):
        deltas = _deltas(base, sources, start, stop)
        if masks is not None:
            deltas.mul_(masks.kept[:, start:stop])
        deltas.mul_(scaled)
        mixed = deltas.sum(0)
        if consensus:
            sign = torch.ones_like(mixed).copysign_(mixed)  # a sum of zero counts as positive
            deltas.mul_(sign).clamp_(min=0)
            mixed = deltas.sum(0).mul_(sign)
            if normalize:
                counted = (deltas > 0).float().mul_(own).sum(0)
                mixed.div_(counted.masked_fill_(counted == 0, 1.0))
        elif normalize:
            mixed.div_(whole)
        torch.add(flat_base[start:stop].float(), mixed, alpha=factor, out=flat_result[start:stop])
    return result


def magnitude_masks(
    base: Tensor, sources: Sequence[Tensor], densities: Sequence[float], rescale: bool
) -> Masks:
    """TIES' trimming: keep the ``int(density * n)`` largest entries of ``source - base``.

    At least one is kept; of equal magnitudes the first by index.
    """
    count = base.numel()
    kept = torch.zeros((len(sources), count), dtype=torch.bool, device=base.device)
    scales = [1.0] * len(sources)
    for row, (source, density) in enumerate(zip(sources, densities, strict=True)):
        if density >= 1 or count == 0:
            kept[row] = True
        elif density > 0:
            magnitude = torch.empty(count, dtype=torch.float32, device=base.device)
            for start, stop in _blocks(count):
                torch.abs(_deltas(base, [source], start, stop)[0], out=magnitude[start:stop])
            _keep_largest(magnitude, max(1, int(density * count)), kept[row])
            if rescale:
                before = float(magnitude.sum())
                scales[row] = _l1_ratio(before, float(magnitude.mul_(kept[row]).sum()))
    return Masks(kept, tuple(scales))


def random_masks(
    base: Tensor,
    sources: Sequence[Tensor],
    densities: Sequence[float],
    keys: Sequence[tuple[int, int]],
    rescale: bool,
) -> Masks:
    """DARE's dropping: keep each entry of ``source - base`` with probability ``density``.

    Whether an entry is kept depends on its source's key, its index and the density alone, so it is
    the same on any device and in any order, and what is kept at one density is kept at every higher
    one. Rescaling is mergekit's; DARE itself (https://arxiv.org/abs/2311.03099, equation 4) divides
    by the density.
    """
    count, device = base.numel(), base.device
    kept = torch.empty((len(sources), count), dtype=torch.bool, device=device)
    # (hash + 2**31) / 2**32 is uniform in [0, 1): below the density iff the hash is up to this.
    last = [math.ceil(min(max(d, 0.0), 1.0) * 2**32) - 2**31 - 1 for d in densities]
    limits = torch.tensor([[max(limit, -(2**31))] for limit in last], dtype=torch.int32).to(device)
    dropped = [row for row, density in enumerate(densities) if density <= 0]
    indices = torch.arange(min(BLOCK, count), dtype=torch.int32, device=device)
    before = torch.zeros(len(sources), device=device)
    after = torch.zeros(len(sources), device=device)
    for start, stop in _blocks(count):
        block = kept[:, start:stop]
        torch.le(hash_indices(indices[: stop - start], start, keys), limits, out=block)
        if dropped:
            block[dropped] = False
        if rescale:
            magnitude = _deltas(base, sources, start, stop).abs_()
            before += magnitude.sum(1)
            after += magnitude.mul_(block).sum(1)
    scales = [_l1_ratio(*sums) for sums in zip(before.tolist(), after.tolist(), strict=True)]
    return Masks(kept, tuple(scales))


def mask_key(seed: int, position: int, tensor: str) -> tuple[int, int]:
    """The key of one mask: 64 bits of (mask seed, place of the source in the recipe, tensor)."""
    text = f"{seed}|{position}|{tensor}".encode()
    digest = hashlib.blake2b(text, digest_size=8).digest()
    return int.from_bytes(digest[:4], "little") | 1, int.from_bytes(digest[4:], "little")


def hash_indices(indices: Tensor, start: int, keys: Sequence[tuple[int, int]]) -> Tensor:
    """Uniform int32 hashes of ``start + indices``, one row a key.

    An affine map of the index, one for each key, goes through the multiply-xorshift finaliser
    "lowbias32" (C. Wellons, hash-prospector, public domain), less its last shift, which moves only
    bits too low to matter to a comparison. int32 products wrap alike on every device; uint32 and
    int64 arithmetic are not everywhere.
    """
    high = (start >> 32) * 0x9E3779B9  # elements past 2**32 get a map of their own
    factors = torch.tensor([[_signed(m)] for m, _ in keys], dtype=torch.int32)
    offsets = torch.tensor([[_signed(start * m + o + high)] for m, o in keys], dtype=torch.int32)
    value = (indices * factors.to(indices.device)).add_(offsets.to(indices.device))
    # Shifting an int32 repeats its sign; the mask clears it.
    value.bitwise_xor_((value >> 16).bitwise_and_(0xFFFF)).mul_(_signed(0x7FEB352D))
    return value.bitwise_xor_((value >> 15).bitwise_and_(0x1FFFF)).mul_(_signed(0x846CA68B))


def kth_largest(values: Tensor, k: int) -> Tensor:
    """The ``k``-th largest of a flat float32 tensor of non-negative values, as a scalar."""
    place = values.numel() - k
    if values.device.type != "cpu":
        return torch.kthvalue(values, place + 1).values
    # numpy's partition is vectorised and bears equal values, on which torch's selection takes
    # quadratic time; the bits of non-negative floats are in the order of the floats.
    bits = np.partition(values.view(torch.int32).numpy(), place)[place : place + 1]
    return torch.from_numpy(bits).view(torch.float32)[0]


def l1_norm(tensor: Tensor, origin: Tensor | None = None) -> Tensor:
    """Sum of absolute entries of ``tensor - origin``, as a float32 scalar on its device."""
    flat = tensor.reshape(-1)
    total = torch.zeros((), dtype=torch.float32, device=tensor.device)
    for start, stop in _blocks(flat.numel()):
        block = flat[start:stop].float()
        if origin is not None:
            block = block - origin.reshape(-1)[start:stop]
        total += block.abs().sum()
    return total


def _blocks(count: int) -> Iterator[tuple[int, int]]:
    return ((start, min(start + BLOCK, count)) for start in range(0, count, BLOCK))


def _deltas(base: Tensor, sources: Sequence[Tensor], start: int, stop: int) -> Tensor:
    """A block of the task vectors, float32 (sources, elements); the caller's own to change."""
    deltas = torch.stack([source.reshape(-1)[start:stop] for source in sources])
    return deltas.float().sub_(base.reshape(-1)[start:stop])


def _keep_largest(magnitude: Tensor, keep: int, kept: Tensor) -> None:
    """Set ``kept`` where ``magnitude`` is among the ``keep`` largest, ties going by index."""
    threshold = kth_largest(magnitude, keep)
    torch.ge(magnitude, threshold, out=kept)
    # Entries of magnitude zero add nothing, kept or not.
    if threshold > 0 and (surplus := int(kept.count_nonzero()) - keep) > 0:
        equal = (magnitude == threshold).nonzero().view(-1)
        kept[equal[-surplus:]] = False


def _column(values: Sequence[float], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=like.device).unsqueeze(1)


def _l1_ratio(before: float, after: float) -> float:
    return 1.0 if before < _EPSILON or after < _EPSILON else before / after


def _signed(value: int) -> int:
    """The int32 with the low 32 bits of ``value``."""
    return (value + 2**31) % 2**32 - 2**31
