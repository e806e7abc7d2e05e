"""The catalogue can be looked through; what cannot be scored here says why."""

from __future__ import annotations

import re

import pytest

from morphing.benchmarks.benchmark import catalogue
from morphing.benchmarks.kinds.table import KINDS
from morphing.ui.compose.cards import benchmarks
from morphing.ui.compose.catalogue import offer
from morphing.ui.compose.choice import Choice
from morphing.ui.compose.words import LANGUAGES, OWN_SKILL, skill_of


def offered(html: str) -> set[str]:
    return set(re.findall(r'data-do="(?:objective|off)"(?: disabled)? data-value="([^"]+)"', html))


def test_every_benchmark_has_a_skill_a_kind_and_a_language_people_read() -> None:
    for benchmark in catalogue().values():
        assert skill_of(benchmark) != OWN_SKILL, benchmark.name
        assert benchmark.kind in KINDS
        assert benchmark.language is None or benchmark.language in LANGUAGES


def test_all_that_is_not_chosen_is_offered_once() -> None:
    choice = Choice.zoo()
    assert offered(offer(choice)) == set(catalogue()) - set(choice.roles)
    taken = choice.after("objective", "gsm8k")
    assert "gsm8k" not in offered(offer(taken))
    assert "GSM8K" in benchmarks(taken) and "m-caution" in benchmarks(taken)
    assert "m-caution" not in benchmarks(choice.after("objective", "rotten-tomatoes"))


def test_words_and_skills_narrow_it_down() -> None:
    choice = Choice.zoo()
    assert offered(offer(choice, "japanese maths")) == {"mgsm-ja"}
    assert "gsm8k" in offered(offer(choice, "", "Maths"))
    assert "hellaswag" not in offered(offer(choice, "", "Maths"))
    assert offered(offer(choice, "no such thing")) == set()
    assert "<script" not in offer(choice, "<script>")


def test_languages_of_one_benchmark_share_a_row() -> None:
    html = offer(Choice.zoo().after("objective", "mgsm-ja"), "mgsm")
    assert html.count("<li") == 1
    assert re.search(r'data-do="off" data-value="mgsm-ja" aria-pressed="true"', html)


def test_code_is_shown_switched_off_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MORPHING_ALLOW_CODE", raising=False)
    html = offer(Choice.zoo(), "humaneval chat")
    assert html.count(" disabled") == 2 and "--allow-code" in html
    monkeypatch.setenv("SPACE_ID", "org/morphing")
    assert "owner" in offer(Choice.zoo(), "humaneval chat")
