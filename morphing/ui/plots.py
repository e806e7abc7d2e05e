"""A run's figures as plotly figures: plain data, drawn by plotly.js in the browser.

Colours are CSS variables (see ``theme.css``), which the browser resolves for the theme in use.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from morphing.runs.run import Figures
from morphing.runs.spec import SPARSITY
from morphing.runs.trial import Result, Trial

ORDER = "order"
"""Colour by when a recipe was evaluated."""

Plot = dict[str, Any]

INK, FAINT, FRONT = "var(--m-ink)", "var(--m-faint)", "var(--m-front)"
KNEE, REFERENCE, PANEL = "var(--m-knee)", "var(--m-reference)", "var(--m-panel)"
_SCALE = [[0.0, "var(--m-scale-0)"], [0.5, "var(--m-scale-1)"], [1.0, "var(--m-scale-2)"]]


@dataclass(frozen=True)
class Subject:
    """What the plots are of: a run's figures, its objectives' titles, what is marked."""

    run: str
    titles: Mapping[str, str]
    """Objective to title, in the run's order."""
    figures: Figures
    references: Mapping[str, Mapping[str, Result]]
    """Search-split results of base and sources by their short names."""
    total: int
    focus: int | None = None

    @property
    def objectives(self) -> tuple[str, ...]:
        return tuple(self.titles)

    def value(self, trial: Trial, objective: str) -> float:
        """A trial's value of an objective: percent for a benchmark, −distance for sparsity."""
        return shown_value(objective, trial.values[self.objectives.index(objective)])

    @property
    def members(self) -> list[Trial]:
        front = set(self.figures.front)
        return [trial for trial in self.figures.trials if trial.number in front]


def shown_value(objective: str, value: float) -> float:
    """Scores are shown in percent."""
    return value if objective == SPARSITY else 100 * value


def front_plot(subject: Subject, x: str, y: str, colour: str = ORDER) -> Plot:
    """Two objectives against each other: dominated faint, front bright, knee starred."""
    front = set(subject.figures.front)
    dominated = [trial for trial in subject.figures.trials if trial.number not in front]
    members = sorted(subject.members, key=lambda trial: subject.value(trial, x))
    knee = [trial for trial in members if trial.number == subject.figures.knee]
    focus = [trial for trial in subject.figures.trials if trial.number == subject.focus]

    def points(trials: Sequence[Trial], name: str, **style: Any) -> Plot:
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

    if colour == ORDER:
        shade = [float(trial.number) for trial in members]
        shade_title, suffix = "trial", ""
    else:
        shade = [subject.value(trial, colour) for trial in members]
        shade_title, suffix = subject.titles[colour], _suffix(colour)
    outline = _upper_right(subject, members, x, y)
    data: list[Plot] = [
        points(dominated, "Dominated", marker={"size": 8, "color": FAINT}),
        {
            "type": "scatter",
            "mode": "lines",
            "x": [point[0] for point in outline],
            "y": [point[1] for point in outline],
            "line": {"color": FRONT, "width": 1.5, "dash": "dot"},
            "hoverinfo": "skip",
            "showlegend": False,
        },
        points(
            members,
            "Front",
            marker={
                "size": 12,
                "color": shade,
                "colorscale": _SCALE,
                "line": {"width": 1.5, "color": PANEL},
                "colorbar": {
                    "orientation": "h",
                    "title": {"text": shade_title, "side": "top", "font": {"size": 11}},
                    "thickness": 7,
                    "len": 0.6,
                    "y": -0.16,
                    "yanchor": "top",
                    "outlinewidth": 0,
                    "ticksuffix": suffix,
                    "tickfont": {"size": 10},
                },
            },
        ),
        *_reference_traces(subject, x, y),
        points(
            knee,
            "Knee",
            marker={
                "symbol": "star",
                "size": 20,
                "color": KNEE,
                "line": {"width": 1, "color": PANEL},
            },
        ),
        points(
            focus,
            "Selected",
            marker={"symbol": "circle-open", "size": 24, "color": INK, "line": {"width": 2}},
            showlegend=False,
            hoverinfo="skip",
            hovertemplate=None,
        ),
    ]
    layout = _layout(f"{subject.run} {x} {y}")
    layout["xaxis"] |= _axis(subject, x)
    layout["yaxis"] |= _axis(subject, y)
    layout["hovermode"] = "closest"
    return {"data": data, "layout": layout}


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
    layout = _layout(subject.run)
    layout["showlegend"] = False
    layout["xaxis"] |= {
        "title": {"text": "trials scored"},
        "range": [0.5, max(subject.total, len(history), 2) + 0.5],
    }
    layout["yaxis"] |= {"rangemode": "tozero"}
    return {"data": data, "layout": layout}


