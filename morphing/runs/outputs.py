"""Per-sample outputs of a scored model as a file of JSON lines."""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from morphing.runs.files import write_atomically

if TYPE_CHECKING:
    from morphing.benchmarks.results import Output


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
