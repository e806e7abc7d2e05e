"""A worker's loop: take a slot, propose, morph, score, tell, until the budget is used up."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from morphing.benchmarks.leave import require_leave
from morphing.errors import MorphingError, is_disk_full
from morphing.runs.budget import seconds_left, used_up
from morphing.runs.drawing import harmless
from morphing.runs.evaluation import Evaluation, evaluate_recipe
from morphing.runs.figures import figures_of
from morphing.runs.leases import Lease, LeaseLostError, Worker, live_workers, read_workers
from morphing.runs.liveness import Heartbeats, LeaseLiveness
from morphing.runs.outputs import write_outputs
from morphing.runs.progress import Stopwatch
from morphing.runs.proposal import propose
from morphing.runs.queue import Claim, Queue
from morphing.runs.relevance import relevance_of
from morphing.runs.run import REQUEST, Run
from morphing.runs.scales import scales
from morphing.runs.second_stage import open_stage
from morphing.runs.seeds import Seed, seed_trials
from morphing.runs.stages import Stage, stages
from morphing.runs.storage import place_of, plain_failures
from morphing.runs.workbench import Workbench
from morphing.search.samplers import make_sampler
from morphing.sources.content import ModelChanged

if TYPE_CHECKING:
    import optuna

    from morphing.search.samplers.history import Problem

MAX_CONSECUTIVE_FAILURES = 3
"""So many failed trials in a row end the search: the fault is not the recipes'."""

_STATUS_SECONDS = 0.3
_WAIT_SECONDS = 0.2


class StopRequested(Exception):
    """The run was asked to stop."""


