"""A run's folder: one writer, any number of readers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from morphing.errors import MorphingError
from morphing.runs.figures import figures_of
from morphing.runs.prepare import create_run
from morphing.runs.run import Run, list_runs
from morphing.runs.spec import RunSpec

HOLD = """
import sys, time
from pathlib import Path
from morphing.runs.run import Run
run = Run(Path(sys.argv[1]))
with run.writing():
    run.save_status(state="running", done=1, total=4)
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def run(small_spec: RunSpec, tmp_path: Path) -> Run:
    return create_run(tmp_path / "run", small_spec)


def test_a_new_run_is_pinned_and_empty(run: Run) -> None:
    assert run.spec.dtype == "float32"
    assert run.trials() == []
    assert run.status().state == "new"
    assert figures_of(run).front == ()
    assert [found.name for found in list_runs(run.folder.parent)] == ["run"]


def test_a_used_folder_is_refused(run: Run, small_spec: RunSpec) -> None:
    with pytest.raises(MorphingError, match="--resume"):
        create_run(run.folder, small_spec)


def test_no_run_there(tmp_path: Path) -> None:
    with pytest.raises(MorphingError, match="no run in"):
        Run(tmp_path)


def test_one_writer_and_what_it_leaves_when_killed(run: Run) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, run.folder], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout and holder.stdout.readline() == "held\n"
    assert run.status().state == "running"
    with pytest.raises(MorphingError, match="another process"), run.writing():
        pass
    holder.kill()
    holder.wait()
    assert run.status().state == "stopped"
    with run.writing():
        pass


def test_unknown_trial(run: Run) -> None:
    with pytest.raises(MorphingError, match="no completed trial 3"):
        run.trial(3)


def test_requests(run: Run) -> None:
    assert run.requested() == "run"
    run.request("pause")
    assert run.requested() == "pause"


SAVE = """
import sys
from pathlib import Path
from morphing.runs.run import Run
run = Run(Path(sys.argv[1]))
for number in range(1, 201):
    run.save_status(**{sys.argv[2]: number})
    found = getattr(run.status(), sys.argv[2])
    assert found == number, f"{number} was undone by another worker: {found}"
"""


def test_workers_that_change_the_status_at_once_undo_nothing(run: Run) -> None:
    fields = ("done", "total", "step_done")
    commands = [[sys.executable, "-c", SAVE, str(run.folder), field] for field in fields]
    writers = [subprocess.Popen(command, stderr=subprocess.PIPE) for command in commands]
    for writer in writers:
        assert writer.wait() == 0, writer.communicate()[1].decode()
    status = run.status()
    assert (status.done, status.total, status.step_done) == (200, 200, 200)
