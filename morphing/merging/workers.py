"""Threads that merge tensors side by side, each of them computing alone.

Torch by default splits each operation over the cores. Merging is thousands of short operations, so
that loses time, most of all on a busy machine, and it makes sums depend on the number of cores in
their last bits. Whole tensors are given to single-threaded workers instead: the merged weights are
the same whatever the number of cores.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from threading import Barrier, Thread
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


class Workers:
    """A few threads, kept for the life of their owner."""

    def __init__(self, count: int) -> None:
        self._count = count
        usual = torch.get_num_threads()
        self._pool = ThreadPoolExecutor(count, "merge", _compute_alone, (usual,))
        # All start now, while nobody else's threads do: see `_compute_alone`.
        together = Barrier(count)
        list(self._pool.map(lambda _: together.wait(), range(count)))

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """The results in order, at most ``count`` of them computed ahead of their use."""
        waiting: deque[Future[Result]] = deque()
        try:
            for item in items:
                waiting.append(self._pool.submit(function, item))
                if len(waiting) > self._count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
            wait(waiting)  # nothing goes on behind the back of a caller that failed


def _compute_alone(usual: int) -> None:
    """Make this thread's operations single-threaded, and no other thread's."""
    torch.get_num_threads()  # a thread takes the default at its first look, later than a setting
    torch.set_num_threads(1)
    # The setting is this thread's own and the default of threads yet to start: a passing thread
    # puts the default back.
    restore = Thread(target=torch.set_num_threads, args=(usual,))
    restore.start()
    restore.join()
