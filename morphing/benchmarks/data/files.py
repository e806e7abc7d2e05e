"""Data files as people have them: read by what is in them, not by their names alone.

A spreadsheet's CSV may be separated by semicolons or tabs, written in the encoding of the machine
that saved it, and begin with a byte-order mark; a ``.json`` may hold a list, columns, or an object
a line; any of them may be compressed. What cannot be read is refused in one sentence that says
where.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, Literal

from morphing.benchmarks.data.rows import JsonLines, ParquetRows, Rows
from morphing.errors import MorphingError

_PLAIN = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".txt")
DATA_SUFFIXES = (*_PLAIN, ".parquet", *(f"{suffix}.gz" for suffix in _PLAIN))
"""How the names of data files end."""
_OFFICE = {
    ".xlsx": "a spreadsheet: save the sheet as CSV",
    ".xls": "a spreadsheet: save the sheet as CSV",
    ".ods": "a spreadsheet: save the sheet as CSV",
    ".zip": "an archive: unpack it",
    ".tar": "an archive: unpack it",
    ".7z": "an archive: unpack it",
    ".pkl": "a program's memory (pickle), which is never opened: save it as JSON lines or Parquet",
    ".pickle": "a program's memory (pickle), which is never opened: save it as JSON lines",
    ".arrow": "an Arrow file: save it as Parquet",
    ".feather": "an Arrow file: save it as Parquet",
    ".yaml": "YAML: save the rows as JSON lines",
    ".yml": "YAML: save the rows as JSON lines",
    ".xml": "XML: save the rows as JSON lines",
}
_GZIP = b"\x1f\x8b"
_BEGINNINGS = {
    b"version https://git-lfs": "it is a pointer of Git LFS, not the data: run git lfs pull",
    b"<!doctype html": "it is a web page: download the file itself",
    b"<html": "it is a web page: download the file itself",
    b"pk\x03\x04": "it is a spreadsheet or an archive: save it as CSV, or unpack it",
    _GZIP: "it is compressed: unpack it, or let its name end in .gz",
}
_MOST_BYTES = 1 << 30
"""Of a compressed file's content: what is larger may be made to fill the memory."""
_LONGEST_CELL = 1 << 24
"""Characters of one cell of a CSV file."""
_SEPARATORS = ",;\t|"
_NONE = "\x1f"
"""What separates nothing."""
_END = "\x1e"
"""A record behind the last: it is missed where a quote is never closed."""
_LOOKED_AT = 50
"""Records by which a CSV's separator is found."""
_LONGEST_NAME = 80
"""Characters: what is longer in a first line is no column's name."""
_ENCODINGS = ["cp1252", "cp1251", "cp932", "gb18030", "big5", "euc_kr"]
"""What spreadsheets save CSV as, beside UTF-8 and UTF-16: of the West, Russian, Japanese, Chinese,
Korean."""

_log = logging.getLogger(__name__)


def data_suffix(name: str | PurePath) -> str | None:
    """The ending by which a name is a data file's, in small letters; None of any other name."""
    lower = str(name).lower()
    return next((suffix for suffix in DATA_SUFFIXES[::-1] if lower.endswith(suffix)), None)


def data_stem(path: PurePath) -> str:
    """A data file's name without its ending."""
    return path.name[: -len(data_suffix(path) or "")] if data_suffix(path) else path.name


def find_data_file(stem: PurePath) -> Path | None:
    """The data file in a folder whose name is ``stem`` and an ending, if there is one."""
    folder = Path(stem.parent)
    if not folder.is_dir():
        return None
    found = {
        data_suffix(path): path
        for path in sorted(folder.iterdir())
        if data_suffix(path) and data_stem(path) == stem.name and path.is_file()
    }
    return next((found[suffix] for suffix in DATA_SUFFIXES if suffix in found), None)


def read_file(file: Path) -> Rows:
    """The rows of a data file.

    - JSON: objects a line, a list of objects, one list of objects inside an object, columns (lists,
      or pandas' values by index), or a list of texts, which are rows with the column ``text``.
    - CSV and TSV: any of ``, ; tab |`` as separator, and a first line of column names; all values
      are texts.
    - Text: a row with the column ``text`` for each line.
    - Parquet.

    Raises:
        MorphingError: it is none of these, or broken; the sentence says in which line.
    """
    suffix = data_suffix(file)
    try:
        if suffix is None:
            raise ValueError(_refusal(file))
        _check_beginning(file, suffix)
        if suffix == ".parquet":
            return ParquetRows([lambda: file])
        if suffix in (".jsonl", ".ndjson") and _is_plain_lines(file):
            return JsonLines(file)
        text = _text(file, suffix)
        match suffix.removesuffix(".gz"):
            case ".jsonl" | ".ndjson" | ".json":
                return _json_rows(text)
            case ".csv":
                return _csv_rows(text, None)
            case ".tsv":
                return _csv_rows(text, "\t")
            case _:
                lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
                return [{"text": line} for line in lines if line.strip()]
    except RecursionError as error:
        raise MorphingError(
            f"The data file {file} can't be read: its values lie too deep in one another."
        ) from error
    except (OSError, ValueError, EOFError, csv.Error) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise MorphingError(f"The data file {file} can't be read: {reason}.") from error


