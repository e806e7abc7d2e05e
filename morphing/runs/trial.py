"""What a run records of one recipe."""

from __future__ import annotations

import gzip
import os
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import orjson

from morphing.merging.recipe import Recipe

if TYPE_CHECKING:
    from morphing.benchmarks.evaluate import Output, Score


@dataclass(frozen=True)
class Result:
    """A benchmark's score without its outputs: mean, samples, standard error, mean tokens."""

    value: float
    n: int
    stderr: float
    truncated: int = 0
    tokens: float | None = None
    """Mean generated tokens an answer; None of a multiple choice."""

    @classmethod
    def of(cls, score: Score) -> Result:
        """The figures of ``score``."""
        return cls(score.value, score.n, score.stderr, score.truncated, score.tokens)


@dataclass(frozen=True)
class Raced:
    """What is known of a recipe given up early: of a part of the samples, comparable with nothing.

    ``values`` and their ``variances`` follow the run's objectives, natural; ``samples`` says how
    many of each benchmark's were scored.
    """

    values: tuple[float, ...]
    variances: tuple[float, ...]
    samples: Mapping[str, int]

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> Raced:
        """From the study's attribute of that name."""
        return cls(tuple(data["values"]), tuple(data["variances"]), data["samples"])


@dataclass(frozen=True)
class Trial:
    """One evaluated recipe.

    ``values`` follow the run's objectives, natural; a failed recipe and one given up early have
    none. ``constraints`` are at most 0 where they are kept.
    """

    number: int
    params: Mapping[str, float]
    recipe: Recipe
    values: tuple[float, ...] = ()
    results: Mapping[str, Result] | None = None
    seconds: float = 0.0
    times: Mapping[str, float] = field(default_factory=dict)
    """Seconds of it by what they went into: proposing, merging, and each benchmark."""
    error: str | None = None
    constraints: tuple[float, ...] = ()
    raced: Raced | None = None
    seed: str | None = None
    """What a recipe that was tried first is called (`seeds.Seed.label`)."""

    @property
    def state(self) -> Literal["complete", "failed", "raced"]:
        """Whether the recipe was scored, could not be, or was given up early."""
        if self.raced is not None:
            return "raced"
        return "failed" if self.error else "complete"

    @property
    def feasible(self) -> bool:
        """Whether it keeps the run's constraints."""
        return all(broken_by <= 0 for broken_by in self.constraints)


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
    """Per-sample outputs as JSON lines, one sample a line, its benchmark named; ``.gz`` gzipped."""
    lines = [
        orjson.dumps({"benchmark": benchmark, **vars(output)})
        for benchmark, rows in outputs.items()
        for output in rows
    ]
    data = b"\n".join(lines)
    if path.suffix == ".gz":
        data = gzip.compress(data, compresslevel=3, mtime=0)
    write_atomically(path, data)


def read_outputs(path: Path) -> dict[str, list[dict[str, Any]]]:
    """The inverse of :func:`write_outputs`, as plain rows by benchmark."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for line in filter(None, gzip.decompress(path.read_bytes()).split(b"\n")):
        row = orjson.loads(line)
        rows.setdefault(row.pop("benchmark"), []).append(row)
    return rows
