"""From an answer and its target to a score: our own metrics, and those of the evaluate library."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from fractions import Fraction
from functools import partial

from morphing.benchmarks.judging.mathematics import same_answer
from morphing.benchmarks.judging.modules import EVALUATE, module_metric
from morphing.benchmarks.judging.numbers import read_number
from morphing.benchmarks.judging.similarity import ROUGE, bleu, chrf, f1, rouge

Metric = Callable[[str, str], float]
"""(answer, target) -> score, the higher the better; 0 or 1 for the accuracy-like ones, and between
0 and 1 for the others of ours."""


def _equal(answer: str, target: str) -> float:
    return float(answer.strip() == target.strip())


def _equal_numbers(answer: str, target: str, language: str | None = None) -> float:
    # As data has numbers ("1234.5") before as the language writes them ("1.234,5").
    goal = next((goal for goal in _numbers(target, language) if goal is not None), None)
    return float(goal is not None and goal in _numbers(answer, language))


def _numbers(text: str, language: str | None) -> list[Fraction | None]:
    return [read_number(text), read_number(text, language)]


METRICS: dict[str, Metric] = {
    "accuracy": _equal,
    "exact_match": _equal,
    "numeric": _equal_numbers,
    "math": same_answer,
    "f1": f1,
    **{kind: partial(rouge, kind) for kind in ROUGE},
    "bleu": bleu,
    "chrf": chrf,
}

# What the evaluate library computes with a module from the Hub, by the libraries behind it.
_NATIVE = {
    **{f"rouge#{kind}": kind for kind in ROUGE},
    "rouge": "rougeL",
    **dict.fromkeys(("bleu", "bleu#bleu", "sacrebleu", "sacrebleu#score"), "bleu"),
    **dict.fromkeys(("chrf", "chrf#score"), "chrf"),
    **{name: name for name in ("exact_match", "accuracy", "f1")},
    **{f"{name}#{name}": name for name in ("exact_match", "accuracy", "f1")},
}


def check_metric(name: str) -> None:
    """Raise ValueError where there is no such metric (one of evaluate is looked for at its use)."""
    if name in METRICS:
        return
    if not name.startswith(EVALUATE):
        spelt = {metric.lower(): metric for metric in METRICS}
        near = get_close_matches(name.lower(), spelt, n=1)
        hint = f"did you mean {spelt[near[0]]!r}? else " if near else ""
        raise ValueError(
            f"unknown metric {name!r} ({hint}choose {', '.join(METRICS)} or"
            " evaluate:<name or folder>)"
        )
    target = name.removeprefix(EVALUATE).partition("#")[0]
    if "/" in target and not target.startswith(("/", "./", "../")):
        raise ValueError(
            f"the metric {name!r} would run a stranger's code from the Hub (take one of"
            " evaluate's own, or a local folder written ./folder)"
        )


def module_of(name: str) -> str | None:
    """The module of the evaluate library that a metric runs; None of Morphing's own."""
    if not name.startswith(EVALUATE) or name.removeprefix(EVALUATE) in _NATIVE:
        return None
    return name.removeprefix(EVALUATE).partition("#")[0]


def get_metric(name: str, language: str | None = None) -> Metric:
    """The metric ``name`` for answers in ``language`` (BCP 47), which BLEU's words and the
    reading of numbers depend on.

    ``evaluate:<name or folder>`` is a module of the evaluate library: one of its own, fetched from
    the Hub once, or a local folder. Where the metric is one of ours too (rouge, bleu, sacrebleu,
    chrf, exact_match, accuracy, f1) ours is taken, which needs no network; ours are shares, where
    evaluate gives percents (sacrebleu, chrf). It is computed sample by sample, so the score is the
    mean over samples also where the library's own figure over a corpus differs (BLEU).
    ``evaluate:rouge#rougeL`` names the result to take where there are several.

    Raises:
        MorphingError: an evaluate module that may not run or can't be loaded, or whose result
            isn't there.
    """
    if module_of(name) is not None:
        return module_metric(name)
    own = _NATIVE[name.removeprefix(EVALUATE)] if name.startswith(EVALUATE) else name
    if own == "bleu":
        return partial(bleu, language=language)
    if own == "numeric":
        return partial(_equal_numbers, language=language)
    return METRICS[own]
