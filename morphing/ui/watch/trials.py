"""The front as a table, and one trial in detail: scores, parameters, recipe, answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr

from morphing.benchmarks.find import CONTAMINATION
from morphing.inert import as_html
from morphing.merging.paths import read_path
from morphing.runs.chat_templates import template_sentence
from morphing.runs.conditions import mixed, results_of, unfinished_remark
from morphing.runs.stage_model import STAGE_MODEL, stage_model
from morphing.runs.trial import Result, Trial
from morphing.ui import session
from morphing.ui.cards import (
    answers_table,
    chip,
    cut_remark,
    empty,
    link,
    pick_html,
    score_notes,
    short_name,
)
from morphing.ui.handlers import guarded
from morphing.ui.objectives import Objective, Objectives
from morphing.ui.scene import Scene, View
from morphing.ui.watch.differences import benchmark_choices, differences_tab, elsewhere
from morphing.ui.watch.makeup import make_up, spark


def front_table(scene: Scene | None) -> str:
    """The front's members, best total first, and base and sources to compare with."""
    if scene is None or not scene.figures.trials:
        return empty("No scored merge yet", "The first ones appear here within moments.")
    objectives, members = scene.objectives, scene.figures.members
    best = {
        objective.name: objective.best(trial.values[place] for trial in members)
        for place, objective in enumerate(objectives.all)
        if members
    }
    head = "".join(
        f"<th>{as_html(objective.title)} {objective.arrow}</th>" for objective in objectives.all
    )

    def total(trial: Trial) -> float:
        values = zip(objectives.all, trial.values, strict=True)
        return sum(each.merit(value) for each, value in values if each.is_score)

    rows = [_member_row(scene, trial, best) for trial in sorted(members, key=total, reverse=True)]
    rows += [_model_row(scene, model) for model in scene.models if model in scene.references]
    return (
        '<div class="m-scroll"><table class="m-table"><thead><tr>'
        f'<th class="m-pick-head">Compare</th><th>Merge</th>{head}<th>Made of</th>'
        f"</tr></thead><tbody>{''.join(rows)}</tbody></table></div>{_remarks(scene)}"
    )


def _remarks(scene: Scene) -> str:
    """What one must know of the benchmarks and how they were asked to read the scores."""
    told = [template_sentence(scene.run.spec)]
    for use in scene.run.spec.tasks:
        name, title = use.declaration.name, use.declaration.title or use.declaration.name
        results = [t.results[name] for t in scene.figures.members if t.results]
        told += [cut_remark(title, results), unfinished_remark(title, results)]
        remarks = dict.fromkeys(remark for result in results for remark in result.remarks)
        told += [f"{title}: {remark}" for remark in remarks]
        if use.declaration.contaminates:
            told.append(f"{title} {CONTAMINATION}")
    scored = results_of(scene.figures.trials, scene.references.values())
    told.append(mixed(each.conditions for each in scored if each.conditions is not None) or "")
    return "".join(f'<p class="m-step warn">{as_html(text)}</p>' for text in told if text)


def _member_row(scene: Scene, trial: Trial, best: Mapping[str, float]) -> str:
    cells = "".join(
        _value_cell(objective, value, value == best[objective.name])
        for objective, value in zip(scene.objectives.all, trial.values, strict=True)
    )
    focus = ' class="focus"' if trial.number == scene.focus else ""
    return (
        f'<tr{focus} data-do="focus" data-value="{trial.number}">'
        f"<td>{_tick(scene, f'trial {trial.number}')}</td>"
        f'<td class="m-name">{link("focus", str(trial.number), f"Trial {trial.number}")}'
        f"{_marks(scene, trial)}</td>{cells}<td>{spark(trial, scene.run.spec)}</td></tr>"
    )


def _model_row(scene: Scene, model: str) -> str:
    values = scene.references[model].values
    cells = "".join(
        _value_cell(objective, values.get(objective.name)) for objective in scene.objectives.all
    )
    kind = "base" if model == scene.run.spec.base else "source"
    return (
        f'<tr class="m-reference"><td>{_tick(scene, model)}</td>'
        f'<td class="m-name">{as_html(short_name(model))}{chip(kind)}</td>{cells}<td></td></tr>'
    )


def _value_cell(objective: Objective, value: float | None, best: bool = False) -> str:
    if value is None:
        return '<td class="m-score">–</td>'
    bar = f'<i style="width:{100 * value:.1f}%"></i>' if objective.in_percent else ""
    top = " m-top" if best else ""
    return f'<td class="m-score{top}">{objective.shown(value)}{bar}</td>'


def _marks(scene: Scene, trial: Trial) -> str:
    """Chips: the knee, and what a recipe tried first is called."""
    knee = chip("★ knee", "knee") if trial.number == scene.figures.knee else ""
    return knee + (chip(f"first: {trial.seed}") if trial.seed else "")


