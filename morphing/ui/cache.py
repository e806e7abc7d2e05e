"""What was worked out from files and need not be again while they are the same."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Cache(Generic[T]):
    """The ``size`` values used last, by key; each with a stamp of what it was worked out from.

    Safe to use from several threads, of which two may work out the same value at once.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._held: OrderedDict[Hashable, tuple[Hashable, T]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, stamp: Hashable, make: Callable[[], T]) -> T:
        """The value of ``key``; made where it is not held, or was made of something else.

        What ``make`` raises is raised, and nothing is held then.
        """
        with self._lock:
            if key in self._held and self._held[key][0] == stamp:
                self._held.move_to_end(key)
                return self._held[key][1]
        made = make()
        with self._lock:
            self._held[key] = stamp, made
            self._held.move_to_end(key)
            while len(self._held) > self._size:
                self._held.popitem(last=False)
        return made
