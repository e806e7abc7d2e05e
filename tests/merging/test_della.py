"""DELLA's masks: who is kept, how often, and what that depends on."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from morphing.errors import MorphingError
from morphing.merging import della as module
from morphing.merging.della import della, rank_limits
from morphing.merging.hashing import hash_indices, mask_key

KEY = mask_key(3, 0, "model.norm.weight")
SHAPES = [(50,), (), (6, 31), (4, 1), (3, 7, 5), (2, 5, 2, 3)]


def vector(*shape: int) -> Tensor:
    """A task vector with many equal magnitudes, as those of bfloat16 models have."""
    generator = torch.Generator().manual_seed(2)
    return torch.randn(shape, generator=generator).mul_(8).round_().add_(0.5).div_(8)


def drop(delta: Tensor, density: float, epsilon: float, **changes: Any) -> Tensor:
    """What is left of one task vector onto a base of zeros."""
    options = {"consensus": False, "normalize": False, "rescale": False, "factor": 1.0}
    return della(
        torch.zeros_like(delta),
        [delta],
        [1.0],
        [density],
        [epsilon],
        [KEY],
        **{**options, **changes},
    )


def test_kept_as_often_as_the_rank_says() -> None:
    delta = vector(2000, 100)
    kept = drop(delta, 0.5, 0.3) != 0
    ranks = delta.abs().argsort(dim=1, stable=True).argsort(dim=1)
    for decile in range(10):
        inside = (ranks >= 10 * decile) & (ranks < 10 * decile + 10)
        expected = 0.2 + 0.6 * (10 * decile + 4.5) / 99
        assert abs(float(kept[inside].float().mean()) - expected) < 5 * (0.25 / 20000) ** 0.5
    assert abs(float(kept.float().mean()) - 0.5) < 5 * (0.25 / 200000) ** 0.5


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_ranks_are_exact_and_go_by_index_among_equals(shape: tuple[int, ...]) -> None:
    """Against the plain double sort, which is also what other devices do."""
    magnitude = module._rows(vector(*shape).abs())
    expected = magnitude.argsort(dim=1, stable=True).argsort(dim=1)
    ranks = torch.arange(magnitude.shape[1], dtype=torch.int32)
    assert torch.equal(module._by_rank(magnitude, ranks).long(), expected)


def test_rows_are_mergekits() -> None:
    """With epsilon near the density the smallest of each row all but surely goes."""
    delta = vector(3000, 3)
    kept = drop(delta, 0.5, 0.4999) != 0
    smallest = torch.zeros_like(kept)
    smallest.scatter_(1, delta.abs().sort(dim=1, stable=True).indices[:, :1], True)
    assert kept[smallest].sum() <= 5
    assert kept.sum(dim=1).float().mean() > 1.4


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_blocks_change_nothing(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    delta = vector(*shape)
    base = torch.linspace(-1, 1, delta.numel()).reshape(shape)
    sources = [base + delta, base - 0.5 * delta]

    def merged() -> Tensor:
        return della(
            base,
            sources,
            [0.7, 0.4],
            [0.4, 0.6],
            [0.2, 0.1],
            [KEY, mask_key(3, 1, "x")],
            consensus=True,
            normalize=True,
            rescale=True,
            factor=0.9,
        )

    whole = merged()
    assert whole.shape == shape
    for block in (1, 13):
        monkeypatch.setattr(module, "BLOCK", block)
        assert torch.equal(merged(), whole)


def test_other_layouts_of_memory_change_nothing() -> None:
    delta = vector(9, 20)
    assert torch.equal(drop(delta.T.contiguous().T, 0.4, 0.1), drop(delta, 0.4, 0.1))


def test_masks_nest_as_the_density_grows() -> None:
    delta = vector(60, 40)
    kept = [drop(delta, density, 0.15) != 0 for density in (0, 0.2, 0.35, 0.5, 0.8, 1)]
    for less, more in pairwise(kept):
        assert (less <= more).all() and less.sum() < more.sum()
    assert kept[-1].all() and not kept[0].any()


def test_without_epsilon_it_is_dare() -> None:
    delta = vector(30, 40)
    hashes = hash_indices(torch.arange(1200, dtype=torch.int32), 0, [KEY]).view(30, 40)
    expected = (hashes.double() + 2**31) / 2**32 < 0.3
    assert torch.equal(drop(delta, 0.3, 0.0) != 0, expected)


def test_rescaling_restores_the_l1_norm() -> None:
    delta = vector(60, 40)
    rescaled, plain = drop(delta, 0.3, 0.1, rescale=True), drop(delta, 0.3, 0.1)
    assert float(rescaled.abs().sum()) == pytest.approx(float(delta.abs().sum()), rel=1e-5)
    assert torch.equal(rescaled != 0, plain != 0)
    tiny = delta * 1e-12
    assert torch.equal(drop(tiny, 0.3, 0.1, rescale=True), drop(tiny, 0.3, 0.1))


def test_an_entry_alone_in_its_row_is_kept_by_the_density() -> None:
    kept = drop(vector(20000, 1), 0.3, 0.2) != 0
    assert abs(float(kept.float().mean()) - 0.3) < 5 * (0.21 / 20000) ** 0.5


def test_no_entries() -> None:
    assert drop(torch.zeros(0, 4), 0.5, 0.1).shape == (0, 4)
    assert drop(torch.zeros(4, 0), 0.5, 0.1, rescale=True).shape == (4, 0)


@pytest.mark.parametrize(
    ("density", "epsilon"),
    [(0.9, 0.1), (0.1, 0.1), (0.5, 0.5), (0.5, -0.6), (0.5, float("nan")), (float("nan"), 0.1)],
)
def test_impossible_probabilities_are_refused(density: float, epsilon: float) -> None:
    with pytest.raises(MorphingError, match=r"choose them so that .* between 0 and 1\.$"):
        drop(vector(4, 4), density, epsilon)


def test_possible_probabilities_reach_their_ends() -> None:
    limits = rank_limits(5, 0.5, 0.25).double()
    shares = (limits + 2**31 + 1) / 2**32
    torch.testing.assert_close(shares, torch.tensor([0.25, 0.375, 0.5, 0.625, 0.75]).double())
