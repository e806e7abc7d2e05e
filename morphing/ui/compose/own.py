"""The panel "Something else": a dataset of one's own, or any task of lm-eval, seen before it runs.

Nothing is scored before the visitor has seen three questions filled in and taken the benchmark.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components import Component

from morphing.benchmarks.benchmark import Benchmark
from morphing.benchmarks.data.draft import ROLES, Draft, choices_of, choices_text, draft_of, moved
from morphing.benchmarks.data.files import DATA_SUFFIXES
from morphing.benchmarks.judging.extract import RULES
from morphing.benchmarks.judging.metrics import METRICS
from morphing.benchmarks.kinds.table import KINDS
from morphing.errors import MorphingError
from morphing.hub_names import dataset_name
from morphing.ui import session
from morphing.ui.cards import heading, pick_html
from morphing.ui.compose.catalogue import refusal
from morphing.ui.compose.choice import Choice
from morphing.ui.compose.choice import Role as Use
from morphing.ui.compose.own_cards import workshop
from morphing.ui.handlers import guarded
from morphing.ui.quotas import QUOTAS, visitor_of
from morphing.visitors import is_public

_HINT = (
    "A dataset on the Hub, a file, or any task of lm-evaluation-harness as lm_eval:task. You see"
    " three questions filled in before anything runs."
)
_KINDS = [(kind.choice, kind.name) for kind in KINDS.values() if kind.choice]
_WRITTEN = ("metric", "extract", "max_new_tokens")
"""Fields of written answers alone."""
_PLACES = ("config", "split", "holdout_split")
"""Fields that say which rows; the others say what is made of them."""


@dataclass(frozen=True)
class Own:
    """The panel's parts. What its methods return are values of components."""

    choice: gr.State
    """The `Choice` into which goes what is taken."""
    draft: gr.State
    wanted: gr.Textbox
    look: gr.Button
    upload: gr.UploadButton
    note: gr.HTML
    panel: gr.Column
    view: gr.HTML
    fine: gr.Accordion
    take: gr.Button
    report: gr.Button
    leave: gr.Button
    controls: dict[str, Component]

    @property
    def shown(self) -> list[Component]:
        """All that a draft changes."""
        parts = [self.draft, self.panel, self.view, self.fine, self.note]
        return [*parts, *self.controls.values()]

    def show(self, made: Draft) -> dict[Any, Any]:
        """A draft as cards and in the controls."""
        return {
            self.draft: made,
            self.panel: gr.Column(visible=True),
            self.view: workshop(made),
            self.fine: gr.Accordion(visible=made.mapped),
            self.note: "",
            **{each: _filled(name, each, made) for name, each in self.controls.items()},
        }

    def closed(self) -> dict[Any, Any]:
        """No draft."""
        return {
            self.draft: None, self.panel: gr.Column(visible=False), self.view: "", self.note: ""
        }  # fmt: skip

    def open_it(self, text: str, login: gr.OAuthToken | None) -> dict[Any, Any]:
        """Look at the dataset or task called ``text``."""
        name = dataset_name(text)
        if not name:
            raise MorphingError("Write a dataset's id or file, or lm_eval: and a task, first.")
        return self.show(draft_of(session.check_dataset(name), session.token_of(login)))

    def receive(
        self, file: str, profile: gr.OAuthProfile | None, request: gr.Request
    ) -> dict[Any, Any]:
        """Keep an uploaded file and look at it."""
        kept = QUOTAS.keep_upload(Path(file), visitor_of(profile, request))
        return self.show(draft_of(str(kept)))

    def pick(self, made: Draft | None, event: gr.EventData) -> Any:
        """A click that gives a column another role."""
        role, _, column = str(event.value).partition(":")
        if made is None or role not in ROLES:
            return gr.skip()
        return self.show(made.after_role(column, role))

    def changed(self, name: str, made: Draft | None, value: Any, token: str | None) -> Any:
        """The draft after the visitor changed the control of field ``name`` to ``value``."""
        if made is None or value == _value(name, made):
            return gr.skip()  # it was not the visitor who changed the control
        if name in _PLACES:
            return self.show(moved(made, name, str(value).strip(), token))
        after = made.after_field(name, _written(name, value))
        # What is being typed is left as it is; all else follows.
        typed = self.controls[name]
        return {part: held for part, held in self.show(after).items() if part is not typed}

    def take_it(self, chosen: Choice, made: Draft | None) -> dict[Any, Any]:
        """Take the draft as an objective."""
        return self._taken(chosen, made, "objective")

    def report_it(self, chosen: Choice, made: Draft | None) -> dict[Any, Any]:
        """Take the draft to be reported only."""
        return self._taken(chosen, made, "report")

    def _taken(self, chosen: Choice, made: Draft | None, use: Use) -> dict[Any, Any]:
        if made is None:
            raise MorphingError("Have a look at a dataset first.")
        made.examples()
        benchmark = made.benchmark
        if reason := refusal(benchmark):
            raise MorphingError(reason)
        return {self.choice: chosen.adding(benchmark, use), self.wanted: "", **self.closed()}


