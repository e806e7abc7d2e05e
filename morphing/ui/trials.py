"""The front as a table, and one trial in detail: scores, parameters, recipe, answers."""

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from morphing.runs.spec import SPARSITY
from morphing.runs.trial import Result, Trial
from morphing.ui import session
from morphing.ui.cards import chip, empty, link, pick_html, short_name
from morphing.ui.handlers import guarded
from morphing.ui.plots import shown, shown_value
from morphing.ui.scene import Scene, View

_PEEK = 40
"""Answers shown at a time; all of them are in the run's folder."""


def front_table(scene: Scene | None) -> str:
    """The front's members, best total first, and base and sources to compare with."""
    if scene is None or not scene.figures.front:
        return empty("No scored merge yet", "The first ones appear here within moments.")
    best = {
        name: max(trial.values[i] for trial in scene.subject.members)
        for i, name in enumerate(scene.titles)
    }
    head = "".join(f"<th>{escape(title)}</th>" for title in scene.titles.values())
    tasks = [i for i, name in enumerate(scene.titles) if name != SPARSITY]
    members = sorted(scene.subject.members, key=lambda trial: -sum(trial.values[i] for i in tasks))
    rows = [_member_row(scene, trial, best) for trial in members]
    rows += [_model_row(scene, model) for model in scene.models if model in scene.references]
    return (
        '<div class="m-scroll"><table class="m-table"><thead><tr>'
        f'<th class="m-pick-head">Compare</th><th>Merge</th>{head}<th>Weights</th>'
        f"</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _member_row(scene: Scene, trial: Trial, best: Mapping[str, float]) -> str:
    cells = []
    for name, value in zip(scene.titles, trial.values, strict=True):
        top = " m-top" if value == best[name] else ""
        text = shown(name, shown_value(name, value))
        bar = "" if name == SPARSITY else f'<i style="width:{100 * value:.1f}%"></i>'
        cells.append(f'<td class="m-score{top}">{text}{bar}</td>')
    knee = chip("★ knee", "knee") if trial.number == scene.figures.knee else ""
    focus = ' class="focus"' if trial.number == scene.focus else ""
    return (
        f'<tr{focus} data-do="focus" data-value="{trial.number}">'
        f"<td>{_tick(scene, f'trial {trial.number}')}</td>"
        f'<td class="m-name">{link("focus", str(trial.number), f"Trial {trial.number}")}{knee}</td>'
        f"{''.join(cells)}<td>{_weights(trial)}</td></tr>"
    )


def _model_row(scene: Scene, model: str) -> str:
    results = scene.references[model]
    cells = "".join(_reference_cell(name, results.get(name)) for name in scene.titles)
    kind = "base" if model == scene.run.spec.base else "source"
    return (
        f'<tr class="m-reference"><td>{_tick(scene, model)}</td>'
        f'<td class="m-name">{escape(short_name(model))}{chip(kind)}</td>{cells}<td></td></tr>'
    )


def _reference_cell(name: str, result: Result | None) -> str:
    if result is None:
        return '<td class="m-score">–</td>'
    bar = f'<i style="width:{100 * result.value:.1f}%"></i>'
    return f'<td class="m-score">{100 * result.value:.1f}%{bar}</td>'


def _tick(scene: Scene, member: str) -> str:
    ticked = str(member in scene.tray).lower()
    return (
        f'<button type="button" class="m-tick" role="checkbox" aria-checked="{ticked}"'
        f' data-do="toggle" data-value="{escape(member)}"'
        f' aria-label="Compare {escape(scene.title(member))}"></button>'
    )


def _weights(trial: Trial) -> str:
    """One small bar a weight: how much of each source is in the merge."""
    bars = [
        f'<i title="{escape(name)} {value:.2f}" style="height:{max(6, 100 * min(value, 1)):.0f}%">'
        "</i>"
        for name, value in trial.params.items()
        if ".weight" in name or name.endswith("weight")
    ]
    return f'<span class="m-spark">{"".join(bars)}</span>'


@dataclass(frozen=True)
class Detail:
    """The panel's views, and the HTML whose ``select`` goes to the app."""

    views: list[View]
    pickers: tuple[gr.HTML, ...]


def detail_panel(current: gr.Textbox) -> Detail:
    """One trial: what it scored, what it is made of, its recipe, its answers."""
    with gr.Row(visible=False, equal_height=True) as panel:
        with gr.Column(scale=5, min_width=300, elem_classes="m-panel"):
            facts = pick_html(elem_id="trial-facts")
        with (
            gr.Column(scale=8, min_width=320, elem_classes="m-panel"),
            gr.Tabs(elem_classes="m-inner-tabs"),
        ):
            with gr.Tab("Recipe"):
                recipe = gr.Code(
                    language="yaml", interactive=False, label="recipe.yaml", max_lines=22
                )
            with gr.Tab("Answers"):
                which = gr.Dropdown([], label="Benchmark", interactive=True)
                only_wrong = gr.Checkbox(label="Only the wrong ones")
                answers = gr.HTML(apply_default_css=False)
    shown_trial = gr.State(None)

    @guarded()
    def peek(name: str, number: int | None, benchmark: str | None, wrong: bool) -> str:
        run = session.find_run(name)
        if run is None or number is None or benchmark is None:
            return ""
        rows = run.outputs(number).get(benchmark, [])
        return _answers([row for row in rows if not wrong or row["score"] < 1])

    for event in (which.change, only_wrong.change, shown_trial.change):
        event(peek, [current, shown_trial, which, only_wrong], answers, show_progress="hidden")

    def trial(scene: Scene | None) -> Trial | None:
        return scene.trial if scene else None

    def benchmarks(scene: Scene | None) -> gr.Dropdown:
        names = [n for n in scene.titles if n != SPARSITY] if scene else []
        choices = [(scene.titles[name], name) for name in names] if scene else []
        return gr.Dropdown(choices=choices, value=names[0] if names else None)

    def focused(scene: Scene) -> Any:
        return scene.run.name, scene.focus, bool(trial(scene))

    views = [
        View(panel, focused, lambda s: gr.Row(visible=trial(s) is not None)),
        View(facts, lambda s: (focused(s), s.tray, s.figures.knee), _facts),
        View(recipe, focused, lambda s: t.recipe.to_yaml() if (t := trial(s)) else ""),
        View(shown_trial, focused, lambda s: t.number if (t := trial(s)) else None),
        View(which, lambda s: s.run.name, benchmarks),
    ]
    return Detail(views, (facts,))


def _facts(scene: Scene | None) -> str:
    if scene is None or scene.trial is None:
        return ""
    trial = scene.trial
    member = f"trial {trial.number}"
    knee = chip("★ knee", "knee") if trial.number == scene.figures.knee else ""
    on_front = chip("on the front", "front") if trial.number in scene.figures.front else ""
    scores = "".join(
        f"<dt>{escape(scene.titles.get(name, name))}</dt><dd>{_score(result)}</dd>"
        for name, result in (trial.results or {}).items()
    )
    if SPARSITY in scene.titles:
        distance = -trial.values[-1]
        scores += f"<dt>Distance from base</dt><dd>{distance:.4f} <small>relative L1</small></dd>"
    params = "".join(
        f"<dt>{escape(name)}</dt><dd>"
        f'<span class="m-meter"><i style="width:{100 * min(max(value, 0), 1):.0f}%"></i></span>'
        f"{value:.3f}</dd>"
        for name, value in trial.params.items()
    )
    tray = "Take out of compare" if member in scene.tray else "Add to compare"
    return (
        f'<div class="m-heading"><h2>Trial {trial.number} {knee}{on_front}</h2>'
        f"<p>{escape(trial.recipe.method)} · scored in {trial.seconds:.1f} s</p></div>"
        f'<dl class="m-facts">{scores}</dl>'
        f'<details open><summary>What it is made of</summary><dl class="m-facts m-params">{params}'
        "</dl></details>"
        '<div class="m-actions">'
        f'<button type="button" class="m-button" data-do="toggle" data-value="{member}">{tray}'
        "</button>"
        f'<button type="button" class="m-button primary" data-do="publish"'
        f' data-value="{trial.number}">Publish this one</button></div>'
    )


def _score(result: Result) -> str:
    return f"{100 * result.value:.1f}% <small>± {100 * result.stderr:.1f} · n = {result.n}</small>"


def _answers(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return empty("Nothing to show", "No answers of this kind were recorded.")
    body = "".join(
        f'<tr><td class="{"right" if row["score"] >= 1 else "wrong"}">'
        f"{'✓' if row['score'] >= 1 else '✗'}</td>"
        f"<td>{escape(str(row['prompt'])[-400:])}</td><td>{escape(str(row['target']))}</td>"
        f"<td>{escape(str(row['answer'])[:200])}</td></tr>"
        for row in rows[:_PEEK]
    )
    more = f"<p class='m-step'>{len(rows) - _PEEK} more not shown</p>" if rows[_PEEK:] else ""
    return (
        '<div class="m-scroll m-answers"><table class="m-table"><thead><tr><th></th><th>Asked</th>'
        f"<th>Expected</th><th>Answered</th></tr></thead><tbody>{body}</tbody></table></div>{more}"
    )
