"""Where the files of a dataset lie: nothing that a declaration or a card says leaves its folder."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from morphing.benchmarks.benchmark import Benchmark
from morphing.benchmarks.data.files import find_data_file
from morphing.errors import MorphingError


def local_path(benchmark: Benchmark) -> Path:
    """The folder or file of a benchmark's dataset on this machine.

    Raises:
        MorphingError: the zoo has no such dataset.
    """
    if benchmark.dataset.startswith("zoo:"):
        from morphing.zoo import dataset_folder

        return dataset_folder(benchmark.dataset.removeprefix("zoo:"))
    return Path(benchmark.dataset).expanduser()


def config_folder(benchmark: Benchmark) -> Path:
    """The folder in which the files of the benchmark's config lie.

    Raises:
        MorphingError: it is not inside the dataset's folder.
    """
    path = local_path(benchmark)
    return _inside(benchmark, path / str(benchmark.config)) if benchmark.config else path


def split_file(benchmark: Benchmark, split: str) -> Path | None:
    """The data file of a split in a local folder, in the folder of its config or above it.

    Raises:
        MorphingError: it is not inside the dataset's folder.
    """
    stems = [local_path(benchmark) / split]
    if benchmark.config:
        stems.append(local_path(benchmark) / str(benchmark.config) / split)
    for stem in stems:
        if (file := find_data_file(stem)) is not None:
            return _inside(benchmark, file)
    return None


def check_places(benchmark: Benchmark, files: Iterable[str]) -> None:
    """Check the files that a dataset's own card names, as `datasets` resolved them.

    A card may name any file that can be read here and any address: one of a dataset on the Hub
    must name files of that repository, and one of a folder files of that folder.

    Raises:
        MorphingError: a file lies elsewhere.
    """
    for file in files:
        if benchmark.local and "://" not in file:
            _inside(benchmark, Path(file))
        elif benchmark.local or not _in_repository(benchmark, file):
            raise _outside(benchmark, file)


def _in_repository(benchmark: Benchmark, file: str) -> bool:
    return file.startswith(f"hf://datasets/{benchmark.dataset}@") and ".." not in file.split("/")


def _inside(benchmark: Benchmark, path: Path) -> Path:
    folder = local_path(benchmark).resolve()
    # In the Hub's cache the files of a snapshot are links to its repository's blobs.
    root = folder.parents[1] if folder.parent.name == "snapshots" else folder
    if not path.resolve().is_relative_to(root):
        raise _outside(benchmark, str(path))
    return path


def _outside(benchmark: Benchmark, file: str) -> MorphingError:
    return MorphingError(
        f"The dataset {benchmark.dataset!r} of benchmark {benchmark.name!r} names the file"
        f" {file!r}, which is not inside it: copy the file into the dataset."
    )
