"""Benchmarks of kind ``multiple_choice``: the option that the model finds likeliest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from morphing.benchmarks.benchmark import Benchmark
from morphing.benchmarks.data.sample import Sample
from morphing.benchmarks.engine.encode import Request, continuations, fit
from morphing.benchmarks.engine.likelihood import Likelihood, log_likelihoods
from morphing.benchmarks.kinds.turns import model_texts
from morphing.benchmarks.results import Output, Prepared, Progress

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# What an option's log-likelihood is divided by. A space before an option parts it from the prompt
# and is none of its characters, as in lm-evaluation-harness.
_LENGTHS: dict[str, Callable[[str, Likelihood], int]] = {
    "tokens": lambda option, found: found.tokens,
    "characters": lambda option, found: len(option.lstrip()),
    "bytes": lambda option, found: len(option.lstrip().encode()),
}


def check(benchmark: Benchmark) -> None:
    """Nothing to check: likelihoods need no metric that may be missing and run no code."""


def requests(
    tokenizer: PreTrainedTokenizerBase, benchmark: Benchmark, samples: Sequence[Sample]
) -> list[list[Request]]:
    """For each sample a request for each option: for itself, or for what follows it."""
    texts, special = model_texts(tokenizer, benchmark, samples)
    pairs = [
        (text + option, sample.continuation) if sample.continuation else (text, option)
        for text, sample in zip(texts, samples, strict=True)
        for option in sample.choices
    ]
    made = iter(continuations(tokenizer, pairs, special))
    return [[next(made) for _ in sample.choices] for sample in samples]


def score(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prepared: Prepared,
    batch_size: int | None,
    progress: Progress,
) -> tuple[list[Output], int]:
    """The outputs of the samples, and of how many the beginning was cut."""
    samples = prepared.samples
    found = iter(
        log_likelihoods(
            model,
            [fit(model, tokenizer, group) for group in prepared.requests],
            batch_size,
            lambda share: progress(int(share * len(samples)), len(samples)),
        )
    )
    outputs, truncated = [], 0
    for sample in samples:
        mine = [next(found) for _ in sample.choices]
        outputs.append(_output(prepared.benchmark, sample, mine))
        truncated += any(each.truncated for each in mine)
    return outputs, truncated


def _output(benchmark: Benchmark, sample: Sample, found: Sequence[Likelihood]) -> Output:
    values = [each.logprob for each in found]
    if benchmark.normalize is not None:
        length = _LENGTHS[benchmark.normalize]
        values = [
            each.logprob / max(1, length(sample.continuation or option, each))
            for option, each in zip(sample.choices, found, strict=True)
        ]
    text = " ".join(
        f"{option.strip()}={value:.4f}"
        for option, value in zip(sample.choices, values, strict=True)
    )
    chosen = values.index(max(values))
    answer = sample.choices[chosen].strip()
    right = sample.choices[int(sample.target)].strip()
    right_one = float(chosen == int(sample.target))
    return Output(sample.id, sample.prompt, text, answer, right, right_one)
