"""The app: header, tabs, and the one refresh that keeps every tab true to the run."""

from __future__ import annotations

import logging
import os

from morphing.visitors import forget_own_login, is_public, is_shared, on_space, serve_at

# Before the Hub's client is imported: where others reach the app, nothing may act with its login.
if is_public():
    forget_own_login()

from dataclasses import dataclass
from importlib import resources
from math import isinf
from typing import Any

import gradio as gr
from starlette.responses import FileResponse
from starlette.routing import Route

from morphing.inert import as_html, make_logs_inert
from morphing.ui import session, theme
from morphing.ui.compare.tab import compare_tab
from morphing.ui.compose.tab import compose_tab
from morphing.ui.handlers import guarded, sentence
from morphing.ui.limits import limits
from morphing.ui.publish.tab import publish_tab
from morphing.ui.scene import TRAY_SIZE, Scene, View, toggled
from morphing.ui.watch.progress import state_chip
from morphing.ui.watch.tab import watch_tab

log = logging.getLogger(__name__)
_BRAND = """<a class="m-brand" href="./" aria-label="Morphing, start page">
<svg viewBox="0 0 32 32" width="30" height="30" aria-hidden="true"><circle cx="11" cy="12" r="8"/>
<circle cx="21" cy="12" r="8"/><circle cx="16" cy="20.5" r="8"/></svg>
<span><strong>Morphing</strong><small>The best merges between your models, side by side.</small>
</span></a>"""
_KEPT_SECONDS = 3600
"""How long Gradio keeps its own copy of what was uploaded."""
_KEEP_ADDRESS = """(name) => {
  const url = new URL(window.location);
  if (name) url.searchParams.set("run", name); else url.searchParams.delete("run");
  window.history.replaceState(null, "", url);
}"""


@dataclass(frozen=True)
class Page:
    """The page's state and what is drawn from it. What its methods return are values of parts."""

    current: gr.Textbox
    """The name of the run that is shown."""
    tray: gr.State
    """The members picked for Compare."""
    chosen: gr.State
    """The number of the trial in focus, if one was chosen."""
    axes: gr.State
    own: gr.State
    """Names of the runs that the visitor has launched."""
    seen: gr.State
    """What each view was drawn from, and the error told last."""
    tabs: gr.Tabs
    picker: gr.Dropdown
    views: tuple[View, ...]

    def refresh(
        self,
        name: str,
        members: list[str],
        focus: int | None,
        shown_axes: Any,
        before: dict[Any, Any],
    ) -> Any:
        """Draw anew what changed since the last time, and nothing else."""
        try:
            scene = Scene.read(name, members, focus, shown_axes)
            now = {view.component: view.depends(scene) if scene else None for view in self.views}
            old = before.get("drawn", {})
            changed = [v for v in self.views if old.get(v.component._id, ...) != now[v.component]]
            drawn = {view.component: view.render(scene) for view in changed}
        except Exception as error:
            # Told once, not at every tick.
            if before.get("error") == (text := sentence(error)):
                return gr.skip()
            gr.Warning(as_html(text), title="The run cannot be shown")
            return {self.seen: {**before, "error": text}}
        if not changed and "error" not in before:
            return gr.skip()
        return {**drawn, self.seen: {"drawn": {part._id: key for part, key in now.items()}}}

    def pick(self, members: list[str], event: gr.EventData) -> dict[Any, Any]:
        """A click in a tab: a trial into focus, a member into the tray, on to Publish."""
        if event.action == "toggle":
            return {self.tray: toggled(members, str(event.value))}
        if event.action == "pair":
            return {self.tray: str(event.value).split("\n")[:TRAY_SIZE]}
        if event.action == "publish":
            return {self.chosen: int(event.value), self.tabs: gr.Tabs(selected="publish")}
        return {self.chosen: int(event.value)}

    def arrive(self, request: gr.Request) -> dict[Any, Any]:
        """Show the run that the address names, or the first that the visitor may see."""
        asked = request.query_params.get("run")
        name = session.first_run(asked)
        if asked and name != asked:
            gr.Warning("There is no run of that name here.", title="Not found")
        return {self.current: name, self.tabs: gr.Tabs(selected="watch" if name else "compose")}


