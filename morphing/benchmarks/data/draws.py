"""Which rows are drawn: by hashes, so that any version of any library draws the same."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from hashlib import sha256

from morphing.benchmarks.data.rows import JoinedRows, Rows


def halves(rows: int) -> tuple[list[int], list[int]]:
    """The indices of the rows for the search and of those for the holdout, of a single split."""
    mixed = drawn(range(rows), "partition", rows)
    return mixed[: rows // 2], mixed[rows // 2 :]


def drawn(indices: Iterable[int], key: str, count: int) -> list[int]:
    # By hash, so that the order is the same in any version of any library.
    def place(index: int) -> bytes:
        return sha256(f"{key}/{index}".encode()).digest()

    return heapq.nsmallest(count, indices, place)


def row_id(rows: Rows, split: str, index: int) -> str:
    return f"{split}/{rows.name(index) if isinstance(rows, JoinedRows) else index}"
