"""A worker that is stopped at every statement in turn, while another takes its work over.

The victim is a process that stops itself (SIGSTOP) at a statement, with all its threads. The
rescuer is this process: it takes the victim for dead once its grace period is over, and does its
work. Then the victim goes on (SIGCONT) as if nothing had been. Where it holds a lock meanwhile, of
the journal or of a row in the database, the rescuer waits for it to go on.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import Any

import optuna
from optuna.trial import TrialState, create_trial
from sqlalchemy import event

from morphing.runs import journal, liveness, queue
from morphing.runs.leases import GRACE_VARIABLE, Lease
from morphing.runs.liveness import WORKER
from morphing.runs.storage import open_study, place_of
from morphing.search.samplers import make_sampler
from morphing.search.samplers.history import RECIPE
from tests.runs import light_worker
from tests.runs.light_worker import DIRECTIONS, OBJECTIVES, evaluate, queue_of

GRACE = 0.3
"""Seconds."""
_PATIENCE = GRACE + 0.3
"""After so many seconds a rescuer that has not finished is taken to wait for a lock."""

_FILES = {
    os.path.abspath(str(module.__file__)) for module in (queue, liveness, journal, light_worker)
}
_opened = threading.local()


@dataclass(frozen=True)
class Case:
    """What a victim does: a slot in which a worker has died or not; every n-th recipe fails."""

    name: str
    died: bool
    failing: int


def new_study(folder: Path, case: Case) -> optuna.Study:
    """A new study, kept where the folder says."""
    study = open_quickly(folder)
    if case.died:
        with Lease(folder) as gone:
            study.add_trial(
                create_trial(
                    state=TrialState.RUNNING,
                    params={"x": 0.25, "y": 0.5},
                    distributions={n: optuna.distributions.FloatDistribution(0, 1) for n in "xy"},
                    user_attrs={WORKER: gone.id, RECIPE: {"x": 0.25, "y": 0.5}},
                )
            )
    return study


def open_quickly(folder: Path) -> optuna.Study:
    """A study whose grace period is below the second that Optuna allows. A thread opens a database
    once, since that takes long.
    """
    place = place_of(folder)
    if place is None:
        study = open_study(folder, DIRECTIONS, OBJECTIVES)
    else:
        if not hasattr(_opened, "storage"):
            _opened.storage = open_study(folder, DIRECTIONS, OBJECTIVES)._storage
            _opened.storage._backend.grace_period = GRACE
        study = optuna.create_study(
            storage=_opened.storage,
            study_name=place.study,
            directions=list(DIRECTIONS),
            load_if_exists=True,
        )
    study.sampler = make_sampler("random", 3)
    return study


def work(folder: Path, case: Case, statements: Statements | None = None) -> None:
    """Evaluate until the slot is told; ``statements`` are followed from claiming to telling."""
    study = open_quickly(folder)
    with Lease(folder) as lease:
        mine = queue_of(study, lease)
        while mine.told(1) == 0:
            with statements.followed(study) if statements else nullcontext():
                if (claim := mine.claim(1)) is not None:
                    evaluate(study, mine, claim, 0.0, case.failing)
            time.sleep(0.01)


class Statements:
    """Counts what the process does, and stops it at one of these statements: the lines of the
    queue, the journal and the worker that are run, and what is sent to a database. Lines that are
    run again by the same statement of the queue or the worker are counted once.
    """

    def __init__(self, stop_at: int | None) -> None:
        self._seen: set[tuple[object, ...]] = set()
        self._stop_at = stop_at
        self._thread = threading.get_ident()

    @property
    def count(self) -> int:
        return len(self._seen)

    @contextmanager
    def followed(self, study: optuna.Study) -> Iterator[None]:
        backend = getattr(study._storage, "_backend", None)
        engine = getattr(backend, "engine", None)
        for name in ("before_cursor_execute", "commit") if engine is not None else ():
            event.listen(engine, name, self._sent)
        sys.settrace(self._call)
        try:
            yield
        finally:
            sys.settrace(None)
            for name in ("before_cursor_execute", "commit") if engine is not None else ():
                event.remove(engine, name, self._sent)

    def _call(self, frame: FrameType, event: str, argument: object) -> Any:
        return self._line if frame.f_code.co_filename in _FILES else None

    def _line(self, frame: FrameType, event: str, argument: object) -> Any:
        if event == "line":
            caller = frame
            while caller.f_back and caller.f_code.co_filename == journal.__file__:
                caller = caller.f_back
                while caller.f_back and caller.f_code.co_filename not in _FILES:
                    caller = caller.f_back
            where = (frame.f_code.co_filename, frame.f_lineno)
            self._reach(*where, caller.f_code.co_filename, caller.f_lineno)
        return self._line

    def _sent(self, *_: object) -> None:
        if threading.get_ident() == self._thread:  # and not the one that renews
            self._reach(self.count)

    def _reach(self, *statement: object) -> None:
        if statement not in self._seen:
            if len(self._seen) == self._stop_at:
                os.kill(os.getpid(), signal.SIGSTOP)
            self._seen.add(statement)


def victim(orders: Connection, password: str) -> None:
    """Work on one study after the other, as ordered, and say how many statements that took."""
    os.environ |= {GRACE_VARIABLE: str(GRACE), "PGPASSWORD": password}
    while (order := orders.recv()) is not None:
        folder, case, stop_at = order
        statements = Statements(stop_at)
        work(folder, case, statements)
        orders.send(statements.count)


def rescue(pid: int, folder: Path, case: Case, ended: Callable[[], bool]) -> None:
    """Take over from a victim once it is stopped, and let it go on."""
    while not _is_stopped(pid):
        if ended():
            return
        time.sleep(0.005)
    patience = threading.Timer(_PATIENCE, os.kill, (pid, signal.SIGCONT))
    patience.start()
    work(folder, case)
    patience.cancel()
    patience.join()
    os.kill(pid, signal.SIGCONT)


def _is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T"
