"""The run's Optuna storage: an append-only file that survives a killed writer."""

from __future__ import annotations

import json
from pathlib import Path

from filelock import FileLock
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock


class KernelLock(JournalFileOpenLock):
    """A lock the operating system frees when its holder dies.

    Optuna's own locks are files that outlive a killed process, so the next writer waits for a
    grace period; this one is free at once.
    """

    def __init__(self, path: Path) -> None:
        self._lock = FileLock(path)

    def acquire(self) -> bool:
        self._lock.acquire()
        return True

    def release(self) -> None:
        self._lock.release()


def open_journal(path: Path) -> JournalStorage:
    """The storage in the file ``path``, made if missing."""
    # Absolute: Optuna's journal is opened again by path at every read.
    path = path.resolve()
    return JournalStorage(
        JournalFileBackend(str(path), lock_obj=KernelLock(path.with_suffix(".lock")))
    )


def cut_torn_line(path: Path) -> None:
    """Drop a last line that a killed writer left unfinished; the next append would corrupt it.

    Only the run's single writer may call this.
    """
    if not path.exists():
        return
    with path.open("rb+") as file:
        lines = file.read().splitlines(keepends=True)
        if not lines:
            return
        try:
            json.loads(lines[-1])
            torn = not lines[-1].endswith(b"\n")
        except ValueError:
            torn = True
        if torn:
            file.truncate(sum(map(len, lines[:-1])))
