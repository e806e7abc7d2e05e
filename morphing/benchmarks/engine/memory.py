"""How many rows of tokens to run at once, and fewer where memory runs out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from morphing.errors import MorphingError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# What a batch's activations and cache may take. A constant: were it read from the machine, scores
# in half precision could differ between machines by a rounding of differently padded batches.
BATCH_BYTES = 2**30
MAX_BATCH = 128

# Tokens of a forward pass beyond which a device gets no faster, and how many tokens' time a pass
# takes beyond that of its tokens (to read the weights). Measured on a CPU; a guess for others.
_TOKENS = {"cpu": 512}
_TOKENS_ELSEWHERE = 16384
_PASS = {"cpu": 32}
_PASS_ELSEWHERE = 512

# What torch says where it has no class for it: its CPU allocator, MPS, older CUDA libraries.
_SIGNS = ("not enough memory", "DefaultCPUAllocator", "out of memory")


_noted: ContextVar[list[int] | None] = ContextVar("_noted", default=None)


@contextmanager
def rows_noted() -> Iterator[list[int]]:
    """Yields a list that gets the rows of every room made or halved meanwhile."""
    rows: list[int] = []
    token = _noted.set(rows)
    try:
        yield rows
    finally:
        _noted.reset(token)


def _note(rows: int) -> None:
    if (noted := _noted.get()) is not None:
        noted.append(rows)


@dataclass(frozen=True)
class Room:
    """How much is done at once."""

    rows: int
    """Rows whose keys and values are kept at once."""
    tokens: int | None = None
    """Tokens of one forward pass, padding included, unless that is a single row."""
    pass_cost: int = 0
    """What a forward pass costs in tokens."""

    @classmethod
    def of(cls, model: PreTrainedModel, length: int, batch_size: int | None) -> Room:
        """``batch_size`` rows where it is given, else what suits rows of ``length`` tokens."""
        rows = default_batch_size(model, length) if batch_size is None else batch_size
        _note(rows)
        if batch_size is not None:
            return cls(rows)
        kind = model.device.type
        return cls(rows, _TOKENS.get(kind, _TOKENS_ELSEWHERE), _PASS.get(kind, _PASS_ELSEWHERE))

    def parts(self, lengths: Sequence[int], most: int | None = None) -> Iterator[slice]:
        """The rows of these ``lengths``, the longest first, that each forward pass reads.

        Padding and passes together cost the least; with a batch size given a pass has so many rows
        instead. ``most`` is another limit on the tokens of a pass.
        """
        count = len(lengths)
        limits = [tokens for tokens in (self.tokens, most) if tokens is not None]

        def fit(at: int) -> int:
            rows = (limit // max(1, lengths[at]) for limit in limits)
            return max(1, min(self.rows, count - at, *rows))

        first = [fit(at) for at in range(count)]
        if self.tokens is not None:
            # From the last row on: the least that all rows from this one on can cost.
            least = [0] * (count + 1)
            for at in reversed(range(count)):
                ways = range(1, first[at] + 1)
                costs = [rows * lengths[at] + least[at + rows] for rows in ways]
                least[at] = min(costs) + self.pass_cost
                first[at] = ways[costs.index(min(costs))]
        at = 0
        while at < count:
            yield slice(at, at + first[at])
            at += first[at]

    def after(self, error: RuntimeError, rows: int) -> Room:
        """Half the room, since ``rows`` did not fit.

        Raises:
            MorphingError: it was a single row.
            RuntimeError: ``error`` itself, where it is about something else than memory.
        """
        if not out_of_memory(error):
            raise error
        if rows <= 1:
            raise MorphingError(
                "There is not enough memory to score a single sample: shorten the benchmark's"
                " prompts or answers, or take a device with more."
            ) from error
        tokens = None if self.tokens is None else self.tokens // 2
        _note(rows // 2)
        return Room(rows // 2, tokens, self.pass_cost)


def default_batch_size(model: PreTrainedModel, length: int) -> int:
    """Rows of ``length`` tokens to keep at once: as many as ``BATCH_BYTES`` hold, at most 128.

    Counts the key-value cache in full and one layer's widest activations, from the configuration
    alone, so the same model always gets the same batches.
    """
    config = model.config.get_text_config()
    heads = getattr(config, "num_attention_heads", None) or 1
    hidden = config.hidden_size
    head = getattr(config, "head_dim", None) or hidden // heads
    cached = (
        2
        * config.num_hidden_layers
        * head
        * (getattr(config, "num_key_value_heads", None) or heads)
    )
    active = 4 * hidden + 3 * (getattr(config, "intermediate_size", None) or 4 * hidden)
    row = length * (cached + active) * model.dtype.itemsize + 4 * config.vocab_size * 2
    return max(1, min(MAX_BATCH, BATCH_BYTES // row))


def out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` says that a tensor found no room."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)


def in_batches(
    order: Sequence[int], room: Room, run: Callable[[Sequence[int], Room], None]
) -> Room:
    """Call ``run(part, room)`` for ``order`` in parts, smaller ones once memory has run out.

    A part that failed is run again from its beginning.

    Returns:
        The room that was left.

    Raises:
        MorphingError: a part of one did not fit.
    """
    at = 0
    while at < len(order):
        part = order[at : at + room.rows]
        try:
            run(part, room)
        except RuntimeError as error:
            room = room.after(error, len(part))
            continue
        at += len(part)
    return room
