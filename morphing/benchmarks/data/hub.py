"""Datasets on the Hub: which revision, which rows, and what can go wrong in one sentence each."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from morphing.benchmarks.benchmark import COMMIT, Benchmark
from morphing.benchmarks.data.places import check_places, local_path
from morphing.benchmarks.data.rows import ParquetRows, Rows
from morphing.errors import MorphingError, first_line, is_disk_full
from morphing.hub_errors import (
    Subject,
    ask,
    has_no_revision,
    hub_errors,
    is_gated,
    is_missing,
)

if TYPE_CHECKING:
    from datasets import Dataset, DatasetBuilder

CONVERTED = "refs/convert/parquet"
"""Where the Hub keeps a dataset's rows as Parquet, ``<config>/<split>/0000.parquet``."""
_CONVERTED_FILE = re.compile(
    r"hf://datasets/[^/]+/[^/]+/(?P<config>[^/]+)/(?P<split>[^/]+)/\d{4}\.parquet"
)
LARGE = 100_000
"""Rows from which on a Parquet split is not downloaded but read by row groups."""


def resolve_revision(benchmark: Benchmark, token: str | None) -> str:
    """The commit of the benchmark's revision.

    A dataset that is a program has its rows in another branch, put there by the Hub: then it is
    that branch's commit.

    Raises:
        MorphingError: unknown or gated dataset, unknown revision, no network, a program without
            converted rows.
    """
    from huggingface_hub import HfApi

    api, name = HfApi(token=token), benchmark.dataset
    info = ask(_subject(benchmark), lambda: api.dataset_info(name, revision=benchmark.revision))
    script = benchmark.dataset.rpartition("/")[2] + ".py"
    if any(file.rfilename == script for file in info.siblings or ()):
        return _converted_revision(benchmark, token)
    return str(info.sha)


def _converted_revision(benchmark: Benchmark, token: str | None) -> str:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RevisionNotFoundError

    what = f"The dataset {benchmark.dataset!r} of benchmark {benchmark.name!r} is a program"
    if benchmark.revision not in (None, "main"):
        raise MorphingError(
            f"{what} at revision {benchmark.revision!r} and Morphing runs no code from the Hub:"
            " leave the revision out to take the rows that the Hub converted to Parquet."
        )
    with dataset_errors(benchmark):
        try:
            return str(HfApi(token=token).dataset_info(benchmark.dataset, revision=CONVERTED).sha)
        except RevisionNotFoundError as error:
            raise MorphingError(
                f"{what}, Morphing runs no code from the Hub, and the Hub has no {CONVERTED} of it:"
                " choose a dataset in Parquet, JSON or CSV."
            ) from error


def hub_rows(benchmark: Benchmark, split: str, token: str | None) -> Rows:
    """The rows of a split of a dataset on the Hub.

    Raises:
        MorphingError: as ``read_rows`` does.
    """
    with dataset_errors(benchmark):
        benchmark, builder = _opened(benchmark, token)
        if converted := _converted_files(builder):
            return _converted_rows(benchmark, converted, split, token)
        mine = _data_files(builder).get(split, ())
        if builder is not None and mine and all(file.endswith(".parquet") for file in mine):
            known = (builder.info.splits or {}).get(split)
            if known is None or known.num_examples >= LARGE:
                far = _far_rows(mine, token)
                if len(far) >= LARGE:
                    return far
    return loaded_rows(benchmark, benchmark.dataset, split, token)


def hub_splits(benchmark: Benchmark, path: str, token: str | None) -> list[str]:
    """The splits of a dataset on the Hub or of a folder.

    Raises:
        MorphingError: as ``read_rows`` does.
    """
    import datasets

    with dataset_errors(benchmark):
        benchmark, builder = _opened(benchmark, token)
        if converted := _converted_files(builder):
            return list(dict.fromkeys(file["split"] for file in _of_config(benchmark, converted)))
        where: dict[str, Any] = {"revision": benchmark.revision, "token": token}
        configs = datasets.get_dataset_config_names(path, **where)
        _check_config(benchmark, configs)
        return list(datasets.get_dataset_split_names(path, benchmark.config, **where))


def _opened(benchmark: Benchmark, token: str | None) -> tuple[Benchmark, DatasetBuilder | None]:
    """The benchmark and what knows its dataset's files; of a program those that the Hub made."""
    try:
        return benchmark, _builder(benchmark, token)
    except RuntimeError as error:
        if not _is_program(error):
            raise
    revision = _converted_revision(benchmark, token)
    converted = benchmark.model_copy(update={"revision": revision})
    return converted, _builder(converted, token)


def _builder(benchmark: Benchmark, token: str | None) -> DatasetBuilder | None:
    """What knows the dataset's files; None where the config is none of several.

    Raises:
        MorphingError: its card names files that are not the dataset's.
    """
    import datasets

    path = str(local_path(benchmark)) if benchmark.local else benchmark.dataset
    for config in dict.fromkeys((benchmark.config, None)):
        try:
            builder = datasets.load_dataset_builder(
                path, config, revision=benchmark.revision, token=token
            )
        except ValueError:
            # Converted rows have configs that `datasets` knows nothing of.
            continue
        files = _data_files(builder).values()
        check_places(benchmark, (file for each in files for file in each))
        return builder
    return None


