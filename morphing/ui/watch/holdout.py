"""The panel "On the holdout": how good the front is on samples the search never saw."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from morphing.errors import MorphingError
from morphing.inert import as_html
from morphing.runs.conditions import unfinished_remark
from morphing.runs.figures import figures_of
from morphing.runs.holdout import score_holdout
from morphing.runs.objectives import averaged
from morphing.runs.selection import Interval, Selection, Standing
from morphing.ui import session
from morphing.ui.bench import BENCH
from morphing.ui.cards import (
    chip,
    cut_remark,
    empty,
    heading,
    link,
    pick_html,
    short_name,
    step_bar,
)
from morphing.ui.handlers import follow, guarded
from morphing.ui.scene import Scene, View

_HINT = "Samples the search never saw. A search keeps what was lucky on its own samples; this shows"
_HINT += " what is left of it."


@dataclass(frozen=True)
class Holdout:
    """The panel's parts. What its methods return are values of components."""

    score: gr.Button
    note: gr.HTML
    table: gr.HTML

    @property
    def views(self) -> list[View]:
        """What follows the run."""
        return [
            View(self.table, lambda s: (s.mark, s.held, s.focus), _table),
            View(self.score, lambda s: (s.mark, s.held), _button),
        ]

    def ready(self) -> dict[Any, Any]:
        """The button as it is when nothing is being scored."""
        return {self.score: gr.Button(interactive=True)}

    def score_it(self, name: str, login: gr.OAuthToken | None) -> Iterator[dict[Any, Any]]:
        """Score the front, the base and the sources on the holdout."""
        run, token = session.find_run(name), session.token_of(login)
        front = figures_of(run).front if run else ()
        if run is None or not front:
            raise MorphingError("There is no front to score yet: wait for the first merges.")
        yield {self.score: gr.Button(interactive=False), self.note: step_bar("getting ready", 0, 1)}

        def work(emit: Callable[[str], None]) -> None:
            def progress(step: str, done: int, total: int) -> None:
                emit(step_bar(step, done, total))

            # A turn for each model, so that others can chat meanwhile.
            score_holdout(run, front, lambda: BENCH.use(run, token, progress), progress)

        # What is scored is kept, so one who leaves can go on later.
        for html in follow(work, stoppable=True):
            yield {self.note: html}
        yield {self.note: "", **self.ready()}


def holdout_panel(current: gr.Textbox) -> tuple[list[View], gr.HTML]:
    """Build the panel; returns its views, and the HTML whose ``select`` focuses a trial."""
    with gr.Column(elem_classes="m-panel"):
        with gr.Row(elem_classes="m-panel-head"):
            gr.HTML(heading("On the holdout", _HINT))
            score = gr.Button(
                "Score the front", size="md", scale=0, min_width=170, elem_id="score-holdout"
            )
        note = gr.HTML(apply_default_css=False, elem_id="holdout-note")
        table = pick_html(elem_id="holdout-table")
    panel = Holdout(score, note, table)
    score.click(
        guarded(note, otherwise=panel.ready)(panel.score_it),
        current,
        [score, note],
        show_progress="hidden",
        concurrency_limit=4,
    )
    current.change(lambda: "", None, note, show_progress="hidden")
    return panel.views, table


def _button(scene: Scene | None) -> gr.Button:
    front = scene.figures.front if scene else ()
    left = front
    if scene and scene.selection:
        left = scene.selection.unscored
    text = "Score the front" if left == front else f"Score {len(left)} more"
    return gr.Button("All scored" if front and not left else text, interactive=bool(left))


def _table(scene: Scene | None) -> str:
    """Members, then sources and base: holdout mean with its interval beside the search's score."""
    if scene is None or (chosen := scene.selection) is None:
        return empty(
            "Not scored yet",
            "Scoring takes as long as a few evaluations for each member, and can be left.",
        )
    best = chosen.best_of(scene.run.spec.sources)
    rows = [_row(scene, standing, best) for standing in (*chosen.ranked, *chosen.models)]
    named = f"<br><small>{as_html(short_name(best.name))}</small>" if best else ""
    names = [use.declaration for use in scene.run.spec.benchmarks]
    heads = "".join(
        f"<th>{as_html(each.title or each.name)}"
        f"{'' if each.name in scene.objectives else '<br><small>never searched</small>'}</th>"
        for each in names
    )
    return (
        '<div class="m-scroll"><table class="m-table m-held"><thead><tr><th>Merge</th>'
        "<th>Mean of the objectives</th><th>In the<br>search</th>"
        f"<th>Above the best source{named}</th>{heads}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>{_remarks(scene, chosen)}"
    )


