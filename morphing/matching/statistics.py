"""What a least-squares problem needs to know of its tokens, and its solution in closed form.

For one map with weight W (out, in), over teachers t with n_t tokens and shares p_t of the loss:

    W = argmin sum_t p_t / n_t |X^_t W' - X_t W_t'|^2 + rho |W - A|^2                           (1)

X^_t are the map's inputs in the merge, X_t its inputs in teacher t, W_t the teacher's own map, A
the anchor. With G = sum_t p_t / n_t X^_t' X^_t and K_t = X_t' X^_t the solution is

    W = A + (sum_t p_t / n_t W_t K_t - A G) (G + rho I)^-1                                      (2)
    rho = ridge * mean(diag G)                                                                  (3)

A bias is one more column of W, and a column of ones in X and X^.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

RIDGES = 6
"""So many times the ridge is raised tenfold where a matrix cannot be factorised."""


class Moments:
    """Sums over one task's tokens for the maps of a group: X^'X^ and X'X^, with a column of ones.

    Args:
        width: of the input.
        device: where the sums are.
        dtype: of the sums; products of a batch are taken in float32.
    """

    def __init__(self, width: int, device: torch.device, dtype: torch.dtype) -> None:
        shape = (width + 1, width + 1)
        self.gram = torch.zeros(shape, dtype=dtype, device=device)
        self.cross = torch.zeros(shape, dtype=dtype, device=device)
        self.tokens = 0

    def add(self, own: Tensor, taught: Tensor) -> None:
        """Add tokens: inputs (n, width) in the merge and in the teacher."""
        own, taught = _with_ones(own), _with_ones(taught)
        self.gram += own.T @ own
        self.cross += taught.T @ own
        self.tokens += len(own)


def wide(tensor: Tensor) -> Tensor:
    """A tensor in at least float32."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def _with_ones(inputs: Tensor) -> Tensor:
    inputs = wide(inputs)
    return torch.cat([inputs, inputs.new_ones(len(inputs), 1)], dim=1)


@dataclass(frozen=True)
class Solution:
    """A solved map.

    Args:
        weight: W, shaped and of the dtype of the anchor.
        ridge: that it was solved with: the one asked for, or a higher one.
    """

    weight: Tensor
    ridge: float


class Problem:
    """The problems (1) of the maps of a group, which share G and, for one kind of map, its factor.

    Args:
        parts: the moments and shares of the teachers; maps bring their weights.
        ridge: r of (3), at least 0.
    """

    def __init__(self, parts: Sequence[tuple[float, Moments]], ridge: float) -> None:
        self._parts = parts
        self._ridge = ridge
        self._gram = sum(p / m.tokens * m.gram for p, m in parts)
        self._factors: dict[bool, tuple[Tensor, float]] = {}

    @property
    def finite(self) -> bool:
        """Whether all sums are finite numbers."""
        gram = self._gram
        assert isinstance(gram, Tensor)
        return bool(gram.isfinite().all() and all(m.cross.isfinite().all() for _, m in self._parts))

    def solve(self, weights: Sequence[Tensor], anchor: Tensor, bias: bool) -> Solution:
        """Equation (2).

        Args:
            weights: of the map in each teacher, in the order of the parts.
            anchor: A, shaped like them.
            bias: whether their last column is a bias.

        Raises:
            ValueError: the matrix cannot be factorised at any ridge tried.
        """
        end = None if bias else -1
        factor, ridge = self._factor(bias)
        gram = self._gram
        assert isinstance(gram, Tensor)
        double = anchor.to(gram.dtype)
        target = sum(
            p / m.tokens * (weight.to(gram.dtype) @ m.cross[:end, :end])
            for (p, m), weight in zip(self._parts, weights, strict=True)
        )
        rest = target - double @ gram[:end, :end]
        step = torch.cholesky_solve(rest.T, factor).T
        return Solution((double + step).to(anchor.dtype), ridge)

    def _factor(self, bias: bool) -> tuple[Tensor, float]:
        if bias not in self._factors:
            gram = self._gram
            assert isinstance(gram, Tensor)
            gram = gram if bias else gram[:-1, :-1]
            scale = float(gram.diagonal().mean())
            ridge = self._ridge
            for _ in range(RIDGES):
                shifted = gram + ridge * scale * torch.eye(
                    len(gram), dtype=gram.dtype, device=gram.device
                )
                factor, failed = torch.linalg.cholesky_ex(shifted)
                if not failed:
                    break
                ridge = max(10 * ridge, 1e-6)
            else:
                raise ValueError("its Gram matrix cannot be factorised")
            self._factors[bias] = factor, ridge
        return self._factors[bias]
