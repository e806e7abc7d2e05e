"""The run's Optuna storage in its folder: an append-only file that survives killed writers."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import TrialState


class KernelLock(JournalFileOpenLock):
    """A journal's lock that the operating system frees when its holder dies.

    Optuna's own locks are files that outlive a killed process, so the next writer waits for a
    grace period; this one is free at once. Only appending takes it, and the next append would be
    joined to a line that a killed writer left unfinished: that line is cut first.
    """

    def __init__(self, journal: Path) -> None:
        self._journal = journal
        self._lock = FileLock(journal.with_suffix(".lock"))

    def acquire(self) -> bool:
        self._lock.acquire()
        _cut_torn_line(self._journal)
        return True

    def release(self) -> None:
        self._lock.release()


class Journal(JournalFileBackend):
    """Optuna's file, which waits for the disk where a trial ends and not at every note of it.

    A trial is a dozen notes, which would cost a tenth of an evaluation of a small model. Killed
    processes lose nothing by it; a machine that loses power may lose notes of trials in flight,
    which are tried again.
    """

    def __init__(self, path: Path) -> None:
        self._guard = KernelLock(path)
        super().__init__(str(path), lock_obj=self._guard)
        self._path = path

    def append_logs(self, logs: Sequence[dict[str, Any]]) -> None:
        """Append notes, whole lines, one writer at a time."""
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        self._guard.acquire()
        try:
            with self._path.open("ab") as file:
                file.write(lines.encode())
                if any(_ends_a_trial(log) for log in logs):
                    file.flush()
                    os.fsync(file.fileno())
        finally:
            self._guard.release()


def _ends_a_trial(log: dict[str, Any]) -> bool:
    state = log.get("state")
    return state is not None and TrialState(state).is_finished()


def open_journal(path: Path) -> JournalStorage:
    """The storage in the file ``path``, made if missing; any number of processes may share it."""
    # Absolute: Optuna's journal is opened again by path at every read.
    path = path.resolve()
    return JournalStorage(Journal(path))


def _cut_torn_line(path: Path) -> None:
    """Drop a last line without its end. Readers leave such a line alone; it was never told."""
    with path.open("rb+") as file:
        if not file.seek(0, os.SEEK_END):
            return
        file.seek(-1, os.SEEK_END)
        if file.read() == b"\n":
            return
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