def _row(scene: Scene, standing: Standing, best: Standing | None) -> str:
    if standing.trial is None:
        kind = "base" if standing.name == scene.run.spec.base else "source"
        name, attributes = as_html(short_name(standing.name)) + chip(kind), ' class="m-reference"'
    else:
        name = link("focus", str(standing.trial), f"Trial {standing.trial}")
        name += chip("★ knee", "knee") if standing.trial == scene.figures.knee else ""
        name += "" if standing.on_front else chip("dominated here")
        focus = ' class="focus"' if standing.trial == scene.focus else ""
        attributes = f'{focus} data-do="focus" data-value="{standing.trial}"'
    mean = standing.estimates.mean
    searched = _searched(scene, standing)
    above = standing.against.get(best.name) if best and standing.trial is not None else None
    cells = "".join(
        f"<td>{_estimate(standing.estimates.scores[each.name], each.share)}</td>"
        for each in (use.declaration for use in scene.run.spec.benchmarks)
    )
    return (
        f'<tr{attributes}><td class="m-name">{name}</td>'
        f"<td>{_forest(mean, searched) if mean else '–'}</td>"
        f"<td>{'–' if searched is None else f'{100 * searched:.1f}%'}</td>"
        f"<td>{_difference(above.mean) if above and above.mean else ''}</td>{cells}</tr>"
    )


def _searched(scene: Scene, standing: Standing) -> float | None:
    """A model's mean on the search split over the objectives that have a common one."""
    if standing.trial is not None:
        values = dict(zip(scene.objectives.names, scene.trials[standing.trial].values, strict=True))
    elif standing.name in scene.references:
        values = scene.references[standing.name].values
    else:
        return None
    shares = [values[name] for name in averaged(scene.run.spec)]
    return sum(shares) / len(shares) if shares else None


def _forest(held: Interval, searched: float | None) -> str:
    """The mean and its interval on a line from 0 to 100 %, the search's score a ring on it."""
    low, high, value = (100 * each for each in (held.low, held.high, held.value))
    ring = "" if searched is None else f'<u style="left:{100 * searched:.1f}%"></u>'
    return (
        f'<b>{value:.1f}%</b> <small>{low:.1f} to {high:.1f}</small><span class="m-forest">'
        f'<i style="left:{low:.1f}%;width:{max(high - low, 0.6):.1f}%"></i>'
        f'<s style="left:{value:.1f}%"></s>{ring}</span>'
    )


def _estimate(held: Interval, share: bool) -> str:
    if not share:
        return f"{held.value:.3f}<br><small>{held.low:.3f} to {held.high:.3f}</small>"
    low, high = 100 * held.low, 100 * held.high
    return f"{100 * held.value:.1f}%<br><small>{low:.1f} to {high:.1f}</small>"


def _difference(ahead: Interval) -> str:
    value, low, high = (f"{100 * e:+.1f}".replace("-", "−") for e in _ends(ahead))
    kind = "m-ahead" if ahead.low > 0 else "m-behind" if ahead.high < 0 else ""
    return f'<b class="{kind}">{value}</b><br><small>{low} to {high}</small>'


def _ends(interval: Interval) -> tuple[float, float, float]:
    return interval.value, interval.low, interval.high


def _remarks(scene: Scene, chosen: Selection) -> str:
    kept = sum(member.on_front for member in chosen.members)
    remarks = [
        "Bars are 95 % intervals (bootstrap over samples), rings the search's own scores.",
        f"{kept} of {len(chosen.members)} members are still non-dominated here.",
    ]
    if chosen.optimism is not None and chosen.models_optimism is not None:
        remarks.append(
            f"Search scores are {100 * chosen.optimism:+.1f} points from these for the front,"
            f" {100 * chosen.models_optimism:+.1f} for base and sources.".replace("-", "−")
        )
    declared = [use.declaration for use in scene.run.spec.benchmarks]
    if raw := [each.title or each.name for each in declared if not each.share]:
        remarks.append(as_html(f"Not in percent, and so in no mean: {', '.join(raw)}."))
    if low := [each.title for each in scene.objectives.scores if each.share and not each.maximised]:
        remarks.append(as_html(f"Better when lower, and so in no mean: {', '.join(low)}."))
    if chosen.hypervolume is not None and scene.figures.hypervolume:
        remarks.append(
            f"Hypervolume {chosen.hypervolume:.3f},"
            f" in the search {scene.figures.hypervolume[-1]:.3f}."
        )
    held = [scene.run.holdout(m.trial) or {} for m in chosen.members if m.trial is not None]
    for use in scene.run.spec.benchmarks:
        name, title = use.declaration.name, use.declaration.title or use.declaration.name
        found = [results[name] for results in held if name in results]
        remarks += map(as_html, (cut_remark(title, found), unfinished_remark(title, found)))
    return f'<p class="m-step">{" ".join(remarks)}</p>'
