"""How likely a model finds each of several answers."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING

import torch

from morphing.benchmarks.encode import (
    batches,
    context_length,
    default_batch_size,
    encode,
    truncate,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Likelihood:
    """log P(continuation | context), summed over the continuation's ``tokens``."""

    logprob: float
    tokens: int
    truncated: bool


@dataclass(frozen=True)
class _Request:
    """All tokens of a context and its continuation; the last ``answer`` are the continuation's."""

    ids: tuple[int, ...]
    answer: int
    truncated: bool


def log_likelihoods(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    pairs: Sequence[tuple[str, str]],
    add_special_tokens: bool,
    batch_size: int | None,
    progress: Callable[[float], None],
) -> list[Likelihood]:
    """The log-likelihood of each (context, continuation), in float32 over the whole vocabulary.

    ``progress`` gets the share that is done. Rows are padded on the right: a causal model's real
    tokens never see what follows, so padding changes neither their positions nor their logits.
    Pairs that differ in their last token only cost one row.
    """
    requests = _requests(model, tokenizer, pairs, add_special_tokens)
    wanted: dict[tuple[int, ...], list[int]] = {}
    for index, request in enumerate(requests):
        wanted.setdefault(request.ids[:-1], []).append(index)
    rows = sorted(wanted)
    lengths = [len(row) for row in rows]
    size = batch_size or default_batch_size(model, max(lengths))
    found: dict[int, Likelihood] = {}
    done = 0
    with torch.inference_mode():
        for group in batches(lengths, size):
            inputs = [rows[index] for index in group]
            asked = [requests[index] for row in inputs for index in wanted[row]]
            first = min(len(request.ids) - 1 - request.answer for request in asked)
            logits, offset = _logits(model, inputs, first)
            for row, scores in zip(inputs, logits, strict=True):
                for index in wanted[row]:
                    found[index] = _likelihood(requests[index], scores, offset)
            done += len(group)
            progress(done / len(rows))
    return [found[index] for index in range(len(requests))]


def _logits(
    model: "PreTrainedModel", inputs: Sequence[tuple[int, ...]], first: int
) -> tuple[torch.Tensor, int]:
    """Logits (rows, positions, vocabulary) from position ``first`` on, or from 0 where the model
    can't leave any out; and the position they begin at."""
    width = max(map(len, inputs))
    ids = torch.zeros((len(inputs), width), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for at, row in enumerate(inputs):
        ids[at, : len(row)] = torch.tensor(row)
        mask[at, : len(row)] = 1
    keeps = "logits_to_keep" in inspect.signature(model.forward).parameters
    logits = model(
        input_ids=ids.to(model.device),
        attention_mask=mask.to(model.device),
        use_cache=False,
        **({"logits_to_keep": width - first} if keeps else {}),
    ).logits
    return logits, width - logits.shape[1]


def _likelihood(request: _Request, scores: torch.Tensor, offset: int) -> Likelihood:
    # The logits at a position say what comes after it.
    end = len(request.ids) - 1 - offset
    logprobs = scores[end - request.answer : end].float().log_softmax(-1)
    chosen = torch.tensor(request.ids[-request.answer :], device=logprobs.device)
    total = logprobs.gather(-1, chosen[:, None]).sum().item()
    return Likelihood(total, request.answer, request.truncated)


def _requests(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    pairs: Sequence[tuple[str, str]],
    add_special_tokens: bool,
) -> list[_Request]:
    contexts = encode(tokenizer, [context for context, _ in pairs], add_special_tokens)
    wholes = encode(tokenizer, ["".join(pair) for pair in pairs], add_special_tokens)
    requests = []
    for context, whole in zip(contexts, wholes, strict=True):
        # A token that spans the end of the context is the continuation's. One token must come
        # before the continuation for anything to predict it.
        same = (a == b for a, b in zip(context, whole[:-1], strict=False))
        shared = max(1, sum(1 for _ in takewhile(bool, same)))
        answer = len(whole) - shared
        cut = truncate(tokenizer, whole, context_length(model, answer))
        requests.append(_Request(cut.ids, answer, cut.truncated))
    return requests