def own_panel(choice: gr.State) -> Own:
    """Build the panel; what is taken goes into ``choice``."""
    with gr.Column(elem_classes="m-own-panel"):
        gr.HTML(heading("Bring your own", _HINT), elem_classes="m-part")
        with gr.Row(elem_classes="m-add"):
            asking = _asking()
        note = gr.HTML(apply_default_css=False, elem_id="own-note")
        with gr.Column(visible=False, elem_classes="m-own", elem_id="own") as panel:
            view = pick_html(elem_id="own-view")
            with gr.Accordion("Change how it is asked and scored", open=False) as fine:
                controls = _controls()
            with gr.Row(elem_classes="m-actions"):
                take = gr.Button(
                    "Take as an objective", variant="primary", size="md", elem_id="own-take"
                )
                report = gr.Button("Only report it", size="md", elem_id="own-report")
                leave = gr.Button("Leave it", size="md", elem_id="own-leave")
    own = Own(
        choice, gr.State(None), *asking, note, panel, view, fine, take, report, leave, controls
    )
    _wire(own)
    return own


def _asking() -> tuple[gr.Textbox, gr.Button, gr.UploadButton]:
    files = "" if is_public() else ", or a file on this machine"
    wanted = gr.Textbox(
        placeholder=f"org/dataset, lm_eval:task{files}",
        label="A dataset or task",
        show_label=False,
        container=False,
        scale=5,
        min_width=200,
        elem_id="own-name",
    )
    look = gr.Button("Have a look", size="md", scale=0, min_width=120, elem_id="own-look")
    upload = gr.UploadButton(
        "Upload a file",
        file_types=[*DATA_SUFFIXES, ".gz"],
        size="md",
        scale=0,
        min_width=130,
        elem_id="own-upload",
    )
    return wanted, look, upload


def _wire(own: Own) -> None:
    told = guarded(own.note)
    gr.on(
        [own.look.click, own.wanted.submit],
        told(own.open_it),
        own.wanted,
        own.shown,
        show_progress_on=own.view,
    )
    own.upload.upload(told(own.receive), own.upload, own.shown, show_progress_on=own.view)
    own.view.select(told(own.pick), own.draft, own.shown, show_progress="hidden")
    for name, control in own.controls.items():
        # A text's `input` is raised by keys alone, not by what is pasted.
        events = ["change"] if isinstance(control, gr.Textbox) else ["input"]
        events = ["submit", "blur"] if name == "config" else events
        gr.on(
            [getattr(control, event) for event in events],
            told(_changing(own, name)),
            [own.draft, control],
            own.shown,
            show_progress="hidden",
            trigger_mode="always_last",
        )
    out = [own.choice, own.wanted, own.draft, own.panel, own.view, own.note]
    asked = [own.choice, own.draft]
    own.take.click(told(own.take_it), asked, out, show_progress="hidden")
    own.report.click(told(own.report_it), asked, out, show_progress="hidden")
    own.leave.click(own.closed, None, out[2:], show_progress="hidden")


