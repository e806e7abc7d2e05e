"""Where the models' tensors are kept while they are merged: resident in rows, or on disk.

All give the same numbers. What differs is memory and the time to fetch them: on the device, in host
memory (pinned for a GPU), or in the checkpoint's own files.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from morphing.merging.rows.kernels import ROW
from morphing.sources.adapter import Adapter
from morphing.sources.weights import Weights


@dataclass(frozen=True)
class Place:
    """Rows of a resident buffer."""

    buffer: tuple[int, torch.dtype]
    first: int
    count: int


class Store(Protocol):
    """One model's tensors by checkpoint name."""

    @property
    def shapes(self) -> Mapping[str, torch.Size]: ...

    def dtype(self, name: str) -> torch.dtype:
        """The dtype in which the tensor is given."""

    def tensor(self, name: str) -> Tensor:
        """One tensor on the device; not the caller's to change."""

    def rows(self, names: Sequence[str]) -> Tensor:
        """Floating-point tensors one after the other, each from a row of its own: (rows, `ROW`).

        Of one dtype, float32 where theirs differ; the rest of a tensor's last row is zero.
        """

    def place(self, name: str) -> Place | None:
        """Where the tensor is resident on the device, if it is."""


class Disk:
    """Tensors in the checkpoint's own files, mapped one at a time."""

    def __init__(self, weights: Weights, device: torch.device) -> None:
        self._weights = weights
        self._device = device
        self.shapes: Mapping[str, torch.Size] = {
            name: torch.Size(info.shape) for name, info in weights.info.items()
        }

    def dtype(self, name: str) -> torch.dtype:
        return self._weights.dtype(name)

    def tensor(self, name: str) -> Tensor:
        return self._weights.read(name).to(self._device)

    def rows(self, names: Sequence[str]) -> Tensor:
        tensors = [self._weights.read(name) for name in names]
        return stack_rows(tensors).to(self._device)

    def place(self, name: str) -> Place | None:
        return None


class Resident:
    """Tensors in memory, laid out in rows, so that many of them are one stretch.

    Args:
        weights: what to load.
        device: where merging goes on.
        order: names in the order they are merged in; what is not named comes last.
        host: keep them in host memory (pinned for a GPU) and bring them over when asked.
    """

    def __init__(
        self,
        weights: Weights,
        device: torch.device,
        order: Iterable[str] = (),
        host: bool = False,
    ) -> None:
        names = dict.fromkeys(name for name in (*order, *weights.info) if name in weights.info)
        self.shapes: Mapping[str, torch.Size] = {
            name: torch.Size(weights.info[name].shape) for name in names
        }
        self._device = device
        self._kept = torch.device("cpu") if host else device
        self._dtypes = {name: weights.dtype(name) for name in self.shapes}
        self._others: dict[str, Tensor] = {}
        self._places: dict[str, Place] = {}
        used: dict[torch.dtype, int] = {}
        for name, dtype in self._dtypes.items():
            if not dtype.is_floating_point:
                self._others[name] = weights.read(name).to(self._kept, copy=True)
                continue
            count = row_count(self.shapes[name])
            self._places[name] = Place((id(self), dtype), used.get(dtype, 0), count)
            used[dtype] = used.get(dtype, 0) + count
        pin = host and device.type == "cuda"
        self._buffers = {
            dtype: torch.empty((rows, ROW), dtype=dtype, device=self._kept, pin_memory=pin)
            for dtype, rows in used.items()
        }
        for name in self._places:
            fill_rows(self._own(name), weights.read(name))

    @property
    def bytes(self) -> int:
        """What it holds."""
        held = [*self._buffers.values(), *self._others.values()]
        return sum(tensor.numel() * tensor.itemsize for tensor in held)

    def dtype(self, name: str) -> torch.dtype:
        return self._dtypes[name]

    def tensor(self, name: str) -> Tensor:
        if name in self._others:
            return self._others[name].to(self._device)
        return as_tensor(self._own(name), self.shapes[name]).to(self._device)

    def rows(self, names: Sequence[str]) -> Tensor:
        first = self._places[names[0]]
        end = first.first
        for name in names:
            place = self._places[name]
            if place.buffer != first.buffer or place.first != end:
                return self._gathered(names)
            end += place.count
        return self._buffers[self._dtypes[names[0]]][first.first : end].to(
            self._device, non_blocking=True
        )

    def place(self, name: str) -> Place | None:
        return self._places.get(name) if self._kept == self._device else None

    def _own(self, name: str) -> Tensor:
        place = self._places[name]
        return self._buffers[self._dtypes[name]][place.first : place.first + place.count]

    def _gathered(self, names: Sequence[str]) -> Tensor:
        parts = [self._own(name) for name in names]
        if len({part.dtype for part in parts}) > 1:
            parts = [part.float() for part in parts]
        return torch.cat(parts).to(self._device, non_blocking=True)


class Adapted:
    """A base with an adapter's low-rank factors; adapted tensors are made when asked for.

    They are float32, never rounded to the base's dtype. What the adapter leaves alone is the
    base's own.
    """

    def __init__(self, base: Store, adapter: Adapter) -> None:
        self._base = base
        self._adapter = adapter
        replaced = {name: tensor.shape for name, tensor in adapter.replaced.items()}
        self.shapes: Mapping[str, torch.Size] = {**base.shapes, **replaced}

    def dtype(self, name: str) -> torch.dtype:
        if name in self._adapter.updates:
            return torch.float32
        replaced = self._adapter.replaced.get(name)
        return self._base.dtype(name) if replaced is None else replaced.dtype

    def tensor(self, name: str) -> Tensor:
        if name in self._adapter.replaced:
            return self._adapter.replaced[name]
        tensor = self._base.tensor(name)
        update = self._adapter.updates.get(name)
        return tensor if update is None else update.apply(tensor)

    def rows(self, names: Sequence[str]) -> Tensor:
        if all(self._is_base(name) for name in names):
            return self._base.rows(names)
        return stack_rows([self.tensor(name) for name in names])

    def place(self, name: str) -> Place | None:
        return self._base.place(name) if self._is_base(name) else None

    def _is_base(self, name: str) -> bool:
        return name not in self._adapter.updates and name not in self._adapter.replaced


def row_count(shape: Sequence[int]) -> int:
    """Rows that a tensor of this shape takes; an empty one takes one."""
    return max(1, -(-math.prod(shape) // ROW))


def stack_rows(tensors: Sequence[Tensor]) -> Tensor:
    """Tensors as the rows of a new buffer on their device."""
    dtypes = {tensor.dtype for tensor in tensors}
    dtype = dtypes.pop() if len(dtypes) == 1 else torch.float32
    counts = [row_count(tensor.shape) for tensor in tensors]
    rows = torch.empty((sum(counts), ROW), dtype=dtype, device=tensors[0].device)
    for part, tensor in zip(rows.split(counts), tensors, strict=True):
        fill_rows(part, tensor)
    return rows


def fill_rows(rows: Tensor, tensor: Tensor) -> None:
    """Write a tensor over rows, zero after its end."""
    flat, count = rows.view(-1), tensor.numel()
    flat[:count].copy_(tensor.reshape(-1))
    flat[count:].zero_()


def as_tensor(rows: Tensor, shape: Sequence[int]) -> Tensor:
    """The tensor of this shape that rows hold, a view."""
    return rows.view(-1)[: math.prod(shape)].view(shape)
