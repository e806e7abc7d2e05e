"""The tab "Compare": up to four models answer the same message side by side."""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from morphing.benchmarks.data.samples import load_samples
from morphing.errors import MorphingError
from morphing.merging.recipe import Recipe
from morphing.runs.plain_recipes import alone
from morphing.runs.run import Run
from morphing.ui import session
from morphing.ui.bench import BENCH
from morphing.ui.cards import empty, heading, pick_html, pill
from morphing.ui.compare.streaming import stream_reply
from morphing.ui.handlers import follow, guarded
from morphing.ui.scene import TRAY_SIZE, Scene, View, trial_number

Histories = dict[str, list[dict[str, str]]]
"""Tray member to its conversation."""

_LONGEST_MESSAGE = 8_000
"""Characters."""
_LONGEST_REPLY = 256
"""Tokens."""
_EXAMPLES = 4


@dataclass(frozen=True)
class Compare:
    """The tab's parts that others listen to."""

    views: list[View]
    pickers: tuple[gr.HTML, ...]


def compare_tab(current: gr.Textbox, tray: gr.State) -> Compare:
    """Build the tab. ``tray`` holds the members chosen, here or under Watch."""
    histories = gr.State({})
    with gr.Column(elem_classes="m-panel"):
        gr.HTML(
            heading("Side by side", "Pick two to four: merges of the front, sources or the base.")
        )
        members = pick_html(elem_id="members")
    with gr.Column(elem_classes="m-panel") as hint_column:
        hint = pick_html(elem_id="compare-hint")
    columns, titles, chats = [], [], []
    with gr.Row(elem_classes="m-columns"):
        for index in range(TRAY_SIZE):
            with gr.Column(visible=False, min_width=230, elem_classes="m-column") as column:
                titles.append(gr.HTML(apply_default_css=False))
                chats.append(
                    gr.Chatbot(
                        height=380,
                        show_label=False,
                        label=f"Conversation {index + 1}",
                        render_markdown=False,
                        sanitize_html=True,
                        allow_tags=False,
                        latex_delimiters=[],
                        feedback_options=None,
                        buttons=["copy"],
                        layout="bubble",
                        placeholder="Waiting for your message",
                        elem_id=f"chat-{index}",
                    )
                )
            columns.append(column)
    with gr.Column(visible=False, elem_classes="m-panel m-ask") as ask:
        status = gr.HTML(apply_default_css=False, elem_id="chat-status")
        examples = pick_html(elem_id="examples")
        with gr.Row():
            message = gr.Textbox(
                placeholder="Ask all of them the same",
                label="Message",
                show_label=False,
                container=False,
                max_lines=6,
                scale=6,
                elem_id="message",
            )
            send = gr.Button(
                "Send", variant="primary", size="md", scale=0, min_width=90, elem_id="send"
            )
            stop = gr.Button("Stop", size="md", scale=0, min_width=80)
            clear = gr.Button("Clear", size="md", scale=0, min_width=80)

    def boxes(chosen: list[str], talks: Histories) -> dict[Any, Any]:
        padded = [*chosen, *[""] * (TRAY_SIZE - len(chosen))]
        return {chat: talks.get(member, []) for chat, member in zip(chats, padded, strict=True)}

    @guarded()
    def reply(
        name: str, chosen: list[str], text: str, talks: Histories, login: gr.OAuthToken | None
    ) -> Iterator[dict[Any, Any]]:
        run, text = session.find_run(name), text.strip()
        if run is None or not chosen:
            raise MorphingError("Pick at least one model above first.")
        if not text:
            return
        if len(text) > _LONGEST_MESSAGE:
            raise MorphingError(f"That is longer than {_LONGEST_MESSAGE} characters: shorten it.")
        recipes = {member: _recipe(run, member) for member in chosen}
        before = talks
        asked = {m: [*talks.get(m, []), {"role": "user", "content": text}] for m in chosen}
        talks = {**before, **asked}
        yield {message: "", status: _note("Waking the models…"), **boxes(chosen, talks)}
        work = _conversation(run, recipes, asked, session.token_of(login))
        with closing(follow(work, stoppable=True)) as steps:
            for note, answered in steps:
                talks = {**talks, **answered}
                yield {histories: talks, status: _note(note), **boxes(chosen, talks)}
        yield {status: ""}

    sent = gr.on(
        [send.click, message.submit],
        reply,
        [current, tray, message, histories],
        [message, status, histories, *chats],
        show_progress="hidden",
        concurrency_limit=8,
    )
    stop.click(lambda: "", None, status, cancels=[sent], show_progress="hidden")
    clear.click(
        lambda: ({}, *[[]] * TRAY_SIZE, ""),
        None,
        [histories, *chats, status],
        cancels=[sent],
        show_progress="hidden",
    )
    tray.change(boxes, [tray, histories], chats, show_progress="hidden")
    current.change(lambda: {}, None, histories)

    @guarded()
    def take(event: gr.EventData) -> str:
        return str(event.value)

    examples.select(take, None, message, show_progress="hidden")

    views = [
        View(members, lambda s: (s.mark, s.tray), _members),
        View(hint, lambda s: (bool(s.tray), s.figures.knee), _hint),
        View(hint_column, lambda s: bool(s.tray), lambda s: gr.Column(visible=not (s and s.tray))),
        View(examples, lambda s: s.run.name, _examples),
        View(ask, lambda s: bool(s.tray), lambda s: gr.Column(visible=bool(s and s.tray))),
    ]
    for index, (column, title) in enumerate(zip(columns, titles, strict=True)):
        views += _column_views(index, column, title)
    return Compare(views, (members, hint))


