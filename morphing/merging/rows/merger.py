"""Segments merged by our own kernels: parameters brought into columns, and the passes needed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from morphing.merging.finite import check_merged
from morphing.merging.rows import dare_masks, kernels, ties_cuts
from morphing.merging.rows.facts import Facts
from morphing.merging.rows.kernels import ROW
from morphing.merging.rows.runner import Rows, Runner
from morphing.merging.rows.segments import Segment
from morphing.merging.rows.weights import arc_weights, sum_weights
from morphing.merging.rows.weights import factor as factor_of
from morphing.merging.stores import Store, stack_rows
from morphing.merging.workers import Workers

_WEIGHTED = ("linear", "task_arithmetic", "slerp", "passthrough")
_DROPPED = ("dare_linear", "dare_ties")
KERNELS = (*_WEIGHTED, "ties", *_DROPPED)
"""The methods that can be merged here."""

Place = Callable[[Segment], Tensor | None]
"""Where a segment's rows are to be written; None for a new buffer."""


@dataclass(frozen=True)
class Job:
    """What one merge is about."""

    stores: Mapping[str, Store]
    seed: int
    place: Place
    origin: Store | None


class RowMerger:
    """Merges segments of the methods in `KERNELS`, and measures distances."""

    def __init__(self, runner: Runner, workers: Workers, device: torch.device) -> None:
        self._runner = runner
        self._workers = workers
        self._facts = Facts(runner, workers, device)
        self._device = device

    def merge(self, segment: Segment, job: Job, out: Tensor) -> Tensor:
        """Write a segment's rows to ``out``; its `distances` come with it, mostly for nothing.

        Raises:
            MorphingError: a merged value is not finite in the output's dtype.
        """
        if segment.method in _WEIGHTED:
            merge = self._weighted
        else:
            merge = self._dropped if segment.method in _DROPPED else self._trimmed
        distances = merge(segment, job, out)
        # Each is a sum over all values of a row, so that a finite one proves them finite.
        if not math.isfinite(distances.sum()):
            _check_values(segment, out)
        if segment.method in _WEIGHTED:
            return distances
        if segment.base == _origin_place(segment, job):
            return distances
        return self.distances(segment, out, job)

    def distances(self, segment: Segment, rows: Tensor, job: Job) -> Tensor:
        """float32 (rows,): the L1 distance of merged rows to the origin; empty without one."""
        if job.origin is None:
            return torch.zeros(0)
        other = self._origin_rows(segment, job.origin)
        return self._runner.run(kernels.distance, rows, other)[0]

    def _origin_rows(self, segment: Segment, origin: Store) -> Tensor:
        names = [tensor.name for tensor in segment.tensors]
        known = [origin.shapes.get(n) == s for n, s in zip(names, segment.shapes, strict=True)]
        if all(known):
            return origin.rows(names)
        return stack_rows(
            [
                origin.tensor(name) if same else torch.zeros(shape, device=self._device)
                for name, shape, same in zip(names, segment.shapes, known, strict=True)
            ]
        )

    def _weighted(self, segment: Segment, job: Job, out: Tensor) -> Tensor:
        inputs = self._inputs(segment, job)
        if segment.method == "slerp":
            base, other = segment.base or 0, segment.others[0]
            pair = inputs[base], inputs[other]
            products = self._facts.products(segment, (base, other), pair)
            shares = arc_weights(segment, products)
        else:
            shares = sum_weights(segment)
        weights = [self._column(segment, share) for share in shares]
        own = _origin_place(segment, job)
        if job.origin is None or own is not None:
            origin = inputs[own or 0]  # the same tensor, which the kernel then reads once
        else:
            origin = self._origin_rows(segment, job.origin)
        return self._runner.run(kernels.weighted_sum, inputs, weights, origin, out)[0]

    def _trimmed(self, segment: Segment, job: Job, out: Tensor) -> Tensor:
        base, sources = self._task_inputs(segment, job)
        densities = [segment.own("density", i) for i in segment.others]
        ranks = [
            self._facts.ranks(segment, i, base, rows, wanted)
            for i, rows, wanted in zip(segment.others, sources, densities, strict=True)
        ]
        cuts = ties_cuts.find_cuts(
            self._runner, self._workers, segment, base, sources, densities, ranks
        )
        scales = self._trimmed_scales(segment, base, sources, cuts)
        shares = self._shares(segment, scales)
        normalize = bool(segment.shared["normalize"])
        values = [segment.column(cut.values, self._device, torch.float32) for cut in cuts]
        thresholds = [self._rows_column(cut.row_thresholds(segment)) for cut in cuts]
        distances, *counts = self._runner.run(
            kernels.trimmed,
            base,
            sources,
            *shares,
            thresholds,
            values,
            out,
            normalize=normalize,
        )
        wrong = ties_cuts.settle(segment, base, sources, cuts, counts)
        if len(wrong):
            index = torch.as_tensor(wrong).to(self._device)
            columns = [self._rows_column(cut.columns_at(segment, wrong)) for cut in cuts]
            again = torch.empty((len(wrong), ROW), dtype=out.dtype, device=self._device)
            gathered = [_take(part, index) for part in (base, sources, *shares, values)]
            distances[index] = self._runner.run(
                kernels.trimmed_by_column, *gathered, columns, again, normalize=normalize
            )[0]
            out[index] = again
        return distances

    def _trimmed_scales(
        self,
        segment: Segment,
        base: Tensor,
        sources: Sequence[Tensor],
        cuts: Sequence[ties_cuts.Cut],
    ) -> list[NDArray[np.float64]]:
        """What restores each task vector's L1 norm after trimming, if the recipe asks for it."""
        if not segment.shared["rescale"]:
            return [np.ones(len(segment.tensors)) for _ in sources]
        known = self._norms(segment, base, sources)
        values = [segment.column(cut.values, self._device, torch.float32) for cut in cuts]
        sums = self._runner.run(
            kernels.norms_above, base, list(sources), [scale for scale, _ in known], values
        )
        scales = []
        for (scale, before), after, cut in zip(known, sums, cuts, strict=True):
            # Infinity, where none is kept, must not meet a zero.
            equal = cut.equal * np.where(cut.equal > 0, cut.values, 0).astype(np.float64)
            kept = dare_masks.tensor_norms(segment, after, scale) + equal
            scales.append(dare_masks.ratios(before, kept))
        return scales

    def _dropped(self, segment: Segment, job: Job, out: Tensor) -> Tensor:
        base, sources = self._task_inputs(segment, job)
        densities = [segment.own("density", i) for i in segment.others]
        own = [self._facts.own_hashing(segment, i, job.seed) for i in segment.others]
        kept = [
            self._facts.hashing(segment, job.seed),
            [factor for factor, _ in own],
            [offset for _, offset in own],
            [dare_masks.limit_column(segment, some, self._device) for some in densities],
        ]
        scales = self._dropped_scales(segment, base, sources, kept)
        # A density of 0 has no limit that nothing hashes to: its weight is 0 instead.
        scales = [s * (np.array(d) > 0) for s, d in zip(scales, densities, strict=True)]
        return self._runner.run(
            kernels.dropped,
            base,
            sources,
            *self._shares(segment, scales),
            *kept,
            out,
            consensus=segment.method == "dare_ties",
            normalize=bool(segment.shared["normalize"]) and segment.method == "dare_ties",
        )[0]

    def _inputs(self, segment: Segment, job: Job) -> list[Tensor]:
        """The rows of every input; those that must be made are made side by side."""
        places = range(len(segment.tensors[0].inputs))
        return list(self._workers.map(lambda place: segment.rows(job.stores, place), places))

    def _task_inputs(self, segment: Segment, job: Job) -> tuple[Tensor, list[Tensor]]:
        """The rows of the base, and of the others."""
        assert segment.base is not None
        inputs = self._inputs(segment, job)
        return inputs[segment.base], [inputs[place] for place in segment.others]

    def _shares(
        self, segment: Segment, scales: Sequence[NDArray[np.float64]]
    ) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """Weights with rescaling, the recipe's own weights, and the factor of their sum."""
        own = [np.array(segment.own("weight", i)) for i in segment.others]
        consensus = segment.method in ("ties", "dare_ties")
        factor = np.array(segment.all_shared("lambda"))
        if not consensus:
            factor = factor_of(segment, np.sum(own, axis=0))
        scaled = [self._column(segment, o * s) for o, s in zip(own, scales, strict=True)]
        shares = [self._column(segment, o) for o in own]
        return scaled, shares, self._column(segment, factor)

    def _dropped_scales(
        self,
        segment: Segment,
        base: Tensor,
        sources: Sequence[Tensor],
        kept: Sequence[Sequence[Tensor]],
    ) -> list[NDArray[np.float64]]:
        """What restores each task vector's L1 norm after dropping, as mergekit does."""
        if not segment.shared["rescale"]:
            return [np.ones(len(segment.tensors)) for _ in sources]
        known = self._norms(segment, base, sources)
        sums = self._runner.run(
            kernels.dropped_norms, base, list(sources), [scale for scale, _ in known], *kept
        )
        return [
            dare_masks.ratios(before, dare_masks.tensor_norms(segment, after, scale))
            for (scale, before), after in zip(known, sums, strict=True)
        ]

    def _norms(
        self, segment: Segment, base: Tensor, sources: Sequence[Tensor]
    ) -> list[tuple[Tensor, NDArray[np.float64]]]:
        pairs = zip(segment.others, sources, strict=True)
        return [self._facts.norms(segment, place, base, source) for place, source in pairs]

    def _rows_column(self, values: NDArray[Any]) -> Tensor:
        """A value a row: (rows, 1)."""
        return torch.as_tensor(values).to(self._device).unsqueeze(1)

    def _column(self, segment: Segment, values: NDArray[np.float64]) -> Tensor:
        return segment.column(values, self._device, torch.float32)


def _check_values(segment: Segment, rows: Tensor) -> None:
    for tensor, start, count in zip(segment.tensors, segment.starts, segment.counts, strict=True):
        check_merged(tensor.name, rows[start : start + count])


def _take(rows: Rows, index: Tensor) -> Rows:
    return rows[index] if isinstance(rows, Tensor) else [part[index] for part in rows]


def _origin_place(segment: Segment, job: Job) -> int | None:
    """Which input is the origin, tensor by tensor."""
    names = [tensor.name for tensor in segment.tensors]
    for place, item in enumerate(segment.tensors[0].inputs):
        if job.stores[item.model] is job.origin and segment.names(place) == names:
            return place
    return None
