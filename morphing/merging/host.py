"""A loaded model whose parameters lie in rows, so that merging writes straight into it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from morphing.merging.rows.kernels import ROW
from morphing.merging.stores import Place, as_tensor, row_count
from morphing.sources.conversion import Link

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Host:
    """Takes over the parameters of a model.

    What transformers stacked as the model was loaded, such as experts, stays where the model has
    it: merged tensors are copied into their parts of it.

    Args:
        model: on any device; its parameters move to ``device``.
        links: where the model holds its checkpoint's tensors, in the order they are merged in.
        shapes: of these tensors.
        device: where the model is to run.
        tokenizer: that goes with it.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        links: Mapping[str, Sequence[Link]],
        shapes: Mapping[str, torch.Size],
        device: torch.device,
        tokenizer: Any,
    ) -> None:
        state = model.state_dict(keep_vars=True)
        self.tokenizer = tokenizer
        self.links = links
        self.shapes = {name: shapes[name] for name in links}
        self.model = model
        self._places: dict[str, Place] = {}
        self._buffers: dict[torch.dtype, Tensor] = {}
        used: dict[torch.dtype, int] = {}
        for name, each in links.items():
            dtype = state[each[0].parameter].dtype
            if not dtype.is_floating_point or any(one.part is not None for one in each):
                continue
            count = row_count(shapes[name])
            self._places[name] = Place((id(self), dtype), used.get(dtype, 0), count)
            used[dtype] = used.get(dtype, 0) + count
        for dtype, rows in used.items():
            self._buffers[dtype] = torch.zeros((rows, ROW), dtype=dtype, device=device)
        self._tensors: dict[str, Tensor] = {}
        with torch.no_grad():
            for name, place in self._places.items():
                self._tensors[name] = as_tensor(self._rows(place), shapes[name])
                for one in links[name]:
                    own = self._tensors[name]
                    own = own if one.source is None else one.source.of(own)
                    own.copy_(state[one.parameter])
                    state[one.parameter].data = own
        model.to(device)  # what is left: buffers, and parameters of several tensors
        state = model.state_dict()
        for name in links.keys() - self._places.keys():
            (one,) = links[name]
            held = state[one.parameter]
            self._tensors[name] = held if one.part is None else one.part.of(held)

    def place(self, names: Sequence[str], dtype: torch.dtype) -> Tensor | None:
        """The rows of these tensors, if they follow each other and have this dtype."""
        first = self._places.get(names[0])
        if first is None or first.buffer[1] != dtype:
            return None
        end = first.first
        for name in names:
            place = self._places.get(name)
            if place is None or place.buffer != first.buffer or place.first != end:
                return None
            end += place.count
        return self._buffers[dtype][first.first : end]

    def write(self, name: str, tensor: Tensor) -> None:
        """Set one tensor."""
        with torch.no_grad():
            self._tensors[name].copy_(tensor)

    def read(self, name: str) -> Tensor:
        """One tensor, the model's own."""
        return self._tensors[name]

    def release(self) -> None:
        """Give up the memory; the model is of no more use."""
        for parameter in self.model.parameters():
            parameter.data = torch.empty(0)
        self._buffers.clear()
        self._tensors.clear()

    def _rows(self, place: Place) -> Tensor:
        return self._buffers[place.buffer[1]][place.first : place.first + place.count]
