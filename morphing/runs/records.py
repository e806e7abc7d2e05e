"""What a run keeps of a model scored outside the search: the base, a source, a trial's holdout."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import TypeAdapter

from morphing.runs.files import write_atomically
from morphing.runs.outputs import write_outputs
from morphing.runs.trial import Result

if TYPE_CHECKING:
    from morphing.benchmarks.results import Output

RESULTS = TypeAdapter(dict[str, Result])
_MEASURES = TypeAdapter(dict[str, float])


@dataclass(frozen=True)
class Record:
    """A model's results by benchmark and its measures by name, on one part of the samples.

    ``model`` is empty for a trial. Records of earlier versions have no measures and no outputs.
    """

    results: Mapping[str, Result]
    measures: Mapping[str, float]
    model: str = ""

    @property
    def values(self) -> dict[str, float]:
        """Natural values of all that objectives and constraints may be about."""
        return {**{name: result.value for name, result in self.results.items()}, **self.measures}


def read_record(path: Path) -> Record:
    """The inverse of :func:`write_record`, without the outputs."""
    data = json.loads(path.read_text(encoding="utf-8"))
    if "results" not in data:  # of a trial, by an earlier version
        data = {"results": data}
    return Record(
        RESULTS.validate_python(data["results"]),
        _MEASURES.validate_python(data.get("measures", {})),
        data.get("model", ""),
    )


def write_record(path: Path, record: Record, outputs: Mapping[str, Iterable[Output]]) -> None:
    """Write a record, and beside it per-sample outputs; where the record is, they are."""
    write_outputs(outputs_beside(path), outputs)
    data = {key: value for key, value in asdict(record).items() if value != ""}
    write_atomically(path, json.dumps(data, ensure_ascii=False).encode())


def outputs_beside(path: Path) -> Path:
    """Where the outputs of a record lie."""
    return path.with_suffix(".jsonl.gz")


def is_whole(path: Path) -> bool:
    """Whether there is a record with measures and outputs; else it has to be made (again)."""
    return path.exists() and outputs_beside(path).exists() and bool(read_record(path).measures)
