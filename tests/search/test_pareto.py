"""Front, hypervolume and knee against values worked by hand, and BoTorch's hypervolume."""

from __future__ import annotations

import numpy as np
import pytest

from morphing.search.pareto import (
    front,
    hypervolume,
    hypervolume_history,
    knee,
    reference_point,
)

STAIRS = np.array([[1.0, 3.0], [2.0, 2.0], [3.0, 1.0]])


def test_front_keeps_equals_and_drops_dominated_and_unfinished_rows() -> None:
    values = np.array([[1, 3], [2, 2], [2, 2], [2, 1], [np.nan, 9], [0, 0], [3, 0]], dtype=float)
    assert front(values).tolist() == [True, True, True, False, False, False, True]
    assert front(np.empty((0, 2))).tolist() == []


def test_hypervolume_of_stairs() -> None:
    origin = np.zeros(2)
    assert hypervolume(STAIRS, origin) == 3 + 2 + 1
    assert hypervolume(np.vstack([STAIRS, STAIRS, [[0.5, 0.5]]]), origin) == 6
    assert hypervolume(STAIRS, np.array([1.0, 1.0])) == 1
    assert hypervolume(STAIRS, np.array([5.0, 5.0])) == 0
    assert hypervolume(np.empty((0, 2)), origin) == 0


def test_history_grows_row_by_row() -> None:
    values = np.vstack([[[np.nan, 1.0]], STAIRS, [[1.0, 1.0]], [[3.0, 3.0]]])
    assert hypervolume_history(values, np.zeros(2)) == [0, 3, 5, 6, 6, 9]


@pytest.mark.parametrize("objectives", [1, 2, 3, 4])
def test_hypervolume_equals_botorchs(objectives: int) -> None:
    import torch
    from botorch.utils.multi_objective.box_decompositions import DominatedPartitioning

    values = np.random.default_rng(objectives).random((25, objectives)).round(1)
    reference = np.full(objectives, 0.15)
    if objectives == 1:
        expected = values.max() - 0.15
    else:
        cells = DominatedPartitioning(torch.tensor(reference), torch.from_numpy(values))
        expected = float(cells.compute_hypervolume())
    assert hypervolume(values, reference) == pytest.approx(expected, rel=1e-9)
    assert hypervolume_history(values, reference)[-1] == pytest.approx(expected, rel=1e-9)


def test_reference_point_is_fixed_by_the_first_ten_finite_rows() -> None:
    rows = np.column_stack([np.arange(10.0), np.full(10, 0.5)])
    later = np.array([[-100.0, -100.0]])
    expected = pytest.approx([-0.9, 0.4])
    assert reference_point(rows) == expected
    assert reference_point(np.vstack([[[np.nan, 0.0]], rows, later])) == expected
    assert reference_point(rows[:1]) == pytest.approx([-0.1, 0.4])
    with pytest.raises(ValueError, match="finite"):
        reference_point(np.array([[np.nan, 1.0]]))


def test_knee_is_nearest_to_the_ideal() -> None:
    # Scaled to [0, 1] the ideal is (1, 1); (0.8, 0.7) is nearest to it.
    bent = np.array([[0, 10], [8, 7], [5, 9], [10, 0], [1, 1]], dtype=float)
    assert knee(bent) == 1
    assert knee(bent * [100, 1] + [7, -3]) == 1


def test_knee_of_three_objectives() -> None:
    # Distances from (1, 1, 1): the axes sqrt(2), the last sqrt(1.61), (0.5, 0.5, 0.4) sqrt(0.86).
    values = np.vstack([np.eye(3), [[0.3, 0.3, 0.3]], [[0.5, 0.5, 0.4]], [[0.2, 0.1, 0.6]]])
    assert knee(values) == 4


def test_knee_of_degenerate_fronts() -> None:
    assert knee(np.array([[np.nan, 1.0]])) is None
    assert knee(np.array([[0.0, 0.0], [1.0, 1.0]])) == 1
    assert knee(np.array([[1.0, 2.0], [1.0, 2.0]])) == 0
    assert knee(np.array([[0.0, 1.0], [1.0, 0.0]])) == 0
    # Constant objective: as if it weren't there.
    assert knee(np.array([[0, 5, 10], [8, 5, 7], [10, 5, 0]], dtype=float)) == 1
    # One member best in two objectives is no compromise for that.
    assert knee(np.array([[1, 1, 0], [0, 0, 1], [0.9, 0.8, 0.7]])) == 2
