"""Figures of a set of objective vectors: front, hypervolume, knee.

Everywhere ``values`` is (n, m), a row a trial, all objectives maximised. A row with a value that
isn't finite is on no front and adds nothing.
"""

import numpy as np

_INITIAL_TRIALS = 10


def front(values: np.ndarray) -> np.ndarray:
    """Which rows no other row dominates: bool (n,). Equal rows are all on the front or all off."""
    values = np.asarray(values, dtype=float)
    finite = np.isfinite(values).all(axis=1)
    # better[i, j]: row i is at least as good as row j everywhere and better somewhere.
    at_least = np.all(values[:, None] >= values, axis=2)
    better = np.logical_and(at_least, np.any(values[:, None] > values, axis=2))
    return np.logical_and(finite, ~np.any(better[finite], axis=0))


def reference_point(values: np.ndarray) -> np.ndarray:
    """The corner hypervolumes are measured from, (m,), fixed once ten trials have values.

    Of the first ten finite rows (fewer while there are fewer), in number order: the minimum of
    each objective less a tenth of its range, or less 0.1 where all are equal. So two searches
    that share their initial trials share it, and it doesn't move as a search goes on.

    Raises:
        ValueError: no row is finite.
    """
    values = np.asarray(values, dtype=float)
    initial = values[np.isfinite(values).all(axis=1)][:_INITIAL_TRIALS]
    if len(initial) == 0:
        raise ValueError("a reference point needs one row of finite values")
    span = np.ptp(initial, axis=0)
    return initial.min(axis=0) - 0.1 * np.where(span > 0, span, 1.0)


def hypervolume(values: np.ndarray, reference: np.ndarray) -> float:
    """The volume between the reference point (m,) and the front; rows below it add nothing."""
    values = np.asarray(values, dtype=float)
    points = values[front(values)] - reference
    return _volume(points[(points > 0).all(axis=1)])


def hypervolume_history(values: np.ndarray, reference: np.ndarray) -> list[float]:
    """The hypervolume after each row: n numbers that never fall."""
    values = np.asarray(values, dtype=float) - reference
    values[~np.isfinite(values).all(axis=1)] = -np.inf
    gains = [_gain(values[:row], values[row]) for row in range(len(values))]
    return [float(volume) for volume in np.cumsum(gains)]


def _volume(points: np.ndarray) -> float:
    """Hypervolume of (n, m) above the origin, all coordinates positive.

    The WFG recursion (While et al. 2012) with its points in order of their last coordinate, the
    greatest first: what a point adds is then a slab whose base has one dimension less. Own code for
    speed: the app draws this often, and BoTorch's public function costs seconds to import and has
    no way to add one point at a time.
    """
    dimensions = points.shape[1]
    if dimensions <= 3:
        return _volume_of_three(np.pad(points, ((0, 0), (0, 3 - dimensions)), constant_values=1.0))
    points = points[np.argsort(-points[:, -1], kind="stable")]
    bases, heights = points[:, :-1], points[:, -1]
    return sum(
        float(height) * _gain(bases[:row], base)
        for row, (base, height) in enumerate(zip(bases, heights, strict=True))
    )


def _volume_of_three(points: np.ndarray) -> float:
    """Of (n, 3), all levels of the last coordinate at once: each is a staircase's area."""
    points = points[np.argsort(-points[:, 0], kind="stable")]
    across, deep, high = points.T
    levels = np.unique(high)
    stairs = np.maximum.accumulate(np.where(high >= levels[:, None], deep, 0.0), axis=1)
    areas = stairs @ -np.diff(across, append=0.0)
    return float(np.diff(levels, prepend=0.0) @ areas)


def _gain(points: np.ndarray, new: np.ndarray) -> float:
    """What a new point (m,) adds to the volume of points (n, m): its box less what they share."""
    if (new <= 0).any():
        return 0.0
    shared = np.minimum(points, new)
    shared = shared[(shared > 0).all(axis=1)]
    if (shared == new).all(axis=1).any():
        return 0.0
    if len(new) > 3:
        shared = np.unique(shared[front(shared)], axis=0)
    return float(np.prod(new)) - _volume(shared)


def knee(values: np.ndarray) -> int | None:
    """The best compromise of the front: its row, or None if no row is finite.

    The member nearest to the ideal point (the best of each objective at once), all objectives
    scaled to [0, 1] over the front (compromise programming, Zeleny 1973). On a front that bulges
    towards the ideal this is the knee to the eye. The distance to the plane through the front's
    extremes, the other usual choice, misleads with three objectives or more, where extremes of
    small fronts span any plane. Objectives constant over the front do not count. The first row wins
    ties.
    """
    values = np.asarray(values, dtype=float)
    rows = np.flatnonzero(front(values))
    if len(rows) == 0:
        return None
    members = values[rows]
    spread = np.ptp(members, axis=0)
    spread[spread == 0] = 1.0
    missing = (members.max(axis=0) - members) / spread
    distance = np.linalg.norm(missing, axis=1)
    return int(rows[np.argmax(distance < distance.min() + 1e-12)])
