"""Of workers that take a trial at once, one gets it, whatever keeps the study."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from optuna.trial import TrialState, create_trial

from morphing.runs.storage import check_storage, keep_elsewhere, open_study
from tests.runs.crew import processes
from tests.runs.light_worker import DIRECTIONS, OBJECTIVES, take_all
from tests.runs.postgres import PASSWORD, Server

TRIALS = 40


@pytest.fixture(params=["journal", "sqlite", "postgres"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/study.db"
        check_storage(url)  # makes the file, as whoever begins a run does
        keep_elsewhere(tmp_path, url)
    elif request.param == "postgres":
        server: Server = request.getfixturevalue("postgres")
        monkeypatch.setenv("PGPASSWORD", PASSWORD)
        keep_elsewhere(tmp_path, server.url())
    return tmp_path


def test_one_worker_gets_a_trial_that_many_take(folder: Path) -> None:
    study = open_study(folder, DIRECTIONS, OBJECTIVES)
    for _ in range(TRIALS):
        study.add_trial(create_trial(state=TrialState.WAITING))
    begin, taken = processes.Barrier(3), processes.Queue()
    arguments = (folder, PASSWORD, begin, taken)
    workers = [processes.Process(target=take_all, args=arguments) for _ in range(3)]
    for worker in workers:
        worker.start()
    got: Counter[int] = Counter()
    for _ in workers:
        got.update(taken.get(timeout=120))
    for worker in workers:
        worker.join()
    assert got == Counter(range(TRIALS))
