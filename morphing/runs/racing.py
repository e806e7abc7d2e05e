"""Racing: recipes that a part of the samples shows to be dominated are given up early.

A recipe is scored on a first part of every benchmark's samples, the same part for all recipes, and
compared with the front so far on that part alone, sample by sample. If a member of the front is
better at everything with confidence, the rest of the samples is saved; what was scored then is of a
part and is compared with nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from morphing.runs.measures import EXACT, TOKENS

LEVEL = 0.025
"""Of each one-sided test, as that of a 97.5 % lower bound above 0."""
LEAST = 16
"""Samples of a benchmark that a first part has at least."""

_BLOCK = 2_000


def first_part(samples: int) -> int:
    """How many of so many samples are scored first: a quarter, at least 16."""
    return min(samples, max(LEAST, math.ceil(samples / 4)))


@dataclass(frozen=True)
class Racer:
    """A recipe in a race.

    ``scores`` and ``tokens`` are per benchmark and sample id; ``exact`` are the exact measures that
    are objectives, natural.
    """

    scores: Mapping[str, Mapping[str, float]]
    tokens: Mapping[str, Mapping[str, float]]
    exact: Mapping[str, float]


def is_beaten(racer: Racer, rival: Racer, directions: Mapping[str, str]) -> bool:
    """Whether ``rival`` is better than ``racer`` at every objective.

    On each benchmark by the paired differences over the samples of ``racer``, with confidence
    (:func:`is_above_zero`); in tokens so too, or the same on every sample; on exact measures it
    must be at least as good. Throughput on a part says too little of that on the whole, so where it
    is an objective nothing is beaten. The level is not shared out between objectives, since all
    their tests must reject: for a recipe that belongs on the front to be given up, the test must
    err in the objective that it is better at.

    Args:
        directions: of the objectives by name, as the spec has them.
    """
    for name, direction in directions.items():
        sign = 1.0 if direction == "maximize" else -1.0
        if name in racer.scores:
            ahead = sign * _differences(racer.scores, rival.scores, (name,))
            if not is_above_zero(ahead):
                return False
        elif name == TOKENS:
            ahead = sign * _differences(racer.tokens, rival.tokens, tuple(racer.tokens))
            if ahead.any() and not is_above_zero(ahead):
                return False
        elif name not in EXACT or sign * (rival.exact[name] - racer.exact[name]) < 0:
            return False
    return True


def _differences(
    mine: Mapping[str, Mapping[str, float]],
    theirs: Mapping[str, Mapping[str, float]],
    names: Sequence[str],
) -> np.ndarray:
    """Theirs less mine, sample by sample of mine."""
    pairs = ((theirs[name][id], own) for name in names for id, own in mine[name].items())
    return np.array([other - own for other, own in pairs])


def is_above_zero(differences: np.ndarray) -> bool:
    """Whether paired differences (n,) are above 0 on average, at :data:`LEVEL`.

    The test of random signs (Fisher 1935): were the two alike, each difference could as well have
    the other sign. It holds at any n and for any spread. Right and wrong answers make it McNemar's
    exact test; else all signs are tried where there are few samples, and 9,999 draws stand for all
    where there are many.
    """
    from scipy.stats import binomtest, permutation_test

    differing = differences[differences != 0]
    if differing.sum() <= 0:
        return False
    sizes = np.abs(differing)
    if (sizes == sizes[0]).all():
        wins = int((differing > 0).sum())
        test = binomtest(wins, len(differing), alternative="greater")
    else:
        test = permutation_test(
            (differing,),
            np.mean,
            permutation_type="samples",
            alternative="greater",
            vectorized=True,
            batch=_BLOCK,
            rng=np.random.default_rng(0),
        )
    return bool(test.pvalue <= LEVEL)
