"""A dataset's columns and first rows, and how a column is written in a template."""

from __future__ import annotations

import keyword
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Table:
    """A dataset's columns, its first rows and the names of its numbered classes, by column."""

    columns: tuple[str, ...]
    rows: Sequence[Mapping[str, Any]]
    classes: Mapping[str, Sequence[str]]

    def find(self, names: Iterable[str], *without: str | None) -> str | None:
        """The first of ``names`` that is a column with values, and not one of the others."""
        spelt = {plain(c): c for c in self.columns[::-1] if self.values(c)}
        found = (spelt[name] for name in names if name in spelt)
        return next((column for column in found if column not in without), None)

    def values(self, column: str) -> list[Any]:
        """The column's values in the rows, without those that are missing."""
        return [row[column] for row in self.rows if row.get(column) is not None]

    def all(self, column: str, test: Callable[[Any], bool]) -> bool:
        """Whether there are values and all pass."""
        values = self.values(column)
        return bool(values) and all(map(test, values))


def plain(column: str) -> str:
    """A column's name without capitals, spaces and marks, in any script."""
    return re.sub(r"[\W_]", "", unicodedata.normalize("NFKC", column).casefold())


def ref(column: str) -> str:
    """A column in a template."""
    # Jinja has words of its own beside Python's, and `row` is the row itself.
    taken = keyword.iskeyword(column) or column in ("row", "true", "false", "none", "loop", "self")
    return column if column.isidentifier() and not taken else f"row[{column!r}]"


def show(column: str) -> str:
    """A column's text in a template."""
    return "{{ " + ref(column) + " }}"


def is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def is_texts(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(map(is_text, value))


def is_struct(value: Any, *keys: str) -> bool:
    return isinstance(value, Mapping) and all(isinstance(value.get(k), list | tuple) for k in keys)


def is_structs(value: Any, *keys: str) -> bool:
    return (
        isinstance(value, list | tuple)
        and bool(value)
        and all(isinstance(each, Mapping) and all(k in each for k in keys) for each in value)
    )


def is_number(value: Any) -> bool:
    if isinstance(value, bool):
        return False
    text = str(value).strip()
    return isinstance(value, int | float) or bool(re.fullmatch(r"[-−]?[\d,]+(\.\d+)?", text))
