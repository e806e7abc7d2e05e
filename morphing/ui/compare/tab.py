"""The tab "Compare": up to four models answer the same message side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import gradio as gr

from morphing.benchmarks.data.samples import load_samples
from morphing.benchmarks.engine.thinking import Reply
from morphing.errors import MorphingError
from morphing.inert import as_html
from morphing.merging.recipe import Recipe
from morphing.runs.plain_recipes import alone
from morphing.runs.run import Run
from morphing.ui import session
from morphing.ui.bench import BENCH
from morphing.ui.cards import empty, heading, pick_html, pill
from morphing.ui.compare.streaming import stream_reply
from morphing.ui.handlers import follow, guarded
from morphing.ui.scene import TRAY_SIZE, Scene, View, trial_number

Histories = dict[str, list[dict[str, Any]]]
"""Tray member to its conversation; what a model thought before it answered has ``metadata``, which
has it folded."""

_LONGEST_MESSAGE = 8_000
"""Characters."""
_LONGEST_REPLY = 256
"""Tokens."""
_EXAMPLES = 4


@dataclass(frozen=True)
class Compare:
    """The tab's parts. What its methods return are values of components."""

    members: gr.HTML
    hint: gr.HTML
    hint_column: gr.Column
    columns: tuple[gr.Column, ...]
    titles: tuple[gr.HTML, ...]
    chats: tuple[gr.Chatbot, ...]
    ask: gr.Column
    status: gr.HTML
    examples: gr.HTML
    message: gr.Textbox
    send: gr.Button
    stop: gr.Button
    clear: gr.Button
    histories: gr.State
    """What was said with each member of the tray."""

    @property
    def pickers(self) -> tuple[gr.HTML, ...]:
        """The parts a click in which the app answers."""
        return self.members, self.hint

    @property
    def views(self) -> list[View]:
        """What follows the run and the tray."""
        views = [
            View(self.members, lambda s: (s.mark, s.tray), _members),
            View(self.hint, lambda s: (bool(s.tray), s.figures.knee), _hint),
            View(
                self.hint_column,
                lambda s: bool(s.tray),
                lambda s: gr.Column(visible=not (s and s.tray)),
            ),
            View(self.examples, lambda s: s.run.name, _examples),
            View(self.ask, lambda s: bool(s.tray), lambda s: gr.Column(visible=bool(s and s.tray))),
        ]
        for index, (column, title) in enumerate(zip(self.columns, self.titles, strict=True)):
            views += _column_views(index, column, title)
        return views

    def shown(self, chosen: list[str], talks: Histories) -> dict[Any, Any]:
        """The conversations of the members chosen, as they are shown."""
        padded = [*chosen, *[""] * (TRAY_SIZE - len(chosen))]
        return {
            chat: _inert(talks.get(member, []))
            for chat, member in zip(self.chats, padded, strict=True)
        }

    def reply(
        self,
        name: str,
        chosen: list[str],
        text: str,
        talks: Histories,
        login: gr.OAuthToken | None,
    ) -> Iterator[dict[Any, Any]]:
        """Every member chosen answers ``text``, one after the other, as they come."""
        run, text = session.find_run(name), text.strip()
        if run is None or not chosen:
            raise MorphingError("Pick at least one model above first.")
        if not text:
            return
        if len(text) > _LONGEST_MESSAGE:
            raise MorphingError(f"That is longer than {_LONGEST_MESSAGE} characters: shorten it.")
        recipes = {member: _recipe(run, member) for member in chosen}
        asked = {m: [*talks.get(m, []), {"role": "user", "content": text}] for m in chosen}
        talks = {**talks, **asked}
        waking = {self.message: "", self.status: _note("Waking the models…")}
        yield waking | self.shown(chosen, talks)
        work = _conversation(run, recipes, asked, session.token_of(login))
        with closing(follow(work, stoppable=True)) as steps:
            for note, answered in steps:
                talks = {**talks, **answered}
                said = {self.histories: talks, self.status: _note(note)}
                yield said | self.shown(chosen, talks)
        yield {self.status: ""}

    def emptied(self) -> dict[Any, Any]:
        """No conversation."""
        return {self.histories: {}, self.status: "", **{chat: [] for chat in self.chats}}


def compare_tab(current: gr.Textbox, tray: gr.State) -> Compare:
    """Build the tab. ``tray`` holds the members chosen, here or under Watch."""
    with gr.Column(elem_classes="m-panel"):
        gr.HTML(
            heading("Side by side", "Pick two to four: merges of the front, sources or the base.")
        )
        members = pick_html(elem_id="members")
    with gr.Column(elem_classes="m-panel") as hint_column:
        hint = pick_html(elem_id="compare-hint")
    with gr.Row(elem_classes="m-columns"):
        columns, titles, chats = zip(*map(_column, range(TRAY_SIZE)), strict=True)
    with gr.Column(visible=False, elem_classes="m-panel m-ask") as ask:
        asking = _asking()
    tab = Compare(members, hint, hint_column, columns, titles, chats, ask, *asking, gr.State({}))
    _wire(tab, current, tray)
    return tab


