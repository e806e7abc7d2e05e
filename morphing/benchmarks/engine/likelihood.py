"""How likely a model finds each of several answers."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import TYPE_CHECKING

import torch

from morphing.benchmarks.engine.cache import Rows
from morphing.benchmarks.engine.encode import NotFiniteError, Request, by_length
from morphing.benchmarks.engine.memory import Room, in_batches
from morphing.benchmarks.engine.reader import Reader, Tokens, common_prefix, worth_sharing

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# What one batch's logits may take, in float32.
_LOGITS_BYTES = 2**28

# Requests that share less than one token for so many of their own are read one by one.
_LITTLE = 16

_Read = tuple[int, float, bool]
"""A request, the log-probability of one of its answer's tokens, whether none is likelier."""
_Reads = Mapping[tuple[int, int], Sequence[int]]
"""By (position, the token asked for after it): the requests whose sum that belongs to."""


@dataclass(frozen=True)
class Likelihood:
    """log P(answer | what comes before it), summed over the answer's ``tokens``.

    ``greedy`` if each of them is the likeliest, so that greedy decoding would write this answer.
    """

    logprob: float
    greedy: bool
    tokens: int
    truncated: bool


@dataclass(frozen=True)
class _Piece:
    """Tokens to read, and what is asked about them; positions count from the first."""

    ids: Tokens
    reads: _Reads

    @property
    def first(self) -> int:
        """The first position whose logits are read; the length where none are."""
        return min((position for position, _ in self.reads), default=len(self.ids))

    def begins(self, tokens: Tokens) -> bool:
        return self.ids[: len(tokens)] == tokens


@dataclass(frozen=True)
class _Question:
    """What a context's requests have in common, and what each has beyond it."""

    stem: _Piece
    branches: tuple[_Piece, ...]
    truncated: bool

    @property
    def length(self) -> int:
        return len(self.stem.ids) + max((len(branch.ids) for branch in self.branches), default=0)


_Score = Callable[[Sequence[_Question], Room], Iterator[_Read]]


def log_likelihoods(
    model: PreTrainedModel,
    groups: Sequence[Sequence[Request]],
    batch_size: int | None,
    progress: Callable[[float], None],
) -> list[Likelihood]:
    """How likely the answers of all requests of all groups are, one after another.

    In float32 (or better) over the whole vocabulary. A group's requests have a context in common:
    their common tokens are computed once, and those that all groups begin with once for all. Logits
    are made (nearly) only where they are read. ``progress`` gets the share that is done. A model
    that keeps more of a text than keys and values computes each request whole.

    Raises:
        MorphingError: there is not enough memory for a single group.
        NotFiniteError: a logit is NaN or infinite where an answer's token is asked for.
    """
    numbers = count()
    numbered = [[(next(numbers), request) for request in group] for group in groups]
    questions = [question for group in numbered for question in _questions(group)]
    requests = [request for group in groups for request in group]
    group_of = [at for at, group in enumerate(groups) for _ in group]
    sums, greedy = [0.0] * len(requests), [True] * len(requests)
    reader = Reader(model)
    room = Room.of(model, max(question.length for question in questions), batch_size)
    done = 0

    def score(mine: Sequence[_Question], values: _Score) -> None:
        nonlocal room

        def run(part: Sequence[int], room: Room) -> None:
            nonlocal done
            # Added when all is there: a part that runs out of memory is run again.
            for number, value, likeliest in list(values([mine[at] for at in part], room)):
                if math.isnan(value):
                    raise NotFiniteError(group_of[number], model.dtype)
                sums[number] += value
                greedy[number] &= likeliest
            done += len(part)
            progress(done / len(questions))

        room = in_batches(by_length([question.length for question in mine]), room, run)

    with torch.inference_mode():
        if reader.keeps:
            header = _header(questions)
            with_it = [question for question in questions if question.stem.begins(header)]
            score(with_it, partial(_shared, reader, reader.header(header)))
            # Requests whose beginning was cut do not begin with the shared tokens.
            others = [question for question in questions if not question.stem.begins(header)]
            score(others, partial(_shared, reader, reader.header(())))
        else:
            score(questions, partial(_whole, reader))
    return [
        Likelihood(logprob, each, request.answer, request.truncated)
        for logprob, each, request in zip(sums, greedy, requests, strict=True)
    ]


def _questions(group: Sequence[tuple[int, Request]]) -> Iterator[_Question]:
    rows: dict[Tokens, list[tuple[int, Request]]] = defaultdict(list)
    for number, request in group:
        rows[request.ids[:-1]].append((number, request))
    shared = common_prefix(list(rows))
    if shared * _LITTLE < max(map(len, rows)) - shared:
        for alone in rows.values():
            yield from _questions(alone)
        return
    stem: dict[tuple[int, int], list[int]] = defaultdict(list)
    branches = []
    for row, mine in rows.items():
        own: dict[tuple[int, int], list[int]] = defaultdict(list)
        for number, request in mine:
            for position in range(len(row) - request.answer, len(row)):
                token = request.ids[position + 1]
                if position < shared:
                    stem[position, token].append(number)
                else:
                    own[position - shared, token].append(number)
        if len(row) > shared:
            branches.append(_Piece(row[shared:], own))
    truncated = any(request.truncated for _, request in group)
    yield _Question(_Piece(next(iter(rows))[:shared], stem), tuple(branches), truncated)


