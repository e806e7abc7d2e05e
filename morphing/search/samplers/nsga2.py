"""NSGA-II: Optuna's, reseeded for every trial."""

from __future__ import annotations

import warnings
from typing import Any, ClassVar

import optuna
from optuna.distributions import BaseDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial

from morphing.search.samplers.history import HistorySampler, Problem, derive_seed, slot_of


class NSGA2Sampler(HistorySampler):
    """Optuna's NSGA-II, its random state a function of (seed, slot).

    Optuna keeps generations and parents in the study, so a new instance goes on where the last
    one was; only its random state would be lost at resume. Failed trials are in no generation:
    a generation lasts until ``population_size`` of its trials are complete. Constraints are those
    set by `optuna.Trial.set_constraint`.

    Args:
        seed: at least 0.
        problem: what is known of the search.
        population_size: 10, for two to nine generations in the 30 to 100 evaluations a search of
            merges can afford; Optuna's default of 50 would spend most of them on random trials.
    """

    genetic: ClassVar[type] = optuna.samplers.NSGAIISampler

    def __init__(
        self, seed: int, problem: Problem | None = None, population_size: int = 10
    ) -> None:
        super().__init__(seed, problem)
        self._population_size = population_size
        # Optuna marks generations in the study by the class's name: a search's stages, which
        # have other parameters, must not find each other's.
        name = f"{self.genetic.__name__}{self._problem.first_slot or ''}"
        self._class = type(name, (self.genetic,), {})

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """A child of the last generation; nothing in the first one and for mutated parameters."""
        if self.outside_the_space(trial):
            return {}
        seed = derive_seed(self._seed, slot_of(study, trial))
        # Parents that are chosen, and not found in the study, come in another order and use up
        # random numbers: have them found always.
        first = self._new(seed)
        first.get_parent_population(study, first.get_trial_generation(study, trial))
        if not search_space:
            return {}
        proposal: dict[str, Any] = self._new(seed).sample_relative(study, trial, search_space)
        return proposal

    def _new(self, seed: int) -> Any:
        with warnings.catch_warnings(action="ignore"):  # that NSGA-III is experimental
            return self._class(population_size=self._population_size, seed=seed)
