"""Uniform random search, the yardstick for the others.

With the same seed, its first trials are MM-MO's initial design.
"""

from optuna.distributions import BaseDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial

from morphing.search.samplers.history import HistorySampler


class UniformSampler(HistorySampler):
    """Every parameter uniform in its range."""

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Nothing: every parameter is drawn by itself."""
        return {}
