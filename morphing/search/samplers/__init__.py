"""Samplers: each proposes a search's next parameters, one file a sampler."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from morphing.errors import MorphingError

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

SAMPLERS = ("mmmo", "nsga2", "cmaes", "random")


def make_sampler(name: str, seed: int, *, objectives: Sequence[str]) -> "BaseSampler":
    """The sampler called ``name``, with its default settings.

    Args:
        name: one of ``SAMPLERS``.
        seed: with the study's history, it alone decides what is proposed.
        objectives: the study's objectives by name, in its order, all maximised; "sparsity" is
            known not to be a task's score.

    Raises:
        MorphingError: there is no such sampler.
    """
    if name == "mmmo":
        from morphing.search.samplers.mmmo import MMMOSampler

        return MMMOSampler(seed, objectives)
    if name == "nsga2":
        from morphing.search.samplers.nsga2 import NSGA2Sampler

        return NSGA2Sampler(seed)
    if name == "cmaes":
        from morphing.search.samplers.cmaes import CMAESSampler

        return CMAESSampler(seed, objectives)
    if name == "random":
        from morphing.search.samplers.random import UniformSampler

        return UniformSampler(seed)
    raise MorphingError(f"There is no sampler '{name}': choose one of {', '.join(SAMPLERS)}.")
