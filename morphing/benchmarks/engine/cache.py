"""Keys and values of many rows of tokens, to copy, extend, drop and replace row by row."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from transformers.cache_utils import (
    Cache,
    DynamicCache,
    DynamicLayer,
    DynamicSlidingWindowLayer,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_GROWTH = 1.5


def kept_layers(model: PreTrainedModel) -> tuple[bool, ...] | None:
    """For each layer whether it looks through a sliding window; None where `Rows` can't serve.

    They can where a layer's memory of the text is the keys and values of its tokens and nothing
    else. States of recurrent and convolutional layers can't be cut at a token, encoders have a
    cache of another shape, and chunked attention depends on where a row begins.
    """
    known = inspect.signature(model.forward).parameters
    if model.config.is_encoder_decoder or not model._supports_default_dynamic_cache():
        return None
    if "past_key_values" not in known or "attention_mask" not in known:
        return None
    config = model.config.get_text_config(decoder=True)
    if "chunked_attention" in (getattr(config, "layer_types", None) or ()):
        return None
    layers = DynamicCache(config=config).layers
    if any(type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers):
        return None
    return tuple(bool(layer.is_sliding) for layer in layers)


class _Layer(DynamicLayer):
    """One layer's keys and values, (rows, heads, columns, head size), inside a larger buffer.

    transformers' own layer copies all it holds whenever a token comes; this one writes the token
    where there is room. A layer with a sliding window keeps everything too: the mask hides what is
    out of the window, and so nothing is lost that a row of another length still needs.
    """

    def __init__(self, sliding: bool, room: int, places: int) -> None:
        super().__init__()
        self.is_sliding = sliding
        self.room, self.places = room, places
        """Columns and rows to allocate beyond those of the first tokens."""
        self.rows = self.start = self.end = 0
        self.buffers: list[torch.Tensor] = []

    @property
    def width(self) -> int:
        return self.end - self.start

    def fill(self, rows: int, width: int, tensors: Sequence[torch.Tensor]) -> None:
        """Take over keys and values that fill the first ``width`` columns of their buffers."""
        self.rows, self.start, self.end = rows, 0, width
        self.buffers = list(tensors)
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        new = key_states.shape[-2]
        if not self.buffers:
            rows = len(key_states)
            size = (rows + self.places, new + self.room)
            self.fill(rows, 0, [_buffer(t, *size) for t in (key_states, value_states)])
        self.reserve(new)
        for buffer, states in zip(self.buffers, (key_states, value_states), strict=True):
            buffer[: self.rows, :, self.end : self.end + new] = states
        self.end += new
        self.keys, self.values = self.seen()
        return self.keys, self.values

    def seen(self) -> list[torch.Tensor]:
        """Views of the keys and the values that count."""
        return [buffer[: self.rows, :, self.start : self.end] for buffer in self.buffers]

    def reserve(self, new: int) -> None:
        """Make room for ``new`` columns: move all to the front, into a larger buffer if need be."""
        capacity = self.buffers[0].shape[2]
        if self.end + new <= capacity:
            return
        width = self.width
        if width + new > capacity / _GROWTH:
            capacity = int((width + new) * _GROWTH)
        moved = [_buffer(buffer, len(buffer), capacity) for buffer in self.buffers]
        for target, view in zip(moved, self.seen(), strict=True):
            target[: self.rows, :, :width] = view
        self.buffers, self.start, self.end = moved, 0, width

    def get_seq_length(self) -> int:
        return self.width

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.width + query_length, 0


class Rows(DynamicCache):
    """A batch of rows of tokens as keys and values.

    Every row's tokens are contiguous and end at the last column; shorter rows are padded on the
    left. So distances between tokens are distances between columns, which is what masks of sliding
    windows count, and a row can be put in another's place whatever their lengths.
    """

    def __init__(self, sliding: Sequence[bool], room: int = 0, places: int = 0) -> None:
        Cache.__init__(self, layers=[_Layer(each, room, places) for each in sliding])
        self._sliding = tuple(sliding)
        self.lengths: list[int] = []
        """Tokens of each row."""

    @property
    def width(self) -> int:
        return int(self.layers[0].width)

    def take(self, rows: Sequence[int], lengths: Sequence[int], room: int, places: int = 0) -> Rows:
        """A copy of ``rows``, each once or often, of each its first ``lengths`` tokens.

        ``room`` is how many columns will be added, and ``places`` how many rows (`join`).
        """
        width = max(lengths)
        copy = Rows(self._sliding)
        copy.lengths = list(lengths)
        layers = [layer for layer in self.layers if layer.buffers]
        device = layers[0].buffers[0].device
        pads = torch.tensor([width - length for length in lengths], device=device)
        begins = torch.tensor([self.width - self.lengths[row] for row in rows], device=device)
        # Where the tokens of each row stand here; a pad takes the first of them, and is masked.
        columns = begins[:, None] + (torch.arange(width, device=device) - pads[:, None]).clamp(0)
        chosen = torch.tensor(rows, device=device)
        whole = all(length == self.lengths[row] for row, length in zip(rows, lengths, strict=True))
        for layer, target in zip(self.layers, copy.layers, strict=True):
            filled = []
            for view in layer.seen():
                buffer = _buffer(view, len(rows) + places, width + room)
                if whole:
                    picked = view[:, :, self.width - width :].index_select(0, chosen)
                else:
                    picked = view.transpose(1, 2)[chosen[:, None], columns].transpose(1, 2)
                buffer[: len(rows), :, :width] = picked
                filled.append(buffer)
            target.fill(len(rows), width, filled)
        return copy

    def join(self, others: Rows) -> None:
        """Put the rows of ``others``, none longer than the width, into free places."""
        first, count = len(self.lengths), len(others.lengths)
        for layer, other in zip(self.layers, others.layers, strict=True):
            for buffer, view in zip(layer.buffers, other.seen(), strict=True):
                begin = layer.end - view.shape[2]
                buffer[first : first + count, :, begin : layer.end] = view
                # Fresh memory may hold NaN, which no attention mask hides: 0 times NaN is NaN.
                buffer[first : first + count, :, layer.start : begin] = 0
            layer.rows += count
        self.lengths += others.lengths

    def drop(self, row: int) -> None:
        """Forget a row: the last one takes its place."""
        for layer in self.layers:
            layer.rows -= 1
            if row < layer.rows:
                for buffer in layer.buffers:
                    columns = slice(layer.start, layer.end)
                    buffer[row, :, columns] = buffer[layer.rows, :, columns]
        last = self.lengths.pop()
        if row < len(self.lengths):
            self.lengths[row] = last

    def trim(self) -> None:
        """Leave out columns that hold no token of any row any more."""
        for layer in self.layers:
            layer.start = layer.end - max(self.lengths)


def _buffer(like: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    return like.new_empty((rows, like.shape[1], columns, like.shape[3]))
