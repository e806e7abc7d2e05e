"""Templates of others take neither the process nor its memory, and run nothing."""

from __future__ import annotations

import os
import resource
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from morphing.benchmarks.benchmark import Benchmark, parse_benchmark
from morphing.benchmarks.data.sample import make_sample
from morphing.benchmarks.data.templates import evaluate_list, render
from morphing.errors import MorphingError
from morphing.rendering import process
from morphing.rendering.limits import CHARACTERS
from morphing.rendering.process import (
    NameUndefined,
    TemplateFailed,
    TemplateUnbounded,
    render_messages,
)

ROW = {"text": "a row", "n": 3, "list": ["a", "b"]}
ENDLESS = [
    "{% for a in range(99999) %}{% for b in range(99999) %}{{ a }}{% endfor %}{% endfor %}",
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "{% for a in 'x' * 99999 %}{% for b in 'x' * 99999 %}{{ a ~ b }}{% endfor %}{% endfor %}",
    "{{ 'a' * 20_000_000_000 }}",
    "{% set x = 'a' * 20_000_000_000 %}",
    "{{ [0] * 20_000_000_000 }}",
    "{{ '%1000000000d' % 1 }}",
    "{{ '%*d' % (1000000000, 1) }}",
    "{{ '{:>1000000000}'.format(1) }}",
    "{{ '{:>{}}'.format(1, 1000000000) }}",
    "{{ 'a' | center(10**9) }}",
    "{{ 'a'.center(10**9) }}",
    "{{ 'a'.ljust(10**9) ~ 'a'.rjust(10**9) ~ '1'.zfill(10**9) }}",
    "{{ '\\t'.expandtabs(10**10) }}",
    "{{ 9 ** (9 ** 9) }}",
    "{{ 7 ** 99999999 % 3 }}",
    "{{ (10**9).to_bytes(10**10, 'big') }}",
    "{{ ('a' * 99999).replace('', 'b' * 99999) }}",
    "{{ ('a' * 99999) | replace('a', 'b' * 99999) }}",
    "{{ (['a' * 99999] * 99999) | join('b' * 99999) }}",
    "{{ ('b' * 99999).join(['a'] * 99999) }}",
    "{% macro m(n) %}{{ m(n + 1) }}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}",
    "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}x{% endmacro %}{{ m(60) }}",
    "{% set n = namespace(s='aa') %}{% for i in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
    "{% set n = namespace(s='a') %}{% for i in range(60) %}{% set n.s = n.s + n.s %}{% endfor %}",
    "{% set n = namespace(l=[1]) %}{% for i in range(60) %}{% set n.l = [n.l, n.l] %}{% endfor %}"
    "{{ n.l == [n.l[0], [n.l[1][0], [1]]] }}{{ n.l }}",
    "{% for x in list recursive %}{{ loop(list) }}{% endfor %}",
    "{{ lipsum(n=10**9) }}",
    "{{ 'a' | indent(10**10, first=True) }}",
    "{{ [1] | batch(10**9, 0) | list }}",
    "{{ [1] | slice(10**9) | list }}",
    "{{ list | tojson(indent=10**9) }}",
    "{{ ('a ' * 9999999) | wordwrap(1, wrapstring='b' * 99999) }}",
    "{% filter center(10**9) %}{{ text }}{% endfilter %}",
    "{% set x %}{% for a in range(99999) %}{{ 'a' * 99999 }}{% endfor %}{% endset %}",
    "{{ range(10**12) | list }}",
    "{% include 'x' %}",
    "{% import 'x' as x %}",
]
ESCAPES = [
    "{{ ''.__class__.__mro__ }}",
    "{{ [].append.__self__ }}{{ ().__class__ }}",
    "{{ self.__init__.__globals__ }}",
    "{{ cycler.__init__.__globals__.os.system('true') }}",
    "{{ '{0.__class__}'.format(1) }}",
    "{{ text|attr('__class__') }}",
    "{% set x = list.append('c') %}{{ list }}",
]


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What would take hours is given up after less than in earnest."""
    monkeypatch.setattr(process, "SECONDS", 0.3)


def peak() -> int:
    """Bytes of memory that this process had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.parametrize("source", ENDLESS)
def test_a_template_is_bounded(source: str) -> None:
    """As a benchmark's template: it is declared, and fails over a row in one sentence."""
    before = peak()
    try:
        benchmark = declare(prompt=source)
        with pytest.raises(MorphingError) as caught:
            make_sample(benchmark, "test/0", ROW)
    except MorphingError as error:  # some are no templates at all
        assert "Jinja template" in str(error)
    else:
        assert str(caught.value).count("\n") == 0 and len(str(caught.value)) < 1000
    assert peak() - before < 200 * 2**20
    assert render("{{ text }}", ROW) == "a row", "what comes after is rendered as ever"


@pytest.mark.parametrize("source", ["range(10**12)", "['a' * 10**11, 'b']", "'a' * 10**11", "7"])
def test_an_expression_is_bounded(source: str) -> None:
    with pytest.raises(TemplateFailed):
        evaluate_list(source, ROW)


