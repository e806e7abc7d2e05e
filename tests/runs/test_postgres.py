"""A run whose study is in PostgreSQL, with workers on machines that share nothing else."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest

from morphing.errors import MorphingError
from morphing.runs.leases import GRACE_VARIABLE
from morphing.runs.run import Run
from morphing.runs.spec import parse_spec
from morphing.runs.storage import (
    STORAGE_VARIABLE,
    check_storage,
    keep_elsewhere,
    open_study,
    place_of,
    without_password,
)
from morphing.search.samplers.history import slots
from tests.runs.crew import check_all_told_once, run_with_kills
from tests.runs.light_worker import DIRECTIONS, OBJECTIVES
from tests.runs.postgres import PASSWORD, Server


@pytest.fixture
def folder(postgres: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run's folder, but for its spec."""
    folder = tmp_path / "run"
    keep_elsewhere(folder, postgres.url())
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    return folder


@pytest.mark.slow
def test_thirty_kills_on_a_database(folder: Path, tmp_path: Path) -> None:
    copies = [tmp_path / f"copy-{number}" for number in range(4)]
    open_study(folder, DIRECTIONS, OBJECTIVES)
    for copy in copies:
        shutil.copytree(folder, copy)
    count = run_with_kills(copies, kills=30, grace=3)
    study = open_study(folder, DIRECTIONS, OBJECTIVES)
    check_all_told_once(study, count)
    assert len(study.get_trials()) > count, "no kill met a trial in flight"


def test_a_password_is_written_nowhere(
    folder: Path, postgres: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = place_of(folder)
    assert place is not None and place.url == without_password(postgres.url())
    for path in folder.iterdir():
        assert PASSWORD not in path.read_text()
    monkeypatch.delenv("PGPASSWORD")
    with pytest.raises(MorphingError, match="password") as refused:
        open_study(folder, DIRECTIONS, OBJECTIVES)
    assert PASSWORD not in str(refused.value)
    first = open_study(folder, DIRECTIONS, OBJECTIVES, postgres.url())
    monkeypatch.setenv(STORAGE_VARIABLE, postgres.url())
    second = open_study(folder, DIRECTIONS, OBJECTIVES)
    assert first.study_name == second.study_name == place.study
    assert second.metric_names == list(OBJECTIVES)


def test_another_storage_than_the_runs(folder: Path, postgres: Server, tmp_path: Path) -> None:
    with pytest.raises(MorphingError, match="is kept in postgresql"):
        open_study(folder, DIRECTIONS, OBJECTIVES, postgres.url(database="other"))
    with pytest.raises(MorphingError, match="in its own folder"):
        open_study(tmp_path, DIRECTIONS, OBJECTIVES, postgres.url())


def test_two_runs_of_one_name(folder: Path, postgres: Server, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere" / folder.name
    keep_elsewhere(other, postgres.url())
    first, second = (open_study(each, DIRECTIONS, OBJECTIVES) for each in (folder, other))
    first.add_trial(optuna.create_trial(state=optuna.trial.TrialState.WAITING))
    assert first.study_name != second.study_name
    assert second.trials == []


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("runs.db", "no database URL"),
        ("postgresql://nobody:{password}@127.0.0.1:{port}/postgres", "authentication failed"),
        ("postgresql://morphing:{password}@127.0.0.1:{port}/none", '"none" does not exist'),
        ("postgresql://nobody:{password}@127.0.0.1:1/postgres", "server runs"),
        ("postgresql+asyncpg://nobody:{password}@127.0.0.1/postgres", "driver"),
        ("dbase://nobody:{password}@127.0.0.1/postgres", "no database known"),
    ],
)
def test_storages_that_cannot_be_used(postgres: Server, url: str, words: str) -> None:
    with pytest.raises(MorphingError, match=words) as refused:
        check_storage(url.format(password=PASSWORD, port=postgres.port))
    assert PASSWORD not in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.slow
def test_a_search_with_two_workers_and_one_that_joins_with_a_copy(
    spec_file: Path, postgres: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The joining one is stopped by a request at the other copy, and its trial is done again."""
    monkeypatch.delenv("PGPASSWORD", raising=False)
    monkeypatch.setenv(GRACE_VARIABLE, "6")
    folder, copy = tmp_path / "run", tmp_path / "copy" / "run"
    command = [sys.executable, "-m", "morphing"]
    storage = ["--storage", postgres.url()]
    first = [*command, "search", spec_file, "--run", folder, "--evaluations", "2", *storage]
    done = subprocess.run(first, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for path in folder.rglob("*"):
        assert path.is_dir() or PASSWORD.encode() not in path.read_bytes()
    shutil.copytree(folder, copy)

    run = Run(folder, postgres.url())
    run.set_budget(evaluations=1000)
    Run(copy).set_budget(evaluations=1000)
    joined = subprocess.Popen([*command, "worker", copy, "--quiet", *storage])
    try:
        while len(run.trials()) < 4:
            assert joined.poll() is None
            time.sleep(0.1)
        run.request("stop")
        assert joined.wait(timeout=60) == 0
    finally:
        joined.kill()
    assert Run(copy).status().state == "stopped"

    count = len(run.trials()) + 3
    data = run.spec.model_dump()
    data["search"]["evaluations"] = count
    (folder / "spec.yaml").write_text(parse_spec(data).to_yaml())
    rest = [*command, "search", "--run", folder, "--resume", "--workers", "2", *storage]
    done = subprocess.run(rest, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    again = Run(folder, postgres.url())
    slot = slots(again.study.get_trials())
    assert [slot[trial.number] for trial in again.trials()] == list(range(count))
    assert again.status().state == "finished"


def test_a_heartbeat_is_as_old_in_every_time_zone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The workers' sessions may have time zones of their own, or one that changes its hour."""
    zones, trials = ("Asia/Tokyo", "UTC", "America/Lima"), []
    for zone in zones:
        monkeypatch.setenv("PGTZ", zone)
        study = open_study(folder, DIRECTIONS, OBJECTIVES)
        trials.append(study._storage.create_new_trial(study._study_id))
        for _ in range(2):  # the first makes it, the second renews it
            study._storage.record_heartbeat(trials[-1])  # type: ignore[attr-defined]
    for zone in zones:
        monkeypatch.setenv("PGTZ", zone)
        study = open_study(folder, DIRECTIONS, OBJECTIVES)
        backend: optuna.storages.RDBStorage = study._storage._backend  # type: ignore[attr-defined]
        assert backend._get_stale_trial_ids(study._study_id) == []
        backend.grace_period = 0
        assert sorted(backend._get_stale_trial_ids(study._study_id)) == sorted(trials)
