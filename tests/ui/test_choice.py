"""A click under Compose leads to the spec it promises."""

import re
from dataclasses import replace

import pytest

from morphing.errors import MorphingError
from morphing.runs.spec import zoo_spec
from morphing.search.ranges import refusal
from morphing.ui import compose_cards
from morphing.ui.choice import METHOD_GROUPS, METHODS, SAMPLERS, ZOO_MODELS, Choice, addable
from morphing.zoo import MODELS


def spec(choice: Choice, **search: int):  # type: ignore[no-untyped-def]
    return choice.spec("run", 16, 32, search={"evaluations": 5, **search})


def test_every_method_sampler_and_zoo_model_has_its_sentence() -> None:
    from morphing.search.ranges import SEARCHABLE
    from morphing.search.samplers import SAMPLERS as KNOWN_SAMPLERS

    assert set(METHODS) == set(SEARCHABLE)
    assert set(SAMPLERS) == set(KNOWN_SAMPLERS)
    assert set(ZOO_MODELS) == {f"zoo:{name}" for name in MODELS}


def test_the_zoo_is_chosen_to_begin_with() -> None:
    made, zoo = spec(Choice.zoo()), zoo_spec()
    assert (made.base, made.sources, made.objectives) == (zoo.base, zoo.sources, zoo.objectives)


def test_every_method_is_shown_once_and_the_rest_unfolds_where_it_is_chosen() -> None:
    usual, grouped = Choice.zoo(), [key for keys in METHOD_GROUPS.values() for key in keys]
    shown = re.findall(r'data-do="method" data-value="(\w+)"', compose_cards.methods(usual))
    assert sorted(shown) == sorted(METHODS)
    assert shown.index("dare_ties") == 0 and shown[-len(grouped) :] == grouped
    assert "<details open" not in re.sub(' class="[^"]*"', "", compose_cards.methods(usual))
    for method in grouped:
        html = compose_cards.methods(usual.after("method", method))
        assert "<details open" in re.sub(' class="[^"]*"', "", html)
        assert html.count('aria-pressed="true"') == 1


def test_clicks_change_what_they_say() -> None:
    choice = Choice.zoo()
    source, benchmark = choice.sources[0], choice.benchmarks[0][0]
    changed = choice.after("remove", source).after("method", "ties").after("sampler", "random")
    changed = changed.after("report", benchmark).after("sparsity", "")
    made = spec(changed)
    assert source not in made.sources and source in addable(changed)
    assert (made.method, made.search.sampler) == ("ties", "random")
    assert benchmark not in made.objectives and "sparsity" not in made.objectives
    assert changed.after("add", source).sources[-1] == source
    assert choice.after("clear", "").sources == ()
    assert choice.after("base", source).base == source
    assert source not in choice.after("base", source).sources


@pytest.mark.parametrize("click", [("method", "x"), ("objective", "x"), ("nonsense", "x")])
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


def test_names_from_outside_are_escaped() -> None:
    hostile = Choice.zoo().after("add", "<img src=x onerror=alert(1)>")
    html = compose_cards.models(hostile, None)
    assert "<img" not in html and "&lt;img" in html
