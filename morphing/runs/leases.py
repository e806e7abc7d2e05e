"""Workers of a run: which are alive, what each does, and how long they have worked.

A worker is a process that evaluates a run's recipes. It has a file ``workers/<id>.json`` that a
background thread renews, and holds the lock ``workers/<id>.lock`` while it lives. So another
process on its machine knows at once that it died, by the lock, and one on another machine that
shares the folder once the file was not renewed for a grace period. A worker that hangs (a stopped
process, a laptop asleep) counts as dead for as long as it does not renew.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Literal

from filelock import FileLock
from pydantic import Field, TypeAdapter, ValidationError

from morphing.errors import MorphingError
from morphing.runs.files import (
    FOREIGN,
    MEBIBYTE,
    Count,
    Id,
    Moment,
    Name,
    Text,
    read_json,
    write_atomically,
)

GRACE_VARIABLE = "MORPHING_GRACE_SECONDS"
"""Environment variable: for how many seconds a silent worker is taken to be alive; 60 by default.
The same for all workers of a run, whose clocks must agree better than that."""

WorkerState = Literal["preparing", "running", "paused", "stopped", "finished", "failed"]
_ENDED = ("stopped", "finished", "failed")

_log = logging.getLogger(__name__)


class LeaseLostError(MorphingError):
    """This worker cannot show that it lives."""


@dataclass(frozen=True)
class Worker:
    """A worker as its file tells. Times are seconds since the epoch."""

    __pydantic_config__ = FOREIGN

    id: Id
    host: Name
    pid: Count
    device: Name = ""
    state: WorkerState = "preparing"
    message: Text = ""
    """Why it ended, where it did."""
    trial: Count | None = None
    """The number of the trial it evaluates."""
    step: Text = ""
    """What it does at this moment, for example the benchmark being scored."""
    step_done: Count = 0
    step_total: Count = 0
    spans: Annotated[tuple[tuple[Moment, Moment], ...], Field(min_length=1)] = ()
    """When it worked, pauses left out: from, to."""
    renewed: Moment = 0.0

    @property
    def ended(self) -> bool:
        """Whether it ended in order."""
        return self.state in _ENDED

    @property
    def here(self) -> bool:
        """Whether it runs or ran on this machine."""
        return self.host == socket.gethostname()


_WORKER = TypeAdapter(Worker)
_ID = TypeAdapter(Id)
_LONGEST_FILE = 4 * MEBIBYTE


def grace_seconds() -> float:
    """For how long a silent worker is taken to be alive.

    Raises:
        MorphingError: the environment says something that is no number above 0.
    """
    text = os.environ.get(GRACE_VARIABLE, "60")
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise MorphingError(f"{GRACE_VARIABLE} is {text!r}: set it to a number of seconds above 0.")
    return seconds


def read_workers(folder: Path) -> list[Worker]:
    """All workers that a run ever had, in the order they began.

    A file that is no worker's is left out and logged: one damaged file must not hide a run.
    """
    workers = (find_worker(folder, path.stem) for path in (folder / "workers").glob("*.json"))
    return sorted(filter(None, workers), key=lambda worker: worker.spans[0])


def find_worker(folder: Path, id: str) -> Worker | None:
    """The worker with an id, if the run's folder has a file of it."""
    path = folder / "workers" / f"{id}.json"
    try:
        _ID.validate_python(id)  # it may come from a stranger's study, and is part of a path
        if not path.exists():
            return None
        worker = read_json(path, _WORKER, "delete it", _LONGEST_FILE)
    except (ValidationError, MorphingError) as error:
        _log.warning("A worker's file is left out: %s", error)
        return None
    return worker if worker.id == id else None


def is_gone(folder: Path, worker: Worker) -> bool:
    """Whether a worker surely ended: in order, or by a death that this machine's locks show."""
    return worker.ended or (worker.here and not is_held(folder / "workers" / f"{worker.id}.lock"))


