"""A worker with the run's own queue, leases and storage, and an objective that costs nothing."""

from __future__ import annotations

import os
import random
import time
from multiprocessing.queues import Queue as ProcessQueue
from multiprocessing.synchronize import Barrier
from pathlib import Path

import optuna
from optuna.trial import TrialState

from morphing.runs.leases import GRACE_VARIABLE, Lease
from morphing.runs.liveness import Heartbeats, LeaseLiveness
from morphing.runs.queue import Claim, Queue
from morphing.runs.storage import open_study, place_of
from morphing.search.samplers import make_sampler
from morphing.search.samplers.history import RECIPE

DIRECTIONS, OBJECTIVES = ("maximize", "minimize"), ("a", "b")


def queue_of(study: optuna.Study, lease: Lease) -> Queue:
    """As `runs.loop` makes it."""
    if place_of(lease.folder) is None:
        return Queue(study, lease.id, LeaseLiveness(lease.folder))
    return Queue(study, lease.id, Heartbeats(study, lease))


def values_of(x: float, y: float) -> tuple[float, float]:
    return x + y, x * y


def evaluate(
    study: optuna.Study, queue: Queue, claim: Claim, seconds: float, failing: int = 8
) -> bool:
    """Propose, wait, tell: as `runs.loop` does, every eighth recipe (``failing``) failing."""
    try:
        trial = optuna.Trial(study, claim.trial_id)
        x, y = (trial.suggest_float(name, 0, 1) for name in ("x", "y"))
        trial.set_user_attr(RECIPE, {"x": x, "y": y})
    except optuna.exceptions.UpdateFinishedTrialError:
        queue.give_back(claim)
        return False
    if seconds:
        time.sleep(random.expovariate(1 / seconds))
    if int(x * 1000) % failing == 0:
        return queue.fail(claim, f"{x} cannot be.")
    return queue.finish(claim, TrialState.COMPLETE, values_of(x, y), {"seconds": seconds})


def main(folder: Path, slots: int, seconds: float, grace: float, password: str) -> None:
    """Work until all slots are told; an evaluation takes ``seconds`` on average, some longer."""
    os.environ |= {GRACE_VARIABLE: str(grace), "PGPASSWORD": password}
    random.seed(os.getpid())
    study = open_study(folder, DIRECTIONS, OBJECTIVES)
    study.sampler = make_sampler("random", 3)
    with Lease(folder) as lease:
        queue = queue_of(study, lease)
        while queue.told(slots) < slots:
            claim = queue.claim(slots)
            if claim is None:
                time.sleep(0.02)
            else:
                lease.update(trial=claim.number)
                evaluate(study, queue, claim, seconds)


def take_all(folder: Path, password: str, begin: Barrier, taken: ProcessQueue[list[int]]) -> None:
    """Try to take every waiting trial, beginning with others; tell which ones were got."""
    os.environ["PGPASSWORD"] = password
    study = open_study(folder, DIRECTIONS, OBJECTIVES)
    waiting = study.get_trials(states=(TrialState.WAITING,))
    begin.wait()
    got = []
    for trial in waiting:
        try:
            if study._storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING):
                got.append(trial.number)
        except optuna.exceptions.UpdateFinishedTrialError:
            continue
    taken.put(got)
