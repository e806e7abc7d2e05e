"""Metrics of the evaluate library: each is a program, from its authors on the Hub or a folder.

They run with all that this process may do, so they need the same leave as programs that a model
writes (``--allow-code``).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, wraps
from pathlib import Path
from typing import Any

from morphing.benchmarks.sandbox.check import ask_leave
from morphing.errors import MorphingError, first_line

EVALUATE = "evaluate:"
"""What the name of such a metric begins with."""


def module_metric(name: str) -> Callable[[str, str], float]:
    """The metric ``evaluate:<name or folder>[#result]``: (answer, target) -> score.

    Raises:
        MorphingError: no leave to run it, it can't be loaded, or (from the metric) its result has
            no such number.
    """
    ask_leave(f"The metric {name!r} runs a program of the evaluate library or of a folder")
    return _loaded(name)


@cache
def _loaded(name: str) -> Callable[[str, str], float]:
    import evaluate

    module_name, _, key = name.removeprefix(EVALUATE).partition("#")
    try:
        module = evaluate.load(module_name, keep_in_memory=True)
    except Exception as error:
        # Modules are programs: what one raises while it loads can't be told in advance.
        raise MorphingError(
            f"The metric {name!r} can't be loaded from the evaluate library ({first_line(error)}):"
            " check its name and the network, or use one of Morphing's own metrics."
        ) from error
    default = key or (Path(module_name).name if "/" in module_name else module_name)

    def score(answer: str, target: str) -> float:
        result: dict[str, Any] = module.compute(predictions=[answer], references=[target])
        value = result.get(default)
        if value is None and not key and len(result) == 1:
            value = next(iter(result.values()))
        if not isinstance(value, int | float):
            raise MorphingError(
                f"The metric {name!r} has no number {default!r} in its result: choose one of"
                f" {', '.join(result)} and write it after '#'."
            )
        return float(value)

    return score


@cache
def guard_modules() -> None:
    """Have `evaluate.load` ask for leave from now on, whoever calls it in this process.

    Tasks of lm-evaluation-harness call it in their own code, some as they are imported.
    """
    import evaluate

    load = evaluate.load

    @wraps(load)
    def guarded(path: str, *args: Any, **options: Any) -> Any:
        ask_leave(f"The metric {path!r} of the evaluate library is a program")
        return load(path, *args, **options)

    evaluate.load = guarded
