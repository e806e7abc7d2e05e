"""Benchmarks of kind ``perplexity``: how many bits a text costs a model, by its bytes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from morphing.benchmarks.benchmark import Benchmark
from morphing.benchmarks.data.sample import Sample
from morphing.benchmarks.engine.encode import (
    NotFiniteError,
    Request,
    context_length,
    continuations,
    windows,
)
from morphing.benchmarks.engine.likelihood import log_likelihoods
from morphing.benchmarks.kinds.turns import model_texts
from morphing.benchmarks.results import Output, Prepared, Progress
from morphing.errors import MorphingError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# What a token costs that a model rules out (a logit of -infinity): float32 knows no smaller
# probability than 2^-149.
_BITS_OF_A_RULED_OUT_TOKEN = 149.0


def check(benchmark: Benchmark) -> None:
    """Nothing to check: likelihoods need no metric that may be missing and run no code."""


def requests(
    tokenizer: PreTrainedTokenizerBase, benchmark: Benchmark, samples: Sequence[Sample]
) -> list[list[Request]]:
    """For each sample its text after its prompt, however long.

    Raises:
        MorphingError: a text is empty, or a chat template fails.
    """
    texts, special = model_texts(tokenizer, benchmark, samples)
    for sample in samples:
        if not sample.target:
            raise MorphingError(
                f"The text of benchmark {benchmark.name!r} at row {sample.id} is empty and has no"
                " perplexity: choose a column in which every row has text."
            )
    pairs = [(text, str(sample.target)) for text, sample in zip(texts, samples, strict=True)]
    return [[request] for request in continuations(tokenizer, pairs, special)]


def score(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prepared: Prepared,
    batch_size: int | None,
    progress: Progress,
) -> tuple[list[Output], int]:
    """The outputs of the samples, and of how many the prompt's beginning was cut."""
    samples = prepared.samples
    context = context_length(model, 1)
    split = [list(windows(request, context)) for (request,) in prepared.requests]
    owner = [at for at, parts in enumerate(split) for _ in parts]
    try:
        found = log_likelihoods(
            model,
            [[window] for parts in split for window in parts],
            batch_size,
            lambda share: progress(int(share * len(samples)), len(samples)),
        )
    except NotFiniteError as error:
        raise NotFiniteError(owner[error.at], model.dtype) from error
    outputs, truncated, remaining = [], 0, iter(found)
    for sample, parts in zip(samples, split, strict=True):
        mine = [next(remaining) for _ in parts]
        outputs.append(_output(sample, sum(m.logprob for m in mine), sum(m.tokens for m in mine)))
        truncated += any(each.truncated for each in mine)
    return outputs, truncated


def _output(sample: Sample, logprob: float, tokens: int) -> Output:
    text = str(sample.target)
    bits = -logprob / math.log(2)
    if not math.isfinite(bits):
        bits = _BITS_OF_A_RULED_OUT_TOKEN * tokens
    cost = bits / len(text.encode())
    told = f"{bits:.4f} bits, {tokens} tokens"
    return Output(sample.id, sample.prompt, told, f"{cost:.4f}", text, cost)
