"""Workers of one study whose storage operations are interleaved as a seed says.

Every worker is a thread that waits for its turn before each operation, so that one runs at a time
and a schedule can be played again. Workers are stalled for long, killed anywhere, and taken for
dead while they live: whatever a clock may do to them.
"""

from __future__ import annotations

import copy
import random
import threading
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import InMemoryStorage, RDBStorage
from optuna.storages._cached_storage import _CachedStorage
from optuna.trial import FrozenTrial, TrialState

from morphing.runs.queue import Queue
from morphing.search.samplers import make_sampler
from tests.runs.light_worker import DIRECTIONS, evaluate

_KILL = 0.01
_DOUBT = 0.5
_STALL = 0.05


class _Killed(BaseException):
    """What a killed worker does no more."""


class _Worker(threading.Thread):
    def __init__(self, schedule: Schedule, work: Callable[[], None]) -> None:
        super().__init__(daemon=True)
        self._schedule, self._work = schedule, work
        self._turn = threading.Semaphore(0)
        self.killed = self.ended = False
        self.error: BaseException | None = None
        self.weight = 1.0

    def run(self) -> None:
        try:
            self.wait()
            self._work()
        except _Killed:
            pass
        except BaseException as error:
            self.error = error
        self.ended = True
        self._schedule.arrived.release()

    def wait(self) -> None:
        """Until its turn comes; a killed worker's never does."""
        if not self.killed:
            self._schedule.arrived.release()
            self._turn.acquire()
        if self.killed:
            raise _Killed

    def step(self) -> None:
        """Run it from where it waits to where it waits next."""
        self._turn.release()
        self._schedule.arrived.acquire()


class Schedule:
    """Who goes on next."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.arrived = threading.Semaphore(0)
        self.workers: list[_Worker] = []
        self.started = 0

    def start(self, work: Callable[[str], None]) -> None:
        """Begin a worker; ``work`` gets its name."""
        name = f"w{self.started}"
        worker = _Worker(self, lambda: work(name))
        self.started += 1
        self.workers.append(worker)
        worker.start()
        self.arrived.acquire()

    def turn(self) -> None:
        """Called before each operation: others may go first."""
        current = threading.current_thread()
        if isinstance(current, _Worker):
            current.wait()

    def play(self, work: Callable[[str], None], kills: int) -> None:
        """Until all workers have ended; a killed one is replaced."""
        while running := [worker for worker in self.workers if not worker.ended]:
            if self.chance.random() < _STALL:
                for worker in running:
                    worker.weight = 10 ** self.chance.uniform(-3, 0)
            weights = [worker.weight for worker in running]
            (chosen,) = self.chance.choices(running, weights)
            if kills and self.chance.random() < _KILL:
                kills -= 1
                chosen.killed = True
                self.start(work)
            chosen.step()
            if chosen.error is not None:
                raise chosen.error


class LooseDatabase(InMemoryStorage):
    """As loose as Optuna's storage in a database where transactions see what others committed.

    A state is changed at once. Everything else that is written is checked first (the trial must
    not have ended) and written later; states are read first, and what else trials have later.
    """

    def __init__(self, turn: Callable[[], None]) -> None:
        super().__init__()
        self._turn = turn
        self._checking = True

    def check_trial_is_updatable(self, trial_id: int, trial_state: TrialState) -> None:
        if self._checking and trial_state.is_finished():
            raise UpdateFinishedTrialError(f"trial {trial_id} has ended")

    @contextmanager
    def _checked_before(self, trial_id: int) -> Iterator[None]:
        self._turn()
        self.check_trial_is_updatable(trial_id, self._get_trial(trial_id).state)
        self._turn()
        self._checking = False
        try:
            yield
        finally:
            self._checking = True

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        with self._checked_before(trial_id):
            super().set_trial_user_attr(trial_id, key, value)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        with self._checked_before(trial_id):
            super().set_trial_system_attr(trial_id, key, value)

    def _set_trial_param(
        self,
        trial_id: int,
        name: str,
        value: float,
        distribution: BaseDistribution,
        previous: BaseDistribution | None,
    ) -> None:
        with self._checked_before(trial_id):
            super().set_trial_param(trial_id, name, value, distribution)

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        self._turn()
        return super().set_trial_state_values(trial_id, state, values)

    def _create_new_trial(self, study_id: int, template: FrozenTrial | None = None) -> FrozenTrial:
        self._turn()
        return copy.deepcopy(self._get_trial(super().create_new_trial(study_id, template)))

    def get_trial(self, trial_id: int) -> FrozenTrial:
        return self._read(lambda: [self._get_trial(trial_id)])[0]

    def _get_trials(
        self,
        study_id: int,
        states: Container[TrialState] | None,
        included_trial_ids: set[int],
        trial_id_greater_than: int,
    ) -> list[FrozenTrial]:
        found = self._read(lambda: InMemoryStorage.get_all_trials(self, study_id, False))
        wanted = included_trial_ids
        return [t for t in found if t._trial_id in wanted or t._trial_id > trial_id_greater_than]

    def _read(self, rows: Callable[[], list[FrozenTrial]]) -> list[FrozenTrial]:
        self._turn()
        states = [trial.state for trial in rows()]
        self._turn()
        found = []
        for state, trial in zip(states, rows(), strict=False):  # some were made meanwhile
            found.append(copy.copy(trial))
            found[-1].state = state
        return found


class Doubtful:
    """Takes running trials' workers for dead by chance."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule

    def hold(self, trial_id: int | None) -> None:
        self._schedule.turn()

    def dead(self, running: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        self._schedule.turn()
        return [trial for trial in running if self._schedule.chance.random() < _DOUBT]


def play(seed: int, slots: int, workers: int, kills: int) -> optuna.Study:
    """A study of so many slots as the workers leave it, in the schedule of a seed."""
    schedule = Schedule(seed)
    database = LooseDatabase(schedule.turn)
    optuna.create_study(storage=database, study_name="s", directions=list(DIRECTIONS))

    def work(name: str) -> None:
        # Each worker keeps what it read of ended trials, as with a database.
        storage = _CachedStorage(cast(RDBStorage, database))
        study = optuna.load_study(storage=storage, study_name="s")
        study.sampler = make_sampler("random", 3)
        queue = Queue(study, name, Doubtful(schedule))
        while queue.told(slots) < slots:
            claim = queue.claim(slots)
            if claim is not None:
                evaluate(study, queue, claim, 0.0, failing=2)

    for _ in range(workers):
        schedule.start(work)
    schedule.play(work, kills)
    return optuna.load_study(storage=database, study_name="s")
