"""A run's figures as plotly figures: plain data, drawn by plotly.js in the browser.

Colours are CSS variables (see ``theme.css``), which the browser resolves for the theme in use.
plotly.js reads some HTML in texts (``<b>``, ``<br>``, ``<a>``), so names are escaped as in HTML.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from morphing.inert import as_html
from morphing.runs.figures import Figures
from morphing.runs.trial import Trial
from morphing.ui.objectives import Objective, Objectives

ORDER = "order"
"""Colour by when a recipe was evaluated."""

Plot = dict[str, Any]

INK, FAINT, FRONT = "var(--m-ink)", "var(--m-faint)", "var(--m-front)"
KNEE, REFERENCE, PANEL = "var(--m-knee)", "var(--m-reference)", "var(--m-panel)"
_CROSS = {"symbol": "x-thin", "size": 8, "line": {"width": 1.5, "color": FAINT}}
_STAR = {"symbol": "star", "size": 20, "color": KNEE, "line": {"width": 1, "color": PANEL}}
_RING = {"symbol": "circle-open", "size": 24, "color": INK, "line": {"width": 2}}
_SCALE = [[0.0, "var(--m-scale-0)"], [0.5, "var(--m-scale-1)"], [1.0, "var(--m-scale-2)"]]


@dataclass(frozen=True)
class Subject:
    """What the plots are of: a run's figures, its objectives, what is marked."""

    run: str
    objectives: Objectives
    figures: Figures
    references: Mapping[str, Mapping[str, float]]
    """Natural search-split values of base and sources, by their short names and by name."""
    total: int
    focus: int | None = None

    def natural(self, trial: Trial, objective: str) -> float:
        """A trial's natural value of an objective."""
        return trial.values[self.objectives.names.index(objective)]

    def value(self, trial: Trial, objective: str) -> float:
        """The same in the unit of an axis."""
        return self.objectives[objective].scaled(self.natural(trial, objective))

    def merit(self, trial: Trial, objective: str) -> float:
        """The same, so that more is better."""
        return self.objectives[objective].merit(self.value(trial, objective))


def front_plot(subject: Subject, x: str, y: str, colour: str = ORDER) -> Plot:
    """Two objectives against each other: dominated faint, front bright, knee starred.

    The better end of every axis is right or up, so that of a minimised objective is reversed.
    """
    figures = subject.figures
    front = set(figures.front)
    others = [trial for trial in figures.trials if trial.number not in front]
    dominated = [trial for trial in others if trial.feasible]
    refused = [trial for trial in others if not trial.feasible]
    members = sorted(figures.members, key=lambda trial: subject.merit(trial, x))

    def points(trials: Iterable[Trial], name: str, **style: Any) -> Plot:
        return _points(subject, list(trials), x, y, name, **style)

    layout = _layout(f"{subject.run} {x} {y}")
    layout["xaxis"] |= _axis(subject.objectives[x], "→")
    layout["yaxis"] |= _axis(subject.objectives[y], "↑")
    layout["hovermode"] = "closest"
    return {
        "data": [
            points(dominated, "Dominated", marker={"size": 8, "color": FAINT}),
            *([points(refused, "Breaks a constraint", marker=_CROSS)] if refused else []),
            _outline(_upper_right(subject, members, x, y)),
            points(members, "Front", marker=_shaded(subject, members, colour)),
            *_reference_traces(subject, x, y),
            points((t for t in members if t.number == figures.knee), "Knee", marker=_STAR),
            points(
                (t for t in figures.trials if t.number == subject.focus),
                "Selected",
                marker=_RING,
                showlegend=False,
                hoverinfo="skip",
                hovertemplate="",
            ),
        ],
        "layout": layout,
    }


def _points(
    subject: Subject, trials: Sequence[Trial], x: str, y: str, name: str, **style: Any
) -> Plot:
    """Trials as points that say what they scored."""
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [subject.value(trial, x) for trial in trials],
        "y": [subject.value(trial, y) for trial in trials],
        "customdata": [trial.number for trial in trials],
        "text": [_hover(subject, trial) for trial in trials],
        "hovertemplate": "%{text}<extra></extra>",
        **style,
    }


