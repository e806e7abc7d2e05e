"""A benchmark of the visitor's own, while its columns are being mapped."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from morphing.benchmarks.benchmark import Benchmark, parse_benchmark
from morphing.benchmarks.data.columns import Table, ref, show
from morphing.benchmarks.data.dataset import class_names, read_rows, split_names, take
from morphing.benchmarks.data.guess import own_name
from morphing.benchmarks.data.sample import Sample, make_sample
from morphing.benchmarks.data.shapes import fields_of
from morphing.benchmarks.find import EXAMPLES, examples, find_benchmark, is_dataset
from morphing.benchmarks.kinds.table import KINDS
from morphing.errors import MorphingError

Role = Literal["prompt", "target", "choices", "unused"]
ROLES: tuple[Role, ...] = ("prompt", "target", "choices", "unused")

_SEEN = 50
"""Rows that a mapping is tried on."""
_LONGEST_VALUE = 160
"""Characters of a column's value that are shown."""
_MAPPED = ("kind", "prompt", "target", "choices", "continuation", "normalize", "metric", "extract")
_UNASKED = ("chat", "max_new_tokens", "stop", "language")
"""Fields that follow from what columns are for, and those that no control shows."""


@dataclass(frozen=True)
class Draft:
    """A declaration as it is being written, and the rows it is tried on.

    ``fields`` are those of a `Benchmark`; they may not fit together yet.
    """

    fields: Mapping[str, Any]
    table: Table
    splits: tuple[str, ...] = ()
    guessed: bool = True
    samples: tuple[Sample, ...] = ()
    """Of what has no columns to map, filled in."""

    @property
    def benchmark(self) -> Benchmark:
        """The declaration.

        Raises:
            MorphingError: it is none yet.
        """
        given = {name: value for name, value in self.fields.items() if value not in (None, "", ())}
        return parse_benchmark(given, f"What is written for {self.fields['name']}")

    def examples(self) -> list[Sample]:
        """Some of the rows filled in, not only those that a sorted dataset begins with.

        Raises:
            MorphingError: the declaration is none, or does not fit a row.
        """
        if not self.mapped:
            return list(self.samples)
        benchmark, count = self.benchmark, len(self.table.rows)
        places = sorted({count * part // EXAMPLES for part in range(EXAMPLES)}) if count else ()
        split = self.fields.get("split")
        return [make_sample(benchmark, f"{split}/{at}", self.table.rows[at]) for at in places]

    @property
    def mapped(self) -> bool:
        """Whether columns are mapped to parts of a question; a task of lm-eval does that itself."""
        return bool(KINDS[self.fields["kind"]].choice)

    @property
    def unmapped(self) -> bool:
        """Whether nobody has said yet, and nothing tells, what the columns are for."""
        written = ("prompt", "target", "choices", "program")
        return self.mapped and not any(self.fields.get(name) for name in written)

    @property
    def columns(self) -> dict[str, str]:
        """Every column, and what it holds in the first row."""
        row = self.table.rows[0] if self.table.rows else {}
        return {name: _short(row.get(name)) for name in self.table.columns}

    def role(self, column: str) -> Role:
        """What a column is for: the first of options, answer and prompt that uses it."""
        if _in_choices(self.fields.get("choices"), column):
            return "choices"
        if _in_template(self.fields.get("target"), column):
            return "target"
        return "prompt" if _in_template(self.fields.get("prompt"), column) else "unused"

    def after_role(self, column: str, role: Role) -> Draft:
        """The draft with a column used for something else."""
        if column not in self.table.columns or role not in ROLES or role == self.role(column):
            return self
        roles = {name: self.role(name) for name in self.table.columns}
        if role == "target":
            roles = {n: "unused" if old == "target" else old for n, old in roles.items()}
        roles[column] = role
        kept = {
            name: value for name, value in self.fields.items() if name not in (*_MAPPED, *_UNASKED)
        }
        for fields in (self._guess(roles), self._plainly(roles)):
            after = replace(self, fields=kept | fields, guessed=False)
            if all(after.role(name) == wanted for name, wanted in roles.items()):
                break
        return after

    def after_field(self, name: str, value: Any) -> Draft:
        """The draft with a field written by hand."""
        fields = {**self.fields, name: value}
        if name == "kind":
            own = {"generation": "exact_match"}
            other = dict.fromkeys(("choices", "continuation", "normalize", "stop", "extract"))
            if value == "multiple_choice":
                other.pop("choices")
            fields |= {**other, "metric": own.get(value), "max_new_tokens": None}
        return replace(self, fields=fields, guessed=False)

    def _guess(self, roles: Mapping[str, Role]) -> dict[str, Any]:
        """What these columns look like, where each is for what is said."""
        asked, answers, options = (
            [name for name, role in roles.items() if role == wanted] for wanted in ROLES[:3]
        )
        # What is new beside a question is what the question is about.
        asked.sort(key=lambda name: self.role(name) == "prompt")
        given = {"prompt": asked[-1]} if asked else {}
        given |= {"context": asked[0]} if len(asked) > 1 else {}
        given |= {"target": answers[0]} if answers else {}
        given |= {"choices": ", ".join(options)} if options else {}
        used = tuple(name for name, role in roles.items() if role != "unused")
        return fields_of(replace(self.table, columns=used), given) or {"kind": "generation"}

    def _plainly(self, roles: Mapping[str, Role]) -> dict[str, Any]:
        """The columns as they are, one after the other."""
        asked, answers, options = (
            [name for name, role in roles.items() if role == wanted] for wanted in ROLES[:3]
        )
        fields: dict[str, Any] = {
            "kind": "multiple_choice" if options else "generation",
            "prompt": "\n".join(map(show, asked)),
            "target": "".join(map(show, answers)),
        }
        if len(options) == 1:
            fields["choices"] = f"{ref(options[0])} | map('prefixed', ' ')"
        elif options:
            fields["choices"] = tuple(f" {show(name)}" for name in options)
        return fields


def draft_of(name: str, token: str | None = None) -> Draft:
    """A dataset, its mapping guessed where one can be; or any other benchmark as it is.

    Raises:
        MorphingError: nothing is called so, or it cannot be read.
    """
    try:
        found = find_benchmark(name, token)
    except MorphingError:
        if not is_dataset(name):
            raise
        return _blank(name, token)
    fields = found.benchmark.model_dump(exclude_defaults=True)
    if found.guessed and found.benchmark.local:
        fields["title"] = Path(name).name
    draft = Draft(fields, _EMPTY, guessed=found.guessed)
    if not draft.mapped:
        return replace(draft, samples=tuple(examples(found.benchmark, token)))
    return _with_rows(draft, token)


def moved(draft: Draft, name: str, value: str | None, token: str | None = None) -> Draft:
    """The draft on another config or split, with the rows that are there.

    Raises:
        MorphingError: there is none of that name.
    """
    after = replace(draft, fields={**draft.fields, name: value or None}, guessed=False)
    return _with_rows(after, token)


def choices_text(choices: Any) -> str:
    """Options as they are written by hand: an expression, or a template a line."""
    return choices if isinstance(choices, str) else "\n".join(choices or ())


def choices_of(text: str) -> Any:
    """The inverse of `choices_text`."""
    lines = [line for line in text.split("\n") if line.strip()]
    if len(lines) == 1 and "{{" not in text:
        return text.strip()
    return tuple(lines)


_EMPTY = Table((), (), {})


def _blank(name: str, token: str | None) -> Draft:
    """A dataset in which nothing could be guessed, for its columns to be mapped by hand.

    Raises:
        MorphingError: it cannot be read.
    """
    place = {"name": own_name(name), "title": Path(name).name, "dataset": name}
    probe = parse_benchmark({**place, "kind": "perplexity", "target": "?"}, name)
    first = split_names(probe, token)[0]
    fields = {**place, "split": first, "kind": "generation", "prompt": "", "target": ""}
    return _with_rows(Draft(fields, _EMPTY, guessed=False), token)


def _with_rows(draft: Draft, token: str | None) -> Draft:
    """The draft with the first rows of its split."""
    # Where the rows are does not hang on templates, which may not be whole yet.
    place = {name: draft.fields.get(name) for name in ("name", "dataset", "config", "revision")}
    place |= {"split": draft.fields.get("split", "test"), "kind": "perplexity", "target": "?"}
    probe = parse_benchmark({k: v for k, v in place.items() if v}, "It")
    rows = read_rows(probe, probe.split, token)
    seen = take(probe, rows, range(min(len(rows), _SEEN)))
    table = Table(tuple(seen[0]), seen, class_names(rows))
    fields = {"split": probe.split, **draft.fields}
    return replace(draft, fields=fields, table=table, splits=tuple(split_names(probe, token)))


def _in_template(template: Any, column: str) -> bool:
    """Whether a template mentions a column, outside of plain text."""
    code = re.findall(r"\{[{%](.*?)[%}]\}", str(template or ""), re.DOTALL)
    return any(_in_expression(piece, column) for piece in code)


def _in_expression(code: str, column: str) -> bool:
    plain = rf"(?<![\w.'\"]){re.escape(column)}(?!\w)"
    keyed = rf"row\[(['\"]){re.escape(column)}\1\]"
    return bool(re.search(plain, code) or re.search(keyed, code))


def _in_choices(choices: Any, column: str) -> bool:
    if isinstance(choices, str):
        return _in_expression(choices, column)
    return any(_in_template(each, column) for each in choices or ())


def _short(value: Any) -> str:
    as_json = "" if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    text = as_json or str(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}…"
