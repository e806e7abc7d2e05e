"""The bootstrap: its intervals cover the truth, its differences are paired."""

from __future__ import annotations

import numpy as np
import pytest

from morphing.runs.selection import bootstrap_means, interval


def test_draws_are_seeded_and_the_first_is_the_sample_itself() -> None:
    scores = np.random.default_rng(0).integers(0, 2, (3, 40)).astype(float)
    means = bootstrap_means(scores, seed=5, draws=750)
    assert means.shape == (3, 751)
    assert means[:, 0] == pytest.approx(scores.mean(axis=1))
    assert (means == bootstrap_means(scores, seed=5, draws=750)).all()
    assert (means[:, 1:] != bootstrap_means(scores, seed=6, draws=750)[:, 1:]).any()
    # As wide as theory has it: sqrt(p (1 - p) / n).
    assert means[:, 1:].std(axis=1) == pytest.approx(scores.std(axis=1) / np.sqrt(40), rel=0.1)


@pytest.mark.parametrize("chance", [0.2, 0.5, 0.8])
def test_intervals_cover_the_truth_about_95_times_in_100(chance: float) -> None:
    generator = np.random.default_rng(int(10 * chance))
    scores = (generator.random((400, 200)) < chance).astype(float)
    found = [interval(row) for row in bootstrap_means(scores, seed=0)]
    covered = np.mean([each.low <= chance <= each.high for each in found])
    assert 0.91 < covered < 0.985


def test_differences_are_paired() -> None:
    """Two models that differ in few answers are told apart where their own intervals overlap."""
    generator = np.random.default_rng(0)
    first = (generator.random(200) < 0.5).astype(float)
    second = first.copy()
    second[np.flatnonzero(first == 0)[:8]] = 1.0
    means = bootstrap_means(np.array([first, second]), seed=0)
    ahead = interval(means[1] - means[0])
    assert ahead.value == pytest.approx(0.04) and 0 < ahead.low < ahead.high < 0.08
    assert interval(means[0]).high > interval(means[1]).low


def test_samples_that_agree_have_an_interval_of_no_width() -> None:
    only = interval(bootstrap_means(np.ones((1, 30)), seed=0)[0])
    assert (only.low, only.high) == pytest.approx((1.0, 1.0))
