"""Evolutionary model merge (arXiv 2403.13187): the paper's CMA-ES over parameters or layer paths.

Which of its three searches it is, is a matter of the search space: parameters of layer-wise
DARE-TIES (PS), layer paths (DFS), or one after the other (PS+DFS).
"""

from __future__ import annotations

import math

from morphing.search.samplers.cmaes import CMAESSampler

_PATH_POPULATION = 128
_FEWEST_GENERATIONS = 10


class EvolveSampler(CMAESSampler):
    """CMA-ES with the paper's constants: x0 = 0.5 and sigma0 = 1/6 of the ranges.

    Over parameters, generations have 4 + floor(3 ln d) trials. Over paths, where the problem says
    where to start (the first source's own path), the paper has 128 a generation and 100 of those;
    a search that can afford less gets generations of a tenth of its budget, so that there are ten.
    """

    def population(self, dimensions: int) -> int:
        """Trials in a generation."""
        usual = super().population(dimensions)
        if self._problem.start is None:
            return usual
        budget = self._problem.budget
        if budget is None:
            return _PATH_POPULATION
        return min(_PATH_POPULATION, max(usual, math.ceil(budget / _FEWEST_GENERATIONS)))
