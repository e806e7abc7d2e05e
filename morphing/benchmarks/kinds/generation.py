"""Benchmarks of kinds ``generation`` and ``code``: a greedy answer, extracted and judged."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from morphing.benchmarks.benchmark import Benchmark
from morphing.benchmarks.data.samples import Sample
from morphing.benchmarks.engine.encode import Request, fit, prompts
from morphing.benchmarks.engine.generate import generate
from morphing.benchmarks.evaluate import Output, Prepared, Progress
from morphing.benchmarks.judging.extract import extract_answer
from morphing.benchmarks.judging.metrics import get_metric
from morphing.benchmarks.kinds.turns import model_texts

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def requests(
    tokenizer: "PreTrainedTokenizerBase", benchmark: Benchmark, samples: Sequence[Sample]
) -> list[list[Request]]:
    """For each sample its prompt."""
    texts, special = model_texts(tokenizer, benchmark, samples)
    return [[prompt] for prompt in prompts(tokenizer, texts, special)]


def score(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    prepared: Prepared,
    batch_size: int | None,
    progress: Progress,
) -> tuple[list[Output], int]:
    """The outputs of the samples, and of how many the prompt's beginning was cut."""
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
    )
    answers = [extract_answer(benchmark.extract, text, benchmark.language) for text, _ in written]
    judge = _run if benchmark.kind == "code" else _compare
    judged = judge(benchmark, samples, answers)
    outputs = [
        Output(sample.id, sample.prompt, text + note, answer, str(sample.target), value, tokens)
        for sample, (text, tokens), answer, (value, note) in zip(
            samples, written, answers, judged, strict=True
        )
    ]
    return outputs, sum(request.truncated for request in fitting)


_Judged = list[tuple[float, str]]
"""Scores, and what is noted after each answer's text."""


def _compare(benchmark: Benchmark, samples: Sequence[Sample], answers: Sequence[str]) -> _Judged:
    metric = get_metric(benchmark.metric, benchmark.language)
    return [
        (metric(answer, str(sample.target)), "")
        for sample, answer in zip(samples, answers, strict=True)
    ]


def _run(benchmark: Benchmark, samples: Sequence[Sample], answers: Sequence[str]) -> _Judged:
    from morphing.benchmarks.kinds.code import score_all

    return [
        (float(execution.passed), "" if execution.passed else f"\n[{execution.reason}]")
        for execution in score_all(benchmark, samples, answers)
    ]
