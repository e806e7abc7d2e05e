"""The boxes no point dominates, beside BoTorch's decomposition of one front."""

from __future__ import annotations

import pytest
import torch
from botorch.utils.multi_objective.box_decompositions import FastNondominatedPartitioning
from torch import Tensor

from morphing.search.samplers.boxes import undominated_boxes

REFERENCE = -2.0
CAP = 3.0


def fronts(objectives: int, points: int = 30, count: int = 4) -> Tensor:
    """Random points (count, points, objectives), several on each front and some below all."""
    generator = torch.Generator().manual_seed(objectives)
    values = torch.randn(count, points, objectives, dtype=torch.double, generator=generator)
    return values / values.norm(dim=-1, keepdim=True).sqrt()


def volume(lower: Tensor, upper: Tensor) -> float:
    return float((upper.clamp_max(CAP) - lower).prod(dim=-1).sum())


@pytest.mark.parametrize("objectives", [1, 2, 3, 4])
def test_each_place_is_in_one_box_or_dominated(objectives: int) -> None:
    values = fronts(objectives)
    reference = torch.full((objectives,), REFERENCE, dtype=torch.double)
    lower, upper, front = undominated_boxes(values, reference)
    assert (lower < upper).all() and (front.diff() >= 0).all()
    places = REFERENCE + torch.rand(2_000, objectives, dtype=torch.double) * (CAP - REFERENCE)
    for i, points in enumerate(values):
        own = front == i
        inside = (places[:, None] > lower[own]) & (places[:, None] < upper[own])
        dominated = (places[:, None] < points).all(dim=-1).any(dim=-1)
        assert (inside.all(dim=-1).sum(dim=-1) == (~dominated).long()).all()


@pytest.mark.parametrize("objectives", [2, 3, 4])
def test_volumes_are_those_of_the_library(objectives: int) -> None:
    values = fronts(objectives)
    reference = torch.full((objectives,), REFERENCE, dtype=torch.double)
    lower, upper, front = undominated_boxes(values, reference)
    for i, points in enumerate(values):
        theirs = FastNondominatedPartitioning(reference, points).get_hypercell_bounds()
        ours = volume(lower[front == i], upper[front == i])
        assert ours == pytest.approx(volume(*theirs))


def test_equal_points_and_equal_coordinates_count_once() -> None:
    reference = torch.zeros(3, dtype=torch.double)
    points = torch.tensor([[1, 2, 2], [1, 2, 2], [1, 3, 1], [1, 1, 1], [-1, 9, 9]]).double()
    lower, upper, _ = undominated_boxes(points[None], reference)
    # 27 in all; [1, 2, 2] dominates 4, [1, 3, 1] another 1.
    assert float((upper.clamp_max(3) - lower).prod(dim=-1).sum()) == 22


def test_a_front_without_points_is_one_box() -> None:
    lower, upper, front = undominated_boxes(torch.empty(2, 0, 3).double(), torch.zeros(3).double())
    assert lower.tolist() == [[0, 0, 0]] * 2 and front.tolist() == [0, 1]
    assert upper.isinf().all()
