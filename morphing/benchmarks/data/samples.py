"""Samples of a benchmark, with the search and the holdout kept apart."""

import heapq
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Literal

from morphing.benchmarks.benchmark import Benchmark
from morphing.benchmarks.data.dataset import fingerprint, read_rows, single_file, take
from morphing.benchmarks.data.rows import JoinedRows, Rows
from morphing.benchmarks.data.templates import evaluate_list, render
from morphing.errors import MorphingError

Part = Literal["search", "holdout"]


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


@dataclass(frozen=True)
class Draw:
    """Samples, and what they were drawn from, as a run keeps them."""

    dataset: str
    config: str | tuple[str, ...] | None
    revision: str | None
    """The Hub's commit, or of a single file ``sha256:<of its bytes>``."""
    part: Part
    samples: tuple[Sample, ...]

    @classmethod
    def of(cls, benchmark: Benchmark, part: Part, samples: Sequence[Sample]) -> "Draw":
        """The record of samples that were loaded from a pinned benchmark."""
        revision = fingerprint(benchmark) or benchmark.revision
        return cls(benchmark.dataset, benchmark.config, revision, part, tuple(samples))


def load_samples(
    benchmark: Benchmark,
    part: Part,
    count: int,
    seed: int = 0,
    token: str | None = None,
) -> list[Sample]:
    """``count`` samples of one part (all of them where there are fewer), drawn by ``seed``.

    With a ``holdout_split`` the search draws from ``split`` and the holdout from
    ``holdout_split``. With one split its rows are first divided by a fixed shuffle that depends on
    nothing but how many rows there are: half for the search, the rest for the holdout. So no count
    and no seed shows the search a holdout row, and translations of one dataset (MGSM), row by row
    the same questions, are divided alike. A larger count with the same seed adds samples and
    changes none. Examples (``few_shot``) are the same rows whatever the part, count and seed.

    Raises:
        MorphingError: the dataset can't be read, or a template doesn't fit its columns.
    """
    if count < 1:
        raise MorphingError(
            f"Benchmark {benchmark.name!r} is asked for {count} samples: ask for 1 or more."
        )
    # All splits of a single file are the same rows.
    one = benchmark.holdout_split in (None, benchmark.split) or single_file(benchmark)
    split = benchmark.split
    if part == "holdout" and benchmark.holdout_split is not None:
        split = benchmark.split if one else benchmark.holdout_split
    rows = _rows(benchmark, split, token)
    indices: Iterable[int] = range(len(rows))
    if one:
        if len(rows) < 2:
            raise MorphingError(
                f"The split {split!r} of benchmark {benchmark.name!r} has a single row, which"
                " can't be shared by search and holdout: name a holdout_split."
            )
        search, holdout = halves(len(rows))
        indices = search if part == "search" else holdout
    drawn = _drawn(indices, f"seed {seed}", count)
    examples = _examples(benchmark, token)
    return [
        make_sample(benchmark, _row_id(rows, split, index), row, examples)
        for index, row in zip(drawn, take(benchmark, rows, drawn), strict=True)
    ]


def _rows(benchmark: Benchmark, split: str, token: str | None) -> Rows:
    if benchmark.kind == "lm_eval":
        from morphing.benchmarks.harness.docs import Documents

        return Documents(benchmark, split, token)
    return read_rows(benchmark, split, token)


