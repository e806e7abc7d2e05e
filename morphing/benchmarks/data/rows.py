"""Rows by index, read when they are asked for: of a million only the chosen ones."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

if TYPE_CHECKING:
    from pyarrow import Table  # type: ignore[import-untyped]


class Rows(Protocol):
    """Rows by index: a list of mappings, a ``datasets.Dataset`` or one of the classes below."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Mapping[str, Any]: ...


class JsonLines:
    """A file with an object a line; of each line only its place is kept.

    Raises:
        OSError: the file can't be read.
        ValueError: a line is no JSON object.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._starts: list[int] = []
        with file.open("rb") as lines:
            at = 0
            for number, line in enumerate(lines, 1):
                if line.strip():
                    _check_object(line, number)
                    self._starts.append(at)
                at += len(line)

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        with self._file.open("rb") as lines:
            lines.seek(self._starts[index])
            row: dict[str, Any] = json.loads(lines.readline())
            return row


def _check_object(line: bytes, number: int) -> None:
    try:
        row = json.loads(line)
    except UnicodeDecodeError as error:
        raise ValueError(f"line {number} is not UTF-8: save the file as UTF-8") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"line {number} is no JSON object ({error.msg.lower()})") from error
    if not isinstance(row, dict):
        raise ValueError(f"line {number} is no JSON object")


class ParquetRows:
    """Parquet files one after the other, here or far away; a row is read with its row group.

    The group read last is kept, so that rows asked for in their order are read once. ``openers``
    open the files; only their footers are read until a row is asked for.

    Raises:
        OSError: a file can't be read.
        ValueError: a file is no Parquet.
    """

    def __init__(self, openers: Sequence[Callable[[], BinaryIO | Path]]) -> None:
        import pyarrow.parquet  # type: ignore[import-untyped]

        self._files = [pyarrow.parquet.ParquetFile(opener(), pre_buffer=True) for opener in openers]
        self._groups = [
            (file, group) for file in self._files for group in range(file.metadata.num_row_groups)
        ]
        sizes = (file.metadata.row_group(group).num_rows for file, group in self._groups)
        self._ends = list(accumulate(sizes))
        self._read: tuple[int, Table] | None = None
        self.features = _features(self._files[0].schema_arrow.metadata or {})

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        at = bisect_right(self._ends, index)
        if self._read is None or self._read[0] != at:
            file, group = self._groups[at]
            self._read = (at, file.read_row_group(group))
        start = self._ends[at - 1] if at else 0
        row: dict[str, Any] = self._read[1].slice(index - start, 1).to_pylist()[0]
        return row


def _features(metadata: Mapping[bytes, bytes]) -> Mapping[str, Any]:
    """Columns as `datasets` described them when it wrote a Parquet file."""
    if b"huggingface" not in metadata:
        return {}
    from datasets import Features

    info = json.loads(metadata[b"huggingface"])["info"]
    return Features.from_dict(info.get("features") or {})


class JoinedRows:
    """The rows of several configs, one config after the other."""

    def __init__(self, parts: Mapping[str, Rows]) -> None:
        self._parts = list(parts.items())
        self._ends = list(accumulate(len(rows) for _, rows in self._parts))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        at, inside = self._place(index)
        return self._parts[at][1][inside]

    def name(self, index: int) -> str:
        """``<config>/<index in it>``"""
        at, inside = self._place(index)
        return f"{self._parts[at][0]}/{inside}"

    def _place(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        at = bisect_right(self._ends, index)
        return at, index - (self._ends[at - 1] if at else 0)