def _changing(own: Own, name: str) -> Callable[..., Any]:
    """What answers a change of one control."""

    def handler(made: Draft | None, value: Any, login: gr.OAuthToken | None) -> Any:
        return own.changed(name, made, value, session.token_of(login))

    return handler


def _controls() -> dict[str, Component]:
    """A component for each field of a benchmark that can be written by hand."""

    def text(label: str, lines: int = 1, **options: Any) -> gr.Textbox:
        return gr.Textbox(
            label=label, lines=lines, max_lines=max(lines, 8), min_width=180, **options
        )

    controls: dict[str, Component] = {
        "prompt": text(
            "What is asked", 3, elem_id="own-prompt", info="A Jinja template over the columns."
        )
    }
    with gr.Row():
        controls["target"] = text(
            "The answer",
            2,
            elem_id="own-target",
            info="With options, the right one's index from 0.",
        )
        controls["choices"] = text(
            "The options", 2, elem_id="own-choices", info="One a line, or an expression for a list."
        )
    with gr.Row():
        controls["kind"] = gr.Dropdown(_KINDS, label="What counts", min_width=180)
        controls["metric"] = gr.Dropdown(
            [name for name in METRICS if name != "accuracy"],
            label="Compared by",
            min_width=140,
            elem_id="own-metric",
        )
        controls["max_new_tokens"] = gr.Number(
            label="Tokens of an answer, at most",
            precision=0,
            minimum=1,
            min_width=140,
            elem_id="own-tokens",
        )
        controls["extract"] = gr.Dropdown(
            list(RULES),
            label="The answer is",
            allow_custom_value=not is_public(),
            min_width=140,
        )
    with gr.Row():
        controls["name"] = text("Name")
        controls["config"] = text("Config", info="Enter to load.")
        controls["split"] = gr.Dropdown(
            [], label="Split of the search", min_width=180, elem_id="own-split"
        )
        controls["holdout_split"] = gr.Dropdown([], label="Split of the report", min_width=180)
    controls["chat"] = gr.Checkbox(label="Ask through the model's chat template")
    return controls


def _written(name: str, value: Any) -> Any:
    """What a draft holds of a control's value."""
    if name == "chat":
        return "auto" if value else False
    return choices_of(value) if name == "choices" else value


def _value(name: str, draft: Draft) -> Any:
    """What a control holds of a draft."""
    value, kind = draft.fields.get(name), draft.fields["kind"]
    if name == "choices":
        return choices_text(value)
    if name in ("metric", "extract"):
        usual = "exact_match" if name == "metric" else "strip"
        return value if kind == "generation" and value else usual
    if name == "max_new_tokens":
        return value or Benchmark.model_fields[name].default
    if name == "kind":
        return kind if draft.mapped else None
    if name == "chat":
        return bool(value)
    return ", ".join(value) if isinstance(value, tuple) else value or ""


def _filled(name: str, control: Component, draft: Draft) -> Any:
    """A control with what the draft says, shown where its kind of benchmark has such a field."""
    options: dict[str, Any] = {"value": _value(name, draft)}
    if name in ("choices", *_WRITTEN):
        kind = KINDS[draft.fields["kind"]]
        options["visible"] = bool(kind.choice) and (
            name in kind.needs if name == "choices" else kind.generates
        )
    if name == "split":
        options["choices"] = list(draft.splits)
    if name == "holdout_split":
        rest = [(split, split) for split in draft.splits if split != draft.fields.get("split")]
        options["choices"] = [("The other half of it", ""), *rest]
    return type(control)(**options)
