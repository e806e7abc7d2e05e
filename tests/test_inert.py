"""Text from outside is text and nothing else: in a terminal, in HTML, in JSON and YAML."""

from __future__ import annotations

import io
import json
import logging
import sys
import unicodedata

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table

from morphing.benchmarks.benchmark import Benchmark
from morphing.cli import terminal
from morphing.cli.tables import described
from morphing.inert import as_html, make_logs_inert, one_line, visible
from morphing.merging.recipe import Recipe
from morphing.runs.trial import Trial

HOSTILE = (
    "could not convert string to float: '[/INST] 42'",
    "[red]danger[/red] [batch, seq] [link=http://x.y]z[/link]",
    "\x1b[2J\x1b]0;title\x07 gone \x9b31m",
    "a\rb\bc\x7f",
    "\u202egnp.exe\u2066 \u2028",
    ":smile: :warning:",
    "lone \ud800 surrogate",
    "{task.description} {0} %s",
)
texts = st.text(st.characters(), max_size=40) | st.sampled_from(HOSTILE)


def is_inert(text: str) -> bool:
    """Nothing in it moves a cursor or turns text around, and it can be written as UTF-8."""
    text.encode()
    overrides = set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u2028\u2029")
    return not any(
        c in overrides or (unicodedata.category(c) == "Cc" and c not in "\n\t") for c in text
    )


@given(texts)
def test_what_is_made_visible_is_inert_and_stays_as_it_is(text: str) -> None:
    for made in (visible(text), visible(text, lines=True), one_line(text), as_html(text)):
        assert is_inert(made)
    assert visible(visible(text)) == visible(text)
    assert "\n" not in visible(text) + one_line(text)
    assert "<" not in as_html(text) and '"' not in as_html(text)


@pytest.mark.parametrize("text", HOSTILE)
def test_what_is_logged_steers_no_terminal(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    last = logging.StreamHandler(screen)
    monkeypatch.setattr(logging, "lastResort", last)
    make_logs_inert()
    try:
        raise ValueError(text)
    except ValueError:
        record = logging.LogRecord("x", 30, "f", 1, "left out: %s", (text,), sys.exc_info())
    last.handle(record)
    assert is_inert(screen.getvalue()) and visible(text, lines=True) in screen.getvalue()


@given(st.dictionaries(texts, texts, max_size=3))
def test_json_and_yaml_made_visible_say_the_same(data: dict[str, str]) -> None:
    assert json.loads(visible(json.dumps(data, ensure_ascii=False), lines=True)) == data


@pytest.mark.parametrize("text", [*HOSTILE[:5], "two\nlines \u202e of it", "it's \u202e"])
def test_a_benchmark_shown_as_yaml_can_be_read_again(text: str) -> None:
    benchmark = Benchmark(
        name="mine", kind="generation", dataset="rows.csv", prompt=text.replace("{", ""), target="x"
    )
    shown = visible(described(benchmark), lines=True)
    assert is_inert(shown)
    assert Benchmark.model_validate(yaml.safe_load(shown)) == benchmark


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("coloured", [True, False])
def test_a_terminal_shows_any_string_as_it_is_written(text: str, coloured: bool) -> None:
    screen = io.StringIO()
    console = terminal._Plain(file=screen, width=200, force_terminal=coloured, no_color=True)
    table = Table(title=text, caption=text)
    table.add_column(text)
    table.add_row(text)
    console.print(table)
    console.print(text, soft_wrap=True)
    failed = Trial(7, {}, Recipe({}), error=text)
    console.print(terminal._line(None, failed), soft_wrap=True)  # type: ignore[arg-type]
    with terminal._progress(terminal.step_columns(), console) as bar:
        bar.add_task(one_line(text), total=3)
        bar.refresh()
    printed = screen.getvalue()
    for shown in {visible(text, lines=True), one_line(text)}:
        assert shown in printed
    if not coloured:
        assert is_inert(printed)
    assert "\x1b[2J" not in printed and "\u202e" not in printed and "\x9b" not in printed
