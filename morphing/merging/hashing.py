"""Stateless random numbers: an integer hash of (mask seed, source, tensor, element).

An affine map of the element's index, one for each tensor, goes through `finalise`; the result goes
through an affine map of each source's own, so that the sources of a tensor share the costly part.
int32 products wrap alike on every device; uint32 and int64 arithmetic are not everywhere.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class MaskKey(NamedTuple):
    """What a mask is made from, 32 bits each."""

    factor: int
    """Odd; the tensor's, as is ``offset``."""
    offset: int
    own_factor: int
    """Odd; the source's, as is ``own_offset``."""
    own_offset: int


def mask_key(seed: int, position: int, tensor: str) -> MaskKey:
    """The key of one mask: of the mask seed, the source's place in the recipe, and the tensor."""
    return MaskKey(*_affine(f"{seed}|{tensor}"), *_affine(f"{seed}|{position}|{tensor}"))


def hash_indices(indices: Tensor, start: int, keys: Sequence[MaskKey]) -> Tensor:
    """Uniform int32 hashes of ``start + indices``, one row a key."""
    rows = []
    for key in keys:
        shared = finalise(indices * signed(key.factor) + signed(offset_at(key, start)))
        rows.append(shared * signed(key.own_factor) + signed(key.own_offset))
    return torch.stack(rows)


def offset_at(key: MaskKey, start: int) -> int:
    """The offset for indices that count from ``start``, modulo 2**32."""
    high = (start >> 32) * 0x9E3779B9  # elements past 2**32 get a map of their own
    return start * key.factor + key.offset + high


def finalise(value: Tensor) -> Tensor:
    """Mix the bits of int32 values.

    The multiply-xorshift finaliser "lowbias32" (C. Wellons, hash-prospector, public domain), less
    its last shift, which moves only bits too low to matter to a comparison.
    """
    # Shifting an int32 repeats its sign; the mask clears it.
    value = (value ^ ((value >> 16) & 0xFFFF)) * signed(0x7FEB352D)
    return (value ^ ((value >> 15) & 0x1FFFF)) * signed(0x846CA68B)


def limit(density: float) -> int:
    """The greatest hash (int32) kept at a density; at a density of 0 still one in 2**32."""
    # (hash + 2**31) / 2**32 is uniform in [0, 1): below the density iff the hash is up to this.
    return max(math.ceil(min(max(density, 0.0), 1.0) * 2**32) - 1, 0) - 2**31


def signed(value: int) -> int:
    """The int32 with the low 32 bits of ``value``."""
    return (value + 2**31) % 2**32 - 2**31


def _affine(text: str) -> tuple[int, int]:
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest[:4], "little") | 1, int.from_bytes(digest[4:], "little")
