"""Names from outside that become part of a path, wherever they come in."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from morphing.benchmarks.benchmark import Benchmark, parse_benchmark
from morphing.benchmarks.data.guess import own_name
from morphing.errors import MorphingError
from morphing.names import LONGEST_NAME, check_inner, check_plain, made_plain
from morphing.runs.spec import parse_spec

CLIMBING = [
    "..",
    "../x",
    "x/../../y",
    "/etc/passwd",
    "~/x",
    "~root",
    ".",
    "./x",
    "x/.",
    "x//y",
    "x/",
]
STRANGE = [
    "",
    "a\\..\\b",
    "C:\\x",
    "a\0b",
    "a\nb",
    "*",
    "a?",
    '"',
    "<a>",
    "a|b",
    "\ud800",
    "é" * 300,
]
NO_NAMES = [*CLIMBING, *STRANGE, "a/b", ".hidden", "-rf", "a b", "naïve", "ａ", "x" * 121, "a\n"]


def benchmark(**fields: Any) -> Benchmark:
    given = {"name": "toy", "dataset": "org/toy", "kind": "perplexity", "target": "x", **fields}
    return parse_benchmark(given, "It")


def spec_of_benchmark(name: str) -> object:
    task = {"name": name, "dataset": "org/toy", "kind": "perplexity", "target": "x"}
    return parse_spec(
        {"base": "zoo:base", "sources": ["zoo:word-games"], "benchmarks": [{"benchmark": task}]},
        "It",
    )


def spec_called(name: str) -> object:
    return parse_spec(
        {
            "name": name,
            "base": "zoo:base",
            "sources": ["zoo:word-games"],
            "benchmarks": [{"benchmark": "zoo-word-puzzles"}],
        },
        "It",
    )


@pytest.mark.parametrize("name", NO_NAMES)
@pytest.mark.parametrize(
    "door", [lambda name: benchmark(name=name), spec_of_benchmark, spec_called], ids=range(3)
)
def test_a_name_that_gets_a_file_is_no_path(door: Callable[[str], object], name: str) -> None:
    with pytest.raises(MorphingError, match="name"):
        door(name)


@pytest.mark.parametrize("field", ["config", "split", "holdout_split", "few_shot_split"])
@pytest.mark.parametrize("place", [*CLIMBING, *STRANGE])
def test_where_in_a_dataset_rows_are_is_inside(field: str, place: str) -> None:
    with pytest.raises(MorphingError, match=field):
        benchmark(**{field: place})
    if field == "config":
        with pytest.raises(MorphingError, match=field):
            benchmark(config=["main", place])


def test_names_that_people_have_pass() -> None:
    for name in ("gsm8k", "zoo-kanji-numbers", "lm_eval-mmlu_x.y", "A", "x" * LONGEST_NAME):
        assert benchmark(name=name).name == check_plain(name) == name
    places = ("main", "20220301.en", "Abstract Algebra", "日本語", "data/en", "train[:10%]", "a-b")
    assert benchmark(config=list(places), split="train[:10%]").config == places


@given(st.text())
def test_whatever_passes_stays_in_its_folder(text: str) -> None:
    root = "/root/of/all"
    made = made_plain(text, "own")
    assert check_plain(made) == made
    assert os.path.dirname(os.path.normpath(f"{root}/{made}.json")) == root
    assert check_plain(own_name(text)) == own_name(text)
    try:
        check_inner(text)
    except ValueError:
        return
    assert os.path.normpath(f"{root}/{text}").startswith(f"{root}/")
    assert not Path(text).is_absolute()
