"""CMA-ES on a weighted sum of the objectives, as the evolutionary model merge uses it.

Settings of arXiv 2403.13187 (x0 = 0.5, sigma0 = 1/6, population 4 + floor(3 ln d)) with the
``cmaes`` library.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from cmaes import CMA
from optuna.distributions import BaseDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from morphing.search.samplers.history import (
    SPARSITY,
    HistorySampler,
    derive_seed,
    from_unit,
    history,
    to_unit,
)


class CMAESSampler(HistorySampler):
    """Maximises a weighted sum of the objectives; the study keeps them all.

    The distribution is rebuilt for every trial by replaying the history, one generation after
    the other. A trial without usable values ranks last in its generation. The very first trial
    is uniform: no parameter is known before it.

    Args:
        seed: at least 0.
        objectives: the study's objectives by name, in its order, all maximised.
        weights: one per objective; 1 for each but sparsity, which gets 0, if not given.
    """

    def __init__(
        self, seed: int, objectives: Sequence[str], weights: Sequence[float] | None = None
    ) -> None:
        super().__init__(seed)
        if weights is None:
            weights = [float(name != SPARSITY) for name in objectives]
        self._weights = np.array(weights)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """A draw from the distribution that the complete generations lead to."""
        if not search_space:
            return {}
        counted = history(study)
        trials = [t for t in counted if search_space.keys() <= t.params.keys()]
        dimensions = len(search_space)
        optimizer = CMA(
            mean=np.full(dimensions, 0.5),
            sigma=1 / 6,
            bounds=np.tile([0.0, 1.0], (dimensions, 1)),
            population_size=4 + math.floor(3 * math.log(dimensions)),
        )
        size = optimizer.population_size
        for start in range(0, len(trials) - size + 1, size):
            generation = trials[start : start + size]
            costs = [self._cost(t) for t in generation]
            optimizer.tell(list(zip(to_unit(generation, search_space), costs, strict=True)))
        optimizer.reseed_rng(derive_seed(self._seed, len(counted)))
        return from_unit(optimizer.ask(), search_space)

    def _cost(self, trial: FrozenTrial) -> float:
        if trial.state != TrialState.COMPLETE or not np.isfinite(trial.values).all():
            return math.inf
        return -float(self._weights @ trial.values)