def is_alive(folder: Path, worker: Worker) -> bool:
    """Whether a worker lives, as far as can be told from here.

    A file that was renewed in the future is no sign of life: a stranger's would be one for ever.
    """
    silent = abs(time.time() - worker.renewed)
    return silent <= grace_seconds() and not is_gone(folder, worker)


def live_workers(folder: Path) -> list[Worker]:
    """The workers that live, in the order they began."""
    return [worker for worker in read_workers(folder) if is_alive(folder, worker)]


def is_held(path: Path) -> bool:
    """Whether a process of this machine holds the lock at ``path``.

    Nothing is written, so that it works on a read-only disk, and a lock that is shared for a moment
    is no lock to others who ask the same.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:  # there is none
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks, where nobody can hold one
        return False
    finally:
        os.close(descriptor)
    return False


class Lease:
    """This process as a worker of the run in ``folder``, from entering it to leaving it.

    Args:
        folder: the run's.
        device: what it works on, to be shown.
    """

    def __init__(self, folder: Path, device: str = "") -> None:
        self.id = secrets.token_hex(4)
        self.folder = folder
        self.renewals: list[Callable[[], None]] = []
        """What else the background thread does at every renewal."""
        self.interval = min(5.0, grace_seconds() / 6)
        now = time.time()
        self._worker = Worker(
            self.id, socket.gethostname(), os.getpid(), device, spans=((now, now),), renewed=now
        )
        self._place = folder / "workers" / self.id
        self._changing = threading.Lock()
        self._written = time.monotonic()
        """When its file was last written."""
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)

    @property
    def worker(self) -> Worker:
        """What its file says."""
        return self._worker

    def __enter__(self) -> Lease:
        self._place.parent.mkdir(parents=True, exist_ok=True)
        # First the lock: whoever finds the file must find the lock held.
        self._lock = FileLock(self._place.with_suffix(".lock"))
        self._lock.acquire()
        self.update()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._leaving.set()
        self._thread.join()
        self.update(**({} if self._worker.ended else {"state": "stopped"}))
        self._lock.release()

    def update(self, **changes: Any) -> None:
        """Change what its file says, and renew it."""
        with self._changing:
            before, now = self._worker, time.time()
            after = replace(before, **changes, renewed=now)
            after = replace(after, spans=_spans(before, now, 3 * self.interval))
            self._worker = after
            data = json.dumps(asdict(after), ensure_ascii=False).encode(errors="replace")
            write_atomically(self._place.with_suffix(".json"), data, durable=False)
            self._written = time.monotonic()

    def show(self, **changes: Any) -> None:
        """As :meth:`update`, for what is only shown: a write that fails is logged and made good by
        the next one.

        Raises:
            MorphingError: none has succeeded for the grace period, so that others take this worker
                for dead.
        """
        try:
            self.update(**changes)
        except OSError as error:
            _log.warning("The file of this worker could not be renewed: %s", error)
            if time.monotonic() - self._written > grace_seconds():
                raise LeaseLostError(
                    f"The run's folder could not be written for {grace_seconds():g} s ({error}):"
                    " see to its disk, then resume the run; what was told is kept."
                ) from error

    def _keep(self) -> None:
        """Renew the lease until it is left. One that fails must not be the last: the next may
        succeed within the grace period, and a lasting failure is met by :meth:`show`.
        """
        while not self._leaving.wait(self.interval):
            for renew in (self.update, *self.renewals):
                try:
                    renew()
                except Exception as error:
                    _log.warning("A renewal of this worker's lease failed: %s", error)


def _spans(before: Worker, now: float, gap: float) -> tuple[tuple[float, float], ...]:
    """When a worker worked, now included, unless it paused or the whole process stood still."""
    *earlier, (start, end) = before.spans
    if before.state == "paused":
        return (*earlier, (start, end), (now, now)) if start < end else (*earlier, (now, now))
    if now - end > gap:
        return (*before.spans, (now, now))
    return (*earlier, (start, max(now, end)))
