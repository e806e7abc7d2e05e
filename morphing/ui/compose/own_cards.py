"""What is shown of a benchmark of the visitor's own before it is taken."""

from __future__ import annotations

from morphing.benchmarks.benchmark import Benchmark
from morphing.benchmarks.data.draft import ROLES, Draft
from morphing.benchmarks.data.sample import Sample
from morphing.benchmarks.find import asked_and_expected
from morphing.benchmarks.kinds.table import KINDS
from morphing.errors import MorphingError
from morphing.inert import as_html
from morphing.ui.cards import chip, short_name

_ROLE_WORDS = {
    "prompt": "Asked",
    "target": "Answer",
    "choices": "Options",
    "unused": "Unused",
}
_LONGEST_PROMPT = 900
"""Characters of a prompt that are shown, its end."""
_MOST_OPTIONS = 8


def workshop(draft: Draft) -> str:
    """The columns and what they are for, and beside them what a model will be asked."""
    dataset = str(draft.fields.get("dataset", ""))
    title = str(draft.fields.get("title") or short_name(dataset))
    kind = KINDS[draft.fields["kind"]].title
    if draft.guessed:
        said = "Guessed from its columns. Are these the questions you mean?"
    elif draft.unmapped:
        said = "What its columns are for could not be guessed."
    else:
        said = "This is what models will be asked."
    columns = _columns(draft) if draft.mapped and draft.table.rows else ""
    return (
        f'<header class="m-own-head"><div class="m-heading"><h2>{as_html(title)}'
        f"{chip(kind, 'front')}{_cautions(draft)}</h2><p>{said}</p></div>"
        f'</header><div class="m-own-body{"" if columns else " plain"}">{columns}'
        f"<div>{_examples(draft)}</div></div>"
    )


def _cautions(draft: Draft) -> str:
    try:
        return chip("test split only", "warn") if draft.benchmark.contaminates else ""
    except MorphingError:
        return ""


def _columns(draft: Draft) -> str:
    rows = "".join(_column(draft, name, value) for name, value in draft.columns.items())
    return f'<ul class="m-mapping" aria-label="Columns">{rows}</ul>'


def _column(draft: Draft, name: str, value: str) -> str:
    role = draft.role(name)
    buttons = "".join(
        f'<button type="button" class="{each}" aria-pressed="{str(each == role).lower()}"'
        f' {"disabled" if each == role else ""} data-do="role"'
        f' data-value="{as_html(f"{each}:{name}")}">{_ROLE_WORDS[each]}</button>'
        for each in ROLES
    )
    return (
        f'<li class="{role}"><b>{as_html(name)}</b><small>{as_html(value)}</small>'
        f'<div class="m-segments" role="group" aria-label="{as_html(name)}">{buttons}</div></li>'
    )


def _examples(draft: Draft) -> str:
    if draft.unmapped:
        return (
            '<p class="m-note">Say of each column whether it is asked or is the answer; three'
            " questions are then filled in here.</p>"
        )
    try:
        benchmark, samples = draft.benchmark, draft.examples()
    except MorphingError as error:
        return f'<p class="m-error" role="alert">{as_html(str(error))}</p>'
    return "".join(
        f'<article class="m-example">{_example(benchmark, s)}</article>' for s in samples
    )


def _example(benchmark: Benchmark, sample: Sample) -> str:
    system = f'<div class="m-asked system">{as_html(sample.system)}</div>' if sample.system else ""
    text, target = asked_and_expected(sample)
    asked = f"…{text[-_LONGEST_PROMPT:]}" if len(text) > _LONGEST_PROMPT else text
    prompt = f'<div class="m-asked">{as_html(asked)}</div>' if asked else ""
    return (
        f"<small>{as_html(sample.id)}</small>{system}{prompt}{_expected(benchmark, sample, target)}"
    )


def _expected(benchmark: Benchmark, sample: Sample, target: str) -> str:
    if benchmark.kind == "multiple_choice":
        options = "".join(
            f'<li class="{"right" if index == sample.target else ""}">'
            f"{as_html(choice.strip())}{as_html(sample.continuation)}</li>"
            for index, choice in enumerate(sample.choices)
            if index < _MOST_OPTIONS or index == sample.target
        )
        more = len(sample.choices) - _MOST_OPTIONS
        rest = f"<li>and {more} more</li>" if more > 0 else ""
        return f'<ol class="m-choices">{options}{rest}</ol>'
    label = "scored text" if benchmark.kind == "perplexity" else "expected"
    shown = target if len(target) <= _LONGEST_PROMPT else f"{target[:_LONGEST_PROMPT]}…"
    return f'<div class="m-expected"><i>{label}</i>{as_html(shown)}</div>' if target else ""
