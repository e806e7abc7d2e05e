"""Random search, the yardstick for the others.

With the same seed, its first trials are the initial design of the samplers that begin at random.
"""

from __future__ import annotations

from typing import Any

from optuna.distributions import BaseDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial

from morphing.search.samplers.history import HistorySampler


class UniformSampler(HistorySampler):
    """Every parameter uniform in its range, or about the problem's start where it has one."""

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Nothing: every parameter is drawn by itself."""
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Nothing."""
        return {}