def _tick(scene: Scene, member: str) -> str:
    ticked = str(member in scene.tray).lower()
    return (
        f'<button type="button" class="m-tick" role="checkbox" aria-checked="{ticked}"'
        f' data-do="toggle" data-value="{as_html(member)}"'
        f' aria-label="Compare {as_html(scene.title(member))}"></button>'
    )


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
            gr.Tabs(elem_classes="m-inner-tabs", overflow_behavior="wrap"),
        ):
            with gr.Tab("Recipe"):
                recipe = gr.Code(
                    language="yaml", interactive=False, label="recipe.yaml", max_lines=22
                )
            with gr.Tab("Answers"):
                which = gr.Dropdown([], label="Benchmark", interactive=True)
                only_wrong = gr.Checkbox(label="Only the wrong ones")
                answers = gr.HTML(apply_default_css=False)
            with gr.Tab("Differences"):
                shown_trial = gr.State(None)
                against = differences_tab(current, shown_trial)

    for event in (which.change, only_wrong.change, shown_trial.change):
        event(
            guarded()(peek),
            [current, shown_trial, which, only_wrong],
            answers,
            show_progress="hidden",
        )

    def trial(scene: Scene | None) -> Trial | None:
        return scene.trial if scene else None

    def focused(scene: Scene) -> Any:
        return scene.run.name, scene.focus, bool(trial(scene))

    views = [
        View(panel, focused, lambda s: gr.Row(visible=trial(s) is not None)),
        View(facts, lambda s: (focused(s), s.tray, s.figures.knee), _facts),
        View(recipe, focused, lambda s: t.recipe.to_yaml() if (t := trial(s)) else ""),
        View(shown_trial, focused, lambda s: t.number if (t := trial(s)) else None),
        View(which, lambda s: s.run.name, benchmark_choices),
        *against,
    ]
    return Detail(views, (facts,))


def peek(name: str, number: int | None, benchmark: str | None, wrong: bool) -> str:
    """A trial's answers to a benchmark's samples, or only the wrong ones."""
    run = session.find_run(name)
    if run is None or number is None or benchmark is None:
        return ""
    if absent := elsewhere(run, number):
        return absent
    rows = run.outputs(number).get(benchmark, [])
    if rows and not Objectives.of(run.spec)[benchmark].share:
        return _scored(rows)
    return _answers([row for row in rows if not wrong or row["score"] < 1])


def _facts(scene: Scene | None) -> str:
    if scene is None or scene.trial is None:
        return ""
    trial = scene.trial
    member = f"trial {trial.number}"
    on_front = chip("on the front", "front") if trial.number in scene.figures.front else ""
    broken = "" if trial.feasible else chip("breaks a constraint", "warn")
    results = trial.results or {}
    scores = "".join(
        f"<dt>{as_html(objective.title)}</dt>"
        f"<dd>{_score(objective, value, results.get(objective.name))}</dd>"
        for objective, value in zip(scene.objectives.all, trial.values, strict=True)
    )
    tray = "Take out of compare" if member in scene.tray else "Add to compare"
    return (
        f'<div class="m-heading"><h2>Trial {trial.number}'
        f" {_marks(scene, trial)}{on_front}{broken}</h2>"
        f"<p>{_kind(trial)} · scored in {trial.seconds:.1f} s</p>{_drawn(trial)}</div>"
        f'<dl class="m-facts">{scores}</dl>'
        "<details open><summary>What it is made of</summary>"
        f"{make_up(trial, scene.run.spec)}{_stage_note(scene, trial)}</details>"
        '<div class="m-actions">'
        f'<button type="button" class="m-button" data-do="toggle" data-value="{member}">{tray}'
        "</button>"
        f'<button type="button" class="m-button primary" data-do="publish"'
        f' data-value="{trial.number}">Publish this one</button></div>'
    )


def _kind(trial: Trial) -> str:
    return "layer path" if read_path(trial.recipe) else as_html(trial.recipe.method)


def _drawn(trial: Trial) -> str:
    """That its parameters are no proposal, where the sampler failed."""
    if trial.drawn is None:
        return ""
    why = as_html(trial.drawn)
    return f'<p class="m-step">Drawn at random, since the sampler failed ({why}).</p>'


def _stage_note(scene: Scene, trial: Trial) -> str:
    """Which trial is the merge that a path of a second stage goes through."""
    named = STAGE_MODEL in trial.recipe.references
    if not named or (stage := stage_model(scene.run)) is None:
        return ""
    target = link("focus", str(stage.trial), f"trial {stage.trial}")
    return f'<p class="m-step">The best merge: {target}</p>'


def _score(objective: Objective, value: float, result: Result | None) -> str:
    if result is None:
        return objective.shown(value)
    error = f"{100 * result.stderr:.1f}" if objective.in_percent else f"{result.stderr:.3f}"
    spread = f"± {error} · n = {result.n}"
    return f"{objective.shown(value)} <small>{spread}</small> {score_notes(result)}"


def _answers(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return empty("Nothing to show", "No answers of this kind were recorded.")
    answers = [
        f'<tr><td class="{"right" if row["score"] >= 1 else "wrong"}">'
        f"{'✓' if row['score'] >= 1 else '✗'}</td>"
        f"<td>{as_html(str(row['prompt'])[-400:])}</td><td>{as_html(str(row['target']))}</td>"
        f"<td>{as_html(str(row['answer'])[:200])}</td></tr>"
        for row in rows
    ]
    return answers_table(("", "Asked", "Expected", "Answered"), answers)


def _scored(rows: list[dict[str, Any]]) -> str:
    """Samples whose scores, such as bits per byte, are neither right nor wrong."""
    texts = [
        f"<tr><td>{row['score']:.3f}</td><td>{as_html(str(row['prompt'])[-400:])}</td>"
        f"<td>{as_html(str(row['target']))}</td></tr>"
        for row in rows
    ]
    return answers_table(("Score", "Asked", "Expected"), texts)
