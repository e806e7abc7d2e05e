"""Where TIES cuts each task vector: exactly k entries kept, of equal magnitudes the first by index.

https://arxiv.org/abs/2306.01708, section 4.1. The magnitude at the cut is known from the ranks.
Where equal ones are kept in part, the place of the last is known once they are counted row by row.
Counting first would read all weights twice. So the place is guessed, as if equal ones were spread
evenly; they are counted while the guess is merged; and the few rows that were wrong are merged
again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from morphing.merging.rows import kernels
from morphing.merging.rows.kernels import ROW
from morphing.merging.rows.runner import Runner
from morphing.merging.rows.segments import Segment
from morphing.merging.rows.ties_ranks import Bracket, Ranks
from morphing.merging.workers import Workers

_INFINITY = np.float32(np.inf)


@dataclass
class Cut:
    """One source's cut of every tensor of a segment."""

    values: NDArray[np.float32]
    """Greater magnitudes are kept; zero keeps all, infinity none."""
    equal: NDArray[np.int64]
    """How many magnitudes equal to the value are kept."""
    last_rows: NDArray[np.int64]
    """The row of the segment that has the last of them; the tensor's end where all are kept."""
    last_columns: NDArray[np.int64]
    guessed: NDArray[np.bool_]
    """Whether the last row is a guess."""

    def row_thresholds(self, segment: Segment) -> NDArray[np.float32]:
        """What magnitudes of each row must reach, the last row keeping all equal ones."""
        values = np.repeat(self.values, segment.counts)
        rows = np.arange(len(values))
        beyond = rows > np.repeat(self.last_rows, segment.counts)
        return np.where(beyond, np.nextafter(values, _INFINITY), values)

    def columns_at(self, segment: Segment, rows: NDArray[np.int64]) -> NDArray[np.int32]:
        """The last column of some rows up to which equal magnitudes are kept."""
        tensors = np.searchsorted(segment.starts, rows, side="right") - 1
        last = self.last_rows[tensors]
        columns = np.where(rows == last, self.last_columns[tensors], -1)
        return np.where(rows < last, ROW - 1, columns).astype(np.int32)


def find_cuts(
    runner: Runner,
    workers: Workers,
    segment: Segment,
    base: Tensor,
    sources: Sequence[Tensor],
    densities: Sequence[Sequence[float]],
    ranks: Sequence[Sequence[Ranks | None]],
) -> list[Cut]:
    """Every source's cuts; ``densities`` and ``ranks`` by source, then by tensor.

    As in mergekit the number kept is ``int(density * n)`` and at least one; none at a density of 0.
    Ranks are needed only for densities between 0 and 1.
    """
    found = [_known(segment, *given) for given in zip(densities, ranks, strict=True)]
    if any(brackets for _, brackets in found):
        low, high = [], []
        for cut, brackets in found:
            lows, highs = cut.values.copy(), cut.values.copy()  # nothing is between equal ones
            for tensor, bracket in brackets.items():
                lows[tensor], highs[tensor] = bracket.low, bracket.high
            low.append(segment.column(lows, base.device, torch.float32))
            high.append(segment.column(highs, base.device, torch.float32))
        counts = runner.run(kernels.count_between, base, list(sources), low, high)
        for (cut, brackets), source, counted in zip(found, sources, counts, strict=True):
            search = partial(_search, segment, base, source, cut, counted.cpu().numpy())
            for _ in workers.map(search, brackets.items()):
                pass
    return [cut for cut, _ in found]


def settle(
    segment: Segment,
    base: Tensor,
    sources: Sequence[Tensor],
    cuts: Sequence[Cut],
    counts: Sequence[Tensor],
) -> NDArray[np.int64]:
    """Put the guesses right.

    Args:
        segment: what was merged with `Cut.row_thresholds`.
        base: its rows.
        sources: its rows.
        cuts: changed to the true ones.
        counts: of each source, how many magnitudes of each row equal the value: (rows,).

    Returns:
        The rows that must be merged again, in order.
    """
    wrong = []
    for cut, source, counted in zip(cuts, sources, counts, strict=True):
        guess = cut.last_rows.copy()
        tensors = np.flatnonzero(cut.guessed)
        if len(tensors):
            _place_last(segment, base, source, cut, tensors, counted.cpu().numpy())
        parts = np.flatnonzero(cut.last_rows < segment.starts + segment.counts)
        first = np.minimum(cut.last_rows, guess + 1)[parts]
        end = np.maximum(cut.last_rows, guess)[parts] + 1
        wrong += [np.arange(*pair) for pair in zip(first, end, strict=True)]
    return np.unique(np.concatenate(wrong)) if wrong else np.empty(0, np.int64)


