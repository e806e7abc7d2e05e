"""When a search ends before its evaluations are used up, and how much time is left.

Pure functions of what a run records: its options, its workers' spans of work and its trials'
durations. Spans and durations are in seconds.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

from morphing.runs.leases import Worker
from morphing.runs.spec import RunSpec
from morphing.runs.spec_parts import SearchOptions
from morphing.runs.trial import Trial

_RECENT = 10
"""Of so many last evaluations the mean says how long the next ones take."""


def hours_of_work(workers: Iterable[Worker]) -> float:
    """Hours in which any of the workers worked."""
    total, until = 0.0, float("-inf")
    for start, end in sorted(span for worker in workers for span in worker.spans):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total / 3600


def hours_together(workers: Iterable[Worker]) -> float:
    """Hours that each of the workers worked, summed."""
    return sum(end - start for worker in workers for start, end in worker.spans) / 3600


def used_up(search: SearchOptions, workers: Sequence[Worker], stalled: int) -> str:
    """Which part of the budget beside evaluations is used up, in words; empty while none is.

    Args:
        search: the run's options.
        workers: all that the run ever had.
        stalled: evaluations in a row, up to the last one, that added no hypervolume.
    """
    if search.hours and hours_of_work(workers) >= search.hours:
        return f"ended after {search.hours:g} hours of work"
    if search.gpu_hours and hours_together(workers) >= search.gpu_hours:
        return f"ended after {search.gpu_hours:g} hours of all workers together"
    if search.stalled and stalled >= search.stalled:
        return f"ended after {search.stalled} evaluations in a row without hypervolume"
    return ""


def seconds_left(
    search: SearchOptions,
    workers: Sequence[Worker],
    durations: Sequence[float],
    remaining: int,
    busy: int,
) -> float | None:
    """Seconds until the search ends, by the time that evaluations take and by the hours allowed.

    Args:
        search: the run's options.
        workers: all that the run ever had.
        durations: of the evaluations so far, in seconds; without any there is no estimate (None).
        remaining: evaluations not yet told.
        busy: how many workers evaluate side by side, at least 1.
    """
    if not durations:
        return None
    seconds = statistics.fmean(durations[-_RECENT:]) * remaining / busy
    if search.hours:
        seconds = min(seconds, 3600 * (search.hours - hours_of_work(workers)))
    if search.gpu_hours:
        seconds = min(seconds, 3600 * (search.gpu_hours - hours_together(workers)) / busy)
    return max(seconds, 0.0)


def seconds_per_trial(
    known: Iterable[tuple[RunSpec, Sequence[Trial]]], base: str, tasks: set[str], samples: int
) -> float | None:
    """What a trial took in the first of the known runs that is alike; None where none is.

    Args:
        known: specs of runs and their complete trials.
        base: the base without its revision.
        tasks: names of the benchmarks that are objectives.
        samples: of the search split, of each.
    """
    for spec, trials in known:
        alike = spec.base.partition("@")[0] == base and spec.tasks[0].samples == samples
        if alike and {use.declaration.name for use in spec.tasks} == tasks and trials:
            return sum(trial.seconds for trial in trials) / len(trials)
    return None
