"""Timing several things turn by turn, so that a noisy moment hits all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Task:
    """Something to time. ``run`` gets the number of the round, to vary what it does."""

    run: Callable[[int], object]
    repeats: int
    most_seconds: float = float("inf")
    """No further repeat once they took this long together; there is always one."""


def in_turn(tasks: Mapping[str, Task]) -> dict[str, list[float]]:
    """Seconds of every repeat. Round by round each task has its turn, in the order given."""
    taken: dict[str, list[float]] = {name: [] for name in tasks}
    for round_ in range(max(task.repeats for task in tasks.values())):
        for name, task in tasks.items():
            own = taken[name]
            if round_ >= task.repeats or (own and sum(own) >= task.most_seconds):
                continue
            own.append(seconds(task.run, round_))
    return taken


def seconds(function: Callable[..., object], *arguments: Any) -> float:
    """What one call takes."""
    started = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - started


def summary(taken: list[float]) -> dict[str, float]:
    """Best and median."""
    return {
        "best": round(min(taken), 5),
        "median": round(statistics.median(taken), 5),
        "repeats": len(taken),
    }
