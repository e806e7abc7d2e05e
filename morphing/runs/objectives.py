"""A run's objectives: their values, which way each is better, the scales they are measured by.

Values are *natural*: as a person reads them, a minimised one not negated. What needs one direction
multiplies by :func:`signs`, or works on values that :meth:`Scales.normalise` brought to one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from morphing.runs.spec import MEASURES, SPARSITY, RunSpec
from morphing.runs.trial import Trial
from morphing.search import pareto

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from morphing.benchmarks.results import Score

PARAMETERS, LAYERS, TOKENS, THROUGHPUT = (name for name in MEASURES if name != SPARSITY)
EXACT = frozenset({SPARSITY, PARAMETERS, LAYERS})
"""Measures that are a model's own, whatever samples it is scored on."""


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
    """The front of complete trials, in their order; those that break a constraint are on none."""
    kept = [trial for trial in trials if trial.feasible]
    values = np.array([trial.values for trial in kept]).reshape(len(kept), len(spec.objectives))
    on_front = pareto.front(values * signs(spec))
    return [trial for trial, chosen in zip(kept, on_front, strict=True) if chosen]


# --- values of one model -----------------------------------------------------------------------


def measures(
    model: PreTrainedModel, distance: float, scores: Mapping[str, Score]
) -> dict[str, float]:
    """Every measure of a model, natural, by name.

    Tokens are the mean over all answers it generated (the end token counts); throughput is
    generated tokens a second of scoring, prompts read included, on the machine and at the batch
    size of the run: it is never the same twice, not even on one machine. Both are 0 where no
    benchmark has answers generated.

    Args:
        distance: relative L1 distance from the base.
        scores: of the run's objectives.
    """
    generating = [score for score in scores.values() if score.tokens is not None]
    tokens = sum(output.tokens for score in generating for output in score.outputs)
    answers = sum(score.n for score in generating)
    seconds = sum(score.seconds for score in generating)
    return {
        SPARSITY: 0.0 - distance,  # not -0.0
        PARAMETERS: float(model.num_parameters()),
        LAYERS: float(model.config.get_text_config().num_hidden_layers),
        TOKENS: tokens / answers if answers else 0.0,
        THROUGHPUT: tokens / seconds if seconds else 0.0,
    }


def values_by_name(scores: Mapping[str, Score], measured: Mapping[str, float]) -> dict[str, float]:
    """Natural values of all that objectives and constraints may be about."""
    return {**{name: score.value for name, score in scores.items()}, **measured}


def variances(spec: RunSpec, scores: Mapping[str, Score]) -> tuple[float, ...]:
    """The known variance of each objective's value, (m,), natural units squared.

    A mean's is its samples' variance over their number, which is p(1 − p)/n for right and wrong
    answers; theirs is never taken for less than it were if one answer of n differed, since 16
    right of 16 are no certainty. 0 for exact measures, and for throughput, whose variance nobody
    knows.
    """
    found = []
    for name in spec.objectives:
        if name in scores:
            score = scores[name]
            each = [output.score for output in score.outputs]
            floor = (score.n - 1) / score.n**2 if set(each) <= {0.0, 1.0} else 0.0
            found.append(max(_spread(each), floor) / score.n)
        elif name == TOKENS:
            lengths = [o.tokens for s in scores.values() if s.tokens is not None for o in s.outputs]
            found.append(_spread(lengths) / max(len(lengths), 1))
        else:
            found.append(0.0)
    return tuple(found)


def _spread(values: Iterable[float]) -> float:
    """Population variance."""
    values = list(values)
    mean = math.fsum(values) / max(len(values), 1)
    return math.fsum((value - mean) ** 2 for value in values) / max(len(values), 1)


def shown_value(spec: RunSpec, name: str, value: float) -> str:
    """A natural value as text: shares in percent, other scores and measures in their own units."""
    if name == SPARSITY:
        return f"{value:.4f}"
    if name == PARAMETERS:
        return f"{value / 1e9:.3f}B" if value >= 1e9 else f"{value / 1e6:.2f}M"
    if name == LAYERS:
        return f"{value:g}"
    if name in (TOKENS, THROUGHPUT):
        return f"{value:.1f}"
    share = all(u.declaration.share for u in spec.benchmarks if u.declaration.name == name)
    return f"{100 * value:.1f}" if share else f"{value:.4f}"
