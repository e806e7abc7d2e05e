"""What a merge needs to know of the models alone: worked out when first needed, and kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from morphing.merging.planning.plan import Input
from morphing.merging.rows import dare_masks, kernels
from morphing.merging.rows.runner import Runner
from morphing.merging.rows.segments import Segment
from morphing.merging.rows.ties_ranks import Ranks, rank
from morphing.merging.workers import Workers

_BLOCK = 256
"""Rows: 4 MB of float32."""


class Facts:
    """Facts of task vectors, by the models and tensors they are of."""

    def __init__(self, runner: Runner, workers: Workers, device: torch.device) -> None:
        self._runner = runner
        self._eager = Runner(device, workers, compiled=False, elements=0)
        self._workers = workers
        self._device = device
        self._ranks: dict[tuple[Input, Input], Ranks] = {}
        self._norms: dict[tuple[Any, ...], tuple[Tensor, NDArray[np.float64]]] = {}
        self._products: dict[tuple[Any, ...], NDArray[np.float64]] = {}
        self._hashes: dict[tuple[Any, ...], list[Tensor]] = {}

    def ranks(
        self,
        segment: Segment,
        place: int,
        base: Tensor,
        source: Tensor,
        densities: Sequence[float],
    ) -> list[Ranks | None]:
        """The order of one source's magnitudes, tensor by tensor, where a density needs it."""
        assert segment.base is not None
        keys = [(tensor.inputs[segment.base], tensor.inputs[place]) for tensor in segment.tensors]
        numels = segment.numels

        def make(tensor: int) -> None:
            start = segment.starts[tensor]
            stop = start + segment.counts[tensor]
            magnitudes = _magnitudes(base[start:stop], source[start:stop])
            self._ranks[keys[tensor]] = rank(magnitudes.view(-1)[: numels[tensor]])

        wanted = [i for i, density in enumerate(densities) if 0 < density < 1 and numels[i]]
        missing = [i for i in wanted if keys[i] not in self._ranks]
        for _ in self._workers.map(make, missing):
            pass
        return [self._ranks.get(key) for key in keys]

    def norms(
        self, segment: Segment, place: int, base: Tensor, source: Tensor
    ) -> tuple[Tensor, NDArray[np.float64]]:
        """One source's fixed-point scales by row, (rows, 1), and its L1 norms by tensor."""
        assert segment.base is not None
        key = (segment.key(segment.base), segment.key(place))
        if key not in self._norms:
            peaks = self._runner.run(kernels.row_peaks, base, [source])[0]
            scales = dare_masks.scale_column(peaks)
            sums = self._runner.run(kernels.norms, base, [source], [scales])[0]
            self._norms[key] = scales, dare_masks.tensor_norms(segment, sums, scales)
        return self._norms[key]

    def products(
        self, segment: Segment, places: tuple[int, int], pair: tuple[Tensor, Tensor]
    ) -> NDArray[np.float64]:
        """Sums of squares of two inputs and of their products: (3, tensors)."""
        key = tuple(segment.key(place) for place in places)
        if key not in self._products:
            # Never compiled: float sums differ in their last bits, and weights are made of these.
            rows = self._eager.run(kernels.products, *pair)
            sums = [np.add.reduceat(r.cpu().numpy().astype(float), segment.starts) for r in rows]
            self._products[key] = np.array(sums)
        return self._products[key]

    def hashing(self, segment: Segment, seed: int) -> list[Tensor]:
        """Factor and offset in every row of the hash that sources share, int32 (rows, 1) each."""
        names = tuple(tensor.name for tensor in segment.tensors)
        return self._hash(
            (seed, names, segment.shapes),
            lambda: dare_masks.shared_hash_columns(segment, seed, self._device),
        )

    def own_hashing(self, segment: Segment, place: int, seed: int) -> list[Tensor]:
        """Factor and offset in every row of one source's hash, int32 (rows, 1) each."""
        names = tuple((tensor.name, tensor.positions[place]) for tensor in segment.tensors)
        return self._hash(
            (seed, names, segment.shapes),
            lambda: dare_masks.own_hash_columns(segment, place, seed, self._device),
        )

    def _hash(
        self, key: tuple[Any, ...], make: Callable[[], tuple[Tensor, Tensor]]
    ) -> list[Tensor]:
        if key not in self._hashes:
            if self._hashes and next(iter(self._hashes))[0] != key[0]:
                self._hashes.clear()  # a search has one seed
            self._hashes[key] = list(make())
        return self._hashes[key]


def _magnitudes(base: Tensor, source: Tensor) -> Tensor:
    """|source - base| in float32; by blocks, so that there is one copy of a tensor, not three."""
    result = torch.empty(base.shape, dtype=torch.float32, device=base.device)
    blocks = zip(*(rows.split(_BLOCK) for rows in (base, source, result)), strict=True)
    for own, other, out in blocks:
        torch.sub(other.float(), own.float(), out=out).abs_()
    return result
