"""The tab "Compose": what to merge, what to measure, how to search, and the launch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from morphing.errors import MorphingError
from morphing.inert import as_html
from morphing.runs import launch
from morphing.runs.prepare import create_run
from morphing.runs.run import Run
from morphing.sources.ancestry import unquantised
from morphing.sources.find import search_models
from morphing.sources.names import model_name
from morphing.ui import session
from morphing.ui.cards import heading, pick_html, step_bar
from morphing.ui.compose import cards as cards
from morphing.ui.compose import catalogue
from morphing.ui.compose.choice import Choice, Settings, inspected
from morphing.ui.compose.own import own_panel
from morphing.ui.compose.settings import (
    Controls,
    main_controls,
    more_controls,
    settings_of,
    space_controls,
)
from morphing.ui.compose.settings import shown as visible
from morphing.ui.handlers import follow, guarded, sentence
from morphing.ui.limits import within_limits
from morphing.ui.quotas import QUOTAS, visitor_of
from morphing.visitors import is_public

_CATALOGUE_HINT = "An objective is searched for; what is only reported is scored on the holdout."


@dataclass(frozen=True)
class Compose:
    """The tab's parts. What its methods return are values of components."""

    choice: gr.State
    """The `Choice`."""
    models: gr.HTML
    wanted: gr.Textbox
    add: gr.Button
    as_base: gr.Button
    look: gr.Button
    hits: gr.HTML
    benchmarks: gr.HTML
    words: gr.Textbox
    skill: gr.State
    offers: gr.HTML
    space: gr.HTML
    weights: gr.Column
    methods: gr.HTML
    samplers: gr.HTML
    summary: gr.HTML
    go: gr.Button
    note: gr.HTML
    controls: Controls
    current: gr.Textbox
    own: gr.State
    """Names of the runs that the visitor has launched."""
    tabs: gr.Tabs

    def show(self, made: Choice, login: gr.OAuthToken | None) -> dict[Any, Any]:
        """The choice as cards."""
        return {
            self.models: cards.models(made, session.token_of(login)),
            self.benchmarks: cards.benchmarks(made),
            self.space: cards.space(made),
            **visible(made, self.controls),
            self.weights: gr.Column(visible=made.merges_weights),
            self.methods: cards.methods(made),
            self.samplers: cards.samplers(made),
            self.note: "",
        }

    def sum_up(self, data: dict[Any, Any], login: gr.OAuthToken | None) -> str:
        """The run to be, in a few lines."""
        settings = settings_of(self.controls, data)
        return cards.summary(data[self.choice], settings, session.token_of(login))

    def look_through(self, made: Choice, event: gr.EventData) -> dict[Any, Any]:
        """A click in the catalogue."""
        if event.action == "skill":
            return {self.skill: str(event.value)}
        return {self.choice: made.after(event.action, event.value)}

    def put_source(self, made: Choice, text: str, login: gr.OAuthToken | None) -> dict[Any, Any]:
        """Add the model called ``text`` as a source."""
        return self._put("add", made, text, login)

    def put_base(self, made: Choice, text: str, login: gr.OAuthToken | None) -> dict[Any, Any]:
        """Take the model called ``text`` for the base."""
        return self._put("base", made, text, login)

    def take_hit(
        self, made: Choice, event: gr.EventData, login: gr.OAuthToken | None
    ) -> dict[Any, Any]:
        """Add what was found on the Hub as a source."""
        return self._put("add", made, str(event.value), login)

    def _put(
        self, action: str, made: Choice, text: str, login: gr.OAuthToken | None
    ) -> dict[Any, Any]:
        """The choice with a model more, if it can be had."""
        model = model_name(text)
        if not model:
            raise MorphingError("Write the model's Hub id or folder first.")
        found = inspected(model, session.token_of(login))
        after = made.after(action, model)
        if action == "add" and not made.sources and found.base_models:
            # A quantised copy cannot be merged: what it was most likely made from can.
            after = after.after("base", unquantised(found.base_models[0]))
        return {self.choice: after, self.wanted: "", self.hits: "", self.note: ""}

    def find(self, made: Choice, text: str, login: gr.OAuthToken | None) -> dict[Any, Any]:
        """Search the Hub."""
        found = search_models(text.strip(), session.token_of(login), limit=12)
        return {self.hits: cards.hits(found, made), self.note: ""}

    def ready(self) -> dict[Any, Any]:
        """The button as it is when nothing is being launched."""
        return {self.go: gr.Button("Launch the search", interactive=True)}

    def start_run(
        self,
        data: dict[Any, Any],
        login: gr.OAuthToken | None,
        profile: gr.OAuthProfile | None,
        request: gr.Request,
    ) -> Iterator[dict[Any, Any]]:
        """Check the models, make the run, start its search, turn to Watch."""
        yield {self.go: gr.Button("Checking the models…", interactive=False), self.note: ""}
        token, settings = session.token_of(login), settings_of(self.controls, data)
        workers = int(settings.workers)
        spec = within_limits(data[self.choice].spec(settings), workers)
        with QUOTAS.starting(visitor_of(profile, request)) as started:
            made: list[Run] = []
            remarks: list[str] = []

            def prepare(emit: Callable[[str], None]) -> None:
                """Gigabytes of a folder's model take a while to be pinned."""

                def progress(step: str, done: int, total: int) -> None:
                    emit(step_bar(step, done, total))

                folder = session.new_folder(spec.name)
                made.append(create_run(folder, spec, token, progress, remarks.append))

            for html in follow(prepare, stoppable=True):
                yield {self.note: html}
            (run,) = made
            for remark in remarks:
                gr.Info(as_html(remark), title="Note", duration=12)
            started(run.name)
            yield {self.go: gr.Button("Starting…", interactive=False), self.note: ""}
            arrived = {
                self.current: run.name,
                self.own: [*data[self.own], run.name],
                self.tabs: gr.Tabs(selected="watch"),
            }
            try:
                launch.start(run, token, own_login=not is_public(), workers=workers)
            except MorphingError as error:
                told = as_html(sentence(error))
                arrived[self.note] = f'<p class="m-error" role="alert">{told}</p>'
        yield arrived | self.ready()


