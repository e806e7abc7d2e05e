"""Scoring on the holdout, one model after the other, each in a turn of its own at the workbench."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache

from morphing.runs.progress import Progress, prefixed, quiet
from morphing.runs.records import is_whole
from morphing.runs.run import Run
from morphing.runs.workbench import Workbench

Using = Callable[[], AbstractContextManager[Workbench]]
"""Gives a run's workbench for one piece of work; others may use it between two pieces."""


def own_workbench(run: Run, token: str | None = None, progress: Progress = quiet) -> Using:
    """A workbench that nobody else uses, loaded when it is first needed."""
    load = cache(lambda: Workbench(run, token, progress))
    return lambda: nullcontext(load())


def score_holdout(
    run: Run, trials: Sequence[int], using: Using, progress: Progress = quiet
) -> None:
    """Score base, sources and trials of a run on the holdout, as far as they are not yet."""
    for model in (run.spec.base, *run.spec.sources):
        if not is_whole(run.reference_path("holdout", model)):
            with using() as bench:
                bench.reference_results("holdout", progress, [model])
    for place, number in enumerate(trials, 1):
        if not is_whole(run.holdout_path(number)):
            told = f"trial {number} ({place} of {len(trials)}) on "
            with using() as bench:
                bench.holdout_results(number, prefixed(told, progress))
