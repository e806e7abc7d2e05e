"""The tab "Watch": a run as it goes, its front, and one trial in detail."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

import gradio as gr

from morphing.runs import launch
from morphing.runs.run import Request
from morphing.ui import plots, session
from morphing.ui.cards import empty, heading, pick_html, plot_html
from morphing.ui.handlers import guarded
from morphing.ui.limits import limits
from morphing.ui.quotas import QUOTAS, visitor_of
from morphing.ui.scene import Scene, View
from morphing.ui.watch import trials
from morphing.ui.watch.holdout import holdout_panel
from morphing.ui.watch.progress import NO_RUN, progress, scales_note
from morphing.visitors import is_public

_WAITING = "First the base and the sources are scored, to compare with; then merge after merge."
COLOUR = 2


@dataclass(frozen=True)
class Watch:
    """The tab's parts that others listen to."""

    views: list[View]
    axes: list[gr.Dropdown]
    """Objective across, objective up, colour."""
    pickers: tuple[gr.HTML, ...]
    """HTML whose ``select`` focuses a trial, toggles a member, or goes to another tab."""


@dataclass(frozen=True)
class _Head:
    """Where the run stands, and what can be asked of it."""

    status: gr.HTML
    pause: gr.Button
    resume: gr.Button
    stop: gr.Button

    @property
    def views(self) -> list[View]:
        def shown_in(button: gr.Button, *states: str) -> View:
            return View(
                button,
                lambda s: s.status.state,
                lambda s: gr.Button(visible=s is not None and s.status.state in states),
            )

        return [
            View(self.status, progress, progress),
            shown_in(self.pause, "preparing", "running"),
            shown_in(self.resume, "paused", "stopped", "failed", "new"),
            shown_in(self.stop, "preparing", "running", "paused"),
        ]


@dataclass(frozen=True)
class _Body:
    """The front, drawn and as a table."""

    waiting: gr.Column
    whole: gr.Column
    axes: list[gr.Dropdown]
    front: gr.HTML
    volume: gr.HTML
    scales: gr.HTML
    trade_offs: gr.HTML
    table: gr.HTML

    @property
    def views(self) -> list[View]:
        def plot(component: gr.HTML, draw: Callable[[plots.Subject], plots.Plot]) -> View:
            return View(
                component,
                lambda scene: (scene.mark, scene.focus),
                lambda scene: json.dumps(draw(scene.subject)) if scene else "",
            )

        return [
            View(
                self.waiting,
                lambda s: bool(s.trials),
                lambda s: gr.Column(visible=s is not None and not s.trials),
            ),
            View(
                self.whole,
                lambda s: bool(s.trials),
                lambda s: gr.Column(visible=bool(s and s.trials)),
            ),
            *(
                View(axis, lambda s: s.run.name, _axis_choices(i))
                for i, axis in enumerate(self.axes)
            ),
            View(
                self.front,
                lambda s: (s.mark, s.focus, s.shown_axes),
                lambda s: json.dumps(plots.front_plot(s.subject, *s.shown_axes)) if s else "",
            ),
            plot(self.volume, plots.hypervolume_plot),
            View(self.scales, lambda s: s.mark, scales_note),
            plot(self.trade_offs, plots.trade_off_plot),
            View(self.table, lambda s: (s.mark, s.tray, s.focus), trials.front_table),
        ]


def watch_tab(current: gr.Textbox) -> Watch:
    """Build the tab. ``current`` holds the run's name."""
    head = _head()
    with gr.Column(visible=False, elem_classes="m-panel") as waiting:
        gr.HTML(empty("The front grows here", _WAITING), apply_default_css=False)
    with gr.Column(visible=False) as whole:
        with gr.Row(equal_height=True):
            drawn = _drawn()
        with gr.Column(elem_classes="m-panel"):
            gr.HTML(heading("Members of the front"))
            table = pick_html(elem_id="front-table")
        held_views, held = holdout_panel(current)
    body = _Body(waiting, whole, *drawn, table)
    detail = trials.detail_panel(current)
    head.pause.click(guarded()(pause), current, show_progress="hidden")
    head.stop.click(guarded()(stop), current, show_progress="hidden")
    head.resume.click(guarded()(go_on), current, show_progress="minimal")
    views = [*head.views, *body.views, *held_views, *detail.views]
    pickers = (table, body.front, body.trade_offs, held, *detail.pickers)
    return Watch(views, body.axes, pickers)


def _head() -> _Head:
    with gr.Row(elem_classes="m-panel m-progress-row", equal_height=True):
        status = gr.HTML(NO_RUN, apply_default_css=False, elem_id="progress")
        with gr.Row(elem_classes="m-buttons", scale=0):
            pausing = gr.Button("Pause", size="md", visible=False, elem_id="pause")
            resuming = gr.Button(
                "Resume", size="md", variant="primary", visible=False, elem_id="resume"
            )
            stopping = gr.Button("Stop", size="md", visible=False, elem_id="stop")
    return _Head(status, pausing, resuming, stopping)


def _drawn() -> tuple[list[gr.Dropdown], gr.HTML, gr.HTML, gr.HTML, gr.HTML]:
    with gr.Column(scale=8, min_width=320, elem_classes="m-panel"):
        gr.HTML(heading("Front", "Each point is a merge. Up and right is better."))
        with gr.Row(elem_classes="m-axes"):
            axes = [
                gr.Dropdown([], label=label, interactive=True, min_width=110)
                for label in ("Across", "Up", "Colour")
            ]
        front = plot_html("The front: two objectives against each other", 470)
    with gr.Column(scale=5, min_width=300):
        with gr.Column(elem_classes="m-panel"):
            gr.HTML(heading("Hypervolume", "1 is as good as the best source at everything."))
            volume = plot_html("Hypervolume after each trial", 185)
            scales = gr.HTML(apply_default_css=False, elem_id="scales")
        with gr.Column(elem_classes="m-panel"):
            gr.HTML(heading("Trade-offs", "Every line is a member of the front."))
            trade_offs = plot_html("Front members across all objectives", 210)
    return axes, front, volume, scales, trade_offs


def pause(name: str) -> None:
    """Ask the run to pause."""
    _ask(name, "pause")


def stop(name: str) -> None:
    """Ask the run to stop."""
    _ask(name, "stop")


def _ask(name: str, request: Request) -> None:
    if run := session.find_run(name):
        run.request(request)


def go_on(
    name: str,
    login: gr.OAuthToken | None,
    profile: gr.OAuthProfile | None,
    request: gr.Request,
) -> None:
    """Let a run that pauses go on, or start the search of one that ended again."""
    run = session.find_run(name)
    if run is None:
        return
    if run.status().active:
        run.request("run")
        return
    workers = int(min(session.last_workers(run), limits().workers))
    with QUOTAS.starting(visitor_of(profile, request)) as started:
        started(run.name)
        launch.start(run, session.token_of(login), own_login=not is_public(), workers=workers)


def _axis_choices(index: int) -> Callable[[Scene | None], gr.Dropdown]:
    def render(scene: Scene | None) -> gr.Dropdown:
        if scene is None:
            return gr.Dropdown(choices=[], value=None)
        choices = [(objective.title, objective.name) for objective in scene.objectives.all]
        if index == COLOUR:
            choices.insert(0, ("Order of evaluation", plots.ORDER))
        return gr.Dropdown(choices=choices, value=scene.shown_axes[index])

    return render
