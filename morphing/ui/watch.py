"""The tab "Watch": a run as it goes, its front, and one trial in detail."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from morphing.runs import launch
from morphing.runs.run import Request
from morphing.ui import plots, session, trials
from morphing.ui.cards import duration, empty, heading, pick_html, plot_html
from morphing.ui.handlers import guarded
from morphing.ui.scene import Scene, View

_NO_RUN = empty(
    "Nothing to watch yet",
    "Launch a search under Compose, or choose a run at the top: its front grows here.",
)
_WAITING = "First the base and the sources are scored, to compare with; then merge after merge."
COLOUR = 2
_STATES = {
    "new": "Not started",
    "preparing": "Preparing",
    "running": "Searching",
    "paused": "Paused",
    "stopped": "Stopped",
    "finished": "Finished",
    "failed": "Failed",
}


@dataclass(frozen=True)
class Watch:
    """The tab's parts that others listen to."""

    views: list[View]
    axes: list[gr.Dropdown]
    """Objective across, objective up, colour."""
    pickers: tuple[gr.HTML, ...]
    """HTML whose ``select`` focuses a trial, toggles a member, or goes to another tab."""


def watch_tab(current: gr.Textbox) -> Watch:
    """Build the tab. ``current`` holds the run's name."""
    with gr.Row(elem_classes="m-panel m-progress-row", equal_height=True):
        progress = gr.HTML(_NO_RUN, apply_default_css=False, elem_id="progress")
        with gr.Row(elem_classes="m-buttons", scale=0):
            pause = gr.Button("Pause", size="md", visible=False, elem_id="pause")
            resume = gr.Button(
                "Resume", size="md", variant="primary", visible=False, elem_id="resume"
            )
            stop = gr.Button("Stop", size="md", visible=False, elem_id="stop")
    with gr.Column(visible=False, elem_classes="m-panel") as waiting:
        gr.HTML(empty("The front grows here", _WAITING), apply_default_css=False)
    with gr.Column(visible=False) as body:
        with gr.Row(equal_height=True):
            with gr.Column(scale=8, min_width=320, elem_classes="m-panel"):
                gr.HTML(heading("Front", "Each point is a merge. Up and right is better."))
                with gr.Row(elem_classes="m-axes"):
                    axes = [
                        gr.Dropdown([], label=label, interactive=True, min_width=110)
                        for label in ("Across", "Up", "Colour")
                    ]
                front = plot_html("The front: two objectives against each other", 450)
            with gr.Column(scale=5, min_width=300):
                with gr.Column(elem_classes="m-panel"):
                    gr.HTML(heading("Hypervolume", "How much of the objective space is covered."))
                    volume = plot_html("Hypervolume after each trial", 185)
                with gr.Column(elem_classes="m-panel"):
                    gr.HTML(heading("Trade-offs", "Every line is a member of the front."))
                    trade_offs = plot_html("Front members across all objectives", 210)
        with gr.Column(elem_classes="m-panel"):
            gr.HTML(heading("Members of the front"))
            table = pick_html(elem_id="front-table")
    detail = trials.detail_panel(current)

    def ask(request: Request) -> Callable[[str], None]:
        def handler(name: str) -> None:
            if run := session.find_run(name):
                run.request(request)

        return guarded()(handler)

    @guarded()
    def go_on(name: str, login: gr.OAuthToken | None) -> None:
        if run := session.find_run(name):
            token = session.token_of(login)
            launch.start(run, token, own_login=not session.on_space())

    pause.click(ask("pause"), current, show_progress="hidden")
    stop.click(ask("stop"), current, show_progress="hidden")
    resume.click(go_on, current, show_progress="minimal")

    def subject_view(component: gr.HTML, draw: Callable[[plots.Subject], plots.Plot]) -> View:
        return View(
            component,
            lambda scene: (scene.mark, scene.focus),
            lambda scene: json.dumps(draw(scene.subject)) if scene else "",
        )

    views = [
        View(progress, lambda s: s.status, _progress),
        View(pause, lambda s: s.status.state, _shown_in("preparing", "running")),
        View(resume, lambda s: s.status.state, _shown_in("paused", "stopped", "failed", "new")),
        View(stop, lambda s: s.status.state, _shown_in("preparing", "running", "paused")),
        View(
            waiting,
            lambda s: bool(s.trials),
            lambda s: gr.Column(visible=s is not None and not s.trials),
        ),
        View(body, lambda s: bool(s.trials), lambda s: gr.Column(visible=bool(s and s.trials))),
        *(View(axis, lambda s: s.run.name, _axis_choices(i)) for i, axis in enumerate(axes)),
        View(
            front,
            lambda s: (s.mark, s.focus, s.shown_axes),
            lambda s: json.dumps(plots.front_plot(s.subject, *s.shown_axes)) if s else "",
        ),
        subject_view(volume, plots.hypervolume_plot),
        subject_view(trade_offs, plots.trade_off_plot),
        View(table, lambda s: (s.mark, s.tray, s.focus), trials.front_table),
        *detail.views,
    ]
    return Watch(views, axes, (table, front, trade_offs, *detail.pickers))


def _shown_in(*states: str) -> Callable[[Scene | None], Any]:
    return lambda scene: gr.Button(visible=scene is not None and scene.status.state in states)


def _progress(scene: Scene | None) -> str:
    if scene is None:
        return _NO_RUN
    status = scene.status
    share = status.done / status.total if status.total else 0.0
    facts = [f"<b>{status.done}</b> of {status.total} evaluations"]
    if status.state == "running" and status.seconds_left:
        facts.append(f"about {duration(status.seconds_left)} left")
    if scene.figures.front:
        facts.append(f"{len(scene.figures.front)} on the front")
    step = status.message if not status.active else status.step
    if status.active and step and status.step_total:
        step += f" · {status.step_done}/{status.step_total}"
    return (
        f'<div class="m-progress {status.state}">'
        f'<div class="m-progress-head"><span class="m-state">{_STATES[status.state]}</span>'
        f"<h1>{escape(scene.run.name)}</h1><span>{' · '.join(facts)}</span></div>"
        f'<div class="m-bar" role="progressbar" aria-valuemin="0" aria-valuemax="{status.total}"'
        f' aria-valuenow="{status.done}" aria-label="Evaluations done">'
        f'<i style="width:{100 * share:.1f}%"></i></div>'
        f'<p class="m-step">{escape(step)}</p></div>'
    )


def state_chip(scene: Scene | None) -> str:
    """The header's chip: the run's state and how far it is."""
    if scene is None:
        return '<span class="m-run-chip"><i></i>No run</span>'
    status = scene.status
    return (
        f'<span class="m-run-chip {status.state}"><i></i>{_STATES[status.state]}'
        f" {status.done}/{status.total}</span>"
    )


def _axis_choices(index: int) -> Callable[[Scene | None], gr.Dropdown]:
    def render(scene: Scene | None) -> gr.Dropdown:
        if scene is None:
            return gr.Dropdown(choices=[], value=None)
        choices = [(title, name) for name, title in scene.titles.items()]
        if index == COLOUR:
            choices.insert(0, ("Order of evaluation", plots.ORDER))
        return gr.Dropdown(choices=choices, value=scene.shown_axes[index])

    return render
