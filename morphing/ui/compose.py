"""The tab "Compose": what to merge, what to measure, how to search, and the launch."""

from collections.abc import Iterator
from html import escape
from typing import Any

import gradio as gr

from morphing.errors import MorphingError
from morphing.runs import launch
from morphing.runs.prepare import create_run
from morphing.sources.source import search_models
from morphing.ui import compose_cards as cards
from morphing.ui import session
from morphing.ui.cards import heading, pick_html
from morphing.ui.choice import Choice, inspected
from morphing.ui.handlers import guarded, sentence


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
                gr.HTML(heading("Objectives", "Each is maximised; none is traded away for you."))
                benchmarks = pick_html(value=cards.benchmarks(start), elem_id="benchmarks")
            with gr.Column(elem_classes="m-panel"):
                gr.HTML(heading("Merge method", "What one recipe does to the weights."))
                methods = pick_html(value=cards.methods(start), elem_id="methods")
                gr.HTML(heading("Search", "How the next recipe is proposed."))
                samplers = pick_html(value=cards.samplers(start), elem_id="samplers")
        with gr.Column(scale=4, min_width=300, elem_classes="m-panel m-side"):
            summary = gr.HTML(apply_default_css=False)
            evaluations = gr.Slider(
                5, 300, 30, step=1, label="Evaluations", buttons=[], elem_id="budget"
            )
            samples = gr.Slider(
                8,
                512,
                128,
                step=8,
                label="Samples per objective",
                buttons=[],
                elem_id="samples",
            )
            device = gr.Radio(cards.devices(), value="auto", label="Device")
            go = gr.Button("Launch the search", variant="primary", size="lg", elem_id="launch")
            note = gr.HTML(apply_default_css=False, elem_id="compose-note")
            with gr.Accordion("More settings", open=False):
                name = gr.Textbox("zoo", label="Name", max_lines=1, elem_id="run-name")
                holdout = gr.Slider(
                    32,
                    2000,
                    500,
                    step=4,
                    label="Holdout samples",
                    buttons=[],
                    elem_id="holdout",
                )
                groups = gr.Slider(1, 8, 1, step=1, label="Layer groups", buttons=[])
                seed = gr.Number(0, precision=0, minimum=0, label="Seed")
                dtype = gr.Dropdown(
                    ["auto", "float32", "bfloat16", "float16"], value="auto", label="Dtype"
                )
                unrelated = gr.Checkbox(label="Allow a base that is no ancestor")

    def show(made: Choice, count: int, size: int, login: gr.OAuthToken | None) -> dict[Any, Any]:
        token = session.token_of(login)
        return {
            models: cards.models(made, token),
            benchmarks: cards.benchmarks(made),
            methods: cards.methods(made),
            samplers: cards.samplers(made),
            summary: cards.summary(made, count, size),
            note: "",
        }

    shown = [models, benchmarks, methods, samplers, summary, note]
    gr.on(
        [choice.change, evaluations.change, samples.change],
        guarded()(show),
        [choice, evaluations, samples],
        shown,
        show_progress="hidden",
        trigger_mode="always_last",
    )
    summary.attach_load_event(lambda: cards.summary(start, 30, 128), None)

    @guarded()
    def pick(made: Choice, event: gr.EventData) -> Choice:
        return made.after(event.action, event.value)

    for part in (models, benchmarks, methods, samplers):
        part.select(pick, choice, choice, show_progress="hidden")

    @guarded(note)
    def put(action: str, made: Choice, text: str, login: gr.OAuthToken | None) -> dict[Any, Any]:
        """Add the model called ``text`` as a source or the base, if it can be had."""
        model = text.strip()
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
        made: Choice,
        title: str,
        count: int,
        size: int,
        held: int,
        where: str,
        parts: int,
        number: int,
        kind: str,
        loose: bool,
        mine: list[str],
        login: gr.OAuthToken | None,
    ) -> Iterator[dict[Any, Any]]:
        yield {go: gr.Button("Checking the models…", interactive=False), note: ""}
        token = session.token_of(login)
        spec = made.spec(
            title.strip(),
            int(size),
            int(held),
            device=where,
            dtype=kind,
            allow_unrelated_base=loose,
            search={"evaluations": int(count), "seed": number or 0, "layer_groups": int(parts)},
        )
        run = create_run(session.new_folder(spec.name), spec, token)
        yield {go: gr.Button("Starting…", interactive=False)}
        arrived = {current: run.name, own: [*mine, run.name], tabs: gr.Tabs(selected="watch")}
        try:
            launch.start(run, token, own_login=not session.on_space())
        except MorphingError as error:
            arrived[note] = f'<p class="m-error" role="alert">{escape(sentence(error))}</p>'
        yield arrived | ready()

    settings = [name, evaluations, samples, holdout, device, groups, seed, dtype, unrelated]
    go.click(
        start_run,
        [choice, *settings, own],
        [go, note, current, own, tabs],
        show_progress="hidden",
        concurrency_limit=4,
    )
