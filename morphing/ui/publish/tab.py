"""The tab "Publish": one merge, with an honest card, to the visitor's own account."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from morphing.errors import MorphingError
from morphing.inert import as_html
from morphing.publishing.publish import publish, write_export
from morphing.runs.run import Run
from morphing.runs.trial import Result
from morphing.ui import session
from morphing.ui.bench import BENCH
from morphing.ui.cards import chip, empty, heading, pick_html, pill, score_notes, step_bar
from morphing.ui.handlers import follow, guarded
from morphing.ui.scene import Scene, View
from morphing.visitors import is_public, on_space

_NO_LOGIN = (
    "Sign in first: the merge is pushed to your own account. A page that others can reach has"
    " logins of its visitors on a Space alone; its owner can push from a terminal."
)


@dataclass(frozen=True)
class Publish:
    """The tab's parts. What its methods return are values of components."""

    members: gr.HTML
    preview: gr.HTML
    who: gr.HTML
    repo: gr.Textbox
    private: gr.Checkbox
    push: gr.Button
    result: gr.HTML
    folder: gr.Textbox
    export: gr.Button
    exported: gr.HTML
    trial: gr.State
    """The number of the trial in focus."""

    @property
    def pickers(self) -> tuple[gr.HTML, ...]:
        """The parts a click in which the app answers."""
        return (self.members,)

    @property
    def views(self) -> list[View]:
        """What follows the run and the trial in focus."""
        return [
            View(self.members, lambda s: (s.mark, s.focus), _members),
            View(
                self.preview,
                lambda s: (s.mark, s.focus, _has_holdout(s), s.status.active),
                _preview,
            ),
            View(self.trial, lambda s: (s.run.name, s.focus), lambda s: s.focus if s else None),
            View(self.push, lambda s: s.focus is None, _enabled),
        ]

    def ready(self) -> dict[Any, Any]:
        """The button as it is when nothing is being pushed."""
        return {self.push: gr.Button("Push to the Hub", interactive=True)}

    def push_it(
        self,
        name: str,
        number: int | None,
        repo_id: str,
        hidden: bool,
        login: gr.OAuthToken | None,
    ) -> Iterator[dict[Any, Any]]:
        """Score, export and push the trial with the visitor's own login."""
        (run, chosen), token = _chosen(name, number), session.token_of(login)
        if is_public() and not token:
            raise MorphingError(_NO_LOGIN)
        yield {
            self.push: gr.Button("Pushing…", interactive=False),
            self.result: step_bar("getting ready", 0, 1),
        }

        def work(emit: Callable[[str], None]) -> None:
            progress = _progress(emit)
            url = publish(
                run,
                chosen,
                repo_id.strip(),
                token,
                private=hidden,
                using=lambda: BENCH.use(run, token, progress),
                progress=progress,
            )
            emit(_done("Pushed", url, url))

        for html in follow(work, stoppable=False):
            yield {self.result: html}
        yield self.ready()

    def export_it(self, name: str, number: int | None, where: str) -> Iterator[dict[Any, Any]]:
        """Write the trial's model to a folder of this machine."""
        run, chosen = _chosen(name, number)
        if is_public():
            raise MorphingError("This machine has no folder of yours: push the merge instead.")
        if not where.strip():
            raise MorphingError("Name a new folder to write to.")
        target = Path(where.strip()).expanduser()

        def work(emit: Callable[[str], None]) -> None:
            progress = _progress(emit)
            with BENCH.use(run, None, progress) as bench:
                write_export(run, chosen, target, workbench=bench, progress=progress)
            emit(_done("Written to", str(target), ""))

        for html in follow(work, stoppable=False):
            yield {self.exported: html}


def publish_tab(current: gr.Textbox) -> Publish:
    """Build the tab. ``current`` holds the run's name."""
    with gr.Row():
        with gr.Column(scale=7, min_width=320, elem_classes="m-panel"):
            gr.HTML(
                heading("Which merge", "The knee is chosen for you: it balances the scores best.")
            )
            members = pick_html(elem_id="publish-members")
            preview = gr.HTML(apply_default_css=False, elem_id="card-preview")
        with gr.Column(scale=5, min_width=300):
            pushing = _pushing()
            keeping = _keeping()
    tab = Publish(members, preview, *pushing, *keeping, gr.State(None))
    _wire(tab, current)
    return tab


def _pushing() -> tuple[gr.HTML, gr.Textbox, gr.Checkbox, gr.Button, gr.HTML]:
    with gr.Column(elem_classes="m-panel"):
        gr.HTML(heading("Push to the Hub"))
        who = gr.HTML(apply_default_css=False, elem_id="who")
        if on_space():
            gr.LoginButton(size="md")
        repo = gr.Textbox(
            label="Repository", placeholder="you/name", max_lines=1, elem_id="repo-id"
        )
        private = gr.Checkbox(True, label="Private: only you can see it")
        push = gr.Button("Push to the Hub", variant="primary", size="lg", elem_id="push")
        result = gr.HTML(apply_default_css=False, elem_id="push-result")
    return who, repo, private, push, result


def _keeping() -> tuple[gr.Textbox, gr.Button, gr.HTML]:
    with gr.Column(elem_classes="m-panel", visible=not is_public()):
        gr.HTML(heading("Or keep it here", "Weights, tokenizer, recipe and card."))
        folder = gr.Textbox(label="New folder", placeholder="exports/my-merge", max_lines=1)
        export = gr.Button("Export to a folder")
        exported = gr.HTML(apply_default_css=False)
    return folder, export, exported