def compose_tab(current: gr.Textbox, own: gr.State, tabs: gr.Tabs) -> Compose:
    """Build the tab. A launch sets ``current`` to the new run and turns to Watch."""
    start = Choice.zoo()
    choice = gr.State(start)
    with gr.Row(elem_classes="m-compose"):
        with gr.Column(scale=8, min_width=320):
            models = _models(start)
            with gr.Column(elem_classes="m-panel"):
                benchmarks = _benchmarks(start)
                own_panel(choice)
            with gr.Column(elem_classes="m-panel"):
                gr.HTML(heading("What is searched", "What one recipe may change."))
                space = pick_html(value=cards.space(start), elem_id="space")
                controls = space_controls()
            with gr.Column(elem_classes="m-panel") as weights:
                gr.HTML(heading("Merge method", "What one recipe does to the weights."))
                methods = pick_html(value=cards.methods(start), elem_id="methods")
            with gr.Column(elem_classes="m-panel"):
                gr.HTML(heading("Search", "How the next recipe is proposed."))
                samplers = pick_html(value=cards.samplers(start), elem_id="samplers")
        with gr.Column(scale=4, min_width=300, elem_classes="m-panel m-side"):
            summary = gr.HTML(apply_default_css=False, elem_id="summary")
            controls |= main_controls()
            go = gr.Button("Launch the search", variant="primary", size="lg", elem_id="launch")
            note = gr.HTML(apply_default_css=False, elem_id="compose-note")
            with gr.Accordion("More settings", open=False):
                controls |= more_controls()
    searched = space, weights, methods, samplers
    tab = Compose(
        choice, *models, *benchmarks, *searched, summary, go, note, controls, current, own, tabs
    )
    _wire_cards(tab, start)
    _wire_models(tab)
    tab.go.click(
        guarded(note, otherwise=tab.ready)(tab.start_run),
        {choice, own, *controls.values()},
        [go, note, current, own, tabs],
        show_progress="hidden",
        concurrency_limit=4,
    )
    return tab


