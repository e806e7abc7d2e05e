"""Threads that merge tensors side by side, each of them computing alone.

Torch by default splits each operation over the cores. Merging is thousands of short operations, so
that loses time, most of all on a busy machine, and it makes sums depend on the number of cores in
their last bits. Whole tensors are given to single-threaded workers instead: the merged weights are
the same whatever the number of cores.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Thread
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


class Workers:
    """A few threads, kept for the life of their owner."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._pool = ThreadPoolExecutor(count, "merge", initializer=_compute_alone)

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


def _compute_alone() -> None:
    """Make this thread's operations single-threaded, and no other thread's."""
    usual = torch.get_num_threads()
    torch.set_num_threads(1)
    # The setting is this thread's own and the default of threads yet to start: a passing thread
    # puts the default back.
    restore = Thread(target=torch.set_num_threads, args=(usual,))
    restore.start()
    restore.join()
