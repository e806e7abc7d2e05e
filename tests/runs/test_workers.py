"""Workers that are killed, stopped or late: every slot is told exactly once."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from optuna.trial import TrialState, create_trial

from morphing.runs.leases import GRACE_VARIABLE, Lease, live_workers
from morphing.runs.storage import open_study
from morphing.search.samplers import make_sampler
from morphing.search.samplers.history import is_told
from tests.runs.crew import (
    check_all_told_once,
    continue_process,
    pause_process,
    run_with_kills,
    start,
)
from tests.runs.light_worker import DIRECTIONS, OBJECTIVES, evaluate, queue_of


@pytest.mark.slow
def test_thirty_kills_on_a_journal(tmp_path: Path) -> None:
    count = run_with_kills([tmp_path] * 4, kills=30, grace=60)
    study = open_study(tmp_path, DIRECTIONS, OBJECTIVES)
    check_all_told_once(study, count)
    assert len(study.get_trials()) > count, "no kill met a trial in flight"


def test_a_late_result_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker stopped past its lease goes on when another has taken its trial over."""
    monkeypatch.setenv(GRACE_VARIABLE, "1.5")
    study = open_study(tmp_path, DIRECTIONS, OBJECTIVES)
    study.sampler = make_sampler("random", 3)
    late = start(tmp_path, slots=2, seconds=5, grace=1.5)
    try:
        while not any("recipe" in trial.user_attrs for trial in study.get_trials()):
            time.sleep(0.01)
        time.sleep(0.2)  # out of the journal's lock, which a stopped process would keep
        pause_process(late)
        begun = [trial for trial in study.get_trials() if not trial.state.is_finished()]
        with Lease(tmp_path) as lease:
            queue = queue_of(study, lease)
            while queue.told(2) < 2:
                claim = queue.claim(2)
                if claim is None:
                    time.sleep(0.05)
                else:
                    evaluate(study, queue, claim, 0.01)
        check_all_told_once(study, 2)
        told = study.get_trials()
        assert len(told) == 2 + len(begun)
        continue_process(late)
        late.join(timeout=60)
        assert late.exitcode == 0
        assert study.get_trials() == told
    finally:
        late.kill()


@pytest.mark.parametrize(
    ("state", "attributes", "told"),
    [
        (TrialState.PRUNED, {"failure": "no merge"}, True),
        (TrialState.PRUNED, {"raced": {}}, True),
        (TrialState.PRUNED, {}, False),
        (TrialState.FAIL, {}, False),
        (
            TrialState.FAIL,
            {"failure": "written by a database after its worker was given up"},
            False,
        ),
        (TrialState.FAIL, {"error": "told by an earlier version"}, True),
        (TrialState.RUNNING, {"failure": "not told yet"}, False),
    ],
)
def test_what_counts(state: TrialState, attributes: dict[str, object], told: bool) -> None:
    assert is_told(create_trial(state=state, user_attrs=attributes)) is told


def test_who_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(GRACE_VARIABLE, "60")
    with Lease(tmp_path, "cpu") as lease:
        (found,) = live_workers(tmp_path)
        assert found == lease.worker and found.device == "cpu"
    assert live_workers(tmp_path) == []
