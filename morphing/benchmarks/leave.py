"""Code of others that scoring a benchmark would run, and whether it may.

Whoever takes a benchmark in (a spec, a declaration's file, a run that is resumed, the app, a job)
asks here before anything is loaded, and `evaluate` asks again.
"""

from __future__ import annotations

from morphing.benchmarks.benchmark import Benchmark
from morphing.benchmarks.judging.metrics import module_of
from morphing.benchmarks.kinds.table import KINDS
from morphing.benchmarks.sandbox.check import ask_leave, require_code


def code_of_others(benchmark: Benchmark) -> str | None:
    """What scoring runs that is neither Morphing's nor the harness's own; None if nothing.

    Raises:
        MorphingError: a task of lm-evaluation-harness can't be found.
    """
    if KINDS[benchmark.kind].runs_code:
        return "runs programs that the model writes"
    if benchmark.include is not None:
        from morphing.benchmarks.harness.files import find_task

        return find_task(str(benchmark.task), benchmark.include).foreign_code
    if (module := module_of(benchmark.metric)) is not None:
        return f"runs the metric {module!r}, a program of the evaluate library or of a folder"
    return None


def require_leave(benchmark: Benchmark) -> None:
    """Check that all code of others that scoring needs may run here.

    Raises:
        MorphingError: it is not switched on (``--allow-code``), or this system can't isolate the
            programs that a model writes.
    """
    if KINDS[benchmark.kind].runs_code:
        require_code(benchmark.name)
    elif (what := code_of_others(benchmark)) is not None:
        ask_leave(f"Benchmark {benchmark.name!r} {what}")
