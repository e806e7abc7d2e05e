"""From a spec's objectives and constraints to what a search keeps, whichever way each is better."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from morphing.errors import MorphingError
from morphing.runs.measures import EXACT, MEASURES, Direction
from morphing.runs.objectives import signs
from morphing.runs.scales import make_scales
from morphing.runs.spec import RunSpec, parse_spec, refuse_inverted_constraints

A, B = "zoo-english-arithmetic", "zoo-kanji-numbers"
BASE, SOURCES = "zoo:base", ("zoo:english-math", "zoo:word-games")
Values = dict[str, float]
numbers = st.floats(-1e3, 1e3).map(lambda value: round(value, 3))
ways = st.sampled_from(["maximize", "minimize", None])


@st.composite
def specs(draw: st.DrawFn) -> RunSpec:
    """Two benchmarks and any measures, each better in any direction, some bound by all sources."""
    names = draw(st.lists(st.sampled_from(sorted(MEASURES)), unique=True))
    uses = [{"benchmark": name, "direction": draw(ways)} for name in (A, B)]
    measures = [{"measure": name, "direction": draw(ways)} for name in names]
    fields: dict[str, Any] = {"base": BASE, "sources": SOURCES}
    open_spec = parse_spec({**fields, "benchmarks": uses, "measures": measures})
    keyword = {"maximize": "at_least", "minimize": "at_most"}
    better = dict(zip(open_spec.objectives, open_spec.directions, strict=True))
    bound = draw(st.lists(st.sampled_from(open_spec.objectives), unique=True))
    constraints = [{"on": name, keyword[better[name]]: "sources"} for name in bound]
    data = {**fields, "benchmarks": uses, "measures": measures, "constraints": constraints}
    return parse_spec(data)


def drawn(data: st.DataObject, spec: RunSpec) -> Values:
    return {name: data.draw(numbers, label=name) for name in spec.objectives}


@settings(max_examples=150, deadline=None)
@given(spec=specs(), data=st.data())
def test_a_merge_better_than_every_source_is_kept_and_a_worse_one_is_not(
    spec: RunSpec, data: st.DataObject
) -> None:
    refuse_inverted_constraints(spec)
    known = {model: drawn(data, spec) for model in (BASE, *SOURCES)}
    scales, sign = make_scales(spec, known), dict(zip(spec.objectives, signs(spec), strict=True))
    best = {
        name: sign[name] * max(sign[name] * known[source][name] for source in SOURCES)
        for name in spec.objectives
    }
    ahead = data.draw(st.floats(0, 10), label="how much better")
    better = {name: value + sign[name] * ahead for name, value in best.items()}
    assert all(broken <= 0 for broken in scales.slacks(better))
    for constraint in spec.constraints:
        behind = data.draw(st.floats(1e-3, 10), label="how much worse")
        worse = {**better, constraint.on: best[constraint.on] - sign[constraint.on] * behind}
        assert any(broken > 0 for broken in scales.slacks(worse))


@settings(max_examples=100, deadline=None)
@given(spec=specs(), data=st.data())
def test_scales_grow_with_what_is_better_from_the_reference_to_the_ideal(
    spec: RunSpec, data: st.DataObject
) -> None:
    known = {model: drawn(data, spec) for model in (BASE, *SOURCES)}
    scales = make_scales(spec, known)
    assert np.allclose(scales.normalise([scales.reference])[0], 0)
    assert np.allclose(scales.normalise([scales.ideal])[0], 1)
    bound = {constraint.on for constraint in spec.constraints}
    for place, (name, sign) in enumerate(zip(spec.objectives, signs(spec), strict=True)):
        row = list(scales.reference)
        row[place] += sign * data.draw(st.floats(1e-3, 10))
        assert scales.normalise([row])[0][place] > 0
        models = SOURCES if name in bound else (BASE, *SOURCES)
        values = [sign * known[model][name] for model in models]
        start = sign * scales.reference[place]
        assert start >= max(values) if name in bound else start < min(values)


@settings(max_examples=60, deadline=None)
@given(spec=specs(), low=numbers, high=numbers, value=numbers, data=st.data())
def test_numbers_and_single_models_bound_from_the_side_that_is_said(
    spec: RunSpec, low: float, high: float, value: float, data: st.DataObject
) -> None:
    """Whatever is better there: a person may want answers of at least 20 tokens."""
    on = data.draw(st.sampled_from(spec.objectives))
    known = {model: drawn(data, spec) for model in (BASE, *SOURCES)}
    model = data.draw(st.sampled_from((BASE, *SOURCES)))
    for limits, kept in (
        ({"at_least": low}, value >= low),
        ({"at_most": high}, value <= high),
        ({"at_least": low, "at_most": high}, low <= value <= high),
        ({"at_least": model}, value >= known[model][on]),
        ({"at_most": model}, value <= known[model][on]),
    ):
        asked = parse_spec({**spec.model_dump(), "constraints": [{"on": on, **limits}]})
        slacks = make_scales(asked, known).slacks({on: value})
        assert all(broken <= 0 for broken in slacks) == kept


@pytest.mark.parametrize("name", [A, *MEASURES])
@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_a_bound_by_all_sources_from_the_wrong_side_is_refused(
    name: str, direction: Direction
) -> None:
    """It would keep only what is worse than every source."""
    use = {"benchmark": A, **({"direction": direction} if name == A else {})}
    measures = [] if name == A else [{"measure": name, "direction": direction}]
    fields = {"base": BASE, "sources": SOURCES, "benchmarks": [use], "measures": measures}
    right, wrong = ("at_least", "at_most") if direction == "maximize" else ("at_most", "at_least")
    refuse_inverted_constraints(
        parse_spec({**fields, "constraints": [{"on": name, right: "sources"}]})
    )
    inverted = parse_spec({**fields, "constraints": [{"on": name, wrong: "sources"}]})
    with pytest.raises(MorphingError, match=f"write `{right}: sources`"):
        refuse_inverted_constraints(inverted)


def test_the_table_of_measures_says_all_that_is_read_from_it() -> None:
    for name, measure in MEASURES.items():
        assert measure.name == name and measure.direction in ("maximize", "minimize")
        assert measure.sentence.endswith(".") and measure.axis.startswith(measure.title)
        assert measure.shown(1234.5) and "\n" not in measure.shown(-0.5)
        assert (name in EXACT) == measure.exact
        assert not (measure.exact and measure.generated)