def _outline(points: Sequence[tuple[float, float]]) -> Plot:
    """A dotted line through points."""
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [point[0] for point in points],
        "y": [point[1] for point in points],
        "line": {"color": FRONT, "width": 1.5, "dash": "dot"},
        "hoverinfo": "skip",
        "showlegend": False,
    }


def _shaded(subject: Subject, members: Sequence[Trial], colour: str) -> Plot:
    """Markers by what ``colour`` says: an objective, the better the brighter, or the order."""
    if colour == ORDER:
        title, suffix, is_reversed = "trial", "", False
        shade = [float(trial.number) for trial in members]
    else:
        objective = subject.objectives[colour]
        title, suffix = as_html(objective.axis_title), objective.suffix
        is_reversed = not objective.maximised
        shade = [subject.value(trial, colour) for trial in members]
    return {
        "size": 12,
        "color": shade,
        "colorscale": _SCALE,
        "reversescale": is_reversed,
        "line": {"width": 1.5, "color": PANEL},
        "colorbar": {
            "orientation": "h",
            "title": {"text": title, "side": "top", "font": {"size": 11}},
            "thickness": 7,
            "len": 0.6,
            "y": -0.16,
            "yanchor": "top",
            "outlinewidth": 0,
            "ticksuffix": suffix,
            "tickfont": {"size": 10},
        },
    }


def hypervolume_plot(subject: Subject) -> Plot:
    """The hypervolume of the front after each completed trial."""
    history = subject.figures.hypervolume
    steps = list(range(1, len(history) + 1))
    data = [
        {
            "type": "scatter",
            "mode": "lines",
            "x": steps,
            "y": list(history),
            "line": {"color": FRONT, "width": 2.5, "shape": "hv"},
            "fill": "tozeroy",
            "fillcolor": "var(--m-front-wash)",
            "hovertemplate": "after %{x} trials: %{y:.4f}<extra></extra>",
        },
        {
            "type": "scatter",
            "mode": "markers",
            "x": steps[-1:],
            "y": list(history[-1:]),
            "marker": {"size": 9, "color": FRONT, "line": {"width": 2, "color": PANEL}},
            "hoverinfo": "skip",
        },
    ]
    layout = _layout(subject.run, legend=False)
    layout["xaxis"] |= {
        "title": {"text": "trials scored"},
        "range": [0.5, max(subject.total, len(history), 2) + 0.5],
    }
    layout["yaxis"] |= {"rangemode": "tozero"}
    return {"data": data, "layout": layout}


def trade_off_plot(subject: Subject) -> Plot:
    """A line a front member across the objectives, each scaled from the worst to the best seen."""
    objectives, figures = subject.objectives, subject.figures
    ranges = {}
    for name in objectives.names:
        seen = [subject.merit(trial, name) for trial in figures.trials]
        ranges[name] = (min(seen), max(seen)) if seen else (0.0, 1.0)

    def height(trial: Trial, name: str) -> float:
        low, high = ranges[name]
        return (subject.merit(trial, name) - low) / (high - low) if high > low else 1.0

    def line(trial: Trial) -> Plot:
        marked = trial.number == subject.focus
        knee = trial.number == figures.knee
        strong = KNEE if knee else INK if marked else FRONT
        return {
            "type": "scatter",
            "mode": "lines+markers",
            "x": list(range(len(objectives.names))),
            "y": [height(trial, name) for name in objectives.names],
            "customdata": [trial.number] * len(objectives.names),
            "line": {"color": strong, "width": 3 if knee or marked else 1.2},
            "marker": {"size": 8 if knee or marked else 5, "color": strong},
            "opacity": 1.0 if knee or marked else 0.45,
            "text": [
                f"<b>Trial {trial.number}</b><br>{_reading(subject, trial, objective)}"
                for objective in objectives.all
            ],
            "hovertemplate": "%{text}<extra></extra>",
        }

    strong_last = sorted(
        figures.members, key=lambda t: (t.number == figures.knee, t.number == subject.focus)
    )
    layout = _layout(subject.run, legend=False)
    layout["hovermode"] = "closest"
    layout["xaxis"] |= {
        "tickmode": "array",
        "tickvals": list(range(len(objectives.names))),
        "ticktext": [_two_lines(as_html(objective.title)) for objective in objectives.all],
        "range": [-0.4, len(objectives.names) - 0.6],
        "ticklabeloverflow": "allow",
        "showgrid": True,
    }
    layout["yaxis"] |= {
        "range": [-0.06, 1.06],
        "tickvals": [0, 1],
        "ticktext": ["worst", "best"],
        "showgrid": False,
    }
    return {"data": [line(trial) for trial in strong_last], "layout": layout}