def _wire(tab: Publish, current: gr.Textbox) -> None:
    tab.push.click(
        guarded(tab.result, otherwise=tab.ready)(tab.push_it),
        [current, tab.trial, tab.repo, tab.private],
        [tab.push, tab.result],
        show_progress="hidden",
        concurrency_limit=4,
    )
    tab.export.click(
        guarded(tab.exported)(tab.export_it),
        [current, tab.trial, tab.folder],
        [tab.exported],
        show_progress="hidden",
    )
    tab.who.attach_load_event(guarded()(identity), None)
    tab.trial.change(guarded()(suggested), [current, tab.trial], tab.repo, show_progress="hidden")
    tab.trial.change(lambda: ("", ""), None, [tab.result, tab.exported], show_progress="hidden")


def identity(login: gr.OAuthToken | None) -> str:
    """Who is logged in, or how to."""
    return _identity(session.user_name(login))


def suggested(name: str, number: int | None, login: gr.OAuthToken | None) -> Any:
    """A repository of the visitor's for the trial."""
    run = session.find_run(name)
    if run is None or number is None:
        return gr.skip()
    return f"{session.user_name(login) or 'you'}/{session.public_name(run, number)}"


def _chosen(name: str, number: int | None) -> tuple[Run, int]:
    run = session.find_run(name)
    if run is None or number is None:
        raise MorphingError("Choose a merge first: there is none before a search has scored one.")
    return run, number


def _enabled(scene: Scene | None) -> gr.Button:
    return gr.Button(interactive=scene is not None and scene.focus is not None)


def _progress(emit: Callable[[str], None]) -> Callable[[str, int, int], None]:
    return lambda step, done, total: emit(step_bar(step, done, total))


def _done(text: str, target: str, url: str) -> str:
    shown = as_html(target)
    if url.startswith(("http://", "https://")):
        shown = f'<a href="{as_html(url)}" target="_blank" rel="noopener">{shown}</a>'
    return f'<p class="m-success" role="status">✓ {text} {shown}</p>'


def _identity(user: str | None) -> str:
    if user:
        return f'<p class="m-step">Logged in as <b>{as_html(user)}</b></p>'
    mend = "run <code>hf auth login</code> and reload"
    if is_public():
        mend = "sign in below" if on_space() else "this page has no logins of its visitors"
    return f'<p class="m-step warn">Not logged in: {mend}.</p>'


def _members(scene: Scene | None) -> str:
    if scene is None or not scene.figures.front:
        return empty("No merge to publish yet", "A search's front appears here.")
    numbers = list(scene.figures.front)
    if scene.focus is not None and scene.focus not in numbers:
        numbers.append(scene.focus)
    pills = "".join(
        pill("focus", str(number), scene.title(f"trial {number}"), number == scene.focus)
        for number in numbers
    )
    return f'<div class="m-row">{pills}</div>'


def _has_holdout(scene: Scene) -> bool:
    return scene.focus is not None and scene.run.holdout(scene.focus) is not None


def _preview(scene: Scene | None) -> str:
    """What the card will say: search beside holdout, with n."""
    if scene is None or scene.trial is None:
        return ""
    trial = scene.trial
    holdout = scene.run.holdout(trial.number) or {}
    rows = []
    for use in scene.run.spec.benchmarks:
        benchmark = use.declaration
        searched = (trial.results or {}).get(benchmark.name)
        raw, unscored = not benchmark.share, f"n = {use.holdout}, at the push"
        held = _cell(holdout.get(benchmark.name), raw) if holdout else unscored
        seen = _cell(searched, raw) if use.objective else "not seen by the search"
        caution = use.objective and benchmark.contaminates
        rows.append(
            f"<tr><td>{as_html(benchmark.title or benchmark.name)}"
            f"{chip('searched on its test', 'warn') if caution else ''}</td><td>{seen}</td>"
            f"<td>{held}</td></tr>"
        )
    measured = " · ".join(
        f"{as_html(objective.title)} {objective.shown(value)}"
        for objective, value in zip(scene.objectives.all, trial.values, strict=True)
        if not objective.is_score
    )
    beside = f"<p class='m-step'>{measured}</p>" if measured else ""
    sources = "".join(chip(scene.title(model)) for model in scene.models)
    title = session.public_name(scene.run, trial.number)
    return (
        f'<article class="m-model-card"><h3>{as_html(title)}</h3>'
        f'<div class="m-row">{chip(trial.recipe.method, "front")}{sources}</div>'
        '<div class="m-scroll"><table class="m-table"><thead><tr><th>Benchmark</th>'
        f"<th>Search split</th><th>Holdout split</th></tr></thead><tbody>{''.join(rows)}</tbody>"
        f"</table></div>{beside}<p class='m-step'>The holdout is scored when you push, for the"
        " merge and for base and sources, and both columns go on the card.</p></article>"
    )


def _cell(result: Result | None, raw: bool) -> str:
    if result is None:
        return "–"
    value, error = f"{100 * result.value:.1f}%", f"{100 * result.stderr:.1f}"
    if raw:
        value, error = f"{result.value:.3f}", f"{result.stderr:.3f}"
    return f"{value} <small>± {error} · n = {result.n}</small> {score_notes(result)}"