def _check_beginning(file: Path, suffix: str) -> None:
    """Raise ValueError where a file begins as something else than its name says."""
    with file.open("rb") as content:
        start = content.read(64)
    for mark, said in _BEGINNINGS.items():
        named = suffix.endswith(".gz") and mark == _GZIP
        if start.lstrip().lower().startswith(mark) and not named:
            raise ValueError(said)


def _refusal(file: Path) -> str:
    kind = _OFFICE.get(file.suffix.lower())
    if kind:
        return f"it is {kind}"
    return f"its name ends in none of {', '.join(DATA_SUFFIXES[:7])}, or these with .gz"


# --- text ----------------------------------------------------------------------------------------


def _text(file: Path, suffix: str) -> str:
    """A file's text, without its byte-order mark."""
    content = _unpacked(file) if suffix.endswith(".gz") else file.read_bytes()
    for mark, encoding in (
        (codecs.BOM_UTF8, "utf-8-sig"),
        (codecs.BOM_UTF16_LE, "utf-16"),
        (codecs.BOM_UTF16_BE, "utf-16"),
    ):
        if content.startswith(mark):
            return content.decode(encoding)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        if suffix.startswith((".json", ".ndjson")):  # which is UTF-8 by definition
            line = content.count(b"\n", 0, error.start) + 1
            raise ValueError(f"line {line} is not UTF-8: save it as UTF-8") from error
        return _in_another_encoding(file, content)
    if "\0" in text:
        raise ValueError("it is no text: it has bytes that are 0")
    return text


def _unpacked(file: Path) -> bytes:
    with gzip.open(file) as packed:
        content = packed.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise ValueError(f"it unpacks to more than {_MOST_BYTES >> 20} MB: unpack it first")
    return content


def _in_another_encoding(file: Path, content: bytes) -> str:
    from charset_normalizer import from_bytes

    best = from_bytes(content, cp_isolation=_ENCODINGS).best()
    if best is None or "\0" in str(best):
        raise ValueError("its encoding is not known: save it as UTF-8")
    _log.warning(
        "%s is not UTF-8 and is read as %s: look at its rows, or save it as UTF-8.",
        file.name,
        best.encoding,
    )
    return str(best)


# --- JSON ----------------------------------------------------------------------------------------


def _is_plain_lines(file: Path) -> bool:
    """Whether a file begins as objects a line do: without a mark, and not with a list."""
    with file.open("rb") as content:
        start = content.read(4096)
    return not start.startswith((codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) and (
        not start.lstrip().startswith(b"[")
    )


def _json_rows(text: str) -> list[dict[str, Any]]:
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        lines = _object_lines(text)
        if lines is None:
            raise ValueError(
                f"line {error.lineno}, column {error.colno} is no JSON ({error.msg.lower()})"
            ) from error
        return lines
    return _rows_of(data)


def _object_lines(text: str) -> list[dict[str, Any]] | None:
    """The rows of a text with an object a line; None where its first line is none."""
    rows: list[dict[str, Any]] = []
    # Not splitlines: JSON may hold what that takes for the end of a line, U+2028 and others.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            if not rows:
                return None
            raise ValueError(f"line {number} is no JSON object ({error.msg.lower()})") from error
        if not isinstance(row, dict):
            if not rows:
                return None
            raise ValueError(f"line {number} is no JSON object")
        rows.append(row)
    return rows


def _rows_of(data: Any) -> list[dict[str, Any]]:
    """Rows from whatever way a JSON file lays them out."""
    if isinstance(data, list):
        if data and all(isinstance(entry, str) for entry in data):
            return [{"text": entry} for entry in data]
        for number, row in enumerate(data, 1):
            if not isinstance(row, dict):
                raise ValueError(f"entry {number} of its list is no object")
        return data
    if not isinstance(data, dict):
        raise ValueError("it is no list of objects")
    if set(data) <= {"columns", "index", "data"} and {"columns", "data"} <= set(data):
        return _split_rows(data["columns"], data["data"])
    columns = _columns(data)
    if columns is not None:
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    lists = {key: value for key, value in data.items() if _is_rows(value)}
    if len(lists) > 1:
        raise ValueError(
            f"it holds several lists of rows ({', '.join(map(repr, lists))}): save each as a file"
            " of its own in one folder, which is then the dataset"
        )
    if lists:
        return _rows_of(*lists.values())
    inner = list(data.values())
    named = len(inner) > 1 and all(isinstance(row, dict) and row for row in inner)
    if named and all(row.keys() == inner[0].keys() for row in inner):
        return inner  # rows by their names
    if len(inner) == 1 and isinstance(inner[0], list | dict):
        return _rows_of(inner[0])
    return [data]  # one row, as a file with one object a line has it


def _split_rows(columns: Any, rows: Any) -> list[dict[str, Any]]:
    """Rows as pandas writes them apart from the names of their columns."""
    listed = isinstance(columns, list) and isinstance(rows, list)
    if not listed or not all(isinstance(r, list) and len(r) == len(columns) for r in rows):
        raise ValueError("its rows under 'data' don't fit its 'columns'")
    return [dict(zip(map(str, columns), row, strict=True)) for row in rows]


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)


