"""A recipe that is solved from prompts, read into tasks: who teaches what, and how much."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from morphing.errors import MorphingError
from morphing.matching.state import Settings, Streams
from morphing.merging.recipe import Recipe, model_name

STREAMS: Mapping[str, Streams] = {
    "matched": "both",
    "regmean": "teachers",
    "regmean_plus_plus": "merge",
}
"""By method, whose inputs a map reads and whose its target is made from."""
SAMPLES = 64
"""Prompts of a task where the recipe does not say how many."""


@dataclass(frozen=True)
class TaskPlan:
    """One entry of a recipe's models.

    Args:
        name: of the task: its prompts' name, with a number where two entries have the same.
        teacher: the model that is listed.
        share: how much the task counts beside the others.
        prompts: what `find.find_benchmark` knows: a benchmark's name, a dataset or a data file.
        samples: so many prompts at most.
    """

    name: str
    teacher: str
    share: float
    prompts: str
    samples: int


@dataclass(frozen=True)
class MatchPlan:
    """What a solved recipe says."""

    tasks: tuple[TaskPlan, ...]
    settings: Settings


def read_plan(recipe: Recipe) -> MatchPlan:
    """The tasks and settings of a recipe of a solved method.

    Raises:
        MorphingError: the prompts of an entry cannot be what they are.
    """
    tasks: list[TaskPlan] = []
    for number, entry in enumerate(recipe.config["models"]):
        prompts, samples = _prompts(f"models.{number}.prompts", entry["prompts"])
        taken = sum(task.prompts == prompts for task in tasks)
        name = prompts if not taken else f"{prompts} ({taken + 1})"
        share = float(entry["parameters"]["weight"])
        tasks.append(TaskPlan(name, model_name(entry["model"]), share, prompts, samples))
    shared = recipe.config.get("parameters") or {}
    most = shared.get("most_tokens")
    settings = Settings(
        {task.name: task.share for task in tasks},
        float(shared.get("ridge", Settings.ridge)),
        STREAMS[recipe.method],
        None if most is None else int(most),
        recipe.mask_seed,
    )
    return MatchPlan(tuple(tasks), settings)


def _prompts(place: str, written: Any) -> tuple[str, int]:
    """The name of what gives prompts, and how many."""
    if isinstance(written, str) and written.strip():
        return written.strip(), SAMPLES
    wanted = "write the name of a benchmark, a dataset or a data file, or {from: NAME, samples: N}"
    if not isinstance(written, Mapping):
        raise MorphingError(f"The recipe's {place} is {written!r}: {wanted}.")
    if unknown := [key for key in written if key not in ("from", "samples")]:
        raise MorphingError(f"The recipe's {place} has the unknown key {unknown[0]!r}: {wanted}.")
    source, samples = written.get("from"), written.get("samples", SAMPLES)
    if not isinstance(source, str) or not source.strip():
        raise MorphingError(f"The recipe's {place} says not where from: {wanted}.")
    if type(samples) is not int or samples < 1:
        raise MorphingError(f"The recipe's {place}.samples is {samples!r}: give 1 or more.")
    return source.strip(), samples
