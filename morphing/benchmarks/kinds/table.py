"""The kinds of benchmarks there are: one line each, read by all that names or checks kinds.

To add a kind, write its module (see ``module``) and add its line. A declaration's fields and their
checks (`benchmark.Benchmark`), scoring (`evaluate`), the app's words and docs/benchmarks.md read
this table; a test holds that none of them leaves a kind out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

# Fields of kinds whose questions are made by templates over a row.
_ASKED = ("prompt", "system", "target", "shot", "shot_separator", "few_shot_split")
# Fields of kinds whose answers are generated.
_WRITTEN = ("stop", "extract", "thinking", "thinking_tokens")


@dataclass(frozen=True)
class Kind:
    """A way of asking and scoring.

    Attributes:
        name: As a declaration's field ``kind`` has it.
        title: What it is called on a card of the app.
        sentence: What the score of a sample is.
        module: The module under ``morphing.benchmarks`` that scores it, a `results.Scorer`.
        needs: Fields without which a declaration of this kind means nothing.
        takes: Fields that this kind has and not every kind has, beside ``needs``.
        metric: Its only metric; None where a declaration chooses one.
        extract: How an answer is extracted where a declaration says nothing.
        choice: What it is called where the columns of somebody's own data are mapped by hand;
            empty where that can't be done by hand.
        generates: Whether models write answers, so that a score has a mean number of tokens.
        runs_code: Whether programs that a model writes are run.
    """

    name: str
    title: str
    sentence: str
    module: str
    needs: tuple[str, ...]
    takes: tuple[str, ...] = ()
    metric: str | None = None
    extract: str = "strip"
    choice: str = ""
    generates: bool = False
    runs_code: bool = False


# fmt: off
KINDS: Mapping[str, Kind] = {kind.name: kind for kind in (
    Kind(
        "generation", "written answer", "the metric of the answer in a greedily generated text",
        "kinds.generation", ("prompt", "target"), (*_ASKED, *_WRITTEN),
        choice="A written answer", generates=True,
    ),
    Kind(
        "multiple_choice", "multiple choice", "1 if the right option is the likeliest",
        "kinds.multiple_choice", ("target", "choices"), (*_ASKED, "continuation", "normalize"),
        metric="accuracy", choice="The likeliest option",
    ),
    Kind(
        "perplexity", "perplexity", "bits per byte, −log₂ p(text) / bytes; less is better",
        "kinds.perplexity", ("target",), _ASKED,
        metric="bits_per_byte", choice="How well a text is predicted",
    ),
    Kind(
        "code", "runs code", "1 if the program runs to its end, in a sandbox",
        "kinds.code", ("prompt", "program"), (*_ASKED, *_WRITTEN),
        metric="passed", extract="code", generates=True, runs_code=True,
    ),
    Kind(
        "lm_eval", "lm-eval task", "the task's own metric",
        "harness.bridge", ("task",), ("include", "thinking", "thinking_tokens"),
    ),
)}
# fmt: on


def kinds_with(field: str) -> tuple[str, ...]:
    """The names of the kinds that have ``field``; none where every kind has it."""
    return tuple(kind.name for kind in KINDS.values() if field in (*kind.needs, *kind.takes))
