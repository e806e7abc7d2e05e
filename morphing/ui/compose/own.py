"""The panel "Something else": a dataset of one's own, or any task of lm-eval, seen before it runs.

Nothing is scored before the visitor has seen three questions filled in and taken the benchmark.
"""

from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components import Component

from morphing.benchmarks.benchmark import Benchmark
from morphing.benchmarks.data.draft import Draft, choices_of, choices_text, draft_of, moved
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


def own_panel(choice: gr.State) -> None:
    """Build the panel; what is taken goes into ``choice``."""
    draft = gr.State(None)
    with gr.Column(elem_classes="m-own-panel"):
        gr.HTML(heading("Bring your own", _HINT), elem_classes="m-part")
        with gr.Row(elem_classes="m-add"):
            wanted = gr.Textbox(
                placeholder="org/dataset, lm_eval:task, or a file on this machine"
                if not is_public()
                else "org/dataset or lm_eval:task",
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

    shown = [draft, panel, view, fine, note, *controls.values()]

    def show(made: Draft) -> dict[Any, Any]:
        return {
            draft: made,
            panel: gr.Column(visible=True),
            view: workshop(made),
            fine: gr.Accordion(visible=made.mapped),
            note: "",
            **{control: _filled(name, control, made) for name, control in controls.items()},
        }

    @guarded(note)
    def open_it(text: str, login: gr.OAuthToken | None) -> dict[Any, Any]:
        name = dataset_name(text)
        if not name:
            raise MorphingError("Write a dataset's id or file, or lm_eval: and a task, first.")
        return show(draft_of(session.check_dataset(name), session.token_of(login)))

    @guarded(note)
    def receive(file: str, profile: gr.OAuthProfile | None, request: gr.Request) -> dict[Any, Any]:
        kept = QUOTAS.keep_upload(Path(file), visitor_of(profile, request))
        return show(draft_of(str(kept)))

    gr.on([look.click, wanted.submit], open_it, wanted, shown, show_progress_on=view)
    upload.upload(receive, upload, shown, show_progress_on=view)

    @guarded(note)
    def pick(made: Draft | None, event: gr.EventData) -> Any:
        role, _, column = str(event.value).partition(":")
        return show(made.after_role(column, role)) if made else gr.skip()  # type: ignore[arg-type]

    view.select(pick, draft, shown, show_progress="hidden")

    def change(name: str) -> Any:
        @guarded(note)
        def handler(made: Draft | None, value: Any, login: gr.OAuthToken | None) -> Any:
            if made is None or value == _value(name, made):
                return gr.skip()  # it was not the visitor who changed the control
            if name in _PLACES:
                return show(moved(made, name, str(value).strip(), session.token_of(login)))
            after = made.after_field(name, _written(name, value))
            # What is being typed is left as it is; all else follows.
            return {k: v for k, v in show(after).items() if k is not controls[name]}

        return handler

    for name, control in controls.items():
        # A text's `input` is raised by keys alone, not by what is pasted.
        events = ["change"] if isinstance(control, gr.Textbox) else ["input"]
        events = ["submit", "blur"] if name == "config" else events
        gr.on(
            [getattr(control, event) for event in events],
            change(name),
            [draft, control],
            shown,
            show_progress="hidden",
            trigger_mode="always_last",
        )

    def taking(use: Use) -> Any:
        @guarded(note)
        def handler(chosen: Choice, made: Draft | None) -> dict[Any, Any]:
            if made is None:
                raise MorphingError("Have a look at a dataset first.")
            made.examples()
            benchmark = made.benchmark
            if reason := refusal(benchmark):
                raise MorphingError(reason)
            return {choice: chosen.adding(benchmark, use), wanted: "", **closed()}

        return handler

    def closed() -> dict[Any, Any]:
        return {draft: None, panel: gr.Column(visible=False), view: "", note: ""}

    out = [choice, wanted, draft, panel, view, note]
    take.click(taking("objective"), [choice, draft], out, show_progress="hidden")
    report.click(taking("report"), [choice, draft], out, show_progress="hidden")
    leave.click(closed, None, [draft, panel, view, note], show_progress="hidden")


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
