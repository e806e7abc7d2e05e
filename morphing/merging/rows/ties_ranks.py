"""The order of a task vector's magnitudes, made once, so that no candidate sorts again.

TIES keeps the k largest of a tensor. Which value is the k-th depends on the density, the order of
the magnitudes does not: a table of values and of how many are at least as large gives it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_SHARE = 64
_FEWEST = 1024


@dataclass(frozen=True)
class Bracket:
    """Where the k-th largest magnitude lies: in [low, high), as the ``needed``-th largest there."""

    low: float
    high: float
    needed: int
    inside: int
    """How many magnitudes are in [low, high)."""
    exact: bool
    """Whether they are all equal to ``low``."""


@dataclass(frozen=True)
class Ranks:
    """Magnitudes in descending order, with the number that are at least as large.

    ``exact`` tables list every distinct magnitude. Others, of task vectors with too many of them,
    list every so-many-th, and between two of them a search is left over.
    """

    values: NDArray[np.float32]
    counts: NDArray[np.int64]
    exact: bool

    def bracket(self, k: int) -> Bracket:
        """Where the ``k``-th largest lies, 1 <= k <= number of magnitudes."""
        place = int(np.searchsorted(self.counts, k))
        above = int(self.counts[place - 1]) if place else 0
        low = self.values[place]
        if self.exact:
            high = np.nextafter(low, np.float32(np.inf))
        else:
            high = self.values[place - 1] if place else np.float32(np.inf)
        return Bracket(
            float(low), float(high), k - above, int(self.counts[place]) - above, self.exact
        )


def rank(magnitudes: Tensor) -> Ranks:
    """Rank a flat float32 tensor of non-negative values, which may be changed.

    The table takes at most 12 bytes for each 64 magnitudes (or 12 KiB).
    """
    ordered = _sorted(magnitudes)
    last = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))  # of each distinct value
    values = ordered[last][::-1]
    first = np.concatenate([[0], last[:-1] + 1])
    counts = (len(ordered) - first)[::-1]
    most = max(_FEWEST, len(ordered) // _SHARE)
    exact = len(values) <= most
    if not exact:
        chosen = np.unique(
            np.append(np.arange(0, len(values), -(-len(values) // most)), -1 % len(values))
        )
        values, counts = values[chosen], counts[chosen]
    return Ranks(values.copy(), counts.astype(np.int64), exact)


def _sorted(magnitudes: Tensor) -> NDArray[np.float32]:
    if magnitudes.device.type == "cpu":
        # numpy's is vectorised; the bits of non-negative floats are in the order of the floats.
        bits = magnitudes.view(torch.int32).numpy()
        bits.sort()
        return bits.view(np.float32)
    return torch.sort(magnitudes).values.cpu().numpy()
