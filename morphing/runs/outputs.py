"""Per-sample outputs of a scored model as a file of JSON lines."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import orjson
from pydantic import Field, TypeAdapter

from morphing.benchmarks.results import Output
from morphing.errors import MorphingError
from morphing.runs.files import (
    FOREIGN,
    MEBIBYTE,
    Name,
    parse,
    read_bytes,
    write_atomically,
)

_MEND = "copy it again from where the run was made, or delete it and do without these answers"
_LIMIT = 1024 * MEBIBYTE
"""Of what a file unpacks to."""


Row = dict[str, Any]
"""What a model made of one sample, by the fields of `benchmarks.results.Output`."""


@dataclass(frozen=True)
class _Line(Output):
    """A row of the file: what a model made of one sample, and of which benchmark it is."""

    __pydantic_config__ = FOREIGN

    benchmark: Annotated[Name, Field(min_length=1)] = ""


_SELDOM = ("thought", "unfinished")
"""Fields that are written only where they say something."""
_LINE = TypeAdapter(_Line)


def write_outputs(path: Path, outputs: Mapping[str, Iterable[Output]]) -> None:
    """Per-sample outputs as JSON lines, one sample a line, its benchmark named; ``.gz`` gzipped."""
    lines = [
        orjson.dumps(
            {"benchmark": benchmark}
            | {name: value for name, value in vars(output).items() if value or name not in _SELDOM}
        )
        for benchmark, rows in outputs.items()
        for output in rows
    ]
    data = b"\n".join(lines)
    if path.suffix == ".gz":
        data = gzip.compress(data, compresslevel=3, mtime=0)
    write_atomically(path, data)


def read_outputs(path: Path) -> dict[str, list[Row]]:
    """The inverse of :func:`write_outputs`, as plain rows by benchmark.

    Raises:
        MorphingError: the file is not there, or holds something else.
    """
    rows: dict[str, list[Row]] = {}
    for number, text in enumerate(_unpacked(path).split(b"\n"), 1):
        if text:
            row = dict(vars(parse(text, _LINE, f"Line {number} of {path}", _MEND)))
            rows.setdefault(row.pop("benchmark"), []).append(row)
    return rows


def _unpacked(path: Path) -> bytes:
    packed = io.BytesIO(read_bytes(path, _MEND, _LIMIT))
    try:
        with gzip.GzipFile(fileobj=packed) as file:
            data = file.read(_LIMIT + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise MorphingError(f"{path} is no whole gzip file ({error}): {_MEND}.") from error
    if len(data) > _LIMIT:
        raise MorphingError(f"{path} unpacks to more than {_LIMIT // MEBIBYTE} MiB: {_MEND}.")
    return data
