"""The tab "Differences": where two models answer the same samples differently."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import gradio as gr

from morphing.errors import MorphingError
from morphing.inert import as_html
from morphing.runs.outputs import Row
from morphing.runs.pairs import Pair, lead, pairs_of
from morphing.runs.run import Run
from morphing.ui import session
from morphing.ui.cards import answers_table, empty, short_name
from morphing.ui.handlers import guarded
from morphing.ui.objectives import Objective, Objectives
from morphing.ui.scene import Scene, View, trial_number

_LONGEST_ANSWER = 220
_RIGHT = Objective("", "")
"""Answers that are right or wrong."""
_SHOW = {
    "differ": "All differences",
    "ahead": "Only this one right",
    "behind": "Only the other right",
    "neither": "Both wrong, otherwise",
}


def differences_tab(current: gr.Textbox, shown_trial: gr.State) -> list[View]:
    """Build the tab: the trial in focus against a member of the front, a source or the base."""
    with gr.Row(elem_classes="m-against"):
        which = gr.Dropdown([], label="Benchmark", interactive=True, min_width=150)
        other = gr.Dropdown([], label="Against", interactive=True, min_width=150, elem_id="against")
        show = gr.Dropdown(
            [(label, key) for key, label in _SHOW.items()],
            value="differ",
            label="Show",
            interactive=True,
            min_width=150,
            elem_id="differ-show",
        )
    table = gr.HTML(apply_default_css=False, elem_id="differences")

    for part in (shown_trial, which, other, show):
        part.change(
            guarded()(compare),
            [current, shown_trial, which, other, show],
            table,
            show_progress="hidden",
            trigger_mode="always_last",
        )
    return [
        View(other, lambda s: (s.mark, s.focus), _others),
        View(which, lambda s: s.run.name, benchmark_choices),
    ]


def compare(
    name: str, number: int | None, benchmark: str | None, against: str | None, kind: str
) -> str:
    """The trial in focus against another model, sample by sample."""
    run = session.find_run(name)
    if run is None or number is None or benchmark is None or not against:
        return ""
    for trial in (number, trial_number(against)):
        if trial is not None and (absent := elsewhere(run, trial)):
            return absent
    mine = run.outputs(number).get(benchmark, [])
    theirs = _outputs(run, against).get(benchmark, [])
    title = short_name(against) if trial_number(against) is None else against.capitalize()
    objective = Objectives.of(run.spec)[benchmark]
    return differences(pairs_of(mine, theirs), kind, f"Trial {number}", title, objective)


def elsewhere(run: Run, number: int) -> str:
    """What stands for a complete trial's answers where they are not in this copy of the run."""
    if run.outputs_path(number).exists():
        return ""
    return empty(
        "Not on this machine",
        f"The answers of trial {number} are in the copy of the run on the machine that scored it.",
    )


def benchmark_choices(scene: Scene | None) -> gr.Dropdown:
    """The benchmarks that are objectives, the first chosen."""
    scores = scene.objectives.scores if scene else ()
    choices = [(score.title, score.name) for score in scores]
    return gr.Dropdown(choices=choices, value=scores[0].name if scores else None)


def _outputs(run: Run, member: str) -> dict[str, list[Row]]:
    number = trial_number(member)
    if number is not None:
        return run.outputs(number)
    if member not in (run.spec.base, *run.spec.sources):
        raise MorphingError(f"{member} is no model of this run: pick another.")
    return run.reference_outputs("search", member)


def _others(scene: Scene | None) -> gr.Dropdown:
    """The front without the trial in focus, the sources, the base."""
    if scene is None:
        return gr.Dropdown(choices=[], value=None)
    front = [f"trial {number}" for number in scene.figures.front if number != scene.focus]
    models = [model for model in scene.models[::-1] if model in scene.references]
    choices = [(scene.title(member), member) for member in (*front, *models)]
    return gr.Dropdown(choices=choices, value=choices[0][1] if choices else None)


def differences(
    pairs: Sequence[Pair], kind: str, mine: str, other: str, objective: Objective = _RIGHT
) -> str:
    """How the two stand on an objective, and the samples of one kind, side by side.

    Scores that are no ``share`` of 1, such as bits per byte, are neither right nor wrong: all that
    differ are shown.
    """
    if not pairs:
        return empty("Nothing to compare", "The two have answered no sample in common.")
    told = _lead(pairs, mine, other, objective)
    if not objective.share:
        differing = [pair for pair in pairs if pair.differs]
        return told + _table(differing, mine, other, share=False)
    counts = Counter(pair.verdict for pair in pairs)
    chosen = [pair for pair in pairs if pair.differs and (kind == "differ" or pair.verdict == kind)]
    return told + _standing(counts, mine, other) + _table(chosen, mine, other)


def _standing(counts: Counter[str], mine: str, other: str) -> str:
    parts = (
        ("both", "both right"),
        ("ahead", f"only {mine}"),
        ("behind", f"only {other}"),
        ("neither", "neither"),
    )
    bar = "".join(
        f'<i class="{key}" style="flex-grow:{counts[key]}"></i>' for key, _ in parts if counts[key]
    )
    legend = "".join(
        f'<li><i class="{key}"></i>{as_html(label)} <b>{counts[key]}</b></li>'
        for key, label in parts
    )
    return (
        f'<div class="m-standing" role="img" aria-label="'
        f'{as_html(", ".join(f"{label} {counts[key]}" for key, label in parts))}">{bar}</div>'
        f'<ul class="m-legend m-verdicts">{legend}</ul>'
    )


def _lead(pairs: Sequence[Pair], mine: str, other: str, objective: Objective) -> str:
    ahead, error = lead(pairs)
    sign = f"{100 * ahead:+.1f}</b> points" if objective.share else f"{ahead:+.3f}</b>"
    spread = f"{100 * error:.1f}" if objective.share else f"{error:.3f}"
    way = "" if objective.maximised else "; less is better"
    return (
        f'<p class="m-lead"><b>{as_html(mine)}</b> is <b>{sign.replace("-", "−")} from'
        f" <b>{as_html(other)}</b> <small>± {spread} on the same {len(pairs)} samples{way}</small>"
        "</p>"
    )


def _table(pairs: Sequence[Pair], mine: str, other: str, *, share: bool = True) -> str:
    if not pairs:
        return empty("No such sample", "Here the two answer alike.")
    answers = [
        f"<tr><td>{as_html(str(pair.mine['prompt'])[-400:])}</td>"
        f"<td>{as_html(str(pair.mine['target']))}</td>"
        f"<td>{_answer(pair.mine, share)}</td><td>{_answer(pair.other, share)}</td></tr>"
        for pair in pairs
    ]
    return answers_table(("Asked", "Expected", mine, other), answers)


def _answer(row: Row, share: bool) -> str:
    if not share:
        return f"{row['score']:.3f}"
    right = row["score"] >= 1
    part = "" if row["score"] in (0, 1) else f" <small>{row['score']:.2f}</small>"
    mark = '<b class="right">✓</b>' if right else '<b class="wrong">✗</b>'
    text = str(row["answer"])
    shown = text if len(text) <= _LONGEST_ANSWER else f"{text[:_LONGEST_ANSWER]}…"
    return f"{mark} {as_html(shown) or '<small>(nothing)</small>'}{part}"