def _column(index: int) -> tuple[gr.Column, gr.HTML, gr.Chatbot]:
    with gr.Column(visible=False, min_width=230, elem_classes="m-column") as column:
        title = gr.HTML(apply_default_css=False)
        chat = gr.Chatbot(
            height=380,
            show_label=False,
            label=f"Conversation {index + 1}",
            render_markdown=False,
            sanitize_html=True,
            allow_tags=False,
            latex_delimiters=[],
            feedback_options=None,
            buttons=[],  # a copy would be of the escaped text
            layout="bubble",
            placeholder="Waiting for your message",
            elem_id=f"chat-{index}",
        )
    return column, title, chat


def _asking() -> tuple[gr.HTML, gr.HTML, gr.Textbox, gr.Button, gr.Button, gr.Button]:
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
    return status, examples, message, send, stop, clear


def _wire(tab: Compare, current: gr.Textbox, tray: gr.State) -> None:
    sent = gr.on(
        [tab.send.click, tab.message.submit],
        guarded()(tab.reply),
        [current, tray, tab.message, tab.histories],
        [tab.message, tab.status, tab.histories, *tab.chats],
        show_progress="hidden",
        concurrency_limit=8,
    )
    tab.stop.click(lambda: "", None, tab.status, cancels=[sent], show_progress="hidden")
    tab.clear.click(
        tab.emptied,
        None,
        [tab.histories, *tab.chats, tab.status],
        cancels=[sent],
        show_progress="hidden",
    )
    tray.change(tab.shown, [tray, tab.histories], [*tab.chats], show_progress="hidden")
    current.change(lambda: {}, None, tab.histories)
    tab.examples.select(guarded()(_value), None, tab.message, show_progress="hidden")


def _value(event: gr.EventData) -> str:
    """What a click was on."""
    return str(event.value)


def _inert(talk: list[dict[str, str]]) -> list[dict[str, str]]:
    """A conversation as it is shown, escaped.

    Gradio's chat takes what it shows for HTML, also where it is asked for no Markdown and no tags:
    it lets harmless tags through, and images from anywhere.
    """
    return [{**turn, "content": as_html(turn["content"])} for turn in talk]


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
                said = [turn for turn in asked[member] if "metadata" not in turn]
                reply = Reply("")
                for reply in stream_reply(model, tokenizer, said, _LONGEST_REPLY):
                    answered = _with(answered, member, asked, reply, "…")
                    emit((note, answered))
                if not reply.answer.strip():
                    nothing = (
                        "(its thought did not end)" if reply.unfinished else "(an empty answer)"
                    )
                    answered = _with(answered, member, asked, reply, nothing)
                    emit((note, answered))

    return work


def _with(
    answered: Histories, member: str, asked: Histories, reply: Reply, nothing: str
) -> Histories:
    """The histories with ``member``'s reply so far, ``nothing`` standing for no answer; a thought
    comes before it as a turn of its own, folded.
    """
    turns: list[dict[str, Any]] = [{"role": "assistant", "content": reply.answer or nothing}]
    if reply.thought:
        status = "pending" if reply.unfinished and nothing == "…" else "done"
        folded = {"title": "Thought", "status": status}
        turns.insert(0, {"role": "assistant", "content": reply.thought, "metadata": folded})
    return {**answered, member: [*asked[member], *turns]}


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
        f' data-value="{as_html(pair)}">Compare the knee with the base</button></div>'
    )


def _column_title(scene: Scene, member: str) -> str:
    number = trial_number(member)
    trial = None if number is None else scene.trials.get(number)
    names = scene.objectives.names
    values = dict(zip(names, trial.values, strict=True)) if trial else {}
    if member in scene.references:
        values = scene.references[member].values
    facts = "".join(
        f"<dt>{as_html(objective.title)}</dt><dd>{objective.shown(values[objective.name])}</dd>"
        for objective in scene.objectives.all
        if objective.name in values
    )
    return f'<h3>{as_html(scene.title(member))}</h3><dl class="m-facts tight">{facts}</dl>'


def _examples(scene: Scene | None) -> str:
    """A question of each benchmark whose data is already on this machine."""
    if scene is None:
        return ""
    local = [use.declaration for use in scene.run.spec.benchmarks if use.declaration.local]
    questions = [load_samples(benchmark, "search", 1)[0].prompt for benchmark in local]
    pills = "".join(pill("ask", question, question) for question in questions[:_EXAMPLES])
    return f'<div class="m-row"><b>Try</b>{pills}</div>' if pills else ""


def _note(text: str) -> str:
    return f'<p class="m-step" role="status">{as_html(text)}</p>'
