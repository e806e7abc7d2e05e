"""Score a loaded model on samples of a benchmark."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from morphing.benchmarks.benchmark import Benchmark
from morphing.benchmarks.extract import extract_answer
from morphing.benchmarks.load import Sample
from morphing.benchmarks.metrics import get_metric
from morphing.benchmarks.prompt import model_text
from morphing.devices import suitable_threads
from morphing.errors import MorphingError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Progress = Callable[[int, int], None]
"""(samples done, samples in all)"""


@dataclass(frozen=True)
class Output:
    """What a model made of one sample.

    ``prompt`` is the sample's, before any chat template. ``text`` is what was generated, or each
    choice's log-likelihood; ``answer`` and ``target`` are what the metric compared (of a multiple
    choice, the choices chosen and right). ``tokens`` are those generated, with the end token; 0 of
    a multiple choice.
    """

    id: str
    prompt: str
    text: str
    answer: str
    target: str
    score: float
    tokens: int = 0


@dataclass(frozen=True)
class Score:
    """The mean score over ``n`` samples.

    ``stderr`` is the standard error of that mean from the samples' own spread, with n - 1 (for
    right and wrong answers sqrt(p (1 - p) / (n - 1))), and 0 for a single sample. ``truncated``
    counts samples whose prompt's beginning was cut to fit the model's context. ``tokens`` is the
    mean number of generated tokens, None of a multiple choice; ``seconds`` is how long scoring
    took, prompts read included and the time spent in ``progress`` (a pause) not.
    """

    value: float
    n: int
    stderr: float
    outputs: tuple[Output, ...]
    truncated: int = 0
    tokens: float | None = None
    seconds: float = field(default=0.0, compare=False)

    @classmethod
    def of(
        cls, outputs: Sequence[Output], truncated: int, seconds: float, *, generated: bool
    ) -> Score:
        """The figures of ``outputs``, which are one or more."""
        n = len(outputs)
        value = math.fsum(output.score for output in outputs) / n
        spread = math.fsum((output.score - value) ** 2 for output in outputs)
        stderr = math.sqrt(spread / (n - 1) / n) if n > 1 else 0.0
        tokens = sum(output.tokens for output in outputs) / n if generated else None
        return cls(value, n, stderr, tuple(outputs), truncated, tokens, seconds)

    def joined(self, rest: Score) -> Score:
        """The score on these samples and on others that come after them."""
        return Score.of(
            (*self.outputs, *rest.outputs),
            self.truncated + rest.truncated,
            self.seconds + rest.seconds,
            generated=self.tokens is not None,
        )


def evaluate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    benchmark: Benchmark,
    samples: Sequence[Sample],
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> Score:
    """Score ``model`` on ``samples``; outputs come in the order of the samples.

    Greedy and deterministic: the same weights, samples and batch size give the same score exactly
    (on one kind of device). Other samples beside them make other batches, and by the rounding of
    sums in these a close call between two tokens may go the other way; so samples scored in two
    parts need not have the answers of the whole. The batch size is chosen from the model's
    configuration where it isn't given. ``progress`` is called after every batch. The model is put
    in evaluation mode.

    Raises:
        MorphingError: no samples, answers longer than the model's context, a metric of the
            evaluate library that can't be loaded.
    """
    if not samples:
        raise MorphingError(f"Benchmark {benchmark.name!r} has no samples to evaluate.")
    generated = benchmark.kind != "multiple_choice"
    run = _generation if generated else _multiple_choice
    model.eval()
    start, aside = time.perf_counter(), 0.0

    def report(done: int, total: int) -> None:
        nonlocal aside
        if progress is not None:
            began = time.perf_counter()
            progress(done, total)
            aside += time.perf_counter() - began

    with suitable_threads(model.num_parameters(), model.device):
        outputs, truncated = run(model, tokenizer, benchmark, samples, batch_size, report)
    seconds = time.perf_counter() - start - aside
    return Score.of(outputs, truncated, seconds, generated=generated)


def _generation(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    benchmark: Benchmark,
    samples: Sequence[Sample],
    batch_size: int | None,
    progress: Progress,
) -> tuple[list[Output], int]:
    from morphing.benchmarks.encode import (
        batches,
        context_length,
        default_batch_size,
        encode,
        truncate,
    )
    from morphing.benchmarks.generate import generate

    metric = get_metric(benchmark.metric)
    asked = [model_text(sample.prompt, tokenizer, benchmark.chat) for sample in samples]
    limit = benchmark.max_new_tokens
    context = context_length(model, limit)
    room = None if context is None else context - limit
    rows = encode(tokenizer, [text for text, _ in asked], add_special_tokens=asked[0][1])
    prompts = [truncate(tokenizer, row, room) for row in rows]
    lengths = [len(prompt.ids) for prompt in prompts]
    size = batch_size or default_batch_size(model, max(lengths) + limit)
    written = generate(
        model,
        tokenizer,
        prompts,
        batches(lengths, size),
        limit,
        benchmark.stop,
        lambda done: progress(done, len(samples)),
    )
    outputs = []
    for sample, (text, tokens) in zip(samples, written, strict=True):
        answer = extract_answer(benchmark.extract, text, benchmark.language)
        target = str(sample.target)
        score = metric(answer, target)
        outputs.append(Output(sample.id, sample.prompt, text, answer, target, score, tokens))
    return outputs, sum(prompt.truncated for prompt in prompts)


def _multiple_choice(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    benchmark: Benchmark,
    samples: Sequence[Sample],
    batch_size: int | None,
    progress: Progress,
) -> tuple[list[Output], int]:
    from morphing.benchmarks.likelihood import log_likelihoods

    asked = [model_text(sample.prompt, tokenizer, benchmark.chat) for sample in samples]
    pairs = [
        (text, choice)
        for sample, (text, _) in zip(samples, asked, strict=True)
        for choice in sample.choices
    ]
    likelihoods = log_likelihoods(
        model,
        tokenizer,
        pairs,
        asked[0][1],
        batch_size,
        lambda share: progress(int(share * len(samples)), len(samples)),
    )
    outputs, truncated = [], 0
    remaining = iter(likelihoods)
    for sample in samples:
        mine = [next(remaining) for _ in sample.choices]
        values = [each.logprob / (each.tokens if benchmark.normalize else 1) for each in mine]
        text = " ".join(
            f"{choice.strip()}={value:.4f}"
            for choice, value in zip(sample.choices, values, strict=True)
        )
        # A merge may be broken enough to give NaN: then it has chosen nothing.
        broken = any(math.isnan(value) for value in values)
        chosen = -1 if broken else values.index(max(values))
        answer = "" if broken else sample.choices[chosen].strip()
        right = sample.choices[int(sample.target)].strip()
        score = float(chosen == int(sample.target))
        outputs.append(Output(sample.id, sample.prompt, text, answer, right, score))
        truncated += any(each.truncated for each in mine)
    return outputs, truncated
