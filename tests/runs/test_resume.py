"""Kill, stop, pause and resume: nothing told is lost, nothing finished is done again."""

from __future__ import annotations

import errno
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from morphing.errors import MorphingError
from morphing.runs.journal import Journal
from morphing.runs.loop import Loop
from morphing.runs.prepare import create_run
from morphing.runs.run import Run
from morphing.runs.spec import RunSpec, parse_spec

pytestmark = pytest.mark.slow


def told(run: Run) -> list[tuple[dict[str, float], tuple[float, ...]]]:
    return [(dict(trial.params), trial.values) for trial in run.trials()]


def test_kills_at_any_moment_change_nothing(spec_file: Path, tmp_path: Path) -> None:
    """A run killed again and again ends with the trials of one that never was."""
    command = [sys.executable, "-m", "morphing", "search", "--run"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    created = [spec_file, "--evaluations", "6"]
    subprocess.run([*command, whole, *created], check=True, capture_output=True)
    assert len(Run(whole).complete()) == 6

    moments = random.Random(0)
    process = start([*command, killed, *created])
    while not (killed / "journal.log").exists():
        assert process.poll() is None
        time.sleep(0.02)
    run = Run(killed)
    for kill in range(4):  # the first while the run is made, the others with a recipe in flight
        while kill and not is_at(run, kill):
            assert process.poll() is None, "the search ended before it could be killed"
            time.sleep(0.01)
        time.sleep(moments.uniform(0.0, 0.05))
        process.kill()
        assert process.wait() == -signal.SIGKILL
        before = told(Run(killed))
        assert before == told(Run(whole))[: len(before)]
        process = start([*command, killed, "--resume"])
    assert process.wait(timeout=300) == 0

    run = Run(killed)
    assert told(run) == told(Run(whole))
    # Each kill may cost the one trial in flight, which is then proposed again.
    assert 6 < len(run.study.trials) <= 10
    for trial in run.complete():
        assert run.outputs(trial.number).keys() == (trial.results or {}).keys()
    assert run.status().state == "finished"


def start(command: Sequence[str | Path]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def is_at(run: Run, slot: int) -> bool:
    """Whether a recipe is evaluated after so many or more were told."""
    working = [worker.trial for worker in run.status().workers]
    return working not in ([], [None]) and len(run.trials()) >= slot


@pytest.mark.parametrize("notes", [3, 20, 35])
def test_a_full_disk_is_said_and_loses_nothing(
    small_spec: RunSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, notes: int
) -> None:
    left = notes
    write = Journal._write

    def until_full(journal: Journal, lines: Sequence[bytes]) -> None:
        nonlocal left
        left -= len(lines)
        if left < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(journal, lines)

    run = create_run(tmp_path / "run", small_spec)
    monkeypatch.setattr(Journal, "_write", until_full)
    with pytest.raises(MorphingError, match="disk that holds the run is full"):
        Loop(run).search()
    monkeypatch.undo()
    before = told(Run(run.folder))
    Loop(Run(run.folder)).search()
    assert told(Run(run.folder))[: len(before)] == before
    assert len(Run(run.folder).complete()) == 4


def test_a_full_disk_is_no_fault_of_a_recipe(
    small_spec: RunSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    run = create_run(tmp_path / "run", small_spec)
    monkeypatch.setattr("morphing.runs.loop.evaluate_recipe", no_room)
    with pytest.raises(MorphingError, match="disk that holds the run is full"):
        Loop(run).search()
    assert run.trials() == []


def test_kills_during_proposals_change_nothing(small_spec: RunSpec, tmp_path: Path) -> None:
    """A sampler that learns proposes the same again, and whatever follows is the same."""
    data = small_spec.model_dump()
    data["search"] |= {"sampler": "qlognehvi", "evaluations": 13}
    spec = parse_spec(data)
    whole, killed = (create_run(tmp_path / name, spec) for name in ("whole", "killed"))
    Loop(whole).search()

    command = [sys.executable, "-m", "morphing", "search", "--resume", "--run", killed.folder]
    for slot in (10, 11, 12):  # before these every proposal is a uniform draw
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not is_proposing(killed, slot):
            assert process.poll() is None, "the search ended before it could be killed"
            time.sleep(0.002)
        process.kill()
        process.wait()
    Loop(killed).search()
    assert told(killed) == told(whole)
    assert len(killed.study.trials) > 13, "no kill met a proposal"


def is_proposing(run: Run, slot: int) -> bool:
    steps = [worker.step for worker in run.status().workers]
    return steps == ["proposing"] and len(run.trials()) == slot


def test_more_evaluations_later(
    spec_file: Path, tmp_path: Path, morphing: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    folder = tmp_path / "run"
    assert morphing("search", spec_file, "--run", folder, "--evaluations", 2).returncode == 0
    before = told(Run(folder))
    assert len(before) == 2
    done = morphing("search", "--run", folder, "--resume", "--evaluations", 3)
    assert done.returncode == 0, done.stderr
    assert told(Run(folder))[:2] == before and len(told(Run(folder))) == 3


def test_pause_and_stop(small_spec: RunSpec, tmp_path: Path) -> None:
    run = create_run(tmp_path / "run", small_spec)
    seen: list[str] = []

    def changed() -> None:
        status = run.status()
        seen.append(status.state)
        if status.state == "running" and status.done == 1 and "paused" not in seen:
            run.request("pause")
        if status.done == 2:
            run.request("stop")

    thread = threading.Thread(target=Loop(run, changed=changed).search)
    thread.start()
    while "paused" not in seen and thread.is_alive():
        time.sleep(0.05)
    at_pause = len(run.trials())
    time.sleep(1)
    assert len(run.trials()) == at_pause == 1
    assert run.status().state == "paused"
    run.request("run")
    thread.join(timeout=120)
    assert run.status().state == "stopped"
    assert len(run.trials()) == 2

    Loop(run).search()
    assert run.status().state == "finished"
    assert len(run.trials()) == 4
