"""The plots are pure functions of a run's figures; plotly accepts what they return."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

from morphing.merging.recipe import Recipe
from morphing.runs.figures import Figures
from morphing.runs.trial import Trial
from morphing.ui import plots
from morphing.ui.objectives import Objective, Objectives

ASSETS = Path(plots.__file__).parent / "assets"
OBJECTIVES = Objectives(
    (
        Objective("maths", "Maths"),
        Objective("kana", "Kana"),
        Objective("sparsity", "Sparsity"),
        Objective("parameters", "Parameters", maximised=False),
    )
)
VALUES = [
    (0.2, 0.9, -0.1, 8e6),
    (0.8, 0.3, -0.2, 4e6),
    (0.6, 0.7, -0.3, 6e6),
    (0.1, 0.2, -0.4, 9e6),
]


def subject(focus: int | None = None, broken: float = -1.0) -> plots.Subject:
    trials = tuple(
        Trial(
            number,
            {"a.weight": 0.5},
            Recipe({"merge_method": "linear"}),
            values,
            constraints=(broken if number == 3 else -1.0,),
        )
        for number, values in enumerate(VALUES)
    )
    figures = Figures(trials, front=(0, 1, 2), knee=2, hypervolume=(0.1, 0.2, 0.3, 0.3))
    references = {"base": {"maths": 0.5, "kana": 0.4, "parameters": 4e6}}
    return plots.Subject("run", OBJECTIVES, figures, references, total=10, focus=focus)


def trace(plot: plots.Plot, name: str) -> plots.Plot:
    return next(trace for trace in plot["data"] if trace.get("name") == name)


def test_the_front_is_apart_from_the_dominated_and_in_percent() -> None:
    plot = plots.front_plot(subject(), "maths", "kana")
    front = trace(plot, "Front")
    assert front["customdata"] == [0, 2, 1]  # left to right
    assert front["x"] == pytest.approx([20, 60, 80])
    assert front["y"] == pytest.approx([90, 70, 30])
    assert trace(plot, "Dominated")["customdata"] == [3]
    assert trace(plot, "Knee")["customdata"] == [2]
    assert plot["layout"]["xaxis"]["ticksuffix"] == "%"


def test_less_is_better_goes_up_and_right_with_natural_values() -> None:
    plot = plots.front_plot(subject(), "parameters", "maths")
    front = trace(plot, "Front")
    assert front["customdata"] == [0, 2, 1]  # left to right on the reversed axis
    assert front["x"] == pytest.approx([8, 6, 4])
    assert plot["layout"]["xaxis"]["autorange"] == "reversed"
    assert plot["layout"]["yaxis"]["autorange"] is True
    assert "millions" in plot["layout"]["xaxis"]["title"]["text"]
    line = next(trace for trace in plot["data"] if trace.get("mode") == "lines")
    assert line["x"] == pytest.approx([4])  # trial 1 is best at both


def test_what_breaks_a_constraint_is_told_apart() -> None:
    kept = plots.front_plot(subject(), "maths", "kana")
    assert "Breaks a constraint" not in [each.get("name") for each in kept["data"]]
    plot = plots.front_plot(subject(broken=0.5), "maths", "kana")
    assert trace(plot, "Breaks a constraint")["customdata"] == [3]
    assert trace(plot, "Dominated")["customdata"] == []


def test_references_show_where_both_values_are_known() -> None:
    both = trace(plots.front_plot(subject(), "maths", "kana"), "Base and sources")
    assert both["x"] == pytest.approx([50]) and both["y"] == pytest.approx([40])
    measured = trace(plots.front_plot(subject(), "maths", "parameters"), "Base and sources")
    assert measured["y"] == pytest.approx([4])
    assert "4M" in measured["customdata"][0][1]
    names = [t.get("name") for t in plots.front_plot(subject(), "maths", "sparsity")["data"]]
    assert "Base and sources" not in names


def test_the_joined_front_leaves_out_what_these_two_objectives_dominate() -> None:
    plot = plots.front_plot(subject(), "maths", "sparsity")
    line = next(trace for trace in plot["data"] if trace.get("mode") == "lines")
    # trial 2 (60 %, -0.3) is dominated by trial 1 (80 %, -0.2) here, though not with kana
    assert line["x"] == pytest.approx([20, 80])
    assert line["y"] == pytest.approx([-0.1, -0.2])


def test_the_colour_follows_the_objective_asked_for() -> None:
    by_order = trace(plots.front_plot(subject(), "maths", "kana"), "Front")
    by_sparsity = trace(plots.front_plot(subject(), "maths", "kana", "sparsity"), "Front")
    assert by_order["marker"]["color"] == [0, 2, 1]
    assert by_sparsity["marker"]["color"] == pytest.approx([-0.1, -0.3, -0.2])


def test_hypervolume_is_by_trial_and_leaves_room_for_those_to_come() -> None:
    plot = plots.hypervolume_plot(subject())
    assert plot["data"][0]["y"] == [0.1, 0.2, 0.3, 0.3]
    assert plot["data"][0]["x"] == [1, 2, 3, 4]
    assert plot["layout"]["xaxis"]["range"] == [0.5, 10.5]


def test_trade_offs_scale_each_objective_from_worst_to_best() -> None:
    plot = plots.trade_off_plot(subject(focus=1))
    lines = {line["customdata"][0]: line for line in plot["data"]}
    assert set(lines) == {0, 1, 2}
    assert lines[1]["y"] == pytest.approx([1.0, 1 / 7, 2 / 3, 1.0])  # the fewest parameters
    assert lines[2]["line"]["color"] == plots.KNEE
    assert lines[1]["line"]["color"] == plots.INK


def test_the_zoom_outlasts_new_trials_but_not_new_axes() -> None:
    first = plots.front_plot(subject(), "maths", "kana")["layout"]["uirevision"]
    later = plots.front_plot(subject(focus=1), "maths", "kana")["layout"]["uirevision"]
    other = plots.front_plot(subject(), "kana", "maths")["layout"]["uirevision"]
    assert first == later != other


HOSTILE = "<a href='http://evil.example'><b>big</b></a> %{x} \u202ename &amp; <img src=x onerror=1>"


def figures() -> list[plots.Plot]:
    """Every plot: of a run, of a run without trials, and of one whose names are hostile."""
    run = subject(focus=1, broken=0.5)
    nothing = plots.Subject("run", OBJECTIVES, Figures((), (), None, ()), {}, total=10)
    named = Objectives((Objective("maths", HOSTILE), *OBJECTIVES.all[1:]))
    hostile = replace(run, objectives=named, references={HOSTILE: {"maths": 0.5, "kana": 0.4}})
    return [
        draw(each)
        for each in (run, nothing, hostile)
        for draw in (
            lambda s: plots.front_plot(s, "maths", "kana", "sparsity"),
            plots.hypervolume_plot,
            plots.trade_off_plot,
        )
    ]


def test_the_plotly_that_is_shipped_draws_every_figure_and_no_name_is_markup(
    browser: Browser,
) -> None:
    """The smallest bundle of plotly.js has all that the figures use, by its own judgement."""
    page = browser.new_page()
    page.set_content('<div id="box" style="width:600px;height:400px"></div>')
    page.add_script_tag(path=ASSETS / "plotly-basic.min.js")
    for figure in map(_painted, figures()):
        problems = page.evaluate(
            """async (figure) => {
                await Plotly.newPlot("box", figure.data, figure.layout);
                // plotly's own check fails over a legend that has nothing to name.
                if (!figure.data.some((trace) => trace.x.length)) delete figure.layout.legend;
                const told = Plotly.validate(figure.data, figure.layout) || [];
                // A trace without points is not drawn, and then its style goes unused.
                return told.filter((problem) => !["invisible", "unused"].includes(problem.code))
                    .map((problem) => problem.msg);
            }""",
            figure,
        )
        assert not problems
        assert page.locator("#box .main-svg a, #box img").count() == 0
        drawn = page.locator("#box .main-svg").first.text_content() or ""
        assert "\u202e" not in drawn
        if "evil" in json.dumps(figure["layout"]):
            assert "<img src=x" in drawn, "the name is shown as it is written"
    page.close()


def _painted(value: object) -> Any:
    """Colours are CSS variables until the browser resolves them: plotly knows only real ones."""
    if isinstance(value, str) and value.startswith("var(--"):
        return "#123456"
    if isinstance(value, list):
        return [_painted(item) for item in value]
    if isinstance(value, dict):
        return {key: _painted(item) for key, item in value.items()}
    return value
