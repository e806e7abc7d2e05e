"""Small pieces of HTML the tabs share. Everything that comes from outside is escaped here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import gradio as gr

from morphing.inert import as_html
from morphing.runs.trial import Result
from morphing.ui.theme import asset

_PEEK = 40
"""Answers shown at a time; all of them are in the run's folder."""


def pick_html(**options: Any) -> gr.HTML:
    """HTML whose elements with ``data-do`` raise ``select`` with an ``action`` and a ``value``."""
    return gr.HTML(js_on_load=asset("pick.js"), apply_default_css=False, **options)


def plot_html(label: str, height: int, **options: Any) -> gr.HTML:
    """A plotly figure (its JSON is the value); a click on a trial raises ``select``."""
    return gr.HTML(
        html_template=f'<div class="m-plot-box" role="img" aria-label="{as_html(label)}"'
        f' style="height:{height}px"></div>',
        js_on_load=asset("plot.js"),
        apply_default_css=False,
        **options,
    )


def chip(text: str, kind: str = "") -> str:
    """A small label."""
    return f'<span class="m-chip {kind}">{as_html(text)}</span>'


def heading(title: str, hint: str = "") -> str:
    """A section's title with one sentence under it."""
    under = f"<p>{as_html(hint)}</p>" if hint else ""
    return f'<div class="m-heading"><h2>{as_html(title)}</h2>{under}</div>'


def empty(title: str, hint: str) -> str:
    """What stands where there is nothing yet."""
    return (
        f'<div class="m-empty"><strong>{as_html(title)}</strong><span>{as_html(hint)}</span></div>'
    )


def option(action: str, value: str, title: str, text: str, chosen: bool) -> str:
    """One of several cards of which one is chosen."""
    return (
        f'<button type="button" class="m-option" aria-pressed="{str(chosen).lower()}"'
        f' data-do="{action}" data-value="{as_html(value)}">'
        f"<strong>{as_html(title)}</strong><span>{as_html(text)}</span></button>"
    )


def grid(cards: Iterable[str], kind: str = "") -> str:
    """Cards side by side, as many as fit."""
    return f'<div class="m-grid {kind}">{"".join(cards)}</div>'


def link(action: str, value: str, text: str, label: str = "") -> str:
    """A quiet button that reads like a link."""
    aria = f' aria-label="{as_html(label)}"' if label else ""
    return (
        f'<button type="button" class="m-link" data-do="{action}"'
        f' data-value="{as_html(value)}"{aria}>{as_html(text)}</button>'
    )


def pill(action: str, value: str, text: str, pressed: bool | None = None) -> str:
    """A rounded button; one that can be on or off says which it is."""
    state = "" if pressed is None else f' aria-pressed="{str(pressed).lower()}"'
    return (
        f'<button type="button" class="m-pill" data-do="{action}"'
        f' data-value="{as_html(value)}"{state}>{as_html(text)}</button>'
    )


def step_bar(step: str, done: int, total: int) -> str:
    """Where a piece of work stands."""
    share = 100 * done / total if total else 0
    counted = f" · {done}/{total}" if total else ""
    return (
        f'<div class="m-progress running"><p class="m-step" role="status">{as_html(step)}{counted}'
        f'</p><div class="m-bar"><i style="width:{share:.0f}%"></i></div></div>'
    )


def score_notes(result: Result) -> str:
    """How many prompts were too long for the model and how many thoughts did not end, where some
    were or did not.
    """
    notes = ""
    if result.truncated:
        notes += (
            '<small class="m-cut" title="Too long for the model: they lost their beginning.">'
            f"{result.truncated} prompts cut</small>"
        )
    if result.unfinished:
        notes += (
            '<small class="m-cut" title="They ended inside a thought, and count as wrong.">'
            f"{result.unfinished} unfinished</small>"
        )
    return notes


def cut_remark(title: str, results: Sequence[Result]) -> str:
    """The same of several models on one benchmark, in a sentence."""
    most = max((result.truncated for result in results), default=0)
    return (
        f"{most} of {results[0].n} prompts of {title} were too long and were cut." if most else ""
    )


def answers_table(heads: Sequence[str], rows: Sequence[str]) -> str:
    """Answers, a sample a row (HTML), under titles; of many the first ones."""
    titles = "".join(f"<th>{as_html(title)}</th>" for title in heads)
    left = len(rows) - _PEEK
    more = f"<p class='m-step'>{left} more not shown</p>" if left > 0 else ""
    return (
        f'<div class="m-scroll m-answers"><table class="m-table"><thead><tr>{titles}</tr></thead>'
        f"<tbody>{''.join(rows[:_PEEK])}</tbody></table></div>{more}"
    )


def short_name(model: str) -> str:
    """A model's name without its kind, revision or folder."""
    name = model.removeprefix("zoo:").partition("@")[0]
    return name.rstrip("/").rsplit("/", 1)[-1]
