"""How work that takes a while is told and timed."""

from __future__ import annotations

import time
from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""


def quiet(step: str, done: int, total: int) -> None:
    """Progress that nobody watches."""


def prefixed(prefix: str, progress: Progress) -> Progress:
    """``progress`` with ``prefix`` before every step."""

    def report(step: str, done: int, total: int) -> None:
        progress(f"{prefix}{step}", done, total)

    return report


def megabytes(progress: Callable[[int, int], None], done: int, total: int) -> None:
    """Bytes told to ``progress`` as megabytes."""
    progress(done // 10**6, total // 10**6)


def duration(seconds: float) -> str:
    """A time for people: 72 as 1 min 12 s."""
    if seconds < 1:
        return "under a second"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


class Stopwatch:
    """Seconds since it was made, without the time spent paused."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def skip(self, seconds: float) -> None:
        """Do not count ``seconds``."""
        self._start += seconds

    @property
    def seconds(self) -> float:
        """Seconds counted so far."""
        return time.monotonic() - self._start
