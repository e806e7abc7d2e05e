"""Samples of a benchmark, with the search and the holdout kept apart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from morphing.benchmarks.benchmark import Benchmark
from morphing.benchmarks.data.dataset import fingerprint, read_rows, single_file, take
from morphing.benchmarks.data.draws import drawn, halves, row_id
from morphing.benchmarks.data.few_shot import few_shot_examples
from morphing.benchmarks.data.rows import Rows
from morphing.benchmarks.data.sample import Sample, make_sample
from morphing.errors import MorphingError

Part = Literal["search", "holdout"]


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
    def of(cls, benchmark: Benchmark, part: Part, samples: Sequence[Sample]) -> Draw:
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
    chosen = drawn(indices, f"seed {seed}", count)
    examples = few_shot_examples(benchmark, token)
    return [
        make_sample(benchmark, row_id(rows, split, index), row, examples)
        for index, row in zip(chosen, take(benchmark, rows, chosen), strict=True)
    ]


def _rows(benchmark: Benchmark, split: str, token: str | None) -> Rows:
    if benchmark.kind == "lm_eval":
        from morphing.benchmarks.harness.docs import Documents

        return Documents(benchmark, split, token)
    return read_rows(benchmark, split, token)