def halves(rows: int) -> tuple[list[int], list[int]]:
    """The indices of the rows for the search and of those for the holdout, of a single split."""
    mixed = _drawn(range(rows), "partition", rows)
    return mixed[: rows // 2], mixed[rows // 2 :]


def _drawn(indices: Iterable[int], key: str, count: int) -> list[int]:
    # By hash, so that the order is the same in any version of any library.
    def place(index: int) -> bytes:
        return sha256(f"{key}/{index}".encode()).digest()

    return heapq.nsmallest(count, indices, place)


def _row_id(rows: Rows, split: str, index: int) -> str:
    return f"{split}/{rows.name(index) if isinstance(rows, JoinedRows) else index}"


def _examples(benchmark: Benchmark, token: str | None) -> str:
    """What stands before every question."""
    split = benchmark.few_shot_split
    if not benchmark.few_shot or split is None:
        return ""
    if single_file(benchmark):
        raise MorphingError(
            f"Benchmark {benchmark.name!r} takes few-shot examples from {benchmark.dataset!r}, a"
            " single file, whose rows are all scored: put the examples in a file of their own,"
            f" {split}.jsonl, in one folder with the scored ones, and name that folder."
        )
    rows = read_rows(benchmark, split, token)
    if len(rows) < benchmark.few_shot:
        raise MorphingError(
            f"Benchmark {benchmark.name!r} asks for {benchmark.few_shot} examples and its split"
            f" {split!r} has {len(rows)}: lower few_shot."
        )
    drawn = _drawn(range(len(rows)), "few-shot", benchmark.few_shot)
    return "".join(
        _example(benchmark, _row_id(rows, split, index), row) + benchmark.shot_separator
        for index, row in zip(drawn, take(benchmark, rows, drawn), strict=True)
    )


def _example(benchmark: Benchmark, row_id: str, row: Mapping[str, Any]) -> str:
    sample = make_sample(benchmark, row_id, row)
    if benchmark.shot is not None:
        answer = _field(benchmark, "shot", benchmark.shot, row)
    elif sample.choices:
        answer = sample.choices[int(sample.target)] + sample.continuation
    else:
        answer = f" {sample.target}"
    return sample.prompt + answer


def make_sample(
    benchmark: Benchmark, sample_id: str, row: Mapping[str, Any], examples: str = ""
) -> Sample:
    """A row rendered, after ``examples``.

    Raises:
        MorphingError: a template doesn't fit the row, or the target is no index of a choice.
    """
    if benchmark.kind == "lm_eval":
        kept = _plain(row)
        return Sample(sample_id, kept.pop("prompt"), kept.pop("target"), row=kept)
    prompt = examples + _field(benchmark, "prompt", benchmark.prompt, row)
    target = _field(benchmark, "target", benchmark.target, row)
    system = _field(benchmark, "system", benchmark.system or "", row)
    if benchmark.kind != "multiple_choice":
        expected = target if benchmark.kind == "perplexity" else target.strip()
        kept = _plain(row) if benchmark.kind == "code" else None
        return Sample(sample_id, prompt, expected, system=system, row=kept)
    choices = _choices(benchmark, sample_id, row)
    continuation = _field(benchmark, "continuation", benchmark.continuation or "", row)
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
        choices = tuple(_field(benchmark, "choices", choice, row) for choice in given)
    if len(choices) < 2 or not all(choices):
        raise MorphingError(
            f"The choices of benchmark {benchmark.name!r} are {list(choices)} at row {sample_id}:"
            " two or more are needed, none of them empty."
        )
    return choices


def _plain(row: Mapping[str, Any]) -> Any:
    return json.loads(json.dumps(dict(row), ensure_ascii=False, default=str))


def _field(benchmark: Benchmark, field: str, template: str, row: Mapping[str, Any]) -> str:
    with _said(benchmark, field, row):
        return render(template, row)


@contextmanager
def _said(benchmark: Benchmark, field: str, row: Mapping[str, Any]) -> Iterator[None]:
    """Turn what goes wrong in a template into a MorphingError that names the field."""
    from jinja2 import TemplateError, UndefinedError

    try:
        yield
    except UndefinedError as error:
        raise MorphingError(
            f"The {field} of benchmark {benchmark.name!r} uses a column that the dataset"
            f" {benchmark.dataset!r} doesn't have ({error.message}): its columns are"
            f" {', '.join(map(str, row))}."
        ) from error
    except (TemplateError, TypeError, ValueError, ArithmeticError) as error:
        raise MorphingError(
            f"The {field} of benchmark {benchmark.name!r} can't be made from the dataset"
            f" {benchmark.dataset!r}: {error}."
        ) from error
