"""A sampler that goes on where another fails: with the slot's uniform draw."""

from __future__ import annotations

import logging
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from morphing.errors import MorphingError
from morphing.search.samplers.history import DRAWN, HistorySampler, Problem

_OUTSIDE = (MorphingError, OSError, StorageInternalError, UpdateFinishedTrialError)
"""Failures of what is around a sampler: the disk, the database, a trial that was given up."""

_log = logging.getLogger(__name__)


class SteadySampler(HistorySampler):
    """Another sampler, whose numerical failures do not end a search.

    A sampler may meet a matrix that is not positive definite, or an optimiser that finds nothing.
    Proposals are functions of seed, slot and history, so it would fail again at every resume. Here
    the trial gets the uniform draw of its slot instead, which is a function of seed and slot, and
    the attribute `history.DRAWN`, which says why.

    Args:
        sampler: the one that proposes.
        seed: at least 0, the same as the sampler's.
        problem: what is known of the search.
    """

    def __init__(self, sampler: BaseSampler, seed: int, problem: Problem | None = None) -> None:
        super().__init__(seed, problem)
        self._sampler = sampler
        self._failed: int | None = None
        """The id of the trial for which it failed."""

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """The sampler's; none where it fails."""
        try:
            return self._sampler.infer_relative_search_space(study, trial)
        except _OUTSIDE:
            raise
        except Exception as error:
            self._fail(study, trial, error)
            return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The sampler's proposal; nothing where it fails."""
        if self._failed == trial._trial_id:
            return {}
        try:
            return self._sampler.sample_relative(study, trial, search_space)
        except _OUTSIDE:
            raise
        except Exception as error:
            self._fail(study, trial, error)
            return {}

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """The sampler's draw of one parameter; the slot's uniform one where it failed."""
        if self._failed != trial._trial_id:
            try:
                return self._sampler.sample_independent(
                    study, trial, param_name, param_distribution
                )
            except _OUTSIDE:
                raise
            except Exception as error:
                self._fail(study, trial, error)
        return super().sample_independent(study, trial, param_name, param_distribution)

    def _fail(self, study: Study, trial: FrozenTrial, error: Exception) -> None:
        self._failed = trial._trial_id
        first = str(error).strip().partition("\n")[0]
        reason = f"{type(error).__name__}: {first}" if first else type(error).__name__
        _log.warning(
            "The sampler failed for trial %d (%s); its parameters are drawn uniformly.",
            trial.number,
            reason,
        )
        _log.debug("How it failed:", exc_info=error)
        if "fixed_params" not in trial.system_attrs and not self.outside_the_space(trial):
            study._storage.set_trial_user_attr(trial._trial_id, DRAWN, reason)
