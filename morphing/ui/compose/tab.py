"""The tab "Compose": what to merge, what to measure, how to search, and the launch."""

from collections.abc import Iterator
from typing import Any

import gradio as gr

from morphing.errors import MorphingError
from morphing.inert import as_html
from morphing.runs import launch
from morphing.runs.prepare import create_run
from morphing.sources.find import search_models
from morphing.sources.names import model_name
from morphing.ui import session
from morphing.ui.cards import heading, pick_html
from morphing.ui.compose import cards as cards
from morphing.ui.compose import catalogue
from morphing.ui.compose.choice import Choice, Settings, inspected
from morphing.ui.compose.own import own_panel
from morphing.ui.compose.settings import (
    main_controls,
    more_controls,
    settings_of,
    space_controls,
)
from morphing.ui.compose.settings import shown as visible
from morphing.ui.handlers import guarded, sentence
from morphing.ui.limits import within_limits
from morphing.ui.quotas import QUOTAS, visitor_of
from morphing.visitors import is_public

_CATALOGUE_HINT = "An objective is searched for; what is only reported is scored on the holdout."


def compose_tab(current: gr.Textbox, own: gr.State, tabs: gr.Tabs) -> None:
    """Build the tab. A launch sets ``current`` to the new run and turns to Watch."""
    start = Choice.zoo()
    choice = gr.State(start)
    with gr.Row(elem_classes="m-compose"):
        with gr.Column(scale=8, min_width=320):
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
                    add = gr.Button(
                        "Add source", size="md", scale=0, min_width=120, elem_id="add-source"
                    )
                    as_base = gr.Button("Set as base", size="md", scale=0, min_width=120)
                    look = gr.Button("Search the Hub", size="md", scale=0, min_width=150)
                hits = pick_html(value="", elem_id="hits")
            with gr.Column(elem_classes="m-panel"):
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
                skill = gr.State("")
                offers = pick_html(value=catalogue.offer(start), elem_id="catalogue")
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

    def show(made: Choice, login: gr.OAuthToken | None) -> dict[Any, Any]:
        return {
            models: cards.models(made, session.token_of(login)),
            benchmarks: cards.benchmarks(made),
            space: cards.space(made),
            **visible(made, controls),
            weights: gr.Column(visible=made.merges_weights),
            methods: cards.methods(made),
            samplers: cards.samplers(made),
            note: "",
        }

    def sum_up(data: dict[Any, Any], login: gr.OAuthToken | None) -> str:
        settings = settings_of(controls, data)
        return cards.summary(data[choice], settings, session.token_of(login))

    choice.change(
        guarded()(show),
        choice,
        [models, benchmarks, space, *controls.values(), weights, methods, samplers, note],
        show_progress="hidden",
        trigger_mode="always_last",
    )
    gr.on(
        [choice.change, *(control.change for control in controls.values())],
        guarded()(sum_up),
        {choice, *controls.values()},
        summary,
        show_progress="hidden",
        trigger_mode="always_last",
    )
    summary.attach_load_event(lambda: cards.summary(start, Settings(), None), None)

    @guarded()
    def pick(made: Choice, event: gr.EventData) -> Choice:
        return made.after(event.action, event.value)

    @guarded()
    def look_through(made: Choice, event: gr.EventData) -> dict[Any, Any]:
        if event.action == "skill":
            return {skill: str(event.value)}
        return {choice: made.after(event.action, event.value)}

    offers.select(look_through, choice, [choice, skill], show_progress="hidden")
    gr.on(
        [choice.change, words.change, skill.change],
        guarded()(catalogue.offer),
        [choice, words, skill],
        offers,
        show_progress="hidden",
        trigger_mode="always_last",
    )

    for part in (models, benchmarks, space, methods, samplers):
        part.select(pick, choice, choice, show_progress="hidden")

    @guarded(note)
    def put(action: str, made: Choice, text: str, login: gr.OAuthToken | None) -> dict[Any, Any]:
        """Add the model called ``text`` as a source or the base, if it can be had."""
        model = model_name(text)
        if not model:
            raise MorphingError("Write the model's Hub id or folder first.")
        found = inspected(model, session.token_of(login))
        after = made.after(action, model)
        if action == "add" and not made.sources and found.base_models:
            after = after.after("base", found.base_models[0])
        return {choice: after, wanted: "", hits: "", note: ""}

    @guarded(note)
    def find(made: Choice, text: str, login: gr.OAuthToken | None) -> dict[Any, Any]:
        found = search_models(text.strip(), session.token_of(login), limit=12)
        return {hits: cards.hits(found, made), note: ""}

    out = [choice, wanted, hits, note]
    add_as, base_as = gr.State("add"), gr.State("base")
    gr.on([add.click, wanted.submit], put, [add_as, choice, wanted], out, show_progress_on=wanted)
    as_base.click(put, [base_as, choice, wanted], out, show_progress_on=wanted)
    look.click(find, [choice, wanted], [hits, note], show_progress_on=hits)

    @guarded(note)
    def take(made: Choice, event: gr.EventData, login: gr.OAuthToken | None) -> dict[Any, Any]:
        return put("add", made, event.value, login)

    hits.select(take, choice, out, show_progress="minimal")

    def ready() -> dict[Any, Any]:
        return {go: gr.Button("Launch the search", interactive=True)}

    @guarded(note, otherwise=ready)
    def start_run(
        data: dict[Any, Any],
        login: gr.OAuthToken | None,
        profile: gr.OAuthProfile | None,
        request: gr.Request,
    ) -> Iterator[dict[Any, Any]]:
        yield {go: gr.Button("Checking the models…", interactive=False), note: ""}
        token, settings = session.token_of(login), settings_of(controls, data)
        workers = int(settings.workers)
        spec = within_limits(data[choice].spec(settings), workers)
        with QUOTAS.starting(visitor_of(profile, request)) as started:
            run = create_run(session.new_folder(spec.name), spec, token)
            started(run.name)
            yield {go: gr.Button("Starting…", interactive=False)}
            arrived = {
                current: run.name,
                own: [*data[own], run.name],
                tabs: gr.Tabs(selected="watch"),
            }
            try:
                launch.start(run, token, own_login=not is_public(), workers=workers)
            except MorphingError as error:
                arrived[note] = f'<p class="m-error" role="alert">{as_html(sentence(error))}</p>'
        yield arrived | ready()

    go.click(
        start_run,
        {choice, own, *controls.values()},
        [go, note, current, own, tabs],
        show_progress="hidden",
        concurrency_limit=4,
    )
