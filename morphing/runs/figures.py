"""A run's figures: its front, knee and hypervolume."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from morphing.runs.objectives import best_of, signs
from morphing.runs.scales import Scales, bounds_told, fixed_scales
from morphing.runs.trial import Trial
from morphing.search import pareto

if TYPE_CHECKING:
    from morphing.runs.run import Run
    from morphing.runs.spec import RunSpec


@dataclass(frozen=True)
class Figures:
    """Where the trials of a run so far have led.

    Trials that break a constraint are on no front and add no hypervolume. Neither do failed trials
    and those given up early, which are only counted.
    """

    trials: tuple[Trial, ...]
    """The complete ones, in the order of their slots."""
    front: tuple[int, ...]
    """Numbers of the trials that no other trial dominates."""
    knee: int | None
    """Number of the front's best compromise between the scores, or between all objectives where
    there is only one score."""
    hypervolume: tuple[float, ...]
    """The hypervolume after each of ``trials``, on ``scales``; empty before these are fixed."""
    scales: Scales | None = None
    constraints: tuple[str, ...] = ()
    """The constraints in words; empty before the scores that they refer to are known."""
    failed: int = 0
    raced: int = 0
    """How many trials were given up early."""
    stalled: int = 0
    """How many evaluations, complete or not, have been told since hypervolume last grew."""

    @property
    def members(self) -> list[Trial]:
        """The front's trials, in order."""
        numbers = set(self.front)
        return [trial for trial in self.trials if trial.number in numbers]

    @property
    def evaluations(self) -> int:
        """Trials told: complete, failed and given up early."""
        return len(self.trials) + self.failed + self.raced

    @property
    def remark(self) -> str:
        """Why the front is empty, in a sentence; nothing where it is not."""
        if self.front:
            return ""
        if not self.trials:
            return "No trial is complete yet."
        kept = f" ({'; '.join(self.constraints)})" if self.constraints else ""
        count = len(self.trials)
        return f"No trial of {count} keeps the constraints{kept}, so the front is empty."


def figures_of(run: Run) -> Figures:
    """Front, knee and hypervolume of the trials so far."""
    spec, told = run.spec, run.trials()
    trials = [trial for trial in told if trial.state == "complete"]
    members, scales = best_of(spec, trials), fixed_scales(run)
    values = np.array([trial.values for trial in members]).reshape(-1, len(spec.objectives))
    at_knee = pareto.knee((values * signs(spec))[:, : _balanced(spec)])
    history: tuple[float, ...] = ()
    if scales is not None:
        volumes = pareto.hypervolume_history(_rows(told, scales), np.zeros(len(spec.objectives)))
        complete = (trial.state == "complete" for trial in told)
        history = tuple(
            volume for volume, is_complete in zip(volumes, complete, strict=True) if is_complete
        )
    return Figures(
        trials=tuple(trials),
        front=tuple(trial.number for trial in members),
        knee=None if at_knee is None else members[at_knee].number,
        hypervolume=history,
        scales=scales,
        constraints=bounds_told(spec, scales) if scales else (),
        failed=sum(trial.state == "failed" for trial in told),
        raced=sum(trial.state == "raced" for trial in told),
        stalled=stalled(told, scales) if scales else 0,
    )


def _balanced(spec: RunSpec) -> int:
    """How many objectives the knee balances, counted from the first: all scores, which come first.

    Measures are left out because a knee that balances sparsity too lies near the base, where most
    of what the scores gained is lost (measured on the zoo and on an LLM, docs/results.md). Where
    there is one score alone, the knee balances all objectives.
    """
    return len(spec.tasks) if len(spec.tasks) > 1 else len(spec.objectives)


def stalled(told: Sequence[Trial], scales: Scales) -> int:
    """How many evaluations, complete or not, came after the last that added hypervolume.

    No hypervolume is computed: a trial adds some exactly where it is better than the reference in
    every objective and no earlier trial is at least as good in all of them.
    """
    rows = _rows(told, scales)
    for row in range(len(rows) - 1, -1, -1):
        if (rows[row] > 0).all() and not (rows[:row] >= rows[row]).all(axis=1).any():
            return len(rows) - 1 - row
    return len(rows)


def _rows(told: Sequence[Trial], scales: Scales) -> np.ndarray:
    """Normalised values (n, m), a row for each evaluation; NaN for one that can be on no front."""
    nothing = (np.nan,) * len(scales.reference)
    rows = [t.values if t.state == "complete" and t.feasible else nothing for t in told]
    return scales.normalise(np.array(rows).reshape(len(rows), len(nothing)))
