"""Rows of a benchmark's dataset: from the zoo, from a local file or folder, or from the Hub."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from morphing.benchmarks.benchmark import COMMIT, DATA_SUFFIXES, Benchmark
from morphing.errors import MorphingError

if TYPE_CHECKING:
    from datasets import Dataset


class Rows(Protocol):
    """Rows by index: a list of mappings or a ``datasets.Dataset``."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Mapping[str, Any]: ...


def read_rows(benchmark: Benchmark, split: str, token: str | None = None) -> "Rows":
    """All rows of one split, in the dataset's own order.

    Raises:
        MorphingError: no such dataset, config or split; no access; no network; unreadable data; no
            rows.
    """
    if benchmark.local:
        rows = _local_rows(benchmark, split)
    else:
        rows = _loaded_rows(benchmark, benchmark.dataset, split, token)
    if len(rows) == 0:
        raise MorphingError(
            f"The split {split!r} of the dataset {benchmark.dataset!r} of benchmark"
            f" {benchmark.name!r} has no rows."
        )
    return rows


def _local_rows(benchmark: Benchmark, split: str) -> "Rows":
    path = _local_path(benchmark)
    if path.is_file():
        return _file_rows(path)
    # Plain files are read as they are: `datasets` would first copy them into its cache.
    stems = [path / split] + ([path / benchmark.config / split] if benchmark.config else [])
    for stem in stems:
        for suffix in DATA_SUFFIXES:
            if (file := stem.with_name(stem.name + suffix)).is_file():
                return _file_rows(file)
    if not path.is_dir():
        raise MorphingError(
            f"The dataset {benchmark.dataset!r} of benchmark {benchmark.name!r} does not exist."
        )
    return _loaded_rows(benchmark, str(path), split, None)


def _local_path(benchmark: Benchmark) -> Path:
    if benchmark.dataset.startswith("zoo:"):
        from morphing.zoo import dataset_folder

        return dataset_folder(benchmark.dataset.removeprefix("zoo:"))
    return Path(benchmark.dataset).expanduser()


def _file_rows(file: Path) -> list[Mapping[str, Any]]:
    try:
        if file.suffix == ".jsonl":
            with file.open(encoding="utf-8") as lines:
                return [json.loads(line) for line in lines if line.strip()]
        if file.suffix == ".csv":
            with file.open(encoding="utf-8", newline="") as lines:
                return list(csv.DictReader(lines))
        if file.suffix == ".parquet":
            import pyarrow.parquet  # type: ignore[import-untyped]

            return pyarrow.parquet.read_table(file).to_pylist()
    except (OSError, ValueError) as error:
        raise MorphingError(f"The data file {file} can't be read: {error}.") from error
    raise MorphingError(f"The data file {file} is none of {', '.join(DATA_SUFFIXES)}.")


def _loaded_rows(benchmark: Benchmark, path: str, split: str, token: str | None) -> "Dataset":
    import datasets

    from morphing.benchmarks.hub import hub_errors

    where: dict[str, Any] = {"revision": benchmark.revision, "token": token}
    with hub_errors(benchmark):
        try:
            rows = datasets.load_dataset(path, benchmark.config, split=split, **where)
        except ValueError as error:
            # An unknown config or split: say which there are.
            configs = datasets.get_dataset_config_names(path, **where)
            what = f"The dataset {benchmark.dataset!r} of benchmark {benchmark.name!r}"
            if benchmark.config not in configs and (benchmark.config or len(configs) > 1):
                named = f"no config {benchmark.config!r}" if benchmark.config else "several configs"
                raise MorphingError(
                    f"{what} has {named}: choose one of {', '.join(configs)}."
                ) from error
            splits = datasets.get_dataset_split_names(path, benchmark.config, **where)
            if split not in splits:
                raise MorphingError(
                    f"{what} has no split {split!r}: choose one of {', '.join(splits)}."
                ) from error
            raise MorphingError(f"{what} can't be read: {error}.") from error
    _check_revision(benchmark, rows)
    return rows


def _check_revision(benchmark: Benchmark, rows: "Dataset") -> None:
    # Without a network `datasets` takes whichever revision is in its cache, in a folder named so.
    for file in rows.cache_files:
        cached = Path(file["filename"]).parent.name
        pinned = benchmark.revision or ""
        if COMMIT.fullmatch(cached) and COMMIT.fullmatch(pinned) and cached != pinned:
            raise MorphingError(
                f"The Hub can't be reached for the dataset {benchmark.dataset!r} of benchmark"
                f" {benchmark.name!r}, and its copy here is of another revision than {pinned}:"
                " check the network."
            )
