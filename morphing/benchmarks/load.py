"""Samples of a benchmark, with the search and the holdout kept apart."""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Literal

from morphing.benchmarks.benchmark import Benchmark
from morphing.benchmarks.dataset import read_rows
from morphing.benchmarks.prompt import render
from morphing.errors import MorphingError


@dataclass(frozen=True)
class Sample:
    """One question: a row of a dataset, rendered.

    ``target`` is the expected answer, or the index of the right one of ``choices``.
    """

    id: str
    """``<split>/<row index>``: the same row has the same id in every run."""
    prompt: str
    target: str | int
    choices: tuple[str, ...] = ()


def load_samples(
    benchmark: Benchmark,
    part: Literal["search", "holdout"],
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
    changes none.

    Raises:
        MorphingError: the dataset can't be read, or a template doesn't fit its columns.
    """
    if count < 1:
        raise MorphingError(
            f"Benchmark {benchmark.name!r} is asked for {count} samples: ask for 1 or more."
        )
    shared = benchmark.holdout_split in (None, benchmark.split)
    split = benchmark.split
    if part == "holdout" and benchmark.holdout_split is not None:
        split = benchmark.holdout_split
    rows = read_rows(benchmark, split, token)
    indices = list(range(len(rows)))
    if shared:
        if len(rows) < 2:
            raise MorphingError(
                f"The split {split!r} of benchmark {benchmark.name!r} has a single row, which"
                " can't be shared by search and holdout: name a holdout_split."
            )
        indices = _shuffled(indices, "partition")
        half = len(indices) // 2
        indices = indices[:half] if part == "search" else indices[half:]
    drawn = _shuffled(indices, f"seed {seed}")[:count]
    return [_sample(benchmark, f"{split}/{index}", rows[index]) for index in drawn]


def _shuffled(indices: list[int], key: str) -> list[int]:
    # By hash, so that the order is the same in any version of any library.
    return sorted(indices, key=lambda index: sha256(f"{key}/{index}".encode()).digest())


def _sample(benchmark: Benchmark, sample_id: str, row: Mapping[str, Any]) -> Sample:
    prompt = _field(benchmark, "prompt", benchmark.prompt, row)
    target = _field(benchmark, "target", benchmark.target, row).strip()
    if benchmark.choices is None:
        return Sample(sample_id, prompt, target)
    choices = tuple(_field(benchmark, "choices", choice, row) for choice in benchmark.choices)
    if not target.isdecimal() or int(target) >= len(choices):
        raise MorphingError(
            f"The target of benchmark {benchmark.name!r} is {target!r} at row {sample_id}: it must"
            f" be the index of the right choice, 0 to {len(choices) - 1}."
        )
    return Sample(sample_id, prompt, int(target), choices)


def _field(benchmark: Benchmark, field: str, template: str, row: Mapping[str, Any]) -> str:
    from jinja2 import TemplateError, UndefinedError

    try:
        return render(template, row)
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
