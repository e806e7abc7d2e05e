"""Samplers: each proposes a search's next parameters, one file a sampler."""

from importlib import import_module
from typing import TYPE_CHECKING

from morphing.errors import MorphingError

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

    from morphing.search.samplers.history import Problem

_CLASSES = {
    "qlognehvi": "QLogNEHVISampler",
    "mmmo": "MMMOSampler",
    "evolve": "EvolveSampler",
    "nsga2": "NSGA2Sampler",
    "nsga3": "NSGA3Sampler",
    "cmaes": "CMAESSampler",
    "sobol": "SobolSampler",
    "random": "UniformSampler",
}
SAMPLERS = tuple(_CLASSES)


def make_sampler(name: str, seed: int, problem: "Problem | None" = None) -> "BaseSampler":
    """The sampler called ``name``, with its default settings.

    Args:
        name: one of ``SAMPLERS``.
        seed: with the slot and the study's history, it alone decides what is proposed.
        problem: what is known of the search.

    Raises:
        MorphingError: there is no such sampler.
    """
    if name not in _CLASSES:
        raise MorphingError(f"There is no sampler '{name}': choose one of {', '.join(SAMPLERS)}.")
    module = import_module(f"morphing.search.samplers.{name}")
    sampler: BaseSampler = getattr(module, _CLASSES[name])(seed, problem)
    return sampler
