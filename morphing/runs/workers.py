"""Several workers on one machine: started, watched, started again where they are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from morphing.errors import MorphingError
from morphing.runs.drawing import harmless
from morphing.runs.leases import live_workers
from morphing.runs.run import Run
from morphing.runs.storage import STORAGE_VARIABLE

_COMMAND = (sys.executable, "-m", "morphing", "worker", "--quiet")
_RESTARTS = 3
"""So many times a worker is started again after a signal ended it, the system's for want of
memory for example."""
_POLL_SECONDS = 0.2


@dataclass
class _Process:
    device: str
    running: subprocess.Popen[bytes]
    signals: list[int] = field(default_factory=list)
    """Those that ended it, one for each time."""


def work(
    run: Run,
    devices: Sequence[str],
    storage: str | None = None,
    changed: Callable[[], None] = lambda: None,
) -> None:
    """Work on a run with a worker for each of the devices, until they end.

    Each is a process of its own, ``morphing worker RUN``, that goes on if this one dies; what they
    print goes to the run's ``log.txt``.

    Args:
        run: what to work on.
        devices: one a worker.
        storage: the URL of the run's storage, where its password is not known otherwise.
        changed: called now and then; it may draw progress.

    Raises:
        MorphingError: the run is not finished and was not stopped; says why.
    """
    drawn = harmless(changed)
    with run.writing():
        run.request("run")
        total = run.spec.search.evaluations
        run.save_status(state="preparing", message="", step="", total=total)
        processes = [
            _Process(device, _start(run, device, len(devices), storage)) for device in devices
        ]
        try:
            # A list: every worker that was killed is started again, the last one too.
            while any([_goes_on(run, each, len(devices), storage) for each in processes]):
                drawn()
                time.sleep(_POLL_SECONDS)
        except BaseException:
            _interrupt(processes)
            raise
        _check(run, processes)
    drawn()


def _start(run: Run, device: str, workers: int, storage: str | None) -> subprocess.Popen[bytes]:
    environment = dict(os.environ)
    # Not on the command line, which other users of the machine can read.
    if storage is not None:
        environment[STORAGE_VARIABLE] = storage
    threads = max(1, (os.cpu_count() or 1) // workers)
    environment.setdefault("OMP_NUM_THREADS", str(threads))
    with (run.folder / "log.txt").open("ab") as output:
        return subprocess.Popen(
            [*_COMMAND, str(run.folder), "--device", device],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment,
            process_group=0,  # a terminal's Ctrl-C reaches this process, which passes it on once
        )


def _goes_on(run: Run, process: _Process, workers: int, storage: str | None) -> bool:
    """Whether a worker runs, having been started again if a signal had ended it."""
    code = process.running.poll()
    if code is None:
        return True
    if code >= 0:
        return False
    process.signals.append(-code)
    if len(process.signals) > _RESTARTS:
        return False
    process.running = _start(run, process.device, workers, storage)
    return True


def _interrupt(processes: Sequence[_Process]) -> None:
    for process in processes:
        if process.running.poll() is None:
            process.running.send_signal(signal.SIGINT)
    for process in processes:
        process.running.wait()


def _check(run: Run, processes: Sequence[_Process]) -> None:
    """Say why the workers ended, unless the run is finished or was stopped."""
    if run.status().state == "finished" or run.requested() == "stop":
        return
    if live_workers(run.folder):  # others joined, and are still at it
        return
    signals = Counter(number for process in processes for number in process.signals)
    if any(process.running.returncode < 0 for process in processes):
        reason = (
            f"its workers were ended by {_told(signals)}, which for SIGKILL is mostly a lack of"
            " memory: ask for fewer workers"
        )
    else:
        log = (run.folder / "log.txt").read_text(errors="replace").strip().splitlines()
        reason = log[-1].removeprefix("Error: ").rstrip(".") if log else "no worker said why"
    message = f"The run {run.name} could not be finished: {reason}."
    run.save_status(state="failed", message=message)
    raise MorphingError(message)


def _told(signals: Mapping[int, int]) -> str:
    """Which signals ended the workers, and how often."""
    times = {1: "once", 2: "twice"}
    return " and ".join(
        f"{signal.Signals(number).name} {times.get(count, f'{count} times')}"
        for number, count in signals.items()
    )
