"""Tables of magnitudes lead to the exact k-th largest, whatever k."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from morphing.merging.rows import ties_ranks
from morphing.merging.rows.ties_ranks import rank

SIZE = 700
RANDOM = np.random.default_rng(0)
ARRAYS = {
    "distinct": RANDOM.permutation(SIZE),
    "many ties": RANDOM.integers(0, 7, SIZE),
    "some ties": RANDOM.integers(0, SIZE // 2, SIZE),
    "mostly zero": RANDOM.integers(0, 50, SIZE) * (RANDOM.random(SIZE) < 0.1),
    "all equal": np.full(SIZE, 3),
    "all zero": np.zeros(SIZE),
    "subnormal": RANDOM.integers(0, 90, SIZE) * 1e-44,
    "one": np.array([2.5]),
}


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("entries", [None, 1, 5, 64])
def test_the_bracket_holds_the_kth_largest_for_every_k(
    name: str, entries: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the table as it is, and with tables of too few entries to list every magnitude."""
    if entries is not None:
        monkeypatch.setattr(ties_ranks, "_FEWEST", entries)
        monkeypatch.setattr(ties_ranks, "_SHARE", 1 << 30)
    array = ARRAYS[name].astype(np.float32)
    table = rank(torch.as_tensor(array.copy()))
    assert table.exact == (entries is None or len(np.unique(array)) <= entries)
    assert len(table.values) <= (entries or 1024) + 1
    ordered = np.sort(array)[::-1]
    for k in range(1, len(array) + 1):
        bracket = table.bracket(k)
        low, high = np.float32(bracket.low), np.float32(bracket.high)
        assert low <= ordered[k - 1] < high
        assert bracket.exact == table.exact
        inside = ordered[(ordered >= low) & (ordered < high)]
        assert bracket.inside == len(inside)
        assert inside[bracket.needed - 1] == ordered[k - 1]
        assert bracket.needed == k - int((ordered >= high).sum())
        if bracket.exact:
            assert low == ordered[k - 1]


def test_a_table_of_a_large_tensor_is_small() -> None:
    magnitudes = torch.rand(1 << 18, generator=torch.Generator().manual_seed(1))
    table = rank(magnitudes.clone())
    assert not table.exact
    assert table.values.nbytes + table.counts.nbytes <= 12 * (magnitudes.numel() // 64 + 1)
    widest = max(table.bracket(k).inside for k in range(1, magnitudes.numel(), 997))
    assert widest <= 2 * 64


def test_an_unsorted_view_is_ranked_by_value() -> None:
    """The rank is of a tensor's own entries, not of the padding after them."""
    rows = torch.zeros(2, 8)
    rows.view(-1)[:5] = torch.tensor([3.0, 1.0, 2.0, 5.0, 4.0])
    table = rank(rows.view(-1)[:5])
    assert [table.bracket(k).low for k in range(1, 6)] == [5, 4, 3, 2, 1]
    assert rows.view(-1)[5:].eq(0).all()
