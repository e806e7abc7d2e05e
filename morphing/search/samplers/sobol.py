"""A scrambled Sobol sequence: the yardstick that covers the space evenly."""

from __future__ import annotations

from typing import Any

from optuna.distributions import BaseDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial
from scipy.stats import qmc

from morphing.search.samplers.history import HistorySampler, derive_seed, from_unit, slot_of


class SobolSampler(HistorySampler):
    """Point number ``slot`` of a scrambled Sobol sequence.

    The sequence is SciPy's: Joe and Kuo's directions (2008), scrambled by a random linear matrix
    and a digital shift (Matousek 1998), not by Owen's nested permutations.
    """

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The slot's point."""
        if not search_space:
            return {}
        sequence = qmc.Sobol(len(search_space), rng=derive_seed(self._seed))
        if place := slot_of(study, trial) - self._problem.first_slot:
            sequence.fast_forward(place)
        return from_unit(sequence.random(1)[0], search_space)
