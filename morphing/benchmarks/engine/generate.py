"""Greedy generation in a batch that stays full."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList

from morphing.benchmarks.engine.cache import Rows
from morphing.benchmarks.engine.encode import Request, by_length
from morphing.benchmarks.engine.memory import Room, in_batches
from morphing.benchmarks.engine.reader import Reader, Tokens, worth_sharing
from morphing.benchmarks.engine.stopping import Ending

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_REFILL = 8
"""New prompts are read once an eighth of the batch is free: one by one they would take longer."""
_ROOM = 64
"""New tokens to have room for at first; there will be more where answers are longer."""


def generate(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    prompts: Sequence[Request],
    max_new_tokens: int,
    stop: Sequence[str],
    batch_size: int | None,
    progress: Callable[[int], None],
) -> list[tuple[str, int]]:
    """The greedy continuation of each prompt, up to its end token, a stop string or the limit; and
    how many tokens that took, the end token and those of the stop string among them.

    A row that ends leaves the batch, and another prompt takes its place. What all prompts begin
    with is computed once. ``progress`` gets the number of prompts done. The model's own generation
    settings (sampling, penalties) don't count, only its end tokens do. A model that keeps more of a
    text than keys and values is left to transformers, batch by batch.

    Raises:
        MorphingError: there is not enough memory for a single prompt.
    """
    ending = Ending(model, tokenizer, stop, max_new_tokens)
    order = by_length([len(prompt.ids) for prompt in prompts])
    longest = len(prompts[order[0]].ids) + max_new_tokens
    room = Room.of(model, longest, batch_size)
    reader = Reader(model)
    with torch.inference_mode():
        if reader.keeps:
            written = _continuous(reader, prompts, order, room, ending, progress)
        else:
            written = _batch_by_batch(model, tokenizer, prompts, order, room, ending, progress)
    return [(ending.text(tokens), len(tokens)) for tokens in written]


@dataclass
class _Row:
    """A prompt that is being answered."""

    prompt: int
    new: list[int] = field(default_factory=list)


def _continuous(
    reader: Reader,
    prompts: Sequence[Request],
    order: Sequence[int],
    room: Room,
    ending: Ending,
    progress: Callable[[int], None],
) -> list[list[int]]:
    written: list[list[int]] = [[] for _ in prompts]
    whole = [prompt.ids for prompt in prompts if not prompt.truncated]
    shared = worth_sharing(whole, min(map(len, whole), default=1) - 1)
    # Those that were cut begin otherwise.
    with_it = [at for at in order if prompts[at].ids[: len(shared)] == shared]
    others = [at for at in order if prompts[at].ids[: len(shared)] != shared]
    done = 0
    for waiting, beginning in ((with_it, shared), (others, ())):
        header = reader.header(beginning)
        batch = _Batch(reader, header, ending, room.rows)
        while waiting or batch.rows:
            free = room.rows - len(batch.rows)
            fewest = min(len(waiting), max(1, room.rows // _REFILL))
            try:
                if waiting and free >= fewest:
                    new = [len(prompts[at].ids) - len(beginning) for at in waiting[:free]]
                    now = waiting[next(room.parts(new))]
                    batch.read([(at, prompts[at].ids) for at in now])
                    del waiting[: len(now)]
                else:
                    batch.step()
            except RuntimeError as error:
                room = room.after(error, min(room.rows, len(batch.rows) + len(waiting)))
                # Those under way begin again, the longest prompts first as ever.
                left = {*waiting, *(row.prompt for row in batch.rows)}
                waiting = [at for at in order if at in left]
                batch = _Batch(reader, header, ending, room.rows)
                continue
            ended = batch.remove_ended()
            for row in ended:
                written[row.prompt] = row.new
            if ended:
                done += len(ended)
                progress(done)
    return written


class _Batch:
    """Rows that are being answered, and what the model has read of them."""

    def __init__(self, reader: Reader, header: Rows, ending: Ending, most: int) -> None:
        self._reader, self._header, self._ending, self._most = reader, header, ending, most
        self._cache = header  # until there are rows
        self.rows: list[_Row] = []

    def read(self, prompts: Sequence[tuple[int, Tokens]]) -> None:
        """Begin more rows, none with a longer prompt than those that are there."""
        ids = [tokens for _, tokens in prompts]
        first = not self.rows
        columns = min(_ROOM, self._ending.most)
        room, places = (columns, self._most - len(ids)) if first else (0, 0)
        fresh, rest = self._reader.open(ids, self._header, room, places)
        logits = self._reader.extend(fresh, rest)
        if first:
            self._cache = fresh
        else:
            self._cache.join(fresh)
        new = [_Row(at) for at, _ in prompts]
        self.rows += new
        self._write(new, logits)

    def step(self) -> None:
        """Write one more token of each row."""
        last = [(row.new[-1],) for row in self.rows]
        self._write(self.rows, self._reader.extend(self._cache, last))

    def remove_ended(self) -> list[_Row]:
        """Take out the rows that have ended, and return them."""
        ended = []
        for at in reversed(range(len(self.rows))):
            if self._ending.reached(self.rows[at].new):
                ended.append(self.rows[at])
                self.rows[at] = self.rows[-1]
                self.rows.pop()
                self._cache.drop(at)
        if ended and self.rows:
            self._cache.trim()
        return ended

    @staticmethod
    def _write(rows: Sequence[_Row], logits: torch.Tensor) -> None:
        # Of equals the first, as in transformers.
        for row, token in zip(rows, logits[:, -1].argmax(-1).tolist(), strict=True):
            row.new.append(token)


def _batch_by_batch(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    prompts: Sequence[Request],
    order: Sequence[int],
    room: Room,
    ending: Ending,
    progress: Callable[[int], None],
) -> list[list[int]]:
    written: list[list[int]] = [[] for _ in prompts]
    pad = tokenizer.pad_token_id
    if pad is None:
        pad = min(ending.tokens, default=0)
    config = GenerationConfig(
        max_new_tokens=ending.most,
        do_sample=False,
        pad_token_id=pad,
        eos_token_id=sorted(ending.tokens) or None,
    )
    done = 0

    def run(part: Sequence[int], room: Room) -> None:
        nonlocal done
        ids, mask = _left_padded([prompts[at].ids for at in part], pad)
        stopping = _Stopping(ending, ids.shape[1])
        tokens = model.generate(
            input_ids=ids.to(model.device),
            attention_mask=mask.to(model.device),
            generation_config=config,
            stopping_criteria=StoppingCriteriaList([stopping]),
        )
        for row, (at, new) in enumerate(zip(part, tokens[:, ids.shape[1] :].tolist(), strict=True)):
            written[at] = new[: stopping.lengths[row]]
        done += len(part)
        progress(done)

    with _own_settings_aside(model):
        in_batches(order, room, run)
    return written


class _Stopping(StoppingCriteria):
    """Ends each row at its own end; ``lengths`` has how many new tokens each had then."""

    def __init__(self, ending: Ending, width: int) -> None:
        self._ending, self._width = ending, width
        self.lengths: dict[int, int] = {}

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.BoolTensor:
        new = input_ids[:, self._width :].tolist()
        for row, tokens in enumerate(new):
            if row not in self.lengths and self._ending.reached(tokens):
                self.lengths[row] = len(tokens)
        ended = [row in self.lengths for row in range(len(new))]
        return torch.tensor(ended, device=input_ids.device)  # type: ignore[return-value]


@contextmanager
def _own_settings_aside(model: "PreTrainedModel") -> Iterator[None]:
    # `generate` fills what a configuration leaves open from the model's own, which may sample or
    # penalise repetition.
    own = model.generation_config
    model.generation_config = GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = own


def _left_padded(rows: Sequence[Tokens], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(map(len, rows))
    ids = torch.full((len(rows), width), pad, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, tokens in enumerate(rows):
        ids[row, width - len(tokens) :] = torch.tensor(tokens)
        mask[row, width - len(tokens) :] = 1
    return ids, mask
