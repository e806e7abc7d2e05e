"""A run's objectives: their values, and which way each is better.

Values are *natural*: as a person reads them, so that a minimised value is not negated. Code that
needs all objectives maximised multiplies values by :func:`signs`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from morphing.errors import MorphingError
from morphing.runs.measures import MEASURES, TOKENS, lengths
from morphing.runs.spec import RunSpec
from morphing.runs.trial import Trial
from morphing.search import pareto

if TYPE_CHECKING:
    from morphing.benchmarks.results import Score


def signs(spec: RunSpec) -> np.ndarray:
    """(m,): 1 for an objective that is maximised, −1 for one that is minimised."""
    return np.array([1.0 if way == "maximize" else -1.0 for way in spec.directions])


def averaged(spec: RunSpec) -> tuple[str, ...]:
    """The benchmarks whose scores have a common mean: objectives that are shares of 1, and of which
    more is better."""
    return tuple(
        use.declaration.name
        for use in spec.tasks
        if use.declaration.share and (use.direction or use.declaration.direction) == "maximize"
    )


def best_of(spec: RunSpec, trials: Sequence[Trial]) -> list[Trial]:
    """The trials that keep the constraints and that no other such trial dominates, in their order.

    Args:
        spec: the run's.
        trials: complete ones.
    """
    kept = [trial for trial in trials if trial.feasible]
    values = np.array([trial.values for trial in kept]).reshape(len(kept), len(spec.objectives))
    on_front = pareto.front(values * signs(spec))
    return [trial for trial, chosen in zip(kept, on_front, strict=True) if chosen]


def values_by_name(scores: Mapping[str, Score], measured: Mapping[str, float]) -> dict[str, float]:
    """Natural values by name: of every benchmark that was scored, and of every measure."""
    return {**{name: score.value for name, score in scores.items()}, **measured}


def finite(spec: RunSpec, values: Mapping[str, float], whose: str) -> dict[str, float]:
    """Values by name without those that are NaN or infinite and that nothing in the run is about.

    Args:
        spec: the run's.
        values: of benchmarks and measures by name.
        whose: the recipe or model they are of, as a sentence begins.

    Raises:
        MorphingError: the value of an objective or a constraint is not finite; names it.
    """
    needed = {*spec.objectives, *(constraint.on for constraint in spec.constraints)}
    for name, value in values.items():
        if name in needed and not math.isfinite(value):
            kind = "measure" if name in MEASURES else "benchmark"
            raise MorphingError(
                f"{whose} has the value {value} of the {kind} {name}, which is not finite: its"
                " numbers may have overflowed."
            )
    return {name: value for name, value in values.items() if math.isfinite(value)}


def variances(spec: RunSpec, scores: Mapping[str, Score]) -> tuple[float, ...]:
    """The known variance of each objective's value, (m,), natural units squared.

    The variance of a mean is the samples' variance divided by their number, which for right and
    wrong answers is p(1 − p)/n. Where all n answers are right, or all wrong, that would be 0, as
    if the score were certain; so the variance of right and wrong answers is at least what it would
    be if one of the n answers were different. Exact measures have a variance of 0, and so has
    throughput, whose variance is not known.
    """
    by_objective = []
    for name in spec.objectives:
        if name in scores:
            score = scores[name]
            each = [output.score for output in score.outputs]
            floor = (score.n - 1) / score.n**2 if set(each) <= {0.0, 1.0} else 0.0
            by_objective.append(max(_spread(each), floor) / score.n)
        elif name == TOKENS:
            answers = lengths(scores)
            by_objective.append(_spread(answers) / max(len(answers), 1))
        else:
            by_objective.append(0.0)
    return tuple(by_objective)


def _spread(values: Iterable[float]) -> float:
    """Population variance."""
    values = list(values)
    mean = math.fsum(values) / max(len(values), 1)
    return math.fsum((value - mean) ** 2 for value in values) / max(len(values), 1)


def shown_value(spec: RunSpec, name: str, value: float) -> str:
    """A natural value as text: shares in percent, other scores and measures in their own units."""
    if name in MEASURES:
        return MEASURES[name].shown(value)
    share = all(u.declaration.share for u in spec.benchmarks if u.declaration.name == name)
    return shown_score(value, share)


def shown_score(value: float, share: bool) -> str:
    """A benchmark's score as text: a share of 1 in percent, anything else as it is."""
    return (f"{100 * value:.1f}%" if share else f"{value:.3f}").replace("-", "−")