@pytest.mark.parametrize("source", ENDLESS[::9])
def test_a_chat_template_is_bounded(source: str) -> None:
    """Templates come with models; transformers alone would render them in this process."""
    before = peak()
    with pytest.raises(TemplateFailed):
        render_messages(source, [{"role": "user", "content": "?"}], {"text": "x", "list": [1, 2]})
    assert peak() - before < 200 * 2**20


@pytest.mark.parametrize("source", ESCAPES)
@pytest.mark.parametrize(
    "rendered",
    [
        lambda source: render(source, ROW),
        lambda source: render_messages(source, [{"role": "user", "content": "?"}], dict(ROW)),
    ],
    ids=["row", "chat"],
)
def test_a_template_reaches_nothing_but_its_values(
    source: str, rendered: Callable[[str], str]
) -> None:
    with suppress(TemplateFailed):
        assert rendered(source) == "", "transformers shows what is not there as nothing"


def test_what_is_rendered_is_what_jinja_renders() -> None:
    """Whatever a row holds; as in this process, to the letter."""
    import datetime

    from morphing.benchmarks.data.templates import environment

    row: dict[str, Any] = {
        "text": "Ünïcödé 日本語 \u2028 <b> & {{ }}",
        "when": datetime.date(2024, 2, 29),
        "nested": {"a": [1, 2.5, None, True], "b": {"c": "d"}},
        "two words": "x\r\ny",
        "lone": "\ud800",
        "bytes": b"\x00\xff",
    }
    for source in (
        "{{ text }}|{{ when.year }}|{{ nested.a | map('string') | join(',') }}",
        "{{ row['two words'] }}\r\nplain\rtext\n",
        "{{ nested | tojson }}{% for k in nested.items() %}{{ k }}{{ loop.index }}{% endfor %}\n",
        "plain\r\ntext\rwithout\n",
        "{{ lone }}{{ bytes }}{{ '\\\\boxed{3}' | boxed }}",
    ):
        expected = environment().from_string(source).render({**row, "row": row})
        assert render(source, row) == expected
    assert evaluate_list("nested.a | map('prefixed', ' ')", row) == (" 1", " 2.5", " None", " True")
    with pytest.raises(NameUndefined, match="'absent' is undefined"):
        render("{{ absent }}", row)


def test_values_that_cannot_travel_are_their_texts() -> None:
    class Opened:
        def __str__(self) -> str:
            return "a video"

        def __reduce__(self) -> Any:
            raise TypeError("open files do not travel")

    assert (
        render("{{ text }} of {{ video }}", {"text": "row", "video": Opened()}) == "row of a video"
    )


def test_long_texts_are_rendered_and_longer_ones_refused() -> None:
    row = {"text": "x" * (CHARACTERS - 10)}
    assert len(render("{{ text }}", row)) == CHARACTERS - 10
    with pytest.raises(TemplateUnbounded, match="writes more than"):
        render("{{ text }}{{ text }}", row)


def test_the_process_has_no_tokens_and_starts_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    process._renderer.close()
    assert render("{{ text }}", ROW) == "a row"
    child = process._renderer._child
    assert child is not None
    environment = Path(f"/proc/{child.pid}/environ")
    if environment.exists():
        assert b"hf_secret" not in environment.read_bytes()
    child.kill()
    child.wait()
    assert render("{{ text }}", ROW) == "a row"
    assert process._renderer._child is not child


def test_threads_get_their_own_texts() -> None:
    found: dict[int, set[str]] = {}

    def many(number: int) -> None:
        found[number] = {render("{{ n }}", {"n": number}) for _ in range(50)}

    threads = [threading.Thread(target=many, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: {str(number)} for number in range(4)}


def test_a_fork_has_a_process_of_its_own() -> None:
    assert render("{{ text }}", ROW) == "a row"
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        try:
            os.write(writing, render("{{ text }}!", ROW).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as said:
        assert said.read() == "a row!"
    os.waitpid(child, 0)
    assert render("{{ text }}", ROW) == "a row"


def declare(**fields: Any) -> Benchmark:
    given: Mapping[str, Any] = {
        "name": "toy",
        "dataset": "org/toy",
        "kind": "generation",
        "target": "{{ text }}",
        **fields,
    }
    return parse_benchmark(given, "It")


def test_nothing_else_renders() -> None:
    """A template that is rendered in this process has no limits."""
    package = Path(process.__file__).parents[1]
    words = ("apply_chat_template(", ".from_string(", "compile_expression(")
    found = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        if any(word in path.read_text(encoding="utf-8") for word in words)
    }
    assert found == {
        "rendering/chat.py",  # of tokenizers whose chats are no templates
        "rendering/inside.py",
        "benchmarks/harness/model.py",  # the harness's name for ours
        "zoo/measure.py",  # a tool for making the zoo, with its own models
    }