def _hover(subject: Subject, trial: Trial) -> str:
    lines = [_reading(subject, trial, objective) for objective in subject.objectives.all]
    knee = " (knee)" if trial.number == subject.figures.knee else ""
    broken = "" if trial.feasible else " (breaks a constraint)"
    return "<br>".join([f"<b>Trial {trial.number}</b>{knee}{broken}", *lines])


def _reading(subject: Subject, trial: Trial, objective: Objective) -> str:
    return f"{as_html(objective.title)}: {objective.shown(subject.natural(trial, objective.name))}"


def _reference_traces(subject: Subject, x: str, y: str) -> list[Plot]:
    """Base and sources as labelled diamonds, where both objectives are known of them."""
    across, up = subject.objectives[x], subject.objectives[y]
    named = [
        (name, values[x], values[y])
        for name, values in subject.references.items()
        if x in values and y in values
    ]
    if not named:
        return []
    merits = [across.merit(value) for _, value, _ in named]
    middle = (min(merits) + max(merits)) / 2
    return [
        {
            "type": "scatter",
            "mode": "markers+text",
            "name": "Base and sources",
            "x": [across.scaled(at_x) for _, at_x, _ in named],
            "y": [up.scaled(at_y) for _, _, at_y in named],
            "text": [as_html(name) for name, _, _ in named],
            "textposition": [
                f"{'bottom' if place % 2 else 'top'} {'right' if merit <= middle else 'left'}"
                for place, merit in enumerate(merits)
            ],
            "textfont": {"size": 11, "color": REFERENCE},
            "cliponaxis": False,
            "marker": {"symbol": "diamond", "size": 11, "color": REFERENCE},
            "customdata": [[across.shown(at_x), up.shown(at_y)] for _, at_x, at_y in named],
            "hovertemplate": "%{text}<br>%{customdata[0]} · %{customdata[1]}<extra></extra>",
        }
    ]


def _upper_right(
    subject: Subject, members: Sequence[Trial], x: str, y: str
) -> list[tuple[float, float]]:
    """The members that are not dominated in these two objectives alone, left to right."""
    best: list[Trial] = []
    for trial in reversed(members):
        if not best or subject.merit(trial, y) > subject.merit(best[-1], y):
            best.append(trial)
    return [(subject.value(trial, x), subject.value(trial, y)) for trial in best[::-1]]


def _axis(objective: Objective, better: str) -> Plot:
    title = as_html(objective.axis_title)
    if not objective.maximised:
        title += f" (less is better {better})"
    elif not objective.in_percent:
        title += f" (better {better})"
    return {
        "title": {"text": title, "standoff": 8},
        "ticksuffix": objective.suffix,
        "autorange": True if objective.maximised else "reversed",
    }


def _two_lines(title: str) -> str:
    words = title.split()
    half = (len(words) + 1) // 2
    return "<br>".join(" ".join(part) for part in (words[:half], words[half:]) if part)


def _layout(revision: str, legend: bool = True) -> Plot:
    """What all plots share. ``revision`` unchanged keeps the visitor's zoom."""
    axis = {
        "gridcolor": "var(--m-grid)",
        "linecolor": "var(--m-grid)",
        "zeroline": False,
        "ticks": "",
        "automargin": True,
        "title": {"font": {"size": 12}},
        "tickfont": {"size": 11},
    }
    above = {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"}
    return {
        "autosize": True,
        "uirevision": revision,
        "margin": {"l": 8, "r": 8, "t": 28, "b": 8},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "system-ui, sans-serif", "size": 12, "color": "var(--m-quiet)"},
        "hoverlabel": {
            "bgcolor": PANEL,
            "bordercolor": "var(--m-grid)",
            "font": {"color": INK, "size": 12},
            "align": "left",
        },
        **({"legend": above} if legend else {"showlegend": False}),
        "xaxis": dict(axis),
        "yaxis": dict(axis),
    }
