"""From an answer and its target to a score: our own metrics, and those of the evaluate library."""

from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from functools import cache
from pathlib import Path
from typing import Any

from morphing.errors import MorphingError

Metric = Callable[[str, str], float]
"""(answer, target) -> score, the higher the better; 0 or 1 for the accuracy-like ones."""

EVALUATE = "evaluate:"


def _equal(answer: str, target: str) -> float:
    return float(answer.strip() == target.strip())


def _equal_numbers(answer: str, target: str) -> float:
    try:
        return float(_number(answer) == _number(target))
    except InvalidOperation:
        return 0.0


def _number(text: str) -> Decimal:
    return Decimal(text.strip().replace(",", ""))


METRICS: dict[str, Metric] = {
    "accuracy": _equal,
    "exact_match": _equal,
    "numeric": _equal_numbers,
}


def check_metric(name: str) -> None:
    """Raise ValueError where there is no such metric (one of evaluate is looked for at its use)."""
    if name in METRICS:
        return
    if not name.startswith(EVALUATE):
        raise ValueError(
            f"unknown metric {name!r} (choose {', '.join(METRICS)} or evaluate:<name or folder>)"
        )
    target = name.removeprefix(EVALUATE).partition("#")[0]
    if "/" in target and not target.startswith(("/", "./", "../")):
        raise ValueError(
            f"the metric {name!r} would run a stranger's code from the Hub (take one of"
            " evaluate's own, or a local folder written ./folder)"
        )


def get_metric(name: str) -> Metric:
    """The metric ``name``.

    ``evaluate:<name or folder>`` is a module of the evaluate library: one of its own, fetched from
    the Hub once, or a local folder. It is computed sample by sample, so the score is the mean over
    samples also where the library's own figure over a corpus differs (BLEU, F1).
    ``evaluate:rouge#rougeL`` names the result to take where there are several.

    Raises:
        MorphingError: an evaluate module that can't be loaded, or whose result isn't there.
    """
    return METRICS[name] if name in METRICS else _evaluate_metric(name)


@cache
def _evaluate_metric(name: str) -> Metric:
    import evaluate

    module_name, _, key = name.removeprefix(EVALUATE).partition("#")
    try:
        module = evaluate.load(module_name, keep_in_memory=True)
    except Exception as error:
        # Modules are programs: what one raises while it loads can't be told in advance.
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise MorphingError(
            f"The metric {name!r} can't be loaded from the evaluate library ({reason}): check its"
            " name and the network, or use one of " + ", ".join(METRICS) + "."
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
