"""A loaded model whose parameters lie in rows, so that merging writes straight into it."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from morphing.merging.rows.kernels import ROW
from morphing.merging.stores import Place, as_tensor, row_count

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Host:
    """Takes over the parameters of a model.

    Args:
        model: on any device; its parameters move to ``device``.
        names: of its tensors, in the order they are merged in.
        device: where it is to run.

        tokenizer: that goes with it.
    """

    def __init__(
        self,
        model: "PreTrainedModel",
        names: Mapping[str, torch.Size],
        device: torch.device,
        tokenizer: Any,
    ) -> None:
        state = model.state_dict(keep_vars=True)
        self.tokenizer = tokenizer
        self.shapes = dict(names)
        self.model = model
        self._tensors: dict[str, Tensor] = {}
        self._places: dict[str, Place] = {}
        self._buffers: dict[torch.dtype, Tensor] = {}
        floating = {n: state[n] for n in names if state[n].is_floating_point()}
        used: dict[torch.dtype, int] = {}
        for name, tensor in floating.items():
            count = row_count(tensor.shape)
            self._places[name] = Place((id(self), tensor.dtype), used.get(tensor.dtype, 0), count)
            used[tensor.dtype] = used.get(tensor.dtype, 0) + count
        for dtype, rows in used.items():
            self._buffers[dtype] = torch.zeros((rows, ROW), dtype=dtype, device=device)
        with torch.no_grad():
            for name, tensor in floating.items():
                own = as_tensor(self._rows(self._places[name]), tensor.shape)
                own.copy_(tensor)
                tensor.data = own
        model.to(device)  # what is left: buffers; parameters are there already
        self._tensors = {name: model.state_dict()[name] for name in names}

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


def has_tensors(model: "PreTrainedModel", shapes: Mapping[str, torch.Size]) -> bool:
    """Whether these are a model's own tensors, all of them."""
    state = model.state_dict()
    if any(name not in state or state[name].shape != shapes[name] for name in shapes):
        return False
    covered = {state[name].data_ptr() for name in shapes}
    return all(tensor.data_ptr() in covered for tensor in state.values())
