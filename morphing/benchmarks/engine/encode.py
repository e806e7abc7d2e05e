"""From texts to tokens that fit a model's context."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING

from morphing.errors import MorphingError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class NoRoomError(MorphingError):
    """An answer alone fills the context; the sentence wants the benchmark's name before it."""


class NotFiniteError(MorphingError):
    """A model's logits are NaN or infinite; the sentence wants the benchmark and sample before it.

    ``at`` is the place of the group of requests, or of the prompt, among those that were given.
    """

    def __init__(self, at: int, dtype: object) -> None:
        kind = str(dtype).removeprefix("torch.")
        super().__init__(
            "the model's logits are NaN or infinite: its weights are not finite, or they overflow"
            f" in {kind}. Check the weights and the recipe, or take another dtype."
        )
        self.at = at


@dataclass(frozen=True)
class Request:
    """Token ids of a text, the last ``answer`` of which a model is asked for.

    They may be given, to say how likely they are, or not yet there, to be generated: then
    ``answer`` is 0 and all of it is the prompt. ``truncated`` if its beginning was cut to fit the
    context.
    """

    ids: tuple[int, ...]
    answer: int = 0
    truncated: bool = False


def encode(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], add_special_tokens: bool
) -> list[list[int]]:
    """Token ids of each text, ready to be continued: no end token, never empty.

    Where the tokenizer begins texts with a token of its own (BOS), every row has exactly one,
    whether a chat template has written it already (``add_special_tokens`` is False then), has
    written none, or the text has one of its own.
    """
    if not texts:
        return []
    rows = tokenizer(list(texts), add_special_tokens=add_special_tokens)["input_ids"]
    end, begin = tokenizer.eos_token_id, beginning(tokenizer)
    for ids in rows:
        if begin is not None:
            while ids[:2] == [begin, begin]:
                ids.pop(0)
            if ids[:1] != [begin]:
                ids.insert(0, begin)
        # Some tokenizers close every text; an answer must not come after the end.
        if add_special_tokens and len(ids) > 1 and ids[-1] == end:
            ids.pop()
        if not ids:
            ids.append(_start(tokenizer))
    return rows


def beginning(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The token that the tokenizer begins every text with; None where it begins with none."""
    ids = tokenizer("a", add_special_tokens=True)["input_ids"]
    token = tokenizer.bos_token_id
    return token if token is not None and ids[:1] == [token] else None


def _start(tokenizer: PreTrainedTokenizerBase) -> int:
    """What stands before a text that nothing is before."""
    known = (tokenizer.bos_token_id, tokenizer.eos_token_id)
    return next((token for token in known if token is not None), 0)


def prompts(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], add_special_tokens: bool
) -> list[Request]:
    """Texts to be continued."""
    return [Request(tuple(ids)) for ids in encode(tokenizer, texts, add_special_tokens)]


def continuations(
    tokenizer: PreTrainedTokenizerBase, pairs: Sequence[tuple[str, str]], add_special_tokens: bool
) -> list[Request]:
    """(context, continuation) as requests for the continuation.

    The two are encoded together. A token that spans the end of the context is the continuation's.
    """
    texts = list(dict.fromkeys(context for context, _ in pairs))
    alone = dict(zip(texts, encode(tokenizer, texts, add_special_tokens), strict=True))
    wholes = encode(tokenizer, ["".join(pair) for pair in pairs], add_special_tokens)
    made = []
    for (context, _), whole in zip(pairs, wholes, strict=True):
        if not context and whole[0] != alone[context][0]:
            # One token must come before the continuation for anything to predict it.
            whole.insert(0, alone[context][0])
        same = (a == b for a, b in zip(alone[context], whole[:-1], strict=False))
        shared = max(1, sum(1 for _ in takewhile(bool, same)))
        made.append(Request(tuple(whole), len(whole) - shared))
    return made


def fit(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    requests: Sequence[Request],
    new_tokens: int = 0,
) -> list[Request]:
    """The requests, the long ones without their beginning, so that the context holds them.

    ``new_tokens`` are to be generated after each. What is kept is the end of a prompt, where its
    question stands, after the token that begins every text.

    Raises:
        NoRoomError: the answer alone fills the context.
    """
    fitting = []
    for request in requests:
        context = context_length(model, request.answer or new_tokens)
        if context is None:
            fitting.append(request)
            continue
        # A given answer's last token is not read.
        room = context - new_tokens + (1 if request.answer else 0)
        fitting.append(_cut(tokenizer, request, room))
    return fitting


def _cut(tokenizer: PreTrainedTokenizerBase, request: Request, room: int) -> Request:
    ids = request.ids
    if len(ids) <= room:
        return request
    start = ids[:1] if room > request.answer + 1 and ids[0] == tokenizer.bos_token_id else ()
    return Request((*start, *ids[len(ids) - room + len(start) :]), request.answer, truncated=True)


def context_length(model: PreTrainedModel, answer_tokens: int) -> int | None:
    """Tokens a prompt and its answer may have together; None where nothing limits them.

    Raises:
        NoRoomError: the answer alone fills the context.
    """
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if context is not None and context <= answer_tokens:
        raise NoRoomError(
            f"answers of {answer_tokens} tokens leave no room for a prompt in this model's context"
            f" of {context} tokens: lower the benchmark's max_new_tokens or shorten its choices."
        )
    return context


def windows(request: Request, context: int | None) -> Iterator[Request]:
    """Requests that ask for each token of the answer once and each fit the context.

    As in lm-evaluation-harness: every window but the last asks for as many tokens as it reads, and
    so sees nothing of the ones before it but one token; the last is moved back until it is full. A
    prompt is cut to half the context where it and the answer don't fit together.
    """
    if context is None or len(request.ids) - 1 <= context:
        yield request
        return
    before = len(request.ids) - request.answer
    cut = max(0, before - max(1, context // 2))
    ids, begin = request.ids[cut:], before - cut
    first = True
    while begin < len(ids):
        end = min(len(ids), context + 1 if first else begin + context)
        start = max(0, end - context - 1)
        yield Request(ids[start:end], end - begin, bool(cut))
        begin, first = end, False


def by_length(lengths: Sequence[int]) -> list[int]:
    """Indices, the longest first: batches of neighbours are padded little, and memory's peak comes
    early."""
    return sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
