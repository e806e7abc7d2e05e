"""Benchmarks of kind ``generation``: a greedy answer, extracted and compared with the target."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from morphing.benchmarks.benchmark import Benchmark
from morphing.benchmarks.data.sample import Sample
from morphing.benchmarks.engine.encode import Request, fit, prompts
from morphing.benchmarks.engine.generate import generate
from morphing.benchmarks.engine.thinking import may_think
from morphing.benchmarks.judging.extract import extract_answer
from morphing.benchmarks.judging.metrics import get_metric
from morphing.benchmarks.kinds.turns import model_texts
from morphing.benchmarks.results import Output, Prepared, Progress

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Judged = list[tuple[str, float, str]]
"""Of each text the answer in it, the answer's score, and what is noted after the text."""
Judge = Callable[[Benchmark, Sequence[Sample], Sequence[str]], Judged]
"""From generated texts, one a sample, to what they are worth."""


def check(benchmark: Benchmark) -> None:
    """Load the metric: better known to be missing before a model is asked than after."""
    get_metric(benchmark.metric)


def requests(
    tokenizer: PreTrainedTokenizerBase, benchmark: Benchmark, samples: Sequence[Sample]
) -> list[list[Request]]:
    """For each sample its prompt."""
    texts, special = model_texts(tokenizer, benchmark, samples, benchmark.thinking)
    return [[prompt] for prompt in prompts(tokenizer, texts, special)]


def score(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prepared: Prepared,
    batch_size: int | None,
    progress: Progress,
) -> tuple[list[Output], int]:
    """The outputs of the samples, and of how many the prompt's beginning was cut."""
    return judged_by(_compare, model, tokenizer, prepared, batch_size, progress)


def judged_by(
    judge: Judge,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prepared: Prepared,
    batch_size: int | None,
    progress: Progress,
) -> tuple[list[Output], int]:
    """As `score`, with texts judged by ``judge``."""
    benchmark, samples = prepared.benchmark, prepared.samples
    asked = [request for (request,) in prepared.requests]
    fitting = fit(model, tokenizer, asked, benchmark.max_new_tokens)
    written = generate(
        model,
        tokenizer,
        fitting,
        benchmark.max_new_tokens,
        benchmark.stop,
        batch_size,
        lambda done: progress(done, len(samples)),
        room_for_thoughts(tokenizer, benchmark),
    )
    # A thought that did not come to an end is no answer, and nothing in it is judged.
    ended = [(s, w.text) for s, w in zip(samples, written, strict=True) if not w.unfinished]
    judged = iter(judge(benchmark, [s for s, _ in ended], [text for _, text in ended]))
    outputs = []
    for sample, reply in zip(samples, written, strict=True):
        answer, value, note = ("", 0.0, "") if reply.unfinished else next(judged)
        outputs.append(
            Output(
                sample.id,
                sample.prompt,
                reply.text + note,
                answer,
                str(sample.target),
                value,
                reply.tokens,
                reply.thought,
                reply.unfinished,
            )
        )
    return outputs, sum(request.truncated for request in fitting)


def room_for_thoughts(tokenizer: PreTrainedTokenizerBase, benchmark: Benchmark) -> int:
    """New tokens that thoughts may take, of a model that may think."""
    asked = benchmark.thinking != "off" and may_think(tokenizer)
    return benchmark.thinking_tokens if asked else 0


def _compare(benchmark: Benchmark, samples: Sequence[Sample], texts: Sequence[str]) -> Judged:
    metric = get_metric(benchmark.metric, benchmark.language)
    answers = [extract_answer(benchmark.extract, text, benchmark.language) for text in texts]
    return [
        (answer, metric(answer, str(sample.target)), "")
        for sample, answer in zip(samples, answers, strict=True)
    ]