def _column_views(index: int, column: gr.Column, title: gr.HTML) -> list[View]:
    def member(scene: Scene | None) -> str | None:
        return scene.tray[index] if scene and scene.tray[index:] else None

    def head(scene: Scene | None) -> str:
        taken = member(scene)
        return _column_title(scene, taken) if scene and taken else ""

    return [
        View(column, lambda s: member(s) is None, lambda s: gr.Column(visible=bool(member(s)))),
        View(title, lambda s: (s.mark, member(s)), head),
    ]


def _conversation(
    run: Run, recipes: dict[str, Recipe], asked: Histories, token: str | None
) -> Callable[[Callable[[tuple[str, Histories]], None]], None]:
    """Each recipe in turn: morph, then answer. Emits what to say meanwhile, and the histories."""

    def work(emit: Callable[[tuple[str, Histories]], None]) -> None:
        answered: Histories = {}

        def loading(step: str, done: int, total: int) -> None:
            emit((f"{step} · {done}/{total}", answered))

        with BENCH.use(run, token, loading) as workbench:
            for place, (member, recipe) in enumerate(recipes.items(), 1):
                note = f"{place} of {len(recipes)} answering"
                workbench.morph(recipe)
                model, tokenizer = workbench.morpher.model, workbench.morpher.tokenizer
                text = ""
                for text in stream_reply(model, tokenizer, asked[member], _LONGEST_REPLY):
                    answered = _with(answered, member, asked, text or "…")
                    emit((note, answered))
                if not text.strip():
                    answered = _with(answered, member, asked, "(an empty answer)")
                    emit((note, answered))

    return work


def _with(answered: Histories, member: str, asked: Histories, text: str) -> Histories:
    """The histories with ``member``'s reply so far."""
    return {**answered, member: [*asked[member], {"role": "assistant", "content": text}]}


def _recipe(run: Run, member: str) -> Recipe:
    """What a tray member is made of."""
    number = trial_number(member)
    if number is not None:
        return run.trial(number).recipe
    if member not in (run.spec.base, *run.spec.sources):
        raise MorphingError(f"{member} is no model of this run: pick another.")
    return alone(member, run.spec)


def _members(scene: Scene | None) -> str:
    if scene is None:
        return empty("Nobody to talk to yet", "Launch a search under Compose first.")
    front = [f"trial {number}" for number in scene.figures.front]
    rows = [("Front", front), ("Models", list(scene.models))]
    parts = []
    for title, names in rows:
        pills = "".join(
            pill("toggle", name, scene.title(name), name in scene.tray) for name in names
        )
        waiting = '<span class="m-step">no merge scored yet</span>'
        parts.append(f'<div class="m-row"><b>{title}</b>{pills or waiting}</div>')
    return "".join(parts)


def _hint(scene: Scene | None) -> str:
    """What to do while nothing is picked; the knee beside the base is one click away."""
    text = empty(
        "One question, several answers",
        "Pick models above and ask them all the same. They stay picked while the search goes on.",
    )
    if scene is None or scene.figures.knee is None:
        return text
    pair = f"trial {scene.figures.knee}\n{scene.run.spec.base}"
    return (
        f'{text}<div class="m-center"><button type="button" class="m-button" data-do="pair"'
        f' data-value="{escape(pair)}">Compare the knee with the base</button></div>'
    )


def _column_title(scene: Scene, member: str) -> str:
    number = trial_number(member)
    trial = None if number is None else scene.trials.get(number)
    names = scene.objectives.names
    values = dict(zip(names, trial.values, strict=True)) if trial else {}
    if member in scene.references:
        values = scene.references[member].values
    facts = "".join(
        f"<dt>{escape(objective.title)}</dt><dd>{objective.shown(values[objective.name])}</dd>"
        for objective in scene.objectives.all
        if objective.name in values
    )
    return f'<h3>{escape(scene.title(member))}</h3><dl class="m-facts tight">{facts}</dl>'


def _examples(scene: Scene | None) -> str:
    """A question of each benchmark whose data is already on this machine."""
    if scene is None:
        return ""
    local = [use.declaration for use in scene.run.spec.benchmarks if use.declaration.local]
    questions = [load_samples(benchmark, "search", 1)[0].prompt for benchmark in local]
    pills = "".join(pill("ask", question, question) for question in questions[:_EXAMPLES])
    return f'<div class="m-row"><b>Try</b>{pills}</div>' if pills else ""


def _note(text: str) -> str:
    return f'<p class="m-step" role="status">{escape(text)}</p>'