def _models(
    start: Choice,
) -> tuple[gr.HTML, gr.Textbox, gr.Button, gr.Button, gr.Button, gr.HTML]:
    with gr.Column(elem_classes="m-panel"):
        gr.HTML(heading("Models", "Fine-tuned children of one base, merged back onto it."))
        models = pick_html(value=lambda: cards.models(start, None), elem_id="models")
        with gr.Row(elem_classes="m-add"):
            wanted = gr.Textbox(
                placeholder="org/name on the Hub, a folder, or words",
                label="Add a model",
                show_label=False,
                container=False,
                scale=5,
                min_width=200,
                elem_id="add-model",
            )
            add = gr.Button("Add source", size="md", scale=0, min_width=120, elem_id="add-source")
            as_base = gr.Button("Set as base", size="md", scale=0, min_width=120)
            look = gr.Button("Search the Hub", size="md", scale=0, min_width=150)
        hits = pick_html(value="", elem_id="hits")
    return models, wanted, add, as_base, look, hits


def _benchmarks(start: Choice) -> tuple[gr.HTML, gr.Textbox, gr.State, gr.HTML]:
    gr.HTML(heading("Objectives", "↑ more is better, ↓ less. None is traded for you."))
    benchmarks = pick_html(value=cards.benchmarks(start), elem_id="benchmarks")
    gr.HTML(heading("From the catalogue", _CATALOGUE_HINT), elem_classes="m-part")
    words = gr.Textbox(
        placeholder="Maths, Japanese, multiple choice, a name …",
        label="Search the catalogue",
        show_label=False,
        container=False,
        elem_id="find-benchmark",
    )
    offers = pick_html(value=catalogue.offer(start), elem_id="catalogue")
    return benchmarks, words, gr.State(""), offers


def _wire_cards(tab: Compose, start: Choice) -> None:
    """Cards follow the choice, and clicks on cards change it."""
    controls = [*tab.controls.values()]
    quiet = {"show_progress": "hidden", "trigger_mode": "always_last"}
    shown = [tab.models, tab.benchmarks, tab.space, *controls, tab.weights, tab.methods]
    tab.choice.change(guarded()(tab.show), tab.choice, [*shown, tab.samplers, tab.note], **quiet)
    gr.on(
        [tab.choice.change, *(control.change for control in controls)],
        guarded()(tab.sum_up),
        {tab.choice, *controls},
        tab.summary,
        **quiet,
    )
    tab.summary.attach_load_event(lambda: cards.summary(start, Settings(), None), None)
    tab.offers.select(
        guarded()(tab.look_through), tab.choice, [tab.choice, tab.skill], show_progress="hidden"
    )
    gr.on(
        [tab.choice.change, tab.words.change, tab.skill.change],
        guarded()(catalogue.offer),
        [tab.choice, tab.words, tab.skill],
        tab.offers,
        **quiet,
    )
    for part in (tab.models, tab.benchmarks, tab.space, tab.methods, tab.samplers):
        part.select(guarded()(pick), tab.choice, tab.choice, show_progress="hidden")


def _wire_models(tab: Compose) -> None:
    """Models are added by name, or found on the Hub."""
    asked, told = [tab.choice, tab.wanted], guarded(tab.note)
    out = [tab.choice, tab.wanted, tab.hits, tab.note]
    gr.on(
        [tab.add.click, tab.wanted.submit],
        told(tab.put_source),
        asked,
        out,
        show_progress_on=tab.wanted,
    )
    tab.as_base.click(told(tab.put_base), asked, out, show_progress_on=tab.wanted)
    tab.look.click(told(tab.find), asked, [tab.hits, tab.note], show_progress_on=tab.hits)
    tab.hits.select(told(tab.take_hit), tab.choice, out, show_progress="minimal")


def pick(made: Choice, event: gr.EventData) -> Choice:
    """A click on a card."""
    return made.after(event.action, event.value)
