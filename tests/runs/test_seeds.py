"""Seeds: points of the space where it has them, and other recipes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from morphing.errors import MorphingError
from morphing.merging.recipe import Recipe
from morphing.runs.prepare import prepare
from morphing.runs.seeds import Seed, seed_trials
from morphing.runs.spec import RunSpec, load_spec, parse_spec
from morphing.runs.stages import stages

SOURCES = ["zoo:english-math", "zoo:word-games"]


def spec(seeds: list[Any], **changes: Any) -> RunSpec:
    benchmarks = [{"benchmark": "zoo-word-puzzles", "samples": 1, "holdout": 1}]
    data = {"base": "zoo:base", "sources": SOURCES, "benchmarks": benchmarks, "device": "cpu"}
    search = {"seeds": seeds, "seed": 5, **changes.pop("search", {})}
    return parse_spec({**data, "method": "ties", "search": search, **changes})


def seeds_of(given: RunSpec) -> list[Seed]:
    return seed_trials(given, stages(given, 3, "LlamaForCausalLM")[0].space)


def recipe(*names: str, **extra: Any) -> dict[str, Any]:
    models = [{"model": name, "parameters": {"weight": 0.5}} for name in names]
    return {"merge_method": "linear", "models": models, **extra}


def test_sources_and_their_average_are_points_of_the_space() -> None:
    seeds = seeds_of(spec(["uniform", "sources"]))
    assert [seed.label for seed in seeds] == ["uniform", "english-math", "word-games"]
    assert all(seed.recipe is None for seed in seeds)
    assert seeds[0].params == {
        "english-math.weight": 0.5,
        "english-math.density": 1.0,
        "word-games.weight": 0.5,
        "word-games.density": 1.0,
    }
    assert seeds[2].params == {
        "english-math.weight": 0.0,
        "english-math.density": 1.0,
        "word-games.weight": 1.0,
        "word-games.density": 1.0,
    }


def test_elsewhere_they_are_recipes_of_their_own() -> None:
    seeds = seeds_of(spec(["sources", "uniform"], method="sce", dtype="bfloat16"))
    assert [seed.params for seed in seeds] == [None] * 3
    first, _, average = (seed.recipe for seed in seeds)
    assert first is not None and average is not None
    assert first.sources == (SOURCES[0],)
    assert average.sources == tuple(SOURCES)
    assert average.config["out_dtype"] == "bfloat16" and average.mask_seed == 5
    for seed in seeds:
        assert seed.recipe is not None
        seed.recipe.check()


def test_the_average_of_one_source_is_tried_once() -> None:
    seeds = seeds_of(spec(["sources", "uniform"], sources=SOURCES[:1]))
    assert [seed.label for seed in seeds] == ["english-math"]


def test_in_a_path_space_sources_are_paths() -> None:
    seeds = seeds_of(
        spec(["sources", "uniform"], search={"space": {"strategy": "dfs"}, "sampler": "evolve"})
    )
    assert [(seed.label, seed.recipe is None) for seed in seeds] == [
        ("english-math", True),
        ("word-games", True),
        ("uniform", False),
    ]


def test_files_are_read_and_written_into_the_pinned_spec(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(recipe(*SOURCES, dtype="bfloat16")))
    given = spec(["mine.yaml", recipe("zoo:base", SOURCES[1])])
    (tmp_path / "spec.yaml").write_text(given.to_yaml())
    prepared = prepare(load_spec(tmp_path / "spec.yaml"))
    (tmp_path / "mine.yaml").unlink()
    assert prepared.search.seeds == (
        recipe(*SOURCES, dtype="bfloat16"),
        recipe("zoo:base", SOURCES[1]),
    )
    assert parse_spec(yaml.safe_load(prepared.to_yaml())) == prepared
    seeds = seeds_of(prepared)
    assert [seed.label for seed in seeds] == ["recipe-1", "recipe-2"]
    assert seeds[0].recipe is not None
    assert seeds[0].recipe.config["dtype"] == seeds[0].recipe.config["out_dtype"] == "float32"


def test_names_are_pinned_as_the_runs_are(tmp_path: Path) -> None:
    import torch

    from tests.merging.tiny import save_family

    base, one, two, other = save_family(tmp_path, torch.float32, tied=True)
    given = spec(
        [recipe(str(one), f"{two.parent}/./{two.name}")],
        base=str(base),
        sources=[str(one), str(two)],
    )
    seed = prepare(given).search.seeds[0]
    assert isinstance(seed, dict)
    assert Recipe(seed).sources == (str(one), str(two))
    with pytest.raises(MorphingError, match=f"merges {other}, which is no model of this run"):
        prepare(given.model_copy(update={"search": spec([recipe(str(other))]).search}))


@pytest.mark.parametrize(
    ("seed", "said"),
    [
        ("nowhere.yaml", r"seed nowhere\.yaml cannot be read.*sources, uniform"),
        ({"merge_method": "soup"}, "merge_method is 'soup'"),
        (recipe("zoo:base", "zoo:japanese-numerals"), "zoo:japanese-numerals, which is no model"),
    ],
)
def test_impossible_seeds_are_refused(seed: Any, said: str) -> None:
    with pytest.raises(MorphingError, match=said):
        prepare(spec([seed]))
