"""The run loop: propose, morph, score, tell, until the evaluations asked for are done."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING

from morphing.errors import MorphingError
from morphing.merging.recipe import Recipe
from morphing.runs.prepare import search_space
from morphing.runs.run import Run
from morphing.runs.spec import SPARSITY
from morphing.runs.trial import Result, write_outputs
from morphing.runs.workbench import Stopwatch, Workbench
from morphing.search.samplers import make_sampler

if TYPE_CHECKING:
    import optuna

MAX_CONSECUTIVE_FAILURES = 3
"""So many failed trials in a row end the search: the fault is not the recipes'."""

_STATUS_SECONDS = 0.3


class StopRequested(Exception):
    """The run was asked to stop."""


class Loop:
    """One process's work on a run, from where it stands to its last evaluation.

    ``changed`` is called after each change of the status; it may draw progress.
    """

    def __init__(
        self, run: Run, token: str | None = None, changed: Callable[[], None] = lambda: None
    ) -> None:
        self.run = run
        self._token = token
        self._changed = changed
        self._durations: list[float] = []
        self._stopwatch = Stopwatch()
        self._saved = 0.0

    def search(self) -> None:
        """Run to the end. Returns when it is finished or was asked to stop.

        Raises:
            MorphingError: the run cannot go on; the status says why, nothing told is lost.
        """
        with self.run.writing():
            self.run.request("run")
            total = self.run.spec.search.evaluations
            self._save(state="preparing", message="", step="", done=self._done(), total=total)
            try:
                self._search()
            except StopRequested:
                self._save(state="stopped", message="stopped on request", step="")
            except KeyboardInterrupt:
                self._save(state="stopped", message="interrupted", step="")
                raise
            except BaseException as error:
                self._save(state="failed", message=_sentence(error), step="")
                raise
            else:
                self._save(state="finished", step="", seconds_left=0.0)

    def _search(self) -> None:
        spec = self.run.spec
        total = spec.search.evaluations
        if self._done() >= total:
            return
        workbench = Workbench(self.run, self._token, self._progress)
        workbench.reference_results("search", self._progress)
        self._save(state="running")

        study = self.run.study
        _fail_unfinished(study)
        study.sampler = make_sampler(
            spec.search.sampler, spec.search.seed, objectives=spec.objectives
        )
        space = search_space(spec, workbench.layers)
        failures = 0
        while (done := self._done()) < total:
            self._stopwatch = Stopwatch()
            self._save(done=done, seconds_left=self._seconds_left(total - done))
            self._progress("proposing", 0, 1)
            trial = study.ask(fixed_distributions=dict(space.distributions()))
            recipe = space.recipe(trial.params)
            trial.set_user_attr("recipe", dict(recipe.config))
            trial.set_user_attr("mask_seed", recipe.mask_seed)
            error = self._evaluate(workbench, study, trial)
            failures = failures + 1 if error else 0
            if failures == MAX_CONSECUTIVE_FAILURES:
                raise MorphingError(
                    f"{failures} trials in a row failed, the last with: {error}"
                    " Mend that and resume the run."
                )
            self._durations.append(self._stopwatch.seconds)
        self._save(done=done)

    def _evaluate(
        self, workbench: Workbench, study: optuna.Study, trial: optuna.Trial
    ) -> str | None:
        """Score one trial and tell the study; returns why it failed, if it did."""
        try:
            recipe = self.run_recipe(trial)
            distance = workbench.morph(recipe)
            scores = workbench.score("search", self._progress)
            values = [
                -distance if name == SPARSITY else scores[name].value
                for name in self.run.spec.objectives
            ]
            if not all(map(math.isfinite, values)):
                raise MorphingError(f"trial {trial.number} scored {values}, which is not finite.")
        except StopRequested:
            study.tell(trial, state=_fail_state())
            raise
        except (MorphingError, ArithmeticError, ValueError, RuntimeError) as error:
            sentence = _sentence(error)
            trial.set_user_attr("error", sentence)
            study.tell(trial, state=_fail_state())
            return sentence
        write_outputs(
            self.run.outputs_path(trial.number), {n: s.outputs for n, s in scores.items()}
        )
        results = {name: asdict(Result.of(score)) for name, score in scores.items()}
        trial.set_user_attr("results", results)
        trial.set_user_attr("seconds", self._stopwatch.seconds)
        study.tell(trial, values)
        return None

    @staticmethod
    def run_recipe(trial: optuna.Trial) -> Recipe:
        """The recipe as the journal keeps it, so that what is scored is what is recorded."""
        return Recipe(trial.user_attrs["recipe"], trial.user_attrs["mask_seed"])

    def _done(self) -> int:
        return len(self.run.trials())

    def _seconds_left(self, remaining: int) -> float | None:
        recent = self._durations[-10:]
        return statistics.fmean(recent) * remaining if recent else None

    def _progress(self, step: str, done: int, total: int) -> None:
        """Show where a step stands, and obey what was asked meanwhile."""
        now = time.monotonic()
        if done in (0, total) or now - self._saved > _STATUS_SECONDS:
            self._saved = now
            self._save(step=step, step_done=done, step_total=total)
        if self.run.requested() == "pause":
            state = self.run.status().state
            self._save(state="paused")
            while self.run.requested() == "pause":
                time.sleep(0.2)
            self._stopwatch.skip(time.monotonic() - now)
            self._save(state=state)
        if self.run.requested() == "stop":
            raise StopRequested

    def _save(self, **changes: object) -> None:
        self.run.save_status(**changes)
        self._changed()


def _fail_unfinished(study: optuna.Study) -> None:
    """Close the trials a killed process left in flight; their slot is proposed again."""
    import optuna

    for trial in study.get_trials(states=(optuna.trial.TrialState.RUNNING,)):
        study.tell(trial.number, state=_fail_state())


def _fail_state() -> optuna.trial.TrialState:
    import optuna

    return optuna.trial.TrialState.FAIL


def _sentence(error: BaseException) -> str:
    text = str(error) if isinstance(error, MorphingError) else f"{type(error).__name__}: {error}"
    return text if text.endswith(".") else f"{text}."
