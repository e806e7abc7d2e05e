"""From what is chosen under Compose to what a search keeps, whichever way each objective is better.

Properties over random choices: benchmarks of which more is better and of which less is, shares of 1
and bits per byte, measures, and which of them may not be worse than any source.
"""

from __future__ import annotations

import math
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from morphing.benchmarks.benchmark import Benchmark
from morphing.runs.measures import LAYERS, MEASURES, PARAMETERS
from morphing.runs.objectives import averaged, signs
from morphing.runs.scales import make_scales
from morphing.runs.spec import RunSpec
from morphing.ui.compose import cards
from morphing.ui.compose.choice import Choice, Settings
from morphing.ui.objectives import Objectives

ASKED = {"dataset": "rows.jsonl", "prompt": "{{ q }}", "target": "{{ a }}"}
OWN = (
    Benchmark(name="sums", kind="generation", **ASKED),
    Benchmark(name="essays", kind="generation", metric="rougeL", **ASKED),
    Benchmark(name="prose", kind="perplexity", dataset="rows.jsonl", target="{{ text }}"),
    Benchmark(name="code", kind="perplexity", dataset="rows.jsonl", target="{{ text }}"),
    Benchmark(
        name="quiz",
        kind="multiple_choice",
        choices=("{{ a }}", "{{ b }}"),
        dataset="rows.jsonl",
        target="0",
    ),
)
SHARES = {"sums", "essays", "quiz"}
LESS_IS_BETTER = {"prose", "code", "parameters", "layers", "tokens"}
numbers = st.floats(-50, 50, allow_nan=False)


@st.composite
def choices(draw: st.DrawFn) -> tuple[Choice, Settings]:
    names = [each.name for each in OWN]
    tasks = draw(st.lists(st.sampled_from(names), min_size=1, unique=True))
    reported = draw(st.lists(st.sampled_from(names), unique=True))
    choice = replace(Choice.zoo(), benchmarks=(), measures=(), own=OWN)
    choice = choice.after("strategy", "dfs").after("sampler", "random")
    for name in reported:
        choice = choice.after("report", name)
    for name in tasks:
        choice = choice.after("objective", name)
    for name in draw(st.lists(st.sampled_from(sorted(MEASURES)), unique=True)):
        if name not in ("tokens", "throughput") or {"sums", "essays"} & set(tasks):
            choice = choice.after("measure", name)
    for name in draw(st.lists(st.sampled_from(names), unique=True)):
        choice = choice.after("floor", name)
    return choice, Settings(largest=draw(st.sampled_from([0, 0.9])), samples=8, holdout=8)


def merit(name: str, value: float) -> float:
    return -value if name in LESS_IS_BETTER else value


def values_of(draw: st.DataObject, spec: RunSpec) -> dict[str, float]:
    return {name: draw.draw(numbers, label=name) for name in {*spec.objectives, PARAMETERS}}


@settings(max_examples=150, deadline=None)
@given(made=choices(), data=st.data())
def test_a_merge_is_kept_if_and_only_if_it_is_worse_than_no_source_where_that_was_asked(
    made: tuple[Choice, Settings], data: st.DataObject
) -> None:
    choice, chosen = made
    spec = choice.spec(chosen)
    known = {model: values_of(data, spec) for model in (spec.base, *spec.sources)}
    merge = values_of(data, spec)
    for floor in choice.floors:  # often exactly as good as a source
        if data.draw(st.booleans()):
            merge[floor] = known[data.draw(st.sampled_from(spec.sources))][floor]
    scales = make_scales(spec, known)
    kept = all(broken <= 0 for broken in scales.slacks(merge))
    expected = all(
        merit(floor, merge[floor]) >= merit(floor, known[source][floor])
        for floor in choice.floors
        for source in spec.sources
    )
    if chosen.largest:
        expected = expected and merge[PARAMETERS] <= 1e6 * chosen.largest
    assert kept == expected


@settings(max_examples=100, deadline=None)
@given(made=choices(), data=st.data())
def test_what_is_better_counts_more_and_what_breaks_a_floor_counts_nothing(
    made: tuple[Choice, Settings], data: st.DataObject
) -> None:
    choice, chosen = made
    spec = choice.spec(chosen)
    known = {model: values_of(data, spec) for model in (spec.base, *spec.sources)}
    scales = make_scales(spec, known)
    one, other = (values_of(data, spec) for _ in range(2))
    names = spec.objectives
    rows = scales.normalise([[values[name] for name in names] for values in (one, other)])
    best = scales.normalise([scales.ideal])[0]
    for place, name in enumerate(names):
        first, second = merit(name, one[name]), merit(name, other[name])
        assert (first > second) >= (rows[0][place] > rows[1][place])
        assert math.isclose(best[place], 1.0)
        if name in choice.floors:
            worst_allowed = max(merit(name, known[source][name]) for source in spec.sources)
            assert (rows[0][place] > 0) <= (first > worst_allowed) or math.isclose(
                first, worst_allowed
            )


@settings(max_examples=60, deadline=None)
@given(made=choices())
def test_directions_shares_and_means_are_those_of_the_benchmarks(
    made: tuple[Choice, Settings],
) -> None:
    choice, chosen = made
    spec = choice.spec(chosen)
    assert list(signs(spec)) == [-1.0 if n in LESS_IS_BETTER else 1.0 for n in spec.objectives]
    shown = Objectives.of(spec)
    for each in shown.all:
        assert each.maximised == (each.name not in LESS_IS_BETTER)
        assert each.arrow == ("↓" if each.name in LESS_IS_BETTER else "↑")
        assert each.in_percent == (each.name in SHARES)
        assert each.best([1.0, 2.0]) == (1.0 if each.name in LESS_IS_BETTER else 2.0)
    assert set(averaged(spec)) == SHARES & {use.declaration.name for use in spec.tasks}
    limited = {PARAMETERS} if chosen.largest else set()
    assert {c.on for c in spec.constraints} == {*choice.floors} | limited
    assert LAYERS not in {c.on for c in spec.constraints}


def test_the_pill_says_the_same_of_both_directions() -> None:
    choice = replace(Choice.zoo(), own=OWN).after("objective", "prose").after("objective", "sums")
    html = cards.benchmarks(choice)
    assert "Never worse than any source" in html and "Never below" not in html
    assert html.count("less is better") == 1


def test_a_score_to_be_kept_low_has_no_mean_with_those_to_be_kept_high() -> None:
    uses = [{"benchmark": each, "objective": True} for each in OWN[:2]]
    uses[1]["direction"] = "minimize"
    spec = RunSpec.model_validate(
        {"base": "zoo:base", "sources": ["zoo:word-games"], "benchmarks": uses}
    )
    assert averaged(spec) == ("sums",)
