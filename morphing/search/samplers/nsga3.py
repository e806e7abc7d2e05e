"""NSGA-III: Optuna's, reseeded for every trial; for three objectives and more."""

from __future__ import annotations

from typing import ClassVar

import optuna

from morphing.search.samplers.nsga2 import NSGA2Sampler


class NSGA3Sampler(NSGA2Sampler):
    """As `NSGA2Sampler`, with survivors chosen by reference directions (Deb and Jain 2014)."""

    genetic: ClassVar[type] = optuna.samplers.NSGAIIISampler
