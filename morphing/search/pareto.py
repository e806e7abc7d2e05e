"""Figures of a set of objective vectors: front, hypervolume, knee.

The front and the hypervolume are computed by the moocore library.

Everywhere ``values`` is (n, m), a row a trial, all objectives maximised. A row with a value that
isn't finite is on no front and adds nothing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

_INITIAL_TRIALS = 10


def front(values: Values) -> NDArray[np.bool_]:
    """Which rows no other row dominates: bool (n,). Equal rows are all on the front or all off."""
    import moocore

    values = np.asarray(values, dtype=float)
    on_front: NDArray[np.bool_] = np.asarray(np.isfinite(values).all(axis=1))
    if on_front.any():
        on_front[on_front] = moocore.is_nondominated(
            values[on_front], maximise=True, keep_weakly=True
        )
    return on_front


def reference_point(values: Values) -> Values:
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
    reference: np.ndarray = initial.min(axis=0) - 0.1 * np.where(span > 0, span, 1.0)
    return reference


def hypervolume(values: Values, reference: Values) -> float:
    """The volume between the reference point (m,) and the front; rows below it add nothing."""
    import moocore

    values = np.asarray(values, dtype=float)
    values = values[np.isfinite(values).all(axis=1)]
    if len(values) == 0:
        return 0.0
    return float(moocore.hypervolume(values, ref=reference, maximise=True))


def hypervolume_history(values: Values, reference: Values) -> list[float]:
    """The hypervolume after each row: n numbers that never fall."""
    values = np.asarray(values, dtype=float)
    volumes = [hypervolume(values[: row + 1], reference) for row in range(len(values))]
    # A row that adds nothing may take a rounding error off.
    return [float(volume) for volume in np.maximum.accumulate(volumes)] if volumes else []


def knee(values: Values) -> int | None:
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
