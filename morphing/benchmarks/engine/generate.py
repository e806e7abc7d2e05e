"""Greedy generation in a batch that stays full."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)

from morphing.benchmarks.engine.cache import Rows
from morphing.benchmarks.engine.encode import NotFiniteError, Request, by_length, context_length
from morphing.benchmarks.engine.memory import Room, in_batches
from morphing.benchmarks.engine.reader import Reader, Tokens, worth_sharing
from morphing.benchmarks.engine.stopping import Ending, Limit, RowEnding
from morphing.benchmarks.engine.thinking import Marks, opened_in

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_REFILL = 8
"""New prompts are read once an eighth of the batch is free: one by one they would take longer."""
_ROOM = 64
"""New tokens to have room for at first; there will be more where answers are longer."""


@dataclass(frozen=True)
class Written:
    """What a model wrote.

    Attributes:
        text: The answer; empty where the text ends inside a thought.
        tokens: How many were generated: a thought's, the end token and those of the stop string
            among them.
        thought: What the model wrote for itself before the answer.
        unfinished: Whether the text ends inside a thought.
    """

    text: str
    tokens: int
    thought: str = ""
    unfinished: bool = False


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Request],
    max_new_tokens: int,
    stop: Sequence[str],
    batch_size: int | None,
    progress: Callable[[int], None],
    thinking_tokens: int = 0,
) -> list[Written]:
    """The greedy continuation of each prompt, up to its end token, a stop string or the limit.

    A thought that comes first (`thinking`) may take ``thinking_tokens`` more, as far as the model's
    context has room for them, and stop strings in it do not count. Where the text ends inside of
    it, there is no answer.

    A row that ends leaves the batch, and another prompt takes its place. What all prompts begin
    with is computed once. ``progress`` gets the number of prompts done. The model's own generation
    settings (sampling, penalties) don't count, only its end tokens do. A model that keeps more of a
    text than keys and values is left to transformers, batch by batch.

    Raises:
        MorphingError: there is not enough memory for a single prompt.
    """
    ending = Ending(model, tokenizer, stop)
    context = context_length(model, 0)
    opened = [opened_in(tokenizer, prompt.ids) for prompt in prompts]
    limits = [
        Limit(
            max_new_tokens,
            thinking_tokens
            if context is None
            else min(thinking_tokens, max(0, context - len(prompt.ids) - max_new_tokens)),
        )
        for prompt in prompts
    ]
    asked = _Asked(prompts, limits, opened, ending)
    order = by_length([len(prompt.ids) for prompt in prompts])
    longest = max(
        len(prompt.ids) + limit.most for prompt, limit in zip(prompts, limits, strict=True)
    )
    room = Room.of(model, longest, batch_size)
    reader = Reader(model)
    with torch.inference_mode():
        if reader.keeps:
            written = _continuous(reader, asked, order, room, progress)
        else:
            written = _batch_by_batch(model, tokenizer, asked, order, room, progress)
    found = []
    for tokens, marks in zip(written, opened, strict=True):
        reply = ending.reply(tokens, marks)
        found.append(Written(reply.answer, len(tokens), reply.thought, reply.unfinished))
    return found


@dataclass(frozen=True)
class _Asked:
    """Prompts, how long each one's answer may be, and the marks of thoughts they have begun."""

    prompts: Sequence[Request]
    limits: Sequence[Limit]
    opened: Sequence[Marks | None]
    ending: Ending

    @property
    def most(self) -> int:
        """New tokens that any row may have."""
        return max(limit.most for limit in self.limits)

    def row(self, at: int) -> RowEnding:
        """What says when the row of a prompt has ended."""
        return self.ending.row(self.limits[at], self.opened[at])


@dataclass
class _Row:
    """A prompt that is being answered."""

    prompt: int
    ending: RowEnding
    new: list[int] = field(default_factory=list)