def _header(questions: Sequence[_Question]) -> Tokens:
    """What all questions begin with that were not cut; nothing in it is read."""
    stems = [question.stem for question in questions if not question.truncated]
    most = min((min(stem.first, len(stem.ids) - 1) for stem in stems), default=0)
    return worth_sharing([stem.ids for stem in stems], most)


def _shared(
    reader: Reader, header: Rows, questions: Sequence[_Question], room: Room
) -> Iterator[_Read]:
    ordered = [questions[at] for at in by_length([len(q.stem.ids) for q in questions])]
    pieces = [(at, piece) for at, question in enumerate(ordered) for piece in question.branches]
    stems = [question.stem for question in ordered]
    known = sum(header.lengths)
    cache: Rows | None = None
    for part in room.parts([len(stem.ids) - known for stem in stems]):
        now = stems[part]
        places = len(stems) - len(now) if pieces and cache is None else 0
        read, rest = reader.open([stem.ids for stem in now], header, places=places)
        yield from _scan(reader, read, rest, now)
        if cache is None:
            cache = read
        elif pieces:
            cache.join(read)
    if cache is None:
        return
    pieces.sort(key=lambda pair: -len(pair[1].ids))
    for part in room.parts([len(piece.ids) for _, piece in pieces], _columns(reader, 1)):
        rows, branches = [at for at, _ in pieces[part]], [piece for _, piece in pieces[part]]
        longest = len(branches[0].ids)
        copy = cache.take(rows, [cache.lengths[at] for at in rows], longest)
        if len(branches) == 1:
            yield from _scan(reader, copy, [branches[0].ids], branches)
            continue
        logits = reader.extend(copy, [branch.ids for branch in branches], keep=0, left=False)
        for branch, scores in zip(branches, logits, strict=True):
            yield from _values(scores, 0, branch.reads)


def _scan(
    reader: Reader, cache: Rows, rest: Sequence[Tokens], pieces: Sequence[_Piece]
) -> Iterator[_Read]:
    """What is read of ``pieces``, of which ``rest`` is not in ``cache`` yet."""
    width, new = max(len(piece.ids) for piece in pieces), max(map(len, rest))
    # Of the new columns, padded on the left, the first whose logits somebody reads.
    first = min(width - len(piece.ids) + piece.first for piece in pieces) - (width - new)
    for begin, end in _cuts(first, new, _columns(reader, len(pieces))):
        now = [row[max(0, begin - new + len(row)) : max(0, end - new + len(row))] for row in rest]
        keep = end - max(begin, first)
        logits = reader.extend(cache, now, max(keep, 1))
        for piece, scores in zip(pieces, logits, strict=True):
            yield from _values(scores, len(piece.ids) - new + end - len(scores), piece.reads)


def _cuts(first: int, new: int, most: int) -> Iterator[tuple[int, int]]:
    """``new`` columns in stretches that have at most ``most`` of those from ``first`` on."""
    begin = 0
    while begin < new:
        end = min(new, max(begin, first) + most)
        yield begin, end
        begin = end


def _columns(reader: Reader, rows: int) -> int:
    """How many logits' columns of so many rows may be made at once."""
    vocabulary = reader.model.config.get_text_config().vocab_size
    return max(1, _LOGITS_BYTES // (4 * vocabulary * rows))


def _whole(reader: Reader, questions: Sequence[_Question], room: Room) -> Iterator[_Read]:
    pieces = []
    for question in questions:
        stem = question.stem
        shift = len(stem.ids)
        for branch in question.branches:
            reads = {(at + shift, token): found for (at, token), found in branch.reads.items()}
            pieces.append(_Piece(stem.ids + branch.ids, reads))
        if stem.reads:
            pieces.append(stem)
    pieces.sort(key=lambda piece: -len(piece.ids))
    for part in room.parts([len(piece.ids) for piece in pieces], _columns(reader, 1)):
        now = pieces[part]
        keep = len(now[0].ids) - min(piece.first for piece in now)
        logits, offset = reader.alone([piece.ids for piece in now], keep)
        for piece, scores in zip(now, logits, strict=True):
            yield from _values(scores, offset, piece.reads)


def _values(scores: torch.Tensor, begin: int, reads: _Reads) -> Iterator[_Read]:
    """What is read of a row's logits (columns, vocabulary), whose first is position ``begin``."""
    asked = [
        (position - begin, token, requests)
        for (position, token), requests in reads.items()
        if 0 <= position - begin < len(scores)
    ]
    if not asked:
        return
    at = [column for column, _, _ in asked]
    exact = torch.promote_types(scores.dtype, torch.float32)
    read = scores[min(at) : max(at) + 1].to(exact)
    columns = torch.tensor(at, device=scores.device) - min(at)
    tokens = torch.tensor([token for _, token, _ in asked], device=scores.device)
    largest = read.amax(-1, keepdim=True)
    norm = (read - largest).exp_().sum(-1).log_()
    values = read[columns, tokens] - largest[columns, 0]
    told = torch.stack([values - norm[columns], values]).tolist()
    for value, below, (_, _, requests) in zip(*told, asked, strict=True):
        for request in requests:
            yield request, value, below >= 0
