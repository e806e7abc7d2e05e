"""Benchmarks of kind ``code``: the answer, in a program with its tests, runs in the sandbox."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from morphing.benchmarks.benchmark import Benchmark
from morphing.benchmarks.data.sample import Sample
from morphing.benchmarks.data.templates import render
from morphing.benchmarks.judging.extract import extract_answer
from morphing.benchmarks.judging.programs import names_missing_in
from morphing.benchmarks.kinds.generation import Judged, judged_by, requests
from morphing.benchmarks.results import Output, Prepared, Progress
from morphing.benchmarks.sandbox.check import require_code
from morphing.benchmarks.sandbox.run import Execution, run_program
from morphing.errors import MorphingError
from morphing.rendering.process import TemplateFailed

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["check", "program", "requests", "score", "score_all"]


def check(benchmark: Benchmark) -> None:
    """Whether programs may run here and can be isolated, said before a model is asked.

    Raises:
        MorphingError: as `sandbox.check.require_code`.
    """
    require_code(benchmark.name)


def score(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prepared: Prepared,
    batch_size: int | None,
    progress: Progress,
) -> tuple[list[Output], int]:
    """The outputs of the samples, and of how many the prompt's beginning was cut."""
    return judged_by(_run, model, tokenizer, prepared, batch_size, progress)


def _run(benchmark: Benchmark, samples: Sequence[Sample], texts: Sequence[str]) -> Judged:
    answers = [
        extract_answer(benchmark.extract, text, wanted=wanted_names(benchmark, sample))
        for sample, text in zip(samples, texts, strict=True)
    ]
    return [
        (answer, float(execution.passed), "" if execution.passed else f"\n[{execution.reason}]")
        for answer, execution in zip(answers, score_all(benchmark, samples, answers), strict=True)
    ]


def score_all(
    benchmark: Benchmark,
    samples: Sequence[Sample],
    answers: Sequence[str],
    progress: Callable[[int], None] = lambda done: None,
) -> list[Execution]:
    """Run each sample's program with its answer, as many at once as there are processors.

    ``progress`` gets how many have ended. Whether a program passes does not depend on what runs
    beside it, as long as waiting for a processor does not make it miss the limit on time.

    Raises:
        MorphingError: code may not run here, the sandbox is not whole, or ``program`` doesn't fit
            the dataset's columns.
    """
    require_code(benchmark.name)
    programs = [
        program(benchmark, sample, answer) for sample, answer in zip(samples, answers, strict=True)
    ]
    executions = []
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        try:
            for execution in pool.map(run_program, programs):
                executions.append(execution)
                progress(len(executions))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return executions


def wanted_names(benchmark: Benchmark, sample: Sample) -> frozenset[str]:
    """What an answer has to define: the dataset's ``entry_point`` where it has that column, else
    the names that the program with its tests lacks without an answer.
    """
    entry_point = (sample.row or {}).get("entry_point")
    if isinstance(entry_point, str):
        return frozenset({entry_point})
    return names_missing_in(program(benchmark, sample, ""))


def program(benchmark: Benchmark, sample: Sample, answer: str) -> str:
    """The program that tests ``answer``.

    Raises:
        MorphingError: the template uses a column that the dataset doesn't have.
    """
    try:
        return render(benchmark.program or "", {**(sample.row or {}), "answer": answer})
    except TemplateFailed as error:
        raise MorphingError(
            f"The program of benchmark {benchmark.name!r} can't be made from sample {sample.id}"
            f" ({error}): its columns are {', '.join(sample.row or {})}, and the answer is"
            " 'answer'."
        ) from error
