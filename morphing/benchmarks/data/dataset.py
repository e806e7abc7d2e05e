"""Rows of a benchmark's dataset: from the zoo, from a local file or folder, or from the Hub."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import file_digest
from typing import Any

from morphing.benchmarks.benchmark import COMMIT, Benchmark
from morphing.benchmarks.data.files import data_stem, data_suffix, read_file
from morphing.benchmarks.data.places import config_folder, local_path, split_file
from morphing.benchmarks.data.rows import JoinedRows, Rows
from morphing.errors import MorphingError


def pin_benchmark(benchmark: Benchmark, token: str | None = None) -> Benchmark:
    """The same benchmark with its data fixed: a Hub revision as a commit, a local path absolute.

    Of a dataset that is a program the commit is one of the rows that the Hub converted.

    Raises:
        MorphingError: unknown or gated dataset, unknown revision, missing file, no network, a
            program without converted rows.
    """
    if benchmark.dataset.startswith("zoo:"):
        return benchmark
    if benchmark.local:
        path = local_path(benchmark).resolve()
        if not path.exists():
            raise MorphingError(
                f"The dataset {path} of benchmark {benchmark.name!r} does not exist."
            )
        return benchmark.model_copy(update={"dataset": str(path)})
    if benchmark.revision and COMMIT.fullmatch(benchmark.revision):
        return benchmark
    from morphing.benchmarks.data.hub import resolve_revision

    return benchmark.model_copy(update={"revision": resolve_revision(benchmark, token)})


def read_rows(benchmark: Benchmark, split: str, token: str | None = None) -> Rows:
    """All rows of one split, in the dataset's own order; of large Parquet read when asked for.

    Raises:
        MorphingError: no such dataset, config or split; no access; no network; unreadable data; no
            rows.
    """
    if isinstance(benchmark.config, tuple):
        parts = {
            config: read_rows(benchmark.model_copy(update={"config": config}), split, token)
            for config in benchmark.config
        }
        return JoinedRows(parts)
    if benchmark.local:
        rows = _local_rows(benchmark, split)
    else:
        from morphing.benchmarks.data.hub import hub_rows

        rows = hub_rows(benchmark, split, token)
    if len(rows) == 0:
        raise MorphingError(
            f"The split {split!r} of the dataset {benchmark.dataset!r} of benchmark"
            f" {benchmark.name!r} has no rows: choose another split."
        )
    return rows


def take(benchmark: Benchmark, rows: Rows, indices: Sequence[int]) -> list[Mapping[str, Any]]:
    """The rows at ``indices``, which may still have to be fetched.

    Raises:
        MorphingError: no network.
    """
    if isinstance(rows, list):
        return [rows[index] for index in indices]
    from morphing.benchmarks.data.hub import dataset_errors

    with dataset_errors(benchmark):
        # In the dataset's order, for neighbours come together.
        found = {index: rows[index] for index in sorted(set(indices))}
    return [found[index] for index in indices]


def single_file(benchmark: Benchmark) -> bool:
    """Whether all splits are one file's rows."""
    return benchmark.local and local_path(benchmark).is_file()


def split_names(benchmark: Benchmark, token: str | None = None) -> list[str]:
    """The splits of the benchmark's dataset and config; of a single file its own name for it.

    Raises:
        MorphingError: no such dataset or config; no access; no network.
    """
    if single_file(benchmark):
        return [benchmark.split]
    if not benchmark.local:
        from morphing.benchmarks.data.hub import hub_splits

        return hub_splits(benchmark, benchmark.dataset, token)
    path = local_path(benchmark)
    files = [file for file in config_folder(benchmark).glob("*") if data_suffix(file)]
    # Beside data, a text file is a note or a licence.
    tables = [file for file in files if data_suffix(file) not in (".txt", ".txt.gz")]
    if tables or files:
        return sorted({data_stem(file) for file in tables or files})
    if not path.is_dir():
        raise _absent(benchmark)
    from morphing.benchmarks.data.hub import hub_splits

    return hub_splits(benchmark, str(path), token)


def class_names(rows: Rows) -> dict[str, list[str]]:
    """The names of classes that rows give as numbers, by column; empty where nothing is said."""
    features = getattr(rows, "features", {})
    return {
        column: list(feature.names)
        for column, feature in features.items()
        if hasattr(feature, "names")
    }


def fingerprint(benchmark: Benchmark) -> str | None:
    """``sha256:<of its bytes>`` of a dataset that is a single file, else None."""
    if not single_file(benchmark):
        return None
    with local_path(benchmark).open("rb") as file:
        return f"sha256:{file_digest(file, 'sha256').hexdigest()}"


def _local_rows(benchmark: Benchmark, split: str) -> Rows:
    path = local_path(benchmark)
    if path.is_file():
        return read_file(path)
    # Plain files are read as they are: `datasets` would first copy them into its cache.
    if (file := split_file(benchmark, split)) is not None:
        return read_file(file)
    if not path.is_dir():
        raise _absent(benchmark)
    from morphing.benchmarks.data.hub import loaded_rows

    return loaded_rows(benchmark, str(path), split)


def _absent(benchmark: Benchmark) -> MorphingError:
    return MorphingError(
        f"The dataset {benchmark.dataset!r} of benchmark {benchmark.name!r} does not exist."
    )
