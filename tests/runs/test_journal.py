"""The journal survives a killed writer."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna

from morphing.runs.journal import open_journal, together

HOLD = """
import sys, time
from pathlib import Path
from morphing.runs.journal import open_journal
with open_journal(Path(sys.argv[1])).together():
    print("held", flush=True)
    time.sleep(60)
"""


def study(path: Path) -> optuna.Study:
    return optuna.create_study(
        storage=open_journal(path), study_name="s", load_if_exists=True, direction="maximize"
    )


def test_a_dead_holder_frees_the_lock_at_once(tmp_path: Path) -> None:
    journal = tmp_path / "journal.log"
    study(journal)
    command = [sys.executable, "-c", HOLD, journal]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert holder.stdout and holder.stdout.readline() == "held\n"
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    started = time.monotonic()
    study(journal).ask()
    # Optuna's own lock files would wait for a grace period of 30 s here.
    assert time.monotonic() - started < 15


def test_a_torn_last_line_is_cut_by_the_next_writer(tmp_path: Path) -> None:
    path = tmp_path / "journal.log"
    before = study(path)
    before.tell(before.ask(), 1.0)
    whole = path.read_bytes()
    last = whole.splitlines(keepends=True)[-1]
    for keep in range(len(last)):
        path.write_bytes(whole + last[:keep])
        assert [trial.value for trial in study(path).trials] == [1.0]
        after = study(path)
        after.tell(after.ask(), 2.0)
        assert path.read_bytes().startswith(whole)
        assert [trial.value for trial in study(path).trials] == [1.0, 2.0]


def test_what_is_noted_together_is_seen_at_once_and_written_in_the_end(tmp_path: Path) -> None:
    path = tmp_path / "journal.log"
    writer, reader = study(path), study(path)
    with together(writer._storage):
        trial = writer.ask()
        trial.set_user_attr("pair", (1, 2))
        writer.tell(trial, 1.0)
        assert [(t.value, t.user_attrs) for t in writer.trials] == [(1.0, {"pair": [1, 2]})]
        assert reader.trials == []
    assert reader.trials == writer.trials == study(path).trials
    reader.tell(reader.ask(), 2.0)
    writer.tell(writer.ask(), 3.0)
    for each in (writer, reader, study(path)):
        assert [(t.number, t.value) for t in each.trials] == [(0, 1.0), (1, 2.0), (2, 3.0)]


def test_optuna_reads_the_journal_too(tmp_path: Path) -> None:
    path = tmp_path / "journal.log"
    ours = study(path)
    ours.tell(ours.ask(), 1.0)
    backend = optuna.storages.journal.JournalFileBackend(str(path))
    theirs = optuna.load_study(study_name="s", storage=optuna.storages.JournalStorage(backend))
    assert theirs.trials == ours.trials


def test_a_missing_journal_is_made(tmp_path: Path) -> None:
    path = tmp_path / "journal.log"
    assert study(path).trials == []
    assert path.read_bytes().endswith(b"\n")
