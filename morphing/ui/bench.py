"""The one workbench of the app's process, and whose turn it is to use it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from morphing.errors import MorphingError
from morphing.runs.progress import Progress
from morphing.runs.run import Run
from morphing.runs.stage_model import stage_folder
from morphing.runs.workbench import Workbench
from morphing.ui.limits import limits

_ASK_SECONDS = 0.5


class Turns:
    """Turns at something that one can use at a time, in the order in which they were asked for.

    A plain lock would go again to who has just given it back.
    """

    def __init__(self) -> None:
        self._queue: deque[object] = deque()
        self._changed = threading.Condition()

    @contextmanager
    def mine(self, progress: Progress) -> Iterator[None]:
        """Wait for a turn and hold it; ``progress``, told meanwhile, may raise to give up.

        Raises:
            MorphingError: too many wait already.
        """
        ticket = object()
        with self._changed:
            # The first in the queue is not waiting: it is at work.
            if len(self._queue) > limits().waiting:
                raise MorphingError(
                    f"The models are busy, and {len(self._queue) - 1} requests wait already: try"
                    " again in a minute."
                )
            self._queue.append(ticket)
        try:
            while not self._is_first(ticket):
                progress("waiting: the models are busy with another request", 0, 1)
            yield
        finally:
            with self._changed:
                self._queue.remove(ticket)
                self._changed.notify_all()

    def _is_first(self, ticket: object) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self._queue[0] is ticket, _ASK_SECONDS)


class Bench:
    """The models of one run in memory, for one piece of work at a time: two would fight over the
    weights. No visitor's token outlasts their piece of work."""

    def __init__(self) -> None:
        self._turns = Turns()
        self._workbench: Workbench | None = None

    @contextmanager
    def use(self, run: Run, token: str | None, progress: Progress) -> Iterator[Workbench]:
        """The workbench of ``run``, loaded if it was another's, acting with ``token``.

        Work of many parts takes a turn for each, so that others need not wait for all of it.
        """
        with self._turns.mine(progress):
            bench = self._loaded(run, token, progress)
            try:
                yield bench
            finally:
                bench.token = None

    def _loaded(self, run: Run, token: str | None, progress: Progress) -> Workbench:
        if self._workbench is None or self._workbench.run is not run:
            self._workbench = None  # there may not be the room for both
            self._workbench = Workbench(run, token, progress)
        bench, self._workbench = self._workbench, None  # lost if it is left half loaded
        bench.token = token
        if stage_folder(run).exists():
            bench.add_stage_model(progress)
        bench.check_models()
        self._workbench = bench
        return bench


BENCH = Bench()
