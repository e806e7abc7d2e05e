"""A sample: a row of a dataset as a question, by the templates of a benchmark."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from morphing.benchmarks.benchmark import Benchmark
from morphing.benchmarks.data.templates import evaluate_list, render
from morphing.errors import MorphingError
from morphing.inert import whole
from morphing.rendering.process import NameUndefined, TemplateFailed


@dataclass(frozen=True)
class Sample:
    """One question: a row of a dataset, rendered, with the examples before it.

    ``target`` is the expected answer, the index of the right one of ``choices``, or the text whose
    perplexity counts.
    """

    id: str
    """``<split>/<row index>``, of several configs ``<split>/<config>/<row index>``: the same row
    has the same id in every run."""
    prompt: str
    target: str | int
    choices: tuple[str, ...] = ()
    continuation: str = ""
    """What follows each of ``choices`` where these end the prompt, and is scored."""
    system: str = ""
    """The system's turn of a chat."""
    row: Mapping[str, Any] | None = None
    """The row as plain JSON: kind code's from the dataset, kind lm_eval's from ``harness.docs``."""


def make_sample(
    benchmark: Benchmark, sample_id: str, row: Mapping[str, Any], examples: str = ""
) -> Sample:
    """A row rendered, after ``examples``; halves of characters in it become U+FFFD.

    Raises:
        MorphingError: a template doesn't fit the row, or the target is no index of a choice.
    """
    made = _rendered(benchmark, sample_id, row, examples)
    return replace(
        made,
        prompt=whole(made.prompt),
        target=whole(made.target) if isinstance(made.target, str) else made.target,
        choices=tuple(map(whole, made.choices)),
        continuation=whole(made.continuation),
        system=whole(made.system),
    )


def _rendered(
    benchmark: Benchmark, sample_id: str, row: Mapping[str, Any], examples: str
) -> Sample:
    if benchmark.kind == "lm_eval":
        kept = _plain(row)
        return Sample(sample_id, kept.pop("prompt"), kept.pop("target"), row=kept)
    prompt = examples + render_field(benchmark, "prompt", benchmark.prompt, row)
    target = render_field(benchmark, "target", benchmark.target, row)
    system = render_field(benchmark, "system", benchmark.system or "", row)
    if benchmark.kind != "multiple_choice":
        expected = target if benchmark.kind == "perplexity" else target.strip()
        kept = _plain(row) if benchmark.kind == "code" else None
        return Sample(sample_id, prompt, expected, system=system, row=kept)
    choices = _choices(benchmark, sample_id, row)
    continuation = render_field(benchmark, "continuation", benchmark.continuation or "", row)
    index = target.strip()
    if not index.isdecimal() or int(index) >= len(choices):
        raise MorphingError(
            f"The target of benchmark {benchmark.name!r} is {index!r} at row {sample_id}: it must"
            f" be the index of the right choice, 0 to {len(choices) - 1}; where a split has no"
            " labels choose another."
        )
    return Sample(sample_id, prompt, int(index), choices, continuation, system)


def _choices(benchmark: Benchmark, sample_id: str, row: Mapping[str, Any]) -> tuple[str, ...]:
    given = benchmark.choices or ()
    if isinstance(given, str):
        with _said(benchmark, "choices", row):
            choices = evaluate_list(given, row)
    else:
        choices = tuple(render_field(benchmark, "choices", choice, row) for choice in given)
    if len(choices) < 2 or not all(choices):
        raise MorphingError(
            f"The choices of benchmark {benchmark.name!r} are {list(choices)} at row {sample_id}:"
            " two or more are needed, none of them empty."
        )
    return choices


def _plain(row: Mapping[str, Any]) -> Any:
    return json.loads(json.dumps(dict(row), ensure_ascii=False, default=str))


def render_field(benchmark: Benchmark, field: str, template: str, row: Mapping[str, Any]) -> str:
    with _said(benchmark, field, row):
        return render(template, row)


@contextmanager
def _said(benchmark: Benchmark, field: str, row: Mapping[str, Any]) -> Iterator[None]:
    """Turn what goes wrong in a template into a MorphingError that names the field."""
    try:
        yield
    except NameUndefined as error:
        raise MorphingError(
            f"The {field} of benchmark {benchmark.name!r} uses a column that the dataset"
            f" {benchmark.dataset!r} doesn't have ({error}): its columns are"
            f" {', '.join(map(str, row))}."
        ) from error
    except TemplateFailed as error:
        raise MorphingError(
            f"The {field} of benchmark {benchmark.name!r} can't be made from the dataset"
            f" {benchmark.dataset!r}: {error}."
        ) from error
