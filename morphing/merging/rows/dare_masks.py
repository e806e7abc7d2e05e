"""DARE's masks, row by row, and the L1 norms that rescaling restores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from morphing.merging.hashing import limit, mask_key
from morphing.merging.rows.kernels import FIXED_POINT, ROW
from morphing.merging.rows.segments import Segment

_EPSILON = 1e-7  # mergekit leaves tensors with a smaller L1 norm as they are
_LOW = np.uint64(0xFFFFFFFF)
_HIGH_FACTOR = np.uint64(0x9E3779B9)


def shared_hash_columns(segment: Segment, seed: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Factor and offset of the hash that sources share, in every row: int32 (rows, 1) each."""
    keys = [mask_key(seed, 0, tensor.name)[:2] for tensor in segment.tensors]
    factors, offsets = np.array(keys, np.uint64).T.repeat(segment.counts, axis=1)
    own_rows = np.arange(int(segment.counts.sum())) - np.repeat(segment.starts, segment.counts)
    first = own_rows.astype(np.uint64) * np.uint64(ROW)
    # As `hashing.offset_at`, for the index of each row's first element.
    offsets = (first * factors + offsets + (first >> np.uint64(32)) * _HIGH_FACTOR) & _LOW
    return _signed(factors, device), _signed(offsets, device)


def own_hash_columns(
    segment: Segment, place: int, seed: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Factor and offset of one input's own hash, in every row: int32 (rows, 1) each."""
    keys = [mask_key(seed, tensor.positions[place], tensor.name)[2:] for tensor in segment.tensors]
    factors, offsets = np.array(keys, np.uint64).T.repeat(segment.counts, axis=1)
    return _signed(factors, device), _signed(offsets, device)


def limit_column(segment: Segment, densities: Sequence[float], device: torch.device) -> Tensor:
    """The greatest hash that is kept in every row, int32 (rows, 1)."""
    return segment.column([limit(density) for density in densities], device, torch.int32)


def scale_column(peaks: Tensor) -> Tensor:
    """Powers of two that bring each row's peak to at most `FIXED_POINT`: float32 (rows, 1)."""
    exponents = torch.frexp(peaks).exponent
    scales = torch.ldexp(torch.full_like(peaks, FIXED_POINT), -exponents)
    # A row of zeros, or of entries so small that the scale is no float32, counts as zero.
    return torch.where((peaks > 0) & scales.isfinite(), scales, 0.0).unsqueeze(1)


def tensor_norms(segment: Segment, sums: Tensor, scales: Tensor) -> NDArray[np.float64]:
    """Each tensor's L1 norm from the sums of its rows' parts in fixed point."""
    units = scales.squeeze(1).cpu().numpy().astype(np.float64)
    rows = sums.cpu().numpy().sum(1, dtype=np.float64) / np.where(units > 0, units, 1.0)
    return np.add.reduceat(rows, segment.starts)


def ratios(before: NDArray[np.float64], after: NDArray[np.float64]) -> NDArray[np.float64]:
    """What restores the norm; 1 where there is next to nothing."""
    small = (before < _EPSILON) | (after < _EPSILON)
    return np.where(small, 1.0, before / np.where(small, 1.0, after))


def _signed(values: NDArray[np.uint64], device: torch.device) -> Tensor:
    return torch.as_tensor(values.astype(np.uint32).view(np.int32)).to(device).unsqueeze(1)
