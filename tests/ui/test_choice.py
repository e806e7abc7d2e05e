"""A click under Compose leads to the spec it promises."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from morphing.errors import MorphingError
from morphing.merging.methods import SEARCHABLE, refusal
from morphing.runs.spec import RunSpec, zoo_spec
from morphing.runs.spec_parts import SearchOptions
from morphing.search.options import SpaceOptions
from morphing.search.samplers import SAMPLERS
from morphing.ui.compose import cards
from morphing.ui.compose.choice import Choice, Settings, addable, count_numbers
from morphing.ui.compose.words import METHOD_GROUPS, METHODS, USUAL_SAMPLERS, ZOO_MODELS
from morphing.zoo import MODELS

SMALL = Settings(evaluations=5, samples=16, holdout=32)


def spec(choice: Choice, settings: Settings = SMALL) -> RunSpec:
    return choice.spec(settings)


def shown(action: str, html: str) -> list[str]:
    return re.findall(rf'data-do="{action}" data-value="([\w+]+)"', html)


def is_unfolded(html: str) -> bool:
    return "<details open" in re.sub(' class="[^"]*"', "", html)


def test_every_method_measure_and_zoo_model_has_its_sentence() -> None:
    assert set(METHODS) == set(SEARCHABLE)
    assert set(ZOO_MODELS) == {f"zoo:{name}" for name in MODELS}


def test_the_zoo_is_chosen_to_begin_with() -> None:
    made, zoo = spec(Choice.zoo(), Settings()), zoo_spec()
    assert (made.base, made.sources, made.objectives) == (zoo.base, zoo.sources, zoo.objectives)
    assert made.search == SearchOptions()
    assert made == zoo


def test_every_method_is_shown_once_and_the_rest_unfolds_where_it_is_chosen() -> None:
    usual, grouped = Choice.zoo(), [key for keys in METHOD_GROUPS.values() for key in keys]
    found = shown("method", cards.methods(usual))
    assert sorted(found) == sorted(METHODS)
    assert found.index("dare_ties") == 0 and found[-len(grouped) :] == grouped
    assert not is_unfolded(cards.methods(usual))
    for method in grouped:
        html = cards.methods(usual.after("method", method))
        assert is_unfolded(html)
        assert html.count('aria-pressed="true"') == 1


def test_the_specs_own_sampler_comes_first_and_rare_ones_unfold_where_they_are_chosen() -> None:
    usual = Choice.zoo()
    found = shown("sampler", cards.samplers(usual))
    assert found[0] == usual.sampler == SearchOptions().sampler
    assert sorted(found) == sorted(SAMPLERS)
    assert not is_unfolded(cards.samplers(usual))
    for sampler in set(SAMPLERS) - set(USUAL_SAMPLERS):
        assert is_unfolded(cards.samplers(usual.after("sampler", sampler)))


def test_clicks_change_what_they_say() -> None:
    choice = Choice.zoo()
    source, benchmark = choice.sources[0], choice.benchmarks[0][0]
    changed = choice.after("remove", source).after("method", "ties").after("sampler", "random")
    changed = changed.after("report", benchmark).after("measure", "sparsity")
    changed = changed.after("measure", "throughput").after("measure", "tokens")
    made = spec(changed)
    assert source not in made.sources and source in addable(changed)
    assert (made.method, made.search.sampler) == ("ties", "random")
    assert benchmark not in made.objectives
    assert made.objectives[-2:] == ("tokens", "throughput")
    assert made.directions[-2:] == ("minimize", "maximize")
    assert changed.after("add", source).sources[-1] == source
    assert choice.after("clear", "").sources == ()
    assert choice.after("base", source).base == source
    assert source not in choice.after("base", source).sources


def test_how_fine_weights_are_searched() -> None:
    choice = Choice.zoo()
    for depth, space, count in (
        ("alike", SpaceOptions(), 6),
        ("groups", SpaceOptions(layer_groups=2), 12),
        ("each", SpaceOptions(layer_groups="each"), 18),
        ("curve", SpaceOptions(gradient=3), 18),
    ):
        chosen, settings = choice.after("depth", depth), replace(SMALL, groups=2, points=3)
        assert spec(chosen, settings).search.space == space
        assert count_numbers(chosen, settings, None) == (count,)
    assert spec(choice.after("kinds", "apart")).search.space.module_kinds is True
    assert spec(choice.after("kinds", "apart").after("kinds", "alike")) == spec(choice)
    with pytest.raises(MorphingError, match="layer"):
        count_numbers(choice.after("depth", "groups"), replace(SMALL, groups=8), None)


def test_paths_are_searched_without_a_method_and_with_a_limit() -> None:
    choice = Choice.zoo().after("method", "slerp").after("measure", "layers")
    assert choice.problem is not None and "layers" in choice.problem
    paths = choice.after("strategy", "dfs")
    made = spec(paths, replace(SMALL, repeats=2, largest=0.9))
    assert paths.problem is None and made.method == "dare_ties"
    assert made.search.space == SpaceOptions(strategy="dfs", repeats=2)
    (limit,) = made.constraints
    assert (limit.on, limit.at_most) == ("parameters", pytest.approx(9e5))
    assert "Merge method" not in cards.space(paths)
    both = choice.after("method", "ties").after("strategy", "ps+dfs")
    assert count_numbers(both, SMALL, None) == (6, 24)


def test_floors_seeds_and_ends_reach_the_spec() -> None:
    choice = Choice.zoo()
    first, second = choice.tasks[:2]
    bound = choice.after("floor", second).after("floor", first).after("floor", second)
    settings = replace(
        SMALL, sources_first=True, average_first=True, hours=0.5, stalled=9, racing=True
    )
    made = spec(bound, settings)
    assert [(c.on, c.at_least) for c in made.constraints] == [(first, "sources")]
    assert made.search.seeds == ("sources", "uniform")
    assert (made.search.hours, made.search.stalled, made.search.racing) == (0.5, 9, True)
    assert spec(bound.after("report", first)).constraints == ()


@pytest.mark.parametrize(
    "click", [("method", "x"), ("objective", "x"), ("strategy", "x"), ("nonsense", "x")]
)
def test_clicks_that_no_card_offers_change_nothing(click: tuple[str, str]) -> None:
    assert Choice.zoo().after(*click) == Choice.zoo()


def test_what_is_missing_is_said_in_one_sentence() -> None:
    bare = Choice("zoo:base", (), ())
    with pytest.raises(MorphingError, match="at least one source"):
        spec(bare)
    with pytest.raises(MorphingError, match="at least one benchmark"):
        spec(bare.after("add", "zoo:english-math"))
    with pytest.raises(MorphingError, match="exactly one source"):
        spec(Choice.zoo().after("method", "slerp"))
    for method in METHODS:
        for sources in (1, 2, 3):
            choice = replace(Choice.zoo(), sources=Choice.zoo().sources[:sources], method=method)
            assert choice.problem == refusal(method, sources)


def test_the_summary_says_what_stands_in_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MORPHING_RUNS", str(tmp_path))
    told = cards.summary(Choice.zoo().after("depth", "groups"), Settings(groups=8), None)
    assert "m-error" in told and "3 layers" in told
    told = cards.summary(Choice.zoo(), Settings(), None)
    assert "m-error" not in told and "6 numbers" in told


def test_names_from_outside_are_escaped() -> None:
    hostile = Choice.zoo().after("add", "<img src=x onerror=alert(1)>")
    html = cards.models(hostile, None)
    assert "<img" not in html and "&lt;img" in html
