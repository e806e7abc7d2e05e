"""NSGA-II: Optuna's, reseeded for every trial."""

from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial

from morphing.search.samplers.history import HistorySampler, derive_seed, history


class NSGA2Sampler(HistorySampler):
    """Optuna's NSGA-II, its random state a function of (seed, slot).

    Optuna keeps generations and parents in the study, so a new instance goes on where the last
    one was; only its random state would be lost at resume. Failed trials are in no generation:
    a generation lasts until ``population_size`` of its trials are complete.

    Args:
        seed: at least 0.
        population_size: 10, for two to nine generations in the 30 to 100 evaluations a search of
            merges can afford; Optuna's default of 50 would spend most of them on random trials.
    """

    def __init__(self, seed: int, population_size: int = 10) -> None:
        super().__init__(seed)
        self._population_size = population_size

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """A child of the last generation; nothing in the first one and for mutated parameters."""
        sampler = optuna.samplers.NSGAIISampler(
            population_size=self._population_size,
            seed=derive_seed(self._seed, len(history(study))),
        )
        # Optuna lists parents in another order once they are stored: have it always find them so.
        sampler.get_parent_population(study, sampler.get_trial_generation(study, trial))
        return sampler.sample_relative(study, trial, search_space)
