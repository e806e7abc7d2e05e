"""Noisy expected hypervolume improvement: Bayesian optimisation one trial at a time.

The acquisition is noisy EHVI in logarithms (`ehvi`): the hypervolume a point is expected to add to
what the processes believe the front to be, so that one lucky score does not stand as the front.
BoTorch's own, by Monte Carlo, takes tens of seconds for a proposal among 100 trials with four
objectives.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from morphing.search.pareto import reference_point
from morphing.search.samplers.history import (
    HistorySampler,
    Problem,
    derive_seed,
    from_unit,
    history,
    known_variances,
    observed,
    pending,
    signs,
    slot_of,
    to_unit,
)
from morphing.search.samplers.surrogate import fit_processes, relevance_of, reproducible

_DRAWS = 8


class QLogNEHVISampler(HistorySampler):
    """Uniform initial trials, then each trial where it is expected to add most hypervolume.

    A Gaussian process per objective learns from all complete trials and, with the larger variance
    of fewer samples, from those given up early. Where every trial's variances are known (user
    attribute "variances") they are its noise; else it is fitted. Trials that are still running
    count as taken (they are drawn from the posterior too), so any number of workers may ask
    at any time. Objectives that were equal in all trials teach nothing.

    Args:
        seed: at least 0.
        problem: what is known of the search.
        n_initial: uniform trials before the first proposal.
    """

    def __init__(self, seed: int, problem: Problem | None = None, *, n_initial: int = 10) -> None:
        super().__init__(seed, problem)
        self._n_initial = n_initial

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The best point; nothing in initial trials, which are uniform."""
        slot = slot_of(study, trial)
        if slot - self._problem.first_slot < self._n_initial or not search_space:
            return {}
        known = [t for t in history(study) if search_space.keys() <= t.params.keys()]
        seen = [(t, found) for t in known if (found := observed(t)) is not None]
        complete = [i for i, (t, _) in enumerate(seen) if t.state == TrialState.COMPLETE]
        if len(complete) < 2:
            return {}
        sign = signs(study)
        values = np.array([found[0] for _, found in seen]) * sign
        varying = (values != values[0]).any(axis=0)
        if not varying.any():
            return {}
        noise = known_variances([found[1] for _, found in seen])
        corner = self._problem.reference
        reference = reference_point(values[complete]) if corner is None else corner * sign
        running = [p for p in pending(study, trial) if search_space.keys() <= p.keys()]
        seed = derive_seed(self._seed, slot)
        with reproducible(seed):
            point = propose(
                to_unit([t.params for t, _ in seen], search_space),
                values[:, varying],
                None if noise is None else noise[:, varying],
                reference[varying],
                np.array([_feasible(t) for t, _ in seen]),
                to_unit(running, search_space),
                relevance_of(search_space, self._problem.relevance),
                seed,
            )
        return from_unit(point, search_space)


def _feasible(trial: FrozenTrial) -> bool:
    return all(value <= 0 for value in trial.constraints.values())


def propose(
    points: np.ndarray,
    values: np.ndarray,
    noise: np.ndarray | None,
    reference: np.ndarray,
    counted: np.ndarray,
    running: np.ndarray,
    relevance: np.ndarray | None,
    seed: int,
) -> np.ndarray:
    """The next point, (d,) in [0, 1].

    Args:
        points: (n, d) evaluated points in [0, 1].
        values: (n, m) their values, maximised.
        noise: (n, m) variances of the values, or None where they are not known.
        reference: (m,) the point hypervolume counts from.
        counted: (n,) bool, those that may be on the front.
        running: (r, d) points being evaluated.
        relevance: (d,) or None, as `surrogate.fit_processes` takes it.
        seed: of draws and starting points (the latter also from torch's global generator).
    """
    import torch

    from morphing.search.samplers.ehvi import LogEHVI, draws, jitter, maximise, non_dominated

    mean, deviation = values.mean(axis=0), values.std(axis=0, ddof=1)
    x, z = torch.from_numpy(points), torch.from_numpy((values - mean) / deviation)
    scaled = None if noise is None else torch.from_numpy(noise / deviation**2)
    model = fit_processes(x, z, scaled, relevance)
    waiting = torch.from_numpy(running)
    drawn = draws(model, x, z, waiting, _DRAWS, seed)
    on_front = torch.from_numpy(np.append(counted, np.ones(len(running), dtype=bool)))
    acquisition = LogEHVI(
        model,
        torch.cat([x, waiting]),
        drawn,
        jitter(drawn[0]),
        torch.from_numpy((reference - mean) / deviation),
        on_front,
    )
    return np.asarray(maximise(acquisition, non_dominated(x, z), seed)[0].numpy())