def _data_files(builder: DatasetBuilder | None) -> dict[str, list[str]]:
    """The files of each split as hf:// addresses; empty where `datasets` took its cached copy."""
    found = builder.config.data_files if builder is not None else None
    return {str(split): [str(file) for file in files] for split, files in (found or {}).items()}


def _converted_files(builder: DatasetBuilder | None) -> list[re.Match[str]]:
    """All files, if they lie as the Hub lays out what it converts."""
    files = (file for files in _data_files(builder).values() for file in files)
    found = [_CONVERTED_FILE.fullmatch(file) for file in files]
    return [match for match in found if match] if all(found) else []


def _of_config(benchmark: Benchmark, files: Sequence[re.Match[str]]) -> list[re.Match[str]]:
    configs = list(dict.fromkeys(file["config"] for file in files))
    _check_config(benchmark, configs)
    config = benchmark.config or configs[0]
    return [file for file in files if file["config"] == config]


def _converted_rows(
    benchmark: Benchmark, files: Sequence[re.Match[str]], split: str, token: str | None
) -> Rows:
    mine = _of_config(benchmark, files)
    if split not in (splits := list(dict.fromkeys(file["split"] for file in mine))):
        raise MorphingError(
            f"{_what(benchmark)} has no split {split!r}: choose one of {', '.join(splits)}."
        )
    return _far_rows(sorted(file.string for file in mine if file["split"] == split), token)


def _check_config(benchmark: Benchmark, configs: Sequence[str]) -> None:
    if benchmark.config not in configs and (benchmark.config or len(configs) > 1):
        named = f"no config {benchmark.config!r}" if benchmark.config else "several configs"
        raise MorphingError(f"{_what(benchmark)} has {named}: choose one of {', '.join(configs)}.")


def _what(benchmark: Benchmark) -> str:
    return f"The dataset {benchmark.dataset!r} of benchmark {benchmark.name!r}"


def _far_rows(files: Sequence[str], token: str | None) -> ParquetRows:
    from huggingface_hub import HfFileSystem

    hub = HfFileSystem(token=token, skip_instance_cache=True)
    # pyarrow knows which bytes it needs: nothing is read ahead.
    return ParquetRows([partial(hub.open, file, "rb", cache_type="none") for file in files])


def loaded_rows(benchmark: Benchmark, path: str, split: str, token: str | None = None) -> Dataset:
    """The rows of a split of a folder or of a dataset on the Hub, as `datasets` loads them.

    Raises:
        MorphingError: as ``read_rows`` does.
    """
    import datasets

    where: dict[str, Any] = {"revision": benchmark.revision, "token": token}
    with dataset_errors(benchmark):
        if benchmark.local:
            _builder(benchmark, token)
        try:
            rows = datasets.load_dataset(path, benchmark.config, split=split, **where)
        except ValueError as error:
            # An unknown config or split: say which there are.
            _check_config(benchmark, datasets.get_dataset_config_names(path, **where))
            splits = datasets.get_dataset_split_names(path, benchmark.config, **where)
            if split not in splits:
                raise MorphingError(
                    f"{_what(benchmark)} has no split {split!r}: choose one of {', '.join(splits)}."
                ) from error
            raise
    _check_revision(benchmark, rows)
    return rows


def _check_revision(benchmark: Benchmark, rows: Dataset) -> None:
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


def _is_program(error: Exception) -> bool:
    return "scripts are no longer supported" in str(error)


@contextmanager
def dataset_errors(benchmark: Benchmark) -> Iterator[None]:
    """Turn what the Hub's client and `datasets` raise about a dataset into MorphingErrors."""
    from datasets.exceptions import DatasetNotFoundError

    try:
        with hub_errors(_subject(benchmark)):
            yield
    except DatasetNotFoundError as error:
        raise MorphingError(_not_found(benchmark, str(error))) from error
    except MorphingError:
        raise
    except Exception as error:
        # Data of others, read by libraries: what these raise can't be told in advance.
        if is_disk_full(error):
            raise
        raise MorphingError(_unreadable(benchmark, error)) from error


def _unreadable(benchmark: Benchmark, error: Exception) -> str:
    from datasets.data_files import EmptyDatasetError
    from datasets.exceptions import DataFilesNotFoundError

    if _is_program(error):
        return (
            f"{_what(benchmark)} is a program and Morphing runs no code from the Hub: choose a"
            " dataset in Parquet, JSON or CSV."
        )
    if isinstance(error, EmptyDatasetError | DataFilesNotFoundError):
        return (
            f"{_what(benchmark)} has no data files: put its rows there in a file"
            f" {benchmark.split}.jsonl, .csv or .parquet."
        )
    return (
        f"{_what(benchmark)} can't be read ({type(error).__name__}: {first_line(error)}): mend its"
        " files or its card, or choose another dataset."
    )


def _not_found(benchmark: Benchmark, said: str) -> str:
    """The sentence of the one exception that `datasets` has for three things: its words tell."""
    subject = _subject(benchmark)
    if "gated" in said:
        return is_gated(subject)
    return has_no_revision(subject) if said.startswith("Revision") else is_missing(subject)


def _subject(benchmark: Benchmark) -> Subject:
    return Subject(
        _what(benchmark),
        f"datasets/{benchmark.dataset}",
        benchmark.revision,
        instead=", or use a zoo or local dataset",
    )
