"""Start a run's loop in a process of its own, so that it outlives a tab and the app."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from morphing.errors import MorphingError
from morphing.runs.run import Run

_START_SECONDS = 20.0


def start(run: Run, token: str | None = None, own_login: bool = True, workers: int = 1) -> None:
    """Start or go on with ``run``, with so many workers; returns once its process holds it.

    ``token`` reaches the process through its environment and is written nowhere. With
    ``own_login`` false (an app with many visitors) the process sees no login but ``token``.

    Raises:
        MorphingError: the process ended before it began; its last words are quoted.
    """
    if run.status().active:
        run.request("run")
        return
    environment = {k: v for k, v in os.environ.items() if k != "HF_TOKEN" or own_login}
    if token:
        environment["HF_TOKEN"] = token
    elif not own_login:
        environment["HF_HUB_DISABLE_IMPLICIT_TOKEN"] = "1"
    log = run.folder / "log.txt"
    command = [sys.executable, "-m", "morphing", "search", "--run", str(run.folder), "--resume"]
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*command, "--workers", str(workers)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment,
            start_new_session=True,
        )
    deadline = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        if run.status().active:
            return
        time.sleep(0.05)
    if process.poll():
        last = log.read_text(errors="replace").strip().splitlines()[-1:]
        raise MorphingError(f"The search could not start: {last[0] if last else 'no reason given'}")
