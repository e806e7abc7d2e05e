"""What our samplers share: proposals that are a function of the seed and the study's history.

``kill -9`` loses whatever a sampler holds in memory, so ours hold nothing that they could not
compute again: each proposal's random numbers come from (seed, slot), the slot being the number of
trials in the history. A killed trial isn't part of the history, so its slot is proposed again, and
identically.

Trials are proposed one after the other: two trials asked for at once share their slot and hence
their parameters.
"""

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.search_space import intersection_search_space
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

SPARSITY = "sparsity"


class HistorySampler(optuna.samplers.BaseSampler):
    """Base of our samplers: single parameters are uniform, drawn from (seed, slot, name).

    Subclasses propose in ``sample_relative`` over the float parameters all complete trials
    have in common; they return nothing to leave a trial to the uniform draw.

    Args:
        seed: at least 0.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """The proposable parameters, by name."""
        common = intersection_search_space(history(study))
        return {
            name: distribution
            for name, distribution in common.items()
            if isinstance(distribution, FloatDistribution)
            and not (distribution.step or distribution.single())
        }

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The proposed parameters, by name."""
        return {}

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """A uniform draw, the same for a parameter's name whatever else is asked for before."""
        stream = zlib.crc32(param_name.encode())
        seed = derive_seed(self._seed, len(history(study)), stream)
        uniform = optuna.samplers.RandomSampler(seed=seed)
        return uniform.sample_independent(study, trial, param_name, param_distribution)


def history(study: Study) -> list[FrozenTrial]:
    """The trials that count, in number order.

    Those that completed, and those whose recipe failed: state FAIL with the user attribute
    "error". A FAIL without it was killed and doesn't count.
    """
    finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.FAIL))
    return [
        trial
        for trial in finished
        if trial.state == TrialState.COMPLETE or "error" in trial.user_attrs
    ]


def derive_seed(*entropy: int) -> int:
    """A 32-bit seed from non-negative numbers; different numbers give independent streams."""
    return int(np.random.SeedSequence(entropy).generate_state(1)[0])


def usable(trials: Sequence[FrozenTrial], space: dict[str, BaseDistribution]) -> list[FrozenTrial]:
    """The trials a model can learn from: complete, finite values, every parameter of the space."""
    return [
        trial
        for trial in trials
        if trial.state == TrialState.COMPLETE
        and np.isfinite(trial.values).all()
        and space.keys() <= trial.params.keys()
    ]


def to_unit(trials: Sequence[FrozenTrial], space: dict[str, BaseDistribution]) -> np.ndarray:
    """Parameters scaled to [0, 1]: (trials, parameters), columns in the space's order.

    A logarithmic parameter is scaled by its logarithm.
    """
    low, high, log = _bounds(space)
    points = np.array([[trial.params[name] for name in space] for trial in trials])
    points = points.reshape(len(trials), len(space))
    points[:, log] = np.log(points[:, log])
    return (points - low) / (high - low)


def from_unit(point: np.ndarray, space: dict[str, BaseDistribution]) -> dict[str, float]:
    """One point of [0, 1]^d, shape (d,), as named parameters inside their bounds."""
    low, high, log = _bounds(space)
    values = np.clip(low + point * (high - low), low, high)
    values[log] = np.exp(values[log])
    floats = [(n, d) for n, d in space.items() if isinstance(d, FloatDistribution)]
    # exp(log(bound)) may be a rounding error outside.
    return {
        name: min(max(float(value), d.low), d.high)
        for (name, d), value in zip(floats, values, strict=True)
    }


def _bounds(space: dict[str, BaseDistribution]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Low, high, and which are logarithmic; bounds of these are the logarithms'."""
    floats = [d for d in space.values() if isinstance(d, FloatDistribution)]
    log = np.array([d.log for d in floats], dtype=bool)
    bounds = np.array([[d.low, d.high] for d in floats]).reshape(len(floats), 2)
    bounds[log] = np.log(bounds[log])
    return bounds[:, 0], bounds[:, 1], log