def _columns(data: Mapping[str, Any]) -> dict[str, list[Any]] | None:
    """Columns of one length: lists, or values by index; None where the object is something else."""
    values = list(data.values())
    if len(values) < 2 or not values:
        return None
    if all(isinstance(value, list) for value in values) and not any(map(_is_rows, values)):
        lengths = {key: len(value) for key, value in data.items()}
        if len(set(lengths.values())) > 1:
            told = ", ".join(f"{key!r} {length}" for key, length in lengths.items())
            raise ValueError(f"its columns have different lengths: {told}")
        return dict(data)
    if all(isinstance(value, dict) and value for value in values):
        keys = list(values[0])
        if all(list(value) == keys for value in values) and all(key.isdecimal() for key in keys):
            return {name: list(value.values()) for name, value in data.items()}
    return None


# --- CSV -----------------------------------------------------------------------------------------


def _csv_rows(text: str, separator: str | None) -> list[dict[str, Any]]:
    first, _, rest = text.partition("\n")
    if first.strip().lower().startswith("sep=") and len(first.strip()) == 5:
        separator, text = first.strip()[4], rest  # as Excel says which it is
    csv.field_size_limit(_LONGEST_CELL)
    if separator is None or separator not in text.lstrip().partition("\n")[0]:
        separator = _separator(text)
    records = _records(text, separator)
    if not records:
        return []
    names, values = _header(records)
    rows = []
    for line, record in values:
        if len(record) > len(names) and any(map(str.strip, record[len(names) :])):
            raise ValueError(
                f"line {line} has {len(record)} cells, and there are {len(names)} columns: put"
                " texts that contain the separator in quotes"
            )
        cells: Sequence[str | None] = record[: len(names)]
        rows.append(dict(zip(names, [*cells, *[None] * (len(names) - len(cells))], strict=True)))
    return rows


def _records(text: str, separator: str) -> list[tuple[int, list[str]]]:
    """The records that are not empty, with the lines they end in."""
    numbered = _read(text, separator, csv.QUOTE_MINIMAL)
    if numbered[-1][1] != [_END]:  # it lies in a quote that is never closed
        if separator != "\t":
            raise ValueError(
                f"a quote is never closed: the record after line {numbered[-2][0]} goes to the end"
                if len(numbered) > 1
                else "a quote is never closed"
            )
        numbered = _read(text, separator, csv.QUOTE_NONE)  # as tables with tabs often are
    return [(line, record) for line, record in numbered[:-1] if any(map(str.strip, record))]


def _read(text: str, separator: str, quoting: Literal[0, 3]) -> list[tuple[int, list[str]]]:
    lines = io.StringIO(f"{text}\n{_END}\n", newline="")
    reader = csv.reader(lines, delimiter=separator, quoting=quoting)
    return [(reader.line_num, record) for record in reader]


def _separator(text: str) -> str:
    """The separator under which the first records have the same number of cells, and the most."""

    def fitness(separator: str) -> tuple[int, int]:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
        widths = Counter(len(r) for r, _ in zip(reader, range(_LOOKED_AT), strict=False) if r)
        width, count = max(widths.items(), key=lambda item: (item[1], item[0]), default=(1, 0))
        return (count if width > 1 else 0, width)

    best = max(_SEPARATORS, key=fitness)
    # In one column of texts a comma parts nothing.
    first = text.lstrip().partition("\n")[0]
    return best if fitness(best)[0] or best in first else _NONE


def _header(
    records: Sequence[tuple[int, list[str]]],
) -> tuple[list[str], Sequence[tuple[int, list[str]]]]:
    """Column names, and the records that are rows: all of them where the first has no names."""
    names = [name.strip() for name in records[0][1]]
    while names and not names[-1]:  # as a separator at the end of each line leaves it
        names.pop()
    if any(_is_no_name(name) for name in names):
        _log.warning("The first line has no column names: columns are called column1, column2 ...")
        return [f"column{place}" for place in range(1, len(names) + 1)], records
    named = [name or f"column{place}" for place, name in enumerate(names, 1)]
    twice = [name for name, count in Counter(named).items() if count > 1]
    if twice:
        raise ValueError(f"two columns are called {twice[0]!r}: give each a name of its own")
    return named, records[1:]


def _is_no_name(text: str) -> bool:
    """Whether a cell of the first line is a value: a number, a question, a long text."""
    number = text.replace(",", "").replace(".", "", 1).lstrip("-+").isdecimal()
    return number or len(text) > _LONGEST_NAME or text.endswith(("?", "？", "."))