class Loop:
    """One process's work on a run, from where it stands until its budget is used up.

    Args:
        run: what to work on.
        token: of the Hub.
        changed: called after each change of the status; it may draw progress, and what it raises
            is logged.
        device: other than the spec's.
    """

    def __init__(
        self,
        run: Run,
        token: str | None = None,
        changed: Callable[[], None] = lambda: None,
        device: str | None = None,
    ) -> None:
        self.run = run
        self._token = token
        self._changed = harmless(changed)
        self._device = device
        self._durations: list[float] = []
        self._stopwatch = Stopwatch()
        self._saved = 0.0
        self._lease: Lease

    def search(self) -> None:
        """Work alone, or with those that join. Returns when the run is finished or was stopped.

        Raises:
            MorphingError: the run cannot go on; the status says why, nothing told is lost.
        """
        with self.run.writing():
            self.run.request("run")
            self._work()

    def join(self) -> None:
        """Work beside others, or alone until others join.

        Raises:
            MorphingError: as :meth:`search`.
        """
        if not self.run.status().active:
            # Here alone: of workers with other copies of the folder nothing is known.
            self.run.note_request("run")
        self._work()

    def _work(self) -> None:
        device = self._device or self.run.spec.device
        with plain_failures(), Lease(self.run.folder, device) as self._lease:
            if not self._others():  # beside others the run's status is theirs
                total = self.run.spec.search.evaluations
                self._save(state="preparing", message="", total=total)
            try:
                message = self._search()
            except StopRequested:
                self._end("stopped", "stopped on request")
            except KeyboardInterrupt:
                self._end("stopped", "interrupted")
                raise
            except BaseException as error:
                self._end("failed", sentence(error))
                raise
            else:
                self._end("finished", message)

    def _search(self) -> str:
        """Work to the end; returns why it came early, if it did."""
        from morphing.search.samplers.steady import SteadySampler

        spec = self.run.spec
        queue, total = self._queue(), spec.search.evaluations
        if queue.told(total) == total:
            return ""
        self._save(done=queue.told(total))
        for use in spec.tasks:
            require_leave(use.declaration)
        workbench = Workbench(self.run, self._token, self._progress, self._device)
        with self._one_at_a_time("references"):
            workbench.reference_results("search", self._progress)
            scales(self.run)
        self._save(state="running")
        self._known = {trial.number for trial in _history(self.run.study)}
        for stage in stages(spec, workbench.layers, workbench.architecture):
            if queue.told(stage.end_slot) == stage.end_slot:
                continue
            open_stage(self.run, stage, workbench, self._progress)
            problem, seed = self._problem(stage, workbench), spec.search.seed
            sampler = make_sampler(spec.search.sampler, seed, problem)
            self.run.study.sampler = SteadySampler(sampler, seed, problem)
            if message := self._search_stage(stage, workbench, queue):
                return message
        return ""

    def _queue(self) -> Queue:
        if place_of(self.run.folder) is None:
            return Queue(self.run.study, self._lease.id, LeaseLiveness(self.run.folder))
        self._heard = self.run.study.user_attrs.get(REQUEST)
        self._lease.renewals.append(self._hear)
        return Queue(self.run.study, self._lease.id, Heartbeats(self.run.study, self._lease))

    def _problem(self, stage: Stage, workbench: Workbench) -> Problem:
        from morphing.search.samplers.history import Problem

        spec, fixed = self.run.spec, scales(self.run)
        with self._one_at_a_time("relevance"):
            relevance = relevance_of(workbench, stage.space)
        return Problem(
            objectives=spec.objectives,
            tasks=tuple(use.declaration.name for use in spec.tasks),
            space=stage.space.distributions(),
            reference=fixed.reference,
            ideal=fixed.ideal,
            weights=spec.search.weights or None,
            start=stage.space.start(),
            relevance=relevance or None,
            first_slot=stage.first_slot,
            budget=stage.end_slot - stage.first_slot,
        )

    def _search_stage(self, stage: Stage, workbench: Workbench, queue: Queue) -> str:
        total = self.run.spec.search.evaluations
        seeds = seed_trials(self.run.spec, stage.space) if stage.first_slot == 0 else []
        while (done := queue.told(stage.end_slot)) < stage.end_slot:
            self._save(done=done, seconds_left=self._seconds_left(total - done))
            if message := self._used_up():
                return message
            workbench.check_models()
            claim = queue.claim(stage.end_slot)
            if claim is None:
                self._lease.show(trial=None)
                self._progress("waiting for other workers", 0, 0)
                time.sleep(_WAIT_SECONDS)
                continue
            self._stopwatch = Stopwatch()
            try:
                self._try(claim, stage, seeds, workbench, queue)
            except BaseException:
                queue.give_back(claim)
                raise
            self._durations.append(self._stopwatch.seconds)
            self._check_failures()
        self._save(done=done)
        return ""

    def _try(
        self, claim: Claim, stage: Stage, seeds: Sequence[Seed], workbench: Workbench, queue: Queue
    ) -> None:
        """Propose and score a recipe, and tell what came out."""
        from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError

        try:
            self._lease.show(trial=claim.number, step="proposing", step_done=0, step_total=0)
            self._changed()
            self._obey()
            try:
                recipe = propose(self.run.study, stage, claim, seeds)
            except MorphingError as error:  # there is none where the sampler wants it
                queue.fail(claim, sentence(error))
                return
            proposing = self._stopwatch.seconds
            try:
                rivals = self.run.complete() if self.run.spec.search.racing else ()
                evaluation = evaluate_recipe(self.run, workbench, recipe, rivals, self._progress)
                workbench.check_models()
            except (
                StopRequested,
                LeaseLostError,
                ModelChanged,
                UpdateFinishedTrialError,
                StorageInternalError,
            ):
                raise
            except Exception as error:  # whatever a recipe or a benchmark does wrong
                if is_disk_full(error):  # which is neither's doing
                    raise
                queue.fail(claim, sentence(error))
                return
            self._tell(claim, evaluation, queue, proposing)
        except UpdateFinishedTrialError:
            queue.give_back(claim)  # this worker was taken for dead, and another does it

    def _tell(self, claim: Claim, evaluation: Evaluation, queue: Queue, proposing: float) -> None:
        from optuna.trial import TrialState

        from morphing.search.samplers.history import RACED, VARIANCES

        variances = list(evaluation.variances)
        took = {
            "seconds": self._stopwatch.seconds,
            "times": {"proposing": proposing, **evaluation.times},
        }
        if evaluation.raced:
            known = {
                "values": list(evaluation.values),
                "variances": variances,
                "samples": dict(evaluation.samples),
            }
            queue.finish(claim, TrialState.PRUNED, attributes={RACED: known, **took})
            return
        path = self.run.outputs_path(claim.number)
        write_outputs(path, evaluation.outputs)
        results = {name: asdict(result) for name, result in evaluation.results.items()}
        attributes = {"results": results, VARIANCES: variances, **took}
        kept = queue.finish(
            claim, TrialState.COMPLETE, evaluation.values, attributes, evaluation.constraints
        )
        if not kept:
            path.unlink(missing_ok=True)

    # --- when to end ---------------------------------------------------------------------------

    def _used_up(self) -> str:
        """Which part of the budget, beside evaluations, is used up; nothing while none is."""
        search = self.run.spec.search
        stalled = figures_of(self.run).stalled if search.stalled else 0
        return used_up(search, self._all_workers(), stalled)

    def _check_failures(self) -> None:
        """Stop where the last trials told since this worker began all failed."""
        from morphing.search.samplers.history import failure_of

        trials = [t for t in _history(self.run.study) if t.number not in self._known]
        last = [failure_of(trial) for trial in trials[-MAX_CONSECUTIVE_FAILURES:]]
        failures = [why for why in last if why is not None]
        if len(failures) == MAX_CONSECUTIVE_FAILURES:
            raise MorphingError(
                f"{len(failures)} trials in a row failed, the last with: {failures[-1]} Mend that"
                " and resume the run."
            )

    def _seconds_left(self, remaining: int) -> float | None:
        from optuna.trial import TrialState

        search, durations = self.run.spec.search, self._durations
        others = self.run.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return seconds_left(search, self._all_workers(), durations, remaining, len(others) + 1)

    def _all_workers(self) -> list[Worker]:
        """All workers that the run ever had, where the budget counts their hours."""
        search = self.run.spec.search
        return read_workers(self.run.folder) if search.hours or search.gpu_hours else []

    # --- what others see, and ask --------------------------------------------------------------

    @contextmanager
    def _one_at_a_time(self, name: str) -> Iterator[None]:
        """Let one worker do what others need too, while they wait and can be stopped."""
        lock = FileLock(self.run.folder / "workers" / f"{name}.lock")
        while True:
            try:
                lock.acquire(timeout=_WAIT_SECONDS)
                break
            except Timeout:
                self._progress("waiting for another worker", 0, 0)
        try:
            yield
        finally:
            lock.release()

    def _progress(self, step: str, done: int, total: int) -> None:
        """Show where a step stands, and obey what was asked meanwhile."""
        now = time.monotonic()
        if done in (0, total) or now - self._saved > _STATUS_SECONDS:
            self._saved = now
            self._lease.show(step=step, step_done=done, step_total=total)
            self._changed()
        self._obey()

    def _obey(self) -> None:
        """Do what was asked of all workers."""
        now = time.monotonic()
        if self.run.requested() == "pause":
            state = self._lease.worker.state
            self._save(state="paused")
            while self.run.requested() == "pause":
                time.sleep(_WAIT_SECONDS)
            self._stopwatch.skip(time.monotonic() - now)
            self._save(state=state)
        if self.run.requested() == "stop":
            raise StopRequested

    def _hear(self) -> None:
        """Note what was asked where another copy of the folder is."""
        from optuna.exceptions import StorageInternalError

        try:
            asked = self.run.study.user_attrs.get(REQUEST)
        except StorageInternalError:
            return  # the loop itself meets the failure too, and says so
        if asked is not None and asked != self._heard:
            self._heard = asked
            self.run.note_request(asked[0])

    def _save(self, **changes: Any) -> None:
        """Change the run's status and, where it is one, this worker's state."""
        self.run.save_status(**changes)
        if "state" in changes:
            self._lease.update(state=changes["state"])
        self._changed()

    def _end(self, state: str, message: str) -> None:
        """Leave the run. A worker that fails beside others leaves its status to them."""
        if not (state == "failed" and self._others()):
            left = {"seconds_left": 0.0} if state == "finished" else {}
            done = {"done": self._told()} if state == "finished" else {}
            self.run.save_status(state=state, message=message, **left, **done)
        nothing = {"trial": None, "step": "", "step_done": 0, "step_total": 0}
        self._lease.update(state=state, message=message, **nothing)
        self._changed()

    def _others(self) -> bool:
        return any(w.id != self._lease.id for w in live_workers(self.run.folder))

    def _told(self) -> int:
        return len(_history(self.run.study))


def _history(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    from morphing.search.samplers.history import history

    return history(study)


def sentence(error: BaseException) -> str:
    """What is said of an error to whoever runs the search."""
    text = str(error) if isinstance(error, MorphingError) else f"{type(error).__name__}: {error}"
    return text if text.endswith(".") else f"{text}."
