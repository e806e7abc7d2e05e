"""A benchmark guessed from a dataset's columns, for its owner to look at before anything runs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from morphing.benchmarks.benchmark import Benchmark, parse_benchmark
from morphing.benchmarks.data.columns import Table
from morphing.benchmarks.data.dataset import class_names, read_rows, split_names, take
from morphing.benchmarks.data.files import data_stem
from morphing.benchmarks.data.sample import make_sample
from morphing.benchmarks.data.shapes import fields_of
from morphing.errors import MorphingError
from morphing.names import made_plain

ROLES = ("prompt", "context", "choices", "target")
"""What a column can be for: what is asked, what the question is about, the options, the answer."""
_SEEN = 50  # rows that a guess looks at
_HELD_OUT = ("test", "validation", "valid", "val", "dev", "eval", "holdout")


def guess_benchmark(
    dataset: str,
    config: str | None = None,
    split: str | None = None,
    columns: Mapping[str, str] | None = None,
    token: str | None = None,
) -> Benchmark:
    """A declaration for ``dataset``: kind, prompt, target, options and metric.

    The search draws from ``split``; without it, from a split beside the one that is kept for the
    report, if there are two with answers. ``columns`` says what columns are for (``ROLES``; options
    may be several columns, written ``A, B, C``); only the others are guessed.

    Raises:
        MorphingError: no such dataset, config, split or column; no access; nothing fits.
    """
    place: dict[str, Any] = {
        "name": own_name(dataset),
        "title": dataset,
        "dataset": dataset,
        "config": config,
    }
    place |= {"kind": "perplexity", "target": "x"}  # until it is known
    blank = parse_benchmark({**place, **({"split": split} if split else {})}, dataset)
    splits = split_names(blank, token)
    first = split or next((s for s in splits if s not in _HELD_OUT), splits[0])
    rows = read_rows(blank, first, token)
    seen = take(blank, rows, range(min(len(rows), _SEEN)))
    table = Table(tuple(seen[0]), seen, class_names(rows))
    fields = fields_of(table, _checked(columns or {}, table.columns, dataset))
    if fields is None:
        raise MorphingError(
            f"No prompt and answer can be guessed from the columns of {dataset!r}, which are"
            f" {', '.join(table.columns)}: say which of them is the prompt and which the target, or"
            " write a benchmark in a YAML file."
        )
    guessed = parse_benchmark({**place, "split": first, **fields}, f"The guess for {dataset!r}")
    if split is None and len(splits) > 1:
        guessed = guessed.model_copy(update=_two_splits(guessed, splits, token))
    return guessed


def own_name(dataset: str) -> str:
    """A benchmark's name after the dataset it is made of, a Hub id or a path."""
    return made_plain(
        re.sub(r"[^a-z0-9]+", "-", data_stem(Path(dataset)).lower()).strip("-"), "own"
    )


def _checked(columns: Mapping[str, str], known: Sequence[str], dataset: str) -> Mapping[str, str]:
    for role, named in columns.items():
        if role not in ROLES:
            raise MorphingError(
                f"A column of {dataset!r} is said to be the {role!r}: it can be"
                f" {', '.join(ROLES[:-1])} or {ROLES[-1]}."
            )
        for column in [named] if named in known else re.split(r"\s*,\s*", named):
            if column not in known:
                raise MorphingError(
                    f"The dataset {dataset!r} has no column {column!r} for the {role}: its columns"
                    f" are {', '.join(known)}."
                )
    return columns


def _two_splits(
    benchmark: Benchmark, splits: Sequence[str], token: str | None
) -> dict[str, str | None]:
    """Splits with answers, the best known one for the report: search and holdout apart."""
    held = [split for split in _HELD_OUT if split in splits and _answers(benchmark, split, token)]
    others = [split for split in splits if split not in held and _answers(benchmark, split, token)]
    if len(held) > 1:
        return {"split": held[1], "holdout_split": held[0]}
    if held and others:
        return {"split": others[0], "holdout_split": held[0]}
    return {"split": (held or others or [benchmark.split])[0], "holdout_split": None}


def _answers(benchmark: Benchmark, split: str, token: str | None) -> bool:
    """Whether the split's first rows have answers; published test splits often don't."""
    try:
        rows = read_rows(benchmark, split, token)
        first = take(benchmark, rows, range(min(len(rows), _SEEN)))
        return all(make_sample(benchmark, split, row).target != "" for row in first)
    except MorphingError:
        return False
