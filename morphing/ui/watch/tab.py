"""The tab "Watch": a run as it goes, its front, and one trial in detail."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

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
from morphing.ui.watch.progress import NO_RUN, progress
from morphing.ui.watch.scales import scales_note
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


def watch_tab(current: gr.Textbox) -> Watch:
    """Build the tab. ``current`` holds the run's name."""
    with gr.Row(elem_classes="m-panel m-progress-row", equal_height=True):
        status = gr.HTML(NO_RUN, apply_default_css=False, elem_id="progress")
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
                front = plot_html("The front: two objectives against each other", 470)
            with gr.Column(scale=5, min_width=300):
                with gr.Column(elem_classes="m-panel"):
                    gr.HTML(
                        heading("Hypervolume", "1 is as good as the best source at everything.")
                    )
                    volume = plot_html("Hypervolume after each trial", 185)
                    scales = gr.HTML(apply_default_css=False, elem_id="scales")
                with gr.Column(elem_classes="m-panel"):
                    gr.HTML(heading("Trade-offs", "Every line is a member of the front."))
                    trade_offs = plot_html("Front members across all objectives", 210)
        with gr.Column(elem_classes="m-panel"):
            gr.HTML(heading("Members of the front"))
            table = pick_html(elem_id="front-table")
        held_views, held = holdout_panel(current)
    detail = trials.detail_panel(current)

    def ask(wanted: Request) -> Callable[[str], None]:
        def handler(name: str) -> None:
            if run := session.find_run(name):
                run.request(wanted)

        return guarded()(handler)

    @guarded()
    def go_on(
        name: str,
        login: gr.OAuthToken | None,
        profile: gr.OAuthProfile | None,
        request: gr.Request,
    ) -> None:
        run = session.find_run(name)
        if run is None:
            return
        if run.status().active:  # it pauses
            run.request("run")
            return
        workers = int(min(session.last_workers(run), limits().workers))
        with QUOTAS.starting(visitor_of(profile, request)) as started:
            started(run.name)
            launch.start(run, session.token_of(login), own_login=not is_public(), workers=workers)

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
        View(status, progress, progress),
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
        View(scales, lambda s: s.mark, scales_note),
        subject_view(trade_offs, plots.trade_off_plot),
        View(table, lambda s: (s.mark, s.tray, s.focus), trials.front_table),
        *held_views,
        *detail.views,
    ]
    return Watch(views, axes, (table, front, trade_offs, held, *detail.pickers))


def _shown_in(*states: str) -> Callable[[Scene | None], Any]:
    return lambda scene: gr.Button(visible=scene is not None and scene.status.state in states)


def _axis_choices(index: int) -> Callable[[Scene | None], gr.Dropdown]:
    def render(scene: Scene | None) -> gr.Dropdown:
        if scene is None:
            return gr.Dropdown(choices=[], value=None)
        choices = [(objective.title, objective.name) for objective in scene.objectives.all]
        if index == COLOUR:
            choices.insert(0, ("Order of evaluation", plots.ORDER))
        return gr.Dropdown(choices=choices, value=scene.shown_axes[index])

    return render
