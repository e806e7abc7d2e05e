"""A benchmark by whatever a person calls it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from morphing.benchmarks.benchmark import (
    LM_EVAL,
    Benchmark,
    catalogue,
    get_benchmark,
)
from morphing.benchmarks.data.files import data_suffix
from morphing.benchmarks.data.sample import Sample
from morphing.benchmarks.data.samples import load_samples
from morphing.hub_names import dataset_name

EXAMPLES = 3
"""Filled-in samples that are shown of a benchmark before it is trusted."""
CONTAMINATION = (
    "halves a split that others report scores on: the search chooses by one half, so what it"
    " finds is no fair entry in rankings. The report uses the other half."
)
"""What is said of a benchmark that contaminates, after its name."""


@dataclass(frozen=True)
class Found:
    """A benchmark, and whether its mapping was only guessed and ought to be looked at."""

    benchmark: Benchmark
    guessed: bool = False


def find_benchmark(name: str, token: str | None = None) -> Found:
    """A name in the catalogue, a YAML file, ``lm_eval:TASK``, or a dataset: a Hub id or data file.

    Raises:
        MorphingError: nothing is called so, or of a dataset no mapping can be guessed.
    """
    name = dataset_name(name)
    if not is_dataset(name):
        return Found(get_benchmark(name))
    from morphing.benchmarks.data.guess import guess_benchmark

    return Found(guess_benchmark(name, token=token), guessed=True)


def examples(benchmark: Benchmark, token: str | None = None) -> list[Sample]:
    """A few samples that the search may see.

    Raises:
        MorphingError: as `load_samples` does.
    """
    return load_samples(benchmark, "search", EXAMPLES, token=token)


def asked_and_expected(sample: Sample) -> tuple[str, str]:
    """What a reader is shown of a sample that has no options: the prompt, and what is expected."""
    if sample.prompt or sample.row is None:
        return sample.prompt, str(sample.target)
    return str(sample.row.get("prompt", "")), str(sample.row.get("target", ""))


def is_dataset(name: str) -> bool:
    """Whether a name is a dataset's and no benchmark's."""
    path = Path(name).expanduser()
    if name in catalogue() or path.suffix in (".yaml", ".yml") or name.startswith(LM_EVAL):
        return False
    looks_like_data = "/" in name or data_suffix(name) is not None or name.startswith("zoo:")
    return looks_like_data or path.exists()
