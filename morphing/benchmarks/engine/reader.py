"""A model's forward pass over rows of tokens, with what it has read kept for other rows."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from morphing.benchmarks.engine.cache import Rows, kept_layers

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Tokens = tuple[int, ...]

_WORTH = 64
"""A forward pass for a common beginning must spare so many tokens."""


def common_prefix(rows: Sequence[Tokens]) -> int:
    """How many tokens all rows begin with."""
    # The first and the last in order differ the most.
    first, last = min(rows), max(rows)
    same = zip(first, last, strict=False)
    return next((at for at, (a, b) in enumerate(same) if a != b), min(len(first), len(last)))


def worth_sharing(rows: Sequence[Tokens], most: int) -> Tokens:
    """The beginning that all rows share, at most ``most`` tokens; none where it wouldn't pay."""
    if not rows:
        return ()
    length = min(common_prefix(rows), most)
    return rows[0][:length] if length * (len(rows) - 1) >= _WORTH else ()


class Reader:
    """Reads rows of tokens with one model.

    ``keeps`` says whether what it has read can be kept (`cache.kept_layers`); if not, only `alone`
    may be called.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        known = inspect.signature(model.forward).parameters
        self._positions = "position_ids" in known
        self._to_keep = "logits_to_keep" in known
        sliding = kept_layers(model)
        self.keeps = sliding is not None
        self._sliding = sliding or ()

    def alone(self, rows: Sequence[Tokens], keep: int) -> tuple[torch.Tensor, int]:
        """Logits (rows, columns, vocabulary) of rows padded on the right, with nothing kept.

        Of the last ``keep`` columns, or of all where the model can't leave any out; and the column
        they begin at. A causal model's tokens never see the padding, which comes after them.
        """
        width = max(map(len, rows))
        ids, mask = torch.zeros((2, len(rows), width), dtype=torch.long)
        for at, row in enumerate(rows):
            ids[at, : len(row)] = torch.tensor(row)
            mask[at, : len(row)] = 1
        logits = self._logits(keep, input_ids=ids, attention_mask=mask, use_cache=False)
        return logits, width - logits.shape[1]

    def header(self, tokens: Tokens) -> Rows:
        """One row with the tokens that others begin with, read; or an empty batch for none."""
        cache = Rows(self._sliding)
        if tokens:
            cache.lengths = [0]
            self.extend(cache, [tokens])
        return cache

    def open(
        self, rows: Sequence[Tokens], header: Rows, room: int = 0, places: int = 0
    ) -> tuple[Rows, list[Tokens]]:
        """A batch that knows what ``header`` has of each row, and the tokens still to be read.

        These are to be padded on the left. The longest row's are all that the header lacks. Of a
        shorter row as many of the header's are read again as padding would take, so that there is
        none between its tokens. ``room`` is how many columns are to come after the rows' own, and
        ``places`` how many rows.
        """
        known = sum(header.lengths)
        new = max(map(len, rows)) - known
        if not known:
            cache = Rows(self._sliding, room, places)
            cache.lengths = [0] * len(rows)
            return cache, list(rows)
        lengths = [max(0, len(row) - new) for row in rows]
        cache = header.take([0] * len(rows), lengths, new + room, places)
        return cache, [row[length:] for row, length in zip(rows, lengths, strict=True)]

    def extend(
        self, cache: Rows, rows: Sequence[Tokens], keep: int = 1, left: bool = True
    ) -> torch.Tensor:
        """Read tokens that follow each row of ``cache``, padded on the left or on the right.

        Padding on the left is for rows of which ``cache`` has nothing yet. After padding on the
        right ``cache`` can't be read on.

        Returns:
            Logits (rows, columns, vocabulary) of the last ``keep`` columns, or of all for 0.
        """
        old, new = cache.width, max(map(len, rows))
        begins = [
            old - length + (new - len(row) if left else 0)
            for length, row in zip(cache.lengths, rows, strict=True)
        ]
        cache.lengths = [n + len(row) for n, row in zip(cache.lengths, rows, strict=True)]
        ids = torch.zeros((len(rows), new), dtype=torch.long)
        for at, row in enumerate(rows):
            start = new - len(row) if left else 0
            ids[at, start : start + len(row)] = torch.tensor(row, dtype=torch.long)
        begin = torch.tensor(begins)[:, None]
        end = begin + torch.tensor(cache.lengths)[:, None]
        columns = torch.arange(old + new)[None]
        inputs: dict[str, Any] = {
            "input_ids": ids,
            "attention_mask": ((columns >= begin) & (columns < end)).long(),
        }
        if self._positions:
            # A pad's position counts for nothing, but must be one that the model knows.
            positions = (columns[:, old:] - begin).minimum(end - begin - 1)
            inputs["position_ids"] = positions.clamp(min=0)
        return self._logits(keep, **inputs, past_key_values=cache, use_cache=True)[:, -keep:]

    def _logits(self, keep: int, **inputs: Any) -> torch.Tensor:
        if self._to_keep:
            inputs["logits_to_keep"] = keep
        device = self.model.device
        moved = {
            name: value.to(device) if isinstance(value, torch.Tensor) else value
            for name, value in inputs.items()
        }
        logits: torch.Tensor = self.model(**moved).logits
        return logits
