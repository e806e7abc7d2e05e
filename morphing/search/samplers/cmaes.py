"""CMA-ES on a weighted sum of the objectives.

By the ``cmaes`` library, which Optuna's CMA-ES is built on too. Optuna's own sampler takes one
objective only and keeps its state in the study as pickles, which a run got from others must not be
able to bring in; ours is rebuilt from the history.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from cmaes import CMA
from optuna.distributions import BaseDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from morphing.search.samplers.history import (
    HistorySampler,
    derive_seed,
    from_unit,
    history,
    signs,
    slot_of,
    to_unit,
)

_SIGMA = 1 / 6


class CMAESSampler(HistorySampler):
    """Maximises a weighted sum of the objectives; the study keeps them all.

    It begins at the problem's start, or in the middle, with a step of 1/6 of the ranges. The
    distribution is rebuilt for every trial by replaying the history, one generation after the
    other. A trial without usable values, or that breaks a constraint, ranks last in its
    generation. In a study whose space is not given the very first trial is uniform.
    """

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """A draw from the distribution that the complete generations lead to."""
        if not search_space:
            return {}
        trials = [t for t in history(study) if search_space.keys() <= t.params.keys()]
        dimensions = len(search_space)
        start = self._problem.start
        optimizer = CMA(
            mean=np.full(dimensions, 0.5) if start is None else to_unit([start], search_space)[0],
            sigma=_SIGMA,
            bounds=np.tile([0.0, 1.0], (dimensions, 1)),
            population_size=self.population(dimensions),
        )
        size = optimizer.population_size
        points = to_unit([t.params for t in trials], search_space)
        weights = self._problem.cost_weights(signs(study)) * signs(study)
        for end in range(size, len(trials) + 1, size):
            generation = range(end - size, end)
            optimizer.tell([(points[i], _cost(trials[i], weights)) for i in generation])
        optimizer.reseed_rng(derive_seed(self._seed, slot_of(study, trial)))
        return from_unit(optimizer.ask(), search_space)

    def population(self, dimensions: int) -> int:
        """Trials in a generation: 4 + floor(3 ln d)."""
        return 4 + math.floor(3 * math.log(dimensions))


def _cost(trial: FrozenTrial, weights: np.ndarray) -> float:
    """The weighted sum to minimise; ``weights`` (m,) are of values as the study has them."""
    if trial.state != TrialState.COMPLETE or not np.isfinite(trial.values).all():
        return math.inf
    if any(value > 0 for value in trial.constraints.values()):
        return math.inf
    return -float(weights @ trial.values)
