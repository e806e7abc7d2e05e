"""Scores outside the search: of the base and the sources, and of trials on the holdout."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import TypeAdapter

from morphing.errors import MorphingError
from morphing.runs.files import FOREIGN, Name, Number, parse, read_bytes, write_atomically
from morphing.runs.outputs import write_outputs
from morphing.runs.trial import Result

if TYPE_CHECKING:
    from morphing.benchmarks.results import Output


@dataclass(frozen=True)
class Record:
    """A model's results by benchmark and its measures by name, on one part of the samples.

    ``model`` is empty for a trial. Records of earlier versions have no measures and no outputs.
    """

    __pydantic_config__ = FOREIGN

    results: Mapping[Name, Result]
    measures: Mapping[Name, Number] = field(default_factory=dict)
    model: Name = ""

    @property
    def values(self) -> dict[str, float]:
        """Natural values of all that objectives and constraints may be about."""
        return {**{name: result.value for name, result in self.results.items()}, **self.measures}


_RECORD = TypeAdapter(Record)
_RESULTS: TypeAdapter[Mapping[Name, Result]] = TypeAdapter(Mapping[Name, Result])
_MEND = "delete it, and the model is scored again when its scores are next needed"


def read_record(path: Path, benchmarks: Collection[str] = ()) -> Record:
    """The inverse of :func:`write_record`, without the outputs.

    Args:
        path: the record's file.
        benchmarks: what it must have results of.

    Raises:
        MorphingError: the file holds something else, or lacks a benchmark.
    """
    data = read_bytes(path, _MEND)
    if b'"results"' in data:
        record = parse(data, _RECORD, str(path), _MEND)
    else:  # of a trial, by an earlier version
        record = Record(parse(data, _RESULTS, str(path), _MEND))
    if missing := set(benchmarks) - set(record.results):
        raise MorphingError(f"{path} has no score on {min(missing)}: {_MEND}.")
    return record


def write_record(path: Path, record: Record, outputs: Mapping[str, Iterable[Output]]) -> None:
    """Write a record and, beside it and before it, the outputs of each sample."""
    write_outputs(outputs_beside(path), outputs)
    data = {key: value for key, value in asdict(record).items() if value != ""}
    write_atomically(path, json.dumps(data, ensure_ascii=False).encode())


def outputs_beside(path: Path) -> Path:
    """Where the outputs of a record lie."""
    return path.with_suffix(".jsonl.gz")


def is_whole(path: Path) -> bool:
    """Whether there is a record with its measures and outputs; if not, the model must be scored.

    Raises:
        MorphingError: the record's file is damaged.
    """
    return path.exists() and outputs_beside(path).exists() and bool(read_record(path).measures)
