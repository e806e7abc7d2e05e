"""A spec says what is wrong with it in one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from morphing.errors import MorphingError
from morphing.runs.measures import SPARSITY
from morphing.runs.spec import RunSpec, load_spec, parse_spec, zoo_spec


def valid() -> dict[str, Any]:
    return {
        "base": "zoo:base",
        "sources": ["zoo:english-math", "zoo:japanese-numerals"],
        "benchmarks": ["zoo-english-arithmetic", "zoo-kanji-numbers"],
    }


def test_round_trip() -> None:
    spec = parse_spec(valid())
    assert parse_spec(yaml.safe_load(spec.to_yaml())) == spec
    assert spec.objectives == ("zoo-english-arithmetic", "zoo-kanji-numbers", SPARSITY)


def test_the_zoo_never_searches_on_its_cross_domain_benchmark() -> None:
    spec = zoo_spec()
    assert "zoo-japanese-arithmetic" not in spec.objectives
    assert "zoo-japanese-arithmetic" in [use.declaration.name for use in spec.benchmarks]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sources": []}, ["sources"]),
        ({"sources": ["a/b", "a/b"]}, ["a/b", "twice"]),
        ({"benchmarks": ["zoo-kanji-numbers"] * 2}, ["twice"]),
        ({"benchmarks": [{"benchmark": "zoo-kanji-numbers", "samples": 0}]}, ["samples"]),
        ({"benchmarks": [{"benchmark": "zoo-kanji-numbers", "objective": False}]}, ["objective"]),
        ({"method": "tie"}, ["'tie'", "ties"]),
        ({"method": "slerp"}, ["exactly one source", "names 2"]),
        ({"method": "model_stock"}, ["no numbers to search", "morphing merge"]),
        ({"search": {"sampler": "mmm"}}, ["'mmm'", "mmmo"]),
        ({"search": {"evaluations": 0}}, ["search.evaluations"]),
        ({"device": "gpu"}, ["'gpu'", "cuda"]),
        ({"sourcs": 1}, ["sourcs"]),
        ({"name": "../up"}, ["name"]),
        ({"base": None}, ["base"]),
    ],
)
def test_bad_specs(change: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(MorphingError) as error:
        parse_spec(valid() | change, "my.yaml")
    sentence = str(error.value)
    assert sentence.startswith("my.yaml: ") and "\n" not in sentence
    for word in words:
        assert word in sentence


def test_an_unknown_benchmark() -> None:
    with pytest.raises(MorphingError, match="'zoo-kanji-number': choose zoo-kanji-numbers"):
        parse_spec(valid() | {"benchmarks": ["zoo-kanji-number"]})


@pytest.mark.parametrize("text", ["a: [", "- 1", "just words", ""])
def test_malformed_files(tmp_path: Path, text: str) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(text)
    with pytest.raises(MorphingError, match=r"spec\.yaml") as error:
        load_spec(path)
    assert "\n" not in str(error.value)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(MorphingError, match="cannot be read"):
        load_spec(tmp_path / "none.yaml")


def test_spec_is_frozen() -> None:
    spec = parse_spec(valid())
    assert isinstance(spec, RunSpec)
    with pytest.raises(ValueError, match="frozen"):
        spec.method = "linear"  # type: ignore[misc]