def build() -> gr.Blocks:
    """The whole app, not yet served."""
    with gr.Blocks(
        title="Morphing",
        analytics_enabled=False,
        fill_width=True,
        delete_cache=(_KEPT_SECONDS // 6, _KEPT_SECONDS),
    ) as demo:
        current = gr.Textbox(visible="hidden", elem_id="current-run")
        tray, chosen, own = gr.State([]), gr.State(None), gr.State([])
        axes, seen = gr.State(None), gr.State({})
        timer = gr.Timer(1.0)
        chip, picker = _header()
        with gr.Tabs(selected="compose", overflow_behavior="wrap", elem_classes="m-tabs") as tabs:
            with gr.Tab("Compose", id="compose"):
                compose_tab(current, own, tabs)
            with gr.Tab("Watch", id="watch"):
                watch = watch_tab(current)
            with gr.Tab("Compare", id="compare"):
                compare = compare_tab(current, tray)
            with gr.Tab("Publish", id="publish"):
                publishing = publish_tab(current)
        views = (
            View(chip, lambda s: (s.status.state, s.status.done, s.status.total), state_chip),
            View(timer, lambda s: s.status.active, _pace),
            *watch.views,
            *compare.views,
            *publishing.views,
        )
        page = Page(current, tray, chosen, axes, own, seen, tabs, picker, views)
        _wire(page, timer, watch.axes, (*watch.pickers, *compare.pickers, *publishing.pickers))
        demo.load(guarded()(page.arrive), None, [current, tabs], show_progress="hidden")
    most = limits().queue
    demo.queue(default_concurrency_limit=16, max_size=None if isinf(most) else int(most))
    return demo


def _header() -> tuple[gr.HTML, gr.Dropdown]:
    with gr.Row(elem_classes="m-header"):
        gr.HTML(_BRAND, apply_default_css=False)
        chip = gr.HTML(state_chip(None), apply_default_css=False, elem_id="run-chip")
        picker = gr.Dropdown(
            [],
            label="Run",
            show_label=False,
            container=False,
            elem_id="run-picker",
            interactive=True,
            visible=False,
            scale=0,
            min_width=200,
        )
    return chip, picker


def _wire(
    page: Page, timer: gr.Timer, axes: list[gr.Dropdown], pickers: tuple[gr.HTML, ...]
) -> None:
    current, tray, chosen = page.current, page.tray, page.chosen
    gr.on(
        [timer.tick, current.change, tray.change, chosen.change, page.axes.change],
        page.refresh,
        [current, tray, chosen, page.axes, page.seen],
        [*(view.component for view in page.views), page.seen],
        show_progress="hidden",
        trigger_mode="always_last",
        concurrency_limit=None,
    )
    for axis in axes:
        axis.input(lambda *names: names, axes, page.axes, show_progress="hidden")
    for part in pickers:
        part.select(guarded()(page.pick), tray, [tray, chosen, page.tabs], show_progress="hidden")
    current.change(None, current, None, js=_KEEP_ADDRESS)
    current.change(lambda: ([], None, None), None, [tray, chosen, page.axes], queue=False)
    current.change(offer, [current, page.own], page.picker, show_progress="hidden")
    page.picker.focus(offer, [current, page.own], page.picker, show_progress="hidden")
    page.picker.input(lambda name: name or "", page.picker, current, show_progress="hidden")


def offer(name: str, mine: list[str]) -> gr.Dropdown:
    """The runs that a visitor may turn to."""
    names = session.recent_runs(mine, name)
    return gr.Dropdown(choices=names, value=name or None, visible=bool(names))


def _pace(scene: Scene | None) -> gr.Timer:
    return gr.Timer(1.0 if scene and scene.status.active else 3.0)


def _plotly(_request: Any) -> FileResponse:
    """plotly.js-basic-dist-min 4.1.1: scatter, bar and pie; its licence lies beside it."""
    script = resources.files("morphing.ui").joinpath("assets", "plotly-basic.min.js")
    return FileResponse(str(script), headers={"Cache-Control": "max-age=86400"})


def launch(port: int | None = None, host: str | None = None, share: bool = False) -> None:
    """Serve the app until interrupted: on this machine only, unless it is asked for more.

    Args:
        port: by default what ``GRADIO_SERVER_PORT`` or ``PORT`` says, or 7860.
        host: the address to bind to; by default what ``GRADIO_SERVER_NAME`` says, else this
            machine's own, or all on a Space.
        share: through a link of Gradio's too.
    """
    asked = os.environ.get("GRADIO_SERVER_PORT") or os.environ.get("PORT") or 7860
    make_logs_inert()
    bound = serve_at(host, share)
    if is_public() and not on_space():
        log.warning("Others can reach this page, so it is careful: see docs/serving.md.")
    build().launch(
        server_name=bound,
        server_port=port or int(asked),
        theme=theme.theme(),
        css=theme.asset("theme.css"),
        head=theme.HEAD,
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        share=is_shared(),
        max_file_size=int(limits().upload_mb * 10**6),
        app_kwargs={"routes": [Route("/plotly.min.js", _plotly)]},
    )