def _continuous(
    reader: Reader,
    asked: _Asked,
    order: Sequence[int],
    room: Room,
    progress: Callable[[int], None],
) -> list[list[int]]:
    prompts = asked.prompts
    written: list[list[int]] = [[] for _ in prompts]
    whole = [prompt.ids for prompt in prompts if not prompt.truncated]
    shared = worth_sharing(whole, min(map(len, whole), default=1) - 1)
    # Requests whose beginning was cut do not begin with the shared tokens.
    with_it = [at for at in order if prompts[at].ids[: len(shared)] == shared]
    others = [at for at in order if prompts[at].ids[: len(shared)] != shared]
    done = 0
    for waiting, beginning in ((with_it, shared), (others, ())):
        header = reader.header(beginning)
        batch = _Batch(reader, header, asked, room.rows)
        while waiting or batch.rows:
            free = room.rows - len(batch.rows)
            fewest = min(len(waiting), max(1, room.rows // _REFILL))
            try:
                if waiting and free >= fewest:
                    new = [len(prompts[at].ids) - len(beginning) for at in waiting[:free]]
                    now = waiting[next(room.parts(new))]
                    batch.read(now)
                    del waiting[: len(now)]
                else:
                    batch.step()
            except RuntimeError as error:
                room = room.after(error, min(room.rows, len(batch.rows) + len(waiting)))
                # Those under way begin again, the longest prompts first as ever.
                left = {*waiting, *(row.prompt for row in batch.rows)}
                waiting = [at for at in order if at in left]
                batch = _Batch(reader, header, asked, room.rows)
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

    def __init__(self, reader: Reader, header: Rows, asked: _Asked, most: int) -> None:
        self._reader, self._header, self._asked, self._most = reader, header, asked, most
        self._cache = header  # until there are rows
        self.rows: list[_Row] = []

    def read(self, prompts: Sequence[int]) -> None:
        """Begin more rows, none with a longer prompt than those that are there."""
        ids = [self._asked.prompts[at].ids for at in prompts]
        first = not self.rows
        columns = min(_ROOM, self._asked.most)
        room, places = (columns, self._most - len(ids)) if first else (0, 0)
        fresh, rest = self._reader.open(ids, self._header, room, places)
        logits = self._reader.extend(fresh, rest)
        if first:
            self._cache = fresh
        else:
            self._cache.join(fresh)
        new = [_Row(at, self._asked.row(at)) for at in prompts]
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
            if self.rows[at].ending.reached(self.rows[at].new):
                ended.append(self.rows[at])
                self.rows[at] = self.rows[-1]
                self.rows.pop()
                self._cache.drop(at)
        if ended and self.rows:
            self._cache.trim()
        return ended

    def _write(self, rows: Sequence[_Row], logits: torch.Tensor) -> None:
        # Of equals the first, as in transformers.
        chosen = _likeliest(logits[:, -1], [row.prompt for row in rows])
        for row, token in zip(rows, chosen.tolist(), strict=True):
            row.new.append(token)


def _likeliest(logits: torch.Tensor, prompts: Sequence[int]) -> torch.Tensor:
    """The likeliest token (rows,) by logits (rows, vocabulary).

    Raises:
        NotFiniteError: one is NaN or infinite, or all are -infinite; NaN counts as the largest.
    """
    chosen = logits.argmax(-1)
    finite = logits.gather(-1, chosen[:, None])[:, 0].isfinite().tolist()
    if not all(finite):
        raise NotFiniteError(prompts[finite.index(False)], logits.dtype)
    return chosen


def _batch_by_batch(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    asked: _Asked,
    order: Sequence[int],
    room: Room,
    progress: Callable[[int], None],
) -> list[list[int]]:
    prompts, ending = asked.prompts, asked.ending
    written: list[list[int]] = [[] for _ in prompts]
    pad = tokenizer.pad_token_id
    if pad is None:
        pad = min(ending.tokens, default=0)
    config = GenerationConfig(
        max_new_tokens=asked.most,
        do_sample=False,
        pad_token_id=pad,
        eos_token_id=sorted(ending.tokens) or None,
    )
    done = 0

    def run(part: Sequence[int], room: Room) -> None:
        nonlocal done
        ids, mask = _left_padded([prompts[at].ids for at in part], pad)
        stopping = _Stopping([asked.row(at) for at in part], ids.shape[1])
        tokens = model.generate(
            input_ids=ids.to(model.device),
            attention_mask=mask.to(model.device),
            generation_config=config,
            stopping_criteria=StoppingCriteriaList([stopping]),
            logits_processor=LogitsProcessorList([_Finite(part)]),
        )
        for row, (at, new) in enumerate(zip(part, tokens[:, ids.shape[1] :].tolist(), strict=True)):
            written[at] = new[: stopping.lengths[row]]
        done += len(part)
        progress(done)

    with _own_settings_aside(model):
        in_batches(order, room, run)
    return written


class _Finite(LogitsProcessor):
    """Refuses logits that are not finite, and changes none."""

    def __init__(self, prompts: Sequence[int]) -> None:
        self._prompts = prompts

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        _likeliest(scores, self._prompts)
        return scores


class _Stopping(StoppingCriteria):
    """Ends each row at its own end; ``lengths`` has how many new tokens each had then."""

    def __init__(self, rows: Sequence[RowEnding], width: int) -> None:
        self._rows, self._width = rows, width
        self.lengths: dict[int, int] = {}

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.BoolTensor:
        new = input_ids[:, self._width :].tolist()
        for row, tokens in enumerate(new):
            if row not in self.lengths and self._rows[row].reached(tokens):
                self.lengths[row] = len(tokens)
        ended = [row in self.lengths for row in range(len(new))]
        return torch.tensor(ended, device=input_ids.device)  # type: ignore[return-value]


@contextmanager
def _own_settings_aside(model: PreTrainedModel) -> Iterator[None]:
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
