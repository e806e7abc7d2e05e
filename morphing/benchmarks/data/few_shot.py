"""Few-shot examples: what stands before every question of a benchmark."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from morphing.benchmarks.benchmark import Benchmark
from morphing.benchmarks.data.dataset import read_rows, single_file, take
from morphing.benchmarks.data.draws import drawn, row_id
from morphing.benchmarks.data.sample import make_sample, render_field
from morphing.errors import MorphingError


def few_shot_examples(benchmark: Benchmark, token: str | None) -> str:
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
    chosen = drawn(range(len(rows)), "few-shot", benchmark.few_shot)
    return "".join(
        _example(benchmark, row_id(rows, split, index), row) + benchmark.shot_separator
        for index, row in zip(chosen, take(benchmark, rows, chosen), strict=True)
    )


def _example(benchmark: Benchmark, row_id: str, row: Mapping[str, Any]) -> str:
    sample = make_sample(benchmark, row_id, row)
    if benchmark.shot is not None:
        answer = render_field(benchmark, "shot", benchmark.shot, row)
    elif sample.choices:
        answer = sample.choices[int(sample.target)] + sample.continuation
    else:
        answer = f" {sample.target}"
    return sample.prompt + answer
