"""Stretches of a plan that one kernel call can merge."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from morphing.merging.planning.plan import PlannedTensor
from morphing.merging.stores import Store, row_count

STAGED_ROWS = 2048
"""Rows that are gathered for one call where they are not resident in one stretch: 8 M elements."""
_MOST_ROWS = 1 << 18
_DECIDING = ("normalize", "rescale")


@dataclass(frozen=True)
class Segment:
    """Consecutive tensors of the output, made alike from inputs alike."""

    tensors: tuple[PlannedTensor, ...]
    shapes: tuple[torch.Size, ...]
    dtype: torch.dtype
    """Of the output."""

    @property
    def method(self) -> str:
        return self.tensors[0].method

    @property
    def base(self) -> int | None:
        return self.tensors[0].base

    @property
    def shared(self) -> Mapping[str, Any]:
        """The first tensor's; the others' ``normalize`` and ``rescale`` are the same."""
        return self.tensors[0].shared

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """Rows of each tensor."""
        return np.array([row_count(shape) for shape in self.shapes])

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """The first row of each tensor."""
        return np.cumsum(self.counts) - self.counts

    @property
    def numels(self) -> list[int]:
        return [math.prod(shape) for shape in self.shapes]

    @property
    def others(self) -> list[int]:
        """The places of the inputs that are not the base."""
        return [i for i in range(len(self.tensors[0].inputs)) if i != self.base]

    def names(self, place: int) -> list[str]:
        """The tensors of one input, by their names in its checkpoint."""
        return [tensor.inputs[place].tensor for tensor in self.tensors]

    def rows(self, stores: Mapping[str, Store], place: int) -> Tensor:
        """The rows of one input."""
        return stores[self.tensors[0].inputs[place].model].rows(self.names(place))

    def key(self, place: int) -> tuple[Any, ...]:
        """What the rows of one input are, for caches."""
        return (self.tensors[0].inputs[place].model, *self.names(place))

    def own(self, parameter: str, place: int) -> list[float]:
        """One input's parameter, tensor by tensor."""
        return [float(tensor.own[place][parameter]) for tensor in self.tensors]

    def all_shared(self, parameter: str) -> list[float]:
        """A shared parameter, tensor by tensor."""
        return [float(tensor.shared[parameter]) for tensor in self.tensors]

    def column(
        self, values: Sequence[float] | NDArray[Any], device: torch.device, dtype: torch.dtype
    ) -> Tensor:
        """Each tensor's value in each of its rows: (rows, 1), float32 or int32."""
        kind = np.float32 if dtype == torch.float32 else np.int32
        repeated = np.repeat(np.asarray(values).astype(kind), self.counts)
        return torch.as_tensor(repeated).to(device).unsqueeze(1)


def divide(
    planned: Iterable[tuple[PlannedTensor, torch.Size, torch.dtype]],
    stores: Mapping[str, Store],
    alone: frozenset[str],
) -> Iterator[Segment]:
    """Divide what is to be merged, in its order.

    Args:
        planned: tensors with the shapes and dtypes of the output.
        stores: of the models they are made from.
        alone: methods that merge one tensor at a time; integers always are.
    """
    pending: list[tuple[PlannedTensor, torch.Size, torch.dtype]] = []
    rows, staged = 0, False
    for item in planned:
        tensor, shape, dtype = item
        count = row_count(shape)
        if pending:
            adjoining = not staged and _adjoin(pending[-1][0], tensor, stores)
            most = _MOST_ROWS if adjoining else STAGED_ROWS
            one = tensor.method in alone or not dtype.is_floating_point
            joins = not one and _alike(pending[-1], item, stores)
            if not joins or rows + count > most:
                yield _segment(pending)
                pending, rows, staged = [], 0, False
            else:
                staged = not adjoining
        pending.append(item)
        rows += count
    if pending:
        yield _segment(pending)


def _segment(items: Sequence[tuple[PlannedTensor, torch.Size, torch.dtype]]) -> Segment:
    tensors, shapes, dtypes = zip(*items, strict=True)
    return Segment(tensors, shapes, dtypes[0])


def _alike(
    one: tuple[PlannedTensor, torch.Size, torch.dtype],
    other: tuple[PlannedTensor, torch.Size, torch.dtype],
    stores: Mapping[str, Store],
) -> bool:
    return _signature(*one, stores) == _signature(*other, stores)


def _signature(
    tensor: PlannedTensor, shape: torch.Size, dtype: torch.dtype, stores: Mapping[str, Store]
) -> tuple[Any, ...]:
    inputs = [(i.model, stores[i.model].dtype(i.tensor)) for i in tensor.inputs]
    flags = [tensor.shared.get(name) for name in _DECIDING]
    return (tensor.method, tensor.base, tensor.positions, dtype, *inputs, *flags)


def _adjoin(one: PlannedTensor, other: PlannedTensor, stores: Mapping[str, Store]) -> bool:
    """Whether each input's rows are resident and go on where the tensor before ends."""
    for before, after in zip(one.inputs, other.inputs, strict=False):
        first = stores[before.model].place(before.tensor)
        second = stores[after.model].place(after.tensor)
        if first is None or second is None or first.buffer != second.buffer:
            return False
        if first.first + first.count != second.first:
            return False
    return True