def trade_off_plot(subject: Subject) -> Plot:
    """A line a front member across the objectives, each scaled from the worst to the best seen."""
    ranges = {}
    for objective in subject.objectives:
        seen = [subject.value(trial, objective) for trial in subject.figures.trials]
        ranges[objective] = (min(seen), max(seen)) if seen else (0.0, 1.0)

    def height(trial: Trial, objective: str) -> float:
        low, high = ranges[objective]
        return (subject.value(trial, objective) - low) / (high - low) if high > low else 1.0

    def line(trial: Trial) -> Plot:
        marked = trial.number == subject.focus
        knee = trial.number == subject.figures.knee
        strong = KNEE if knee else INK if marked else FRONT
        return {
            "type": "scatter",
            "mode": "lines+markers",
            "x": list(range(len(subject.objectives))),
            "y": [height(trial, objective) for objective in subject.objectives],
            "customdata": [trial.number] * len(subject.objectives),
            "line": {"color": strong, "width": 3 if knee or marked else 1.2},
            "marker": {"size": 8 if knee or marked else 5, "color": strong},
            "opacity": 1.0 if knee or marked else 0.45,
            "text": [
                f"<b>Trial {trial.number}</b><br>{subject.titles[objective]}:"
                f" {shown(objective, subject.value(trial, objective))}"
                for objective in subject.objectives
            ],
            "hovertemplate": "%{text}<extra></extra>",
        }

    strong_last = sorted(
        subject.members, key=lambda t: (t.number == subject.figures.knee, t.number == subject.focus)
    )
    layout = _layout(subject.run)
    layout["showlegend"] = False
    layout["hovermode"] = "closest"
    layout["xaxis"] |= {
        "tickmode": "array",
        "tickvals": list(range(len(subject.objectives))),
        "ticktext": [_two_lines(title) for title in subject.titles.values()],
        "range": [-0.25, len(subject.objectives) - 0.75],
        "showgrid": True,
    }
    layout["yaxis"] |= {
        "range": [-0.06, 1.06],
        "tickvals": [0, 1],
        "ticktext": ["worst", "best"],
        "showgrid": False,
    }
    return {"data": [line(trial) for trial in strong_last], "layout": layout}


def shown(objective: str, value: float) -> str:
    """A shown value with its unit."""
    return f"{value:.4f}".replace("-", "−") if objective == SPARSITY else f"{value:.1f}%"


def _hover(subject: Subject, trial: Trial) -> str:
    lines = [
        f"{subject.titles[objective]}: {shown(objective, subject.value(trial, objective))}"
        for objective in subject.objectives
    ]
    knee = " (knee)" if trial.number == subject.figures.knee else ""
    return "<br>".join([f"<b>Trial {trial.number}</b>{knee}", *lines])


def _reference_traces(subject: Subject, x: str, y: str) -> list[Plot]:
    """Base and sources as labelled diamonds, where both objectives are benchmarks."""
    named = [
        (name, 100 * results[x].value, 100 * results[y].value)
        for name, results in subject.references.items()
        if x in results and y in results
    ]
    if not named:
        return []
    middle = (min(at_x for _, at_x, _ in named) + max(at_x for _, at_x, _ in named)) / 2
    return [
        {
            "type": "scatter",
            "mode": "markers+text",
            "name": "Base and sources",
            "x": [at_x for _, at_x, _ in named],
            "y": [at_y for _, _, at_y in named],
            "text": [name for name, _, _ in named],
            "textposition": [
                f"{'bottom' if place % 2 else 'top'} {'right' if at_x <= middle else 'left'}"
                for place, (_, at_x, _) in enumerate(named)
            ],
            "textfont": {"size": 11, "color": REFERENCE},
            "cliponaxis": False,
            "marker": {"symbol": "diamond", "size": 11, "color": REFERENCE},
            "hovertemplate": "%{text}<br>%{x:.1f}% · %{y:.1f}%<extra></extra>",
        }
    ]


def _upper_right(
    subject: Subject, members: Sequence[Trial], x: str, y: str
) -> list[tuple[float, float]]:
    """The members that are not dominated in these two objectives alone, left to right."""
    best: list[tuple[float, float]] = []
    for trial in reversed(members):
        point = (subject.value(trial, x), subject.value(trial, y))
        if not best or point[1] > best[-1][1]:
            best.append(point)
    return best[::-1]


def _axis(subject: Subject, objective: str) -> Plot:
    unit = " (closer to the base →)" if objective == SPARSITY else ""
    return {
        "title": {"text": subject.titles[objective] + unit, "standoff": 8},
        "ticksuffix": _suffix(objective),
    }


def _suffix(objective: str) -> str:
    return "" if objective == SPARSITY else "%"


def _two_lines(title: str) -> str:
    words = title.split()
    half = (len(words) + 1) // 2
    return "<br>".join(" ".join(part) for part in (words[:half], words[half:]) if part)


def _layout(revision: str) -> Plot:
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
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "xaxis": dict(axis),
        "yaxis": dict(axis),
    }
