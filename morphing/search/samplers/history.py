"""What our samplers share: proposals that are a function of the seed and the study's history.

``kill -9`` loses whatever a sampler holds in memory, so ours hold nothing that they could not
compute again: a proposal's random numbers come from (seed, slot).

A *slot* is a place in the sequence of recipes a search tries. A trial whose worker died is tried
again by another trial with the same slot (user attribute "slot"), so slots, unlike trial numbers,
do not depend on who was killed when; trials without the attribute have the slots of their order. Of
several trials in one slot at most one is told.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.search_space import intersection_search_space
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

SLOT = "slot"
"""User attribute of a trial that takes the place of one that died: the slot of both."""
FAILURE = "failure"
"""User attribute of a trial whose recipe could not be scored: why. Its state is PRUNED. A FAIL says
that the trial's worker died: that must stay so, and a database may write an attribute after it."""
ERROR = "error"
"""What FAILURE was in runs of earlier versions, where the state is FAIL."""
DRAWN = "drawn"
"""User attribute of a trial whose parameters are a uniform draw, since the sampler failed: how."""
RACED = "raced"
"""User attribute of a trial given up early: {"values": [...], "variances": [...]} of the part of
the samples it was scored on, in the study's order. Its state is PRUNED."""
RECIPE = "recipe"
"""User attribute of every trial: what is scored."""
VARIANCES = "variances"
"""User attribute of a complete trial: the known variance of each value, in the study's order;
0 where a value is exact."""

_START_WIDTH = 1 / 6


@dataclass(frozen=True)
class Problem:
    """What a sampler may know of a search besides its trials.

    Everything has a meaning without it, so that samplers work in any Optuna study.

    Args:
        objectives: the study's objectives by name, in its order.
        tasks: those of them that are task scores; none means all.
        space: the parameters to propose, in order; by default what all trials have in common.
        reference: (m,) the point hypervolume counts from, in the study's units; by default
            `pareto.reference_point` of the first trials.
        ideal: (m,) the best that is to be expected of each objective, in the study's units; with
            ``reference`` it says how much objectives weigh in a sum.
        weights: of objectives by name in a weighted sum; by default 1 for each task, 0 for others.
        start: where a search begins, by parameter; by default evolution begins in the middle of
            every range, and random draws are uniform. With a start they are normal about it, a
            sixth of the range wide.
        relevance: by parameter, how much the model changes along it (such as the norm of the task
            vector it scales), in any unit; by default all alike.
        first_slot: the first slot of this problem, where a search has several one after the other.
        budget: how many trials the search may have, where that is known.
    """

    objectives: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    space: Mapping[str, FloatDistribution] | None = None
    reference: tuple[float, ...] | None = None
    ideal: tuple[float, ...] | None = None
    weights: Mapping[str, float] | None = None
    start: Mapping[str, float] | None = None
    relevance: Mapping[str, float] | None = None
    first_slot: int = 0
    budget: int | None = None

    def task_indices(self, objectives: int) -> list[int]:
        """Columns that are task scores, of so many objectives; all if none is named."""
        found = [i for i, name in enumerate(self.objectives) if name in self.tasks]
        return found or list(range(objectives))

    def cost_weights(self, signs: np.ndarray) -> np.ndarray:
        """Weights (m,) of maximised objectives in a sum to maximise.

        Raises:
            ValueError: ``weights`` names no objective of the problem, or all are 0.
        """
        count = len(signs)
        if self.weights is None:
            weights = np.zeros(count)
            weights[self.task_indices(count)] = 1.0
        else:
            if unknown := set(self.weights) - set(self.objectives):
                raise ValueError(f"weights are given for unknown objectives: {sorted(unknown)}")
            weights = np.array([self.weights.get(name, 0.0) for name in self.objectives])
        if not weights.any():
            raise ValueError("all weights of the objectives are 0")
        if self.reference is not None and self.ideal is not None:
            span = np.abs(np.subtract(self.ideal, self.reference))
            weights = weights / np.where(span > 0, span, 1.0)
        return weights


class HistorySampler(optuna.samplers.BaseSampler):
    """Base of our samplers: single parameters are uniform, drawn from (seed, slot, name).

    Subclasses propose in ``sample_relative`` over the problem's float parameters; they return
    nothing to leave a trial to the uniform draw.

    Args:
        seed: at least 0.
        problem: what is known of the search.
    """

    def __init__(self, seed: int, problem: Problem | None = None) -> None:
        self._seed = seed
        self._problem = problem or Problem()

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """The proposable parameters, by name; none of a trial whose parameters are given."""
        if trial.system_attrs.get("fixed_params") or self.outside_the_space(trial):
            return {}
        given = self._problem.space
        common = intersection_search_space(history(study)) if given is None else given
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
        seed = derive_seed(self._seed, slot_of(study, trial), stream)
        start = self._problem.start
        if start is not None and param_name in start:
            space = {param_name: param_distribution}
            centre = to_unit([start], space)[0]
            drawn = np.random.default_rng(seed).normal(centre, _START_WIDTH)
            return from_unit(np.clip(drawn, 0.0, 1.0), space)[param_name]
        uniform = optuna.samplers.RandomSampler(seed=seed)
        return uniform.sample_independent(study, trial, param_name, param_distribution)

    @staticmethod
    def outside_the_space(trial: FrozenTrial) -> bool:
        """Whether a trial is a recipe that the space cannot express: it has no parameters."""
        return RECIPE in trial.user_attrs and not trial.system_attrs.get("fixed_params")


