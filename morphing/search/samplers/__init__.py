"""Samplers: each proposes a search's next parameters, one file a sampler.

``SAMPLERS`` is the one table of them: the run spec, the command line, the app and the check of
layer paths read it. A new sampler is a file with a class and a line here.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from morphing.errors import MorphingError

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

    from morphing.search.samplers.history import Problem


@dataclass(frozen=True)
class Sampler:
    """What is known of a sampler without importing it.

    Args:
        name: what specs and commands call it; its module has the same name.
        class_name: of its class in that module, called with a seed and a `history.Problem`.
        title: a few words, as the app shows it.
        sentence: what it does and when to choose it.
        everywhere: whether its first proposals lie all over the search space, even where the space
            has a start to begin from.
    """

    name: str
    class_name: str
    title: str
    sentence: str
    everywhere: bool = False


SAMPLERS = {
    sampler.name: sampler
    for sampler in (
        Sampler(
            "qlognehvi",
            "QLogNEHVISampler",
            "Bayesian (noisy EHVI)",
            "Learns from every score and how sure it is; best with a small budget.",
            everywhere=True,
        ),
        Sampler(
            "mmmo",
            "MMMOSampler",
            "MM-MO",
            "Bayesian too, five recipes at a time, as its paper has it.",
            everywhere=True,
        ),
        Sampler(
            "evolve",
            "EvolveSampler",
            "Evolution",
            "The evolutionary merge paper's CMA-ES towards the best sum of scores.",
        ),
        Sampler(
            "nsga2",
            "NSGA2Sampler",
            "NSGA-II",
            "Breeds a population; pays off from some hundred evaluations.",
        ),
        Sampler(
            "nsga3",
            "NSGA3Sampler",
            "NSGA-III",
            "Like NSGA-II, spread out better over many objectives.",
        ),
        Sampler(
            "cmaes",
            "CMAESSampler",
            "CMA-ES",
            "Evolution towards the best weighted sum, in small generations.",
        ),
        Sampler(
            "sobol",
            "SobolSampler",
            "Sobol",
            "Covers the space evenly and learns nothing: a yardstick.",
            everywhere=True,
        ),
        Sampler(
            "random",
            "UniformSampler",
            "Random",
            "Draws at random: the baseline to beat.",
        ),
    )
}


def make_sampler(name: str, seed: int, problem: Problem | None = None) -> BaseSampler:
    """The sampler called ``name``, with its default settings.

    Args:
        name: a key of ``SAMPLERS``.
        seed: with the slot and the study's history, it alone decides what is proposed.
        problem: what is known of the search.

    Raises:
        MorphingError: there is no such sampler.
    """
    if name not in SAMPLERS:
        raise MorphingError(f"There is no sampler '{name}': choose one of {', '.join(SAMPLERS)}.")
    module = import_module(f"morphing.search.samplers.{name}")
    sampler: BaseSampler = getattr(module, SAMPLERS[name].class_name)(seed, problem)
    return sampler
