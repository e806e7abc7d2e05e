"""The journal survives a killed writer."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna

from morphing.runs.journal import cut_torn_line, open_journal

HOLD = """
import sys, time
from pathlib import Path
from morphing.runs.journal import KernelLock
lock = KernelLock(Path(sys.argv[1])); lock.acquire(); print("held", flush=True); time.sleep(60)
"""


def study(path: Path) -> optuna.Study:
    return optuna.create_study(
        storage=open_journal(path), study_name="s", load_if_exists=True, direction="maximize"
    )


def test_a_dead_holder_frees_the_lock_at_once(tmp_path: Path) -> None:
    lock = tmp_path / "journal.lock"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, lock], stdout=subprocess.PIPE, text=True)
    assert holder.stdout and holder.stdout.readline() == "held\n"
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    started = time.monotonic()
    study(tmp_path / "journal.log")
    # Optuna's own lock files would wait for a grace period of 30 s here.
    assert time.monotonic() - started < 15


def test_a_torn_last_line_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "journal.log"
    before = study(path)
    before.tell(before.ask(), 1.0)
    whole = path.read_bytes()
    last = whole.splitlines(keepends=True)[-1]
    for keep in range(len(last)):
        path.write_bytes(whole + last[:keep])
        cut_torn_line(path)
        assert path.read_bytes() == whole
    after = study(path)
    after.tell(after.ask(), 2.0)
    assert [trial.value for trial in study(path).trials] == [1.0, 2.0]


def test_a_missing_or_empty_journal_is_left(tmp_path: Path) -> None:
    path = tmp_path / "journal.log"
    cut_torn_line(path)
    assert not path.exists()
    path.touch()
    cut_torn_line(path)
    assert path.read_bytes() == b""
