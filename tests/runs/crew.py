"""Light workers of one run, killed and started again."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

import optuna
from optuna.trial import TrialState

from morphing.runs.leases import live_workers
from morphing.runs.storage import open_study
from morphing.search.samplers.history import is_told, slots
from tests.runs import light_worker

# Forked from a process that has imported what they need, workers begin within milliseconds.
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(
    [
        "tests.runs.light_worker",
        "alembic.command",
        "optuna.storages._rdb.models",
        "psycopg",
        "sqlalchemy.dialects.postgresql.psycopg",
    ]
)
_ENDLESS = 10**6


def start(folder: Path, slots: int, seconds: float = 0.03, grace: float = 60) -> BaseProcess:
    # The server they are forked from keeps the environment it was started with.
    password = os.environ.get("PGPASSWORD", "")
    arguments = (folder, slots, seconds, grace, password)
    process = processes.Process(target=light_worker.main, args=arguments)
    process.start()
    return process


def run_with_kills(folders: Sequence[Path], kills: int, grace: float, seed: int = 0) -> int:
    """A worker a folder; kill one at random and start it again, and again; then let them finish.

    Folders are the run's own, or several copies of it as on machines that share none. Returns how
    many slots they were given to finish in the end.
    """
    moments = random.Random(seed)
    workers = [start(folder, _ENDLESS, grace=grace) for folder in folders]
    try:
        for _ in range(kills):
            victim = moments.randrange(len(workers))
            _wait_for_work(folders[victim], workers[victim])
            time.sleep(moments.uniform(0.0, 0.15))
            assert workers[victim].is_alive()
            _kill(workers[victim])
            workers[victim] = start(folders[victim], _ENDLESS, grace=grace)
        for worker in workers:
            _kill(worker)
        study = open_study(folders[0], light_worker.DIRECTIONS, light_worker.OBJECTIVES)
        count = 10 + max(slots(study.get_trials()).values())
        workers = [start(folder, count, grace=grace) for folder in folders]
        for worker in workers:
            worker.join(timeout=120)
            assert worker.exitcode == 0
    finally:
        for worker in workers:
            worker.kill()
    return count


def _kill(worker: BaseProcess) -> None:
    worker.kill()
    worker.join()
    assert worker.exitcode == -signal.SIGKILL


def _wait_for_work(folder: Path, process: BaseProcess) -> None:
    while not any(w.pid == process.pid and w.trial is not None for w in live_workers(folder)):
        assert process.is_alive()
        time.sleep(0.01)


def check_all_told_once(study: optuna.Study, count: int) -> None:
    """Every slot has exactly one told trial with its own values; no more, and none is left."""
    trials = study.get_trials()
    slot = slots(trials)
    told = [trial for trial in trials if is_told(trial)]
    assert Counter(slot[trial.number] for trial in told) == Counter(range(count))
    for trial in told:
        if trial.values:
            assert trial.values == list(light_worker.values_of(**trial.params))
    # On a database workers that ask at once may make a trial too many, which nobody evaluates;
    # where its maker was killed too, it is left for whoever goes on.
    left = [trial for trial in trials if not trial.state.is_finished()]
    assert all(t.state == TrialState.WAITING and not t.params for t in left)


def pause_process(process: BaseProcess) -> None:
    assert process.pid
    os.kill(process.pid, signal.SIGSTOP)


def continue_process(process: BaseProcess) -> None:
    assert process.pid
    os.kill(process.pid, signal.SIGCONT)
