"""Benchmarks of kind ``code``: the answer, in a program with its tests, runs in the sandbox."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from morphing.benchmarks.benchmark import Benchmark
from morphing.benchmarks.data.samples import Sample
from morphing.benchmarks.data.templates import render
from morphing.benchmarks.sandbox.run import Execution, require_code, run_program
from morphing.errors import MorphingError


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


def program(benchmark: Benchmark, sample: Sample, answer: str) -> str:
    """The program that tests ``answer``.

    Raises:
        MorphingError: the template uses a column that the dataset doesn't have.
    """
    from jinja2 import TemplateError

    try:
        return render(benchmark.program or "", {**(sample.row or {}), "answer": answer})
    except (TemplateError, TypeError, ValueError, ArithmeticError) as error:
        raise MorphingError(
            f"The program of benchmark {benchmark.name!r} can't be made from sample {sample.id}"
            f" ({error}): its columns are {', '.join(sample.row or {})}, and the answer is"
            " 'answer'."
        ) from error