def _known(
    segment: Segment, densities: Sequence[float], ranks: Sequence[Ranks | None]
) -> tuple[Cut, dict[int, Bracket]]:
    """Cuts known or guessed from the ranks, and the brackets of tensors that need a search."""
    size = len(segment.tensors)
    cut = Cut(
        values=np.zeros(size, np.float32),
        equal=np.zeros(size, np.int64),
        last_rows=segment.starts + segment.counts,
        last_columns=np.full(size, ROW - 1),
        guessed=np.zeros(size, bool),
    )
    searches: dict[int, Bracket] = {}
    for tensor, (density, numel) in enumerate(zip(densities, segment.numels, strict=True)):
        if density <= 0:
            cut.values[tensor] = _INFINITY
        elif density < 1 and numel:
            table = ranks[tensor]
            assert table is not None
            bracket = table.bracket(max(1, int(density * numel)))
            if not bracket.exact:
                searches[tensor] = bracket
                continue
            cut.values[tensor], cut.equal[tensor] = bracket.low, bracket.needed
            # Entries of magnitude zero add nothing, kept or not.
            if bracket.low > 0 and bracket.needed < bracket.inside:
                share = bracket.needed / bracket.inside
                cut.last_rows[tensor] = segment.starts[tensor] + int(share * segment.counts[tensor])
                cut.guessed[tensor] = True
    return cut, searches


def _place_last(
    segment: Segment,
    base: Tensor,
    source: Tensor,
    cut: Cut,
    tensors: NDArray[np.int64],
    counts: NDArray[np.float32],
) -> None:
    """Find row and column of the last equal magnitude that is kept."""
    total = np.cumsum(counts.astype(np.int64))
    before = np.append(0, total[:-1])
    wanted = before[segment.starts[tensors]] + cut.equal[tensors]
    rows = np.searchsorted(total, wanted)
    magnitudes = _magnitudes(base, source, rows)
    equal = magnitudes == torch.as_tensor(cut.values[tensors]).to(base.device).unsqueeze(1)
    places = np.flatnonzero(equal.cpu().numpy())  # of all of them, row after row
    found = counts[rows].astype(np.int64)
    last = np.cumsum(found) - found + wanted - before[rows] - 1
    cut.last_rows[tensors], cut.last_columns[tensors] = rows, places[last] % ROW


def _search(
    segment: Segment,
    base: Tensor,
    source: Tensor,
    cut: Cut,
    counts: NDArray[np.float32],
    task: tuple[int, Bracket],
) -> None:
    """Find the cut between two entries of a table that does not list every magnitude.

    ``counts`` has the number in the bracket for every row.
    """
    tensor, bracket = task
    start, end = segment.starts[tensor], segment.starts[tensor] + segment.counts[tensor]
    rows = start + np.flatnonzero(counts[start:end])
    magnitudes = _magnitudes(base, source, rows)
    inside = ((magnitudes >= bracket.low) & (magnitudes < bracket.high)).nonzero().cpu().numpy()
    values = magnitudes.cpu().numpy()[inside[:, 0], inside[:, 1]]
    value = np.partition(values, -bracket.needed)[-bracket.needed]
    equal = inside[values == value]
    needed = bracket.needed - int((values > value).sum())
    cut.values[tensor], cut.equal[tensor] = value, needed
    if value > 0 and needed < len(equal):
        row, column = equal[needed - 1]
        cut.last_rows[tensor], cut.last_columns[tensor] = rows[row], column


def _magnitudes(base: Tensor, source: Tensor, rows: NDArray[Any]) -> Tensor:
    index = torch.as_tensor(rows).to(base.device)
    return (source[index].float() - base[index].float()).abs()
