"""What a run records of one recipe."""

from __future__ import annotations

import gzip
import json
import os
import threading
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from morphing.merging.recipe import Recipe

if TYPE_CHECKING:
    from morphing.benchmarks.evaluate import Output, Score


@dataclass(frozen=True)
class Result:
    """A benchmark's score without its outputs: mean, samples, standard error."""

    value: float
    n: int
    stderr: float
    truncated: int = 0

    @classmethod
    def of(cls, score: Score) -> Result:
        """The figures of ``score``."""
        return cls(score.value, score.n, score.stderr, score.truncated)


@dataclass(frozen=True)
class Trial:
    """One evaluated recipe. ``values`` follow the run's objectives, all maximised."""

    number: int
    params: Mapping[str, float]
    recipe: Recipe
    values: tuple[float, ...] = ()
    results: Mapping[str, Result] | None = None
    seconds: float = 0.0
    error: str | None = None

    @property
    def state(self) -> Literal["complete", "failed"]:
        """Whether the recipe was scored."""
        return "failed" if self.error else "complete"


def write_atomically(path: Path, data: bytes, durable: bool = True) -> None:
    """Write ``data`` so that a reader or a killed process leaves the whole file or the old one.

    ``durable`` also holds when the machine loses power, at the cost of waiting for the disk.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    with temporary.open("wb") as file:
        file.write(data)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    temporary.replace(path)


def write_outputs(path: Path, outputs: Mapping[str, Iterable[Output]]) -> None:
    """Per-sample outputs as gzipped JSON lines, one sample a line, its benchmark named."""
    lines = [
        json.dumps({"benchmark": benchmark, **asdict(output)}, ensure_ascii=False)
        for benchmark, rows in outputs.items()
        for output in rows
    ]
    write_atomically(path, gzip.compress("\n".join(lines).encode(), mtime=0))


def read_outputs(path: Path) -> dict[str, list[dict[str, Any]]]:
    """The inverse of :func:`write_outputs`, as plain rows by benchmark."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for line in gzip.decompress(path.read_bytes()).decode().splitlines():
        row = json.loads(line)
        rows.setdefault(row.pop("benchmark"), []).append(row)
    return rows