def slots(trials: Sequence[FrozenTrial]) -> dict[int, int]:
    """Slot by trial number, of all the trials of a study."""
    found, following = {}, 0
    for trial in sorted(trials, key=lambda t: t.number):
        if SLOT in trial.user_attrs:
            found[trial.number] = int(trial.user_attrs[SLOT])
        else:
            found[trial.number] = following
            following += 1
    return found


def slot_of(study: Study, trial: FrozenTrial) -> int:
    """The slot of a trial that is being asked for."""
    if SLOT in trial.user_attrs:
        return int(trial.user_attrs[SLOT])
    trials = study.get_trials(deepcopy=False)
    return sum(t.number < trial.number and SLOT not in t.user_attrs for t in trials)


def is_told(trial: FrozenTrial) -> bool:
    """Whether a trial counts: complete, given up early, or failed for a reason of its recipe."""
    return (
        trial.state == TrialState.COMPLETE
        or (trial.state == TrialState.PRUNED and RACED in trial.user_attrs)
        or failure_of(trial) is not None
    )


def failure_of(trial: FrozenTrial) -> str | None:
    """Why a trial's recipe could not be scored; None of a trial that did not fail so."""
    key = {TrialState.PRUNED: FAILURE, TrialState.FAIL: ERROR}.get(trial.state)
    return None if key is None else trial.user_attrs.get(key)


def history(study: Study) -> list[FrozenTrial]:
    """The trials that count, in the order of their slots."""
    trials = study.get_trials(deepcopy=False)
    slot = slots(trials)
    by_slot: dict[int, FrozenTrial] = {}
    for trial in trials:
        if is_told(trial):
            by_slot.setdefault(slot[trial.number], trial)
    return [by_slot[key] for key in sorted(by_slot)]


def pending(study: Study, trial: FrozenTrial) -> list[dict[str, Any]]:
    """Parameters of the other trials that are being evaluated or wait to be."""
    states = (TrialState.RUNNING, TrialState.WAITING)
    others = study.get_trials(deepcopy=False, states=states)
    known = [t.params or t.system_attrs.get("fixed_params", {}) for t in others if t != trial]
    return [dict(params) for params in known if params]


def signs(study: Study) -> np.ndarray:
    """(m,) 1 for an objective that is maximised, −1 for one that is minimised."""
    return np.array([1.0 if d == StudyDirection.MAXIMIZE else -1.0 for d in study.directions])


def derive_seed(*entropy: int) -> int:
    """A 32-bit seed from non-negative numbers; different numbers give independent streams."""
    return int(np.random.SeedSequence(entropy).generate_state(1)[0])


def usable(
    trials: Sequence[FrozenTrial], space: Mapping[str, BaseDistribution]
) -> list[FrozenTrial]:
    """The trials a model can learn from: complete, finite values, every parameter of the space."""
    return [
        trial
        for trial in trials
        if trial.state == TrialState.COMPLETE
        and np.isfinite(trial.values).all()
        and space.keys() <= trial.params.keys()
    ]


def observed(trial: FrozenTrial) -> tuple[list[float], list[float] | None] | None:
    """Values and their known variances, (m,) each; None where there are no finite values.

    Of a trial given up early they are those of the samples it was scored on.
    """
    if trial.state == TrialState.COMPLETE:
        values, variances = trial.values, trial.user_attrs.get(VARIANCES)
    elif RACED in trial.user_attrs:
        values, variances = (trial.user_attrs[RACED][key] for key in ("values", "variances"))
    else:
        return None
    return (values, variances) if np.isfinite(values).all() else None


def known_variances(variances: Sequence[Sequence[float] | None]) -> np.ndarray | None:
    """Variances (n, m) of n trials' values, or None unless all are known."""
    known = [each for each in variances if each is not None]
    return np.array(known) if len(known) == len(variances) else None


def to_unit(
    params: Sequence[Mapping[str, Any]], space: Mapping[str, BaseDistribution]
) -> np.ndarray:
    """Parameters scaled to [0, 1]: (points, parameters), columns in the space's order.

    A logarithmic parameter is scaled by its logarithm.
    """
    low, high, log = _bounds(space)
    points = np.array([[point[name] for name in space] for point in params], dtype=float)
    points = points.reshape(len(params), len(space))
    points[:, log] = np.log(points[:, log])
    scaled: np.ndarray = (points - low) / (high - low)
    return scaled


def from_unit(point: np.ndarray, space: Mapping[str, BaseDistribution]) -> dict[str, float]:
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


def _bounds(space: Mapping[str, BaseDistribution]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Low, high, and which are logarithmic; bounds of these are the logarithms'."""
    floats = [d for d in space.values() if isinstance(d, FloatDistribution)]
    log = np.array([d.log for d in floats], dtype=bool)
    bounds = np.array([[d.low, d.high] for d in floats]).reshape(len(floats), 2)
    bounds[log] = np.log(bounds[log])
    return bounds[:, 0], bounds[:, 1], log
