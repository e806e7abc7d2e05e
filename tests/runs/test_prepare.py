"""Sources of which nothing can be searched are told before a search starts."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from morphing import zoo
from morphing.benchmarks.data.guess import guess_benchmark
from morphing.errors import MorphingError
from morphing.runs.prepare import prepare
from morphing.runs.spec import RunSpec, parse_spec


def with_sources(spec: RunSpec, *sources: str, **search: object) -> RunSpec:
    data = spec.model_dump() | {"base": "zoo:base", "sources": sources}
    return parse_spec(data | {"search": data["search"] | search})


def copied(model: str, folder: Path) -> str:
    return str(shutil.copytree(zoo.model_folder(model), folder))


def test_the_base_as_the_only_source_is_told(small_spec: RunSpec, tmp_path: Path) -> None:
    same = ("zoo:base",), ("zoo:base", copied("base", tmp_path / "copy"))
    for sources in same:
        with pytest.raises(MorphingError, match="All sources hold the same as the base zoo:base"):
            prepare(with_sources(small_spec, *sources))


def test_the_base_among_the_sources_is_noted(small_spec: RunSpec, tmp_path: Path) -> None:
    told: list[str] = []
    copy = copied("base", tmp_path / "copy")
    prepare(with_sources(small_spec, copy, "zoo:english-math"), told=told.append)
    assert [f"{copy} holds the same as the base" in remark for remark in told] == [True]


def test_a_source_named_in_two_ways_is_told(small_spec: RunSpec, tmp_path: Path) -> None:
    folder = copied("english-math", tmp_path / "math")
    with pytest.raises(MorphingError, match="named twice"):
        prepare(with_sources(small_spec, folder, f"{folder}/"))
    with pytest.raises(MorphingError, match="listed twice"):
        with_sources(small_spec, folder, folder)
    with pytest.raises(MorphingError, match="sources"):
        with_sources(small_spec)


@pytest.mark.parametrize(("tokens", "fits"), [(255, True), (256, False), (320, False)])
def test_answers_that_fill_the_context_are_told(
    small_spec: RunSpec, tmp_path: Path, tokens: int, fits: bool
) -> None:
    rows = "".join(f"{n} plus {n}?;{2 * n}\n" for n in range(40))
    (tmp_path / "sums.csv").write_text(f"Frage;Antwort\n{rows}", encoding="utf-8-sig")
    own = guess_benchmark(str(tmp_path / "sums.csv"))
    use = {"benchmark": own.model_copy(update={"max_new_tokens": tokens}).model_dump()}
    spec = parse_spec(small_spec.model_dump() | {"benchmarks": [use], "constraints": []})
    if fits:
        prepare(spec)
    else:
        with pytest.raises(
            MorphingError, match=f"{tokens} tokens, and zoo:base has a context of 256"
        ):
            prepare(spec)
