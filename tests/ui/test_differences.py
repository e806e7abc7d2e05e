"""Two models answer by answer."""

from __future__ import annotations

import math

import pytest

from morphing.runs.outputs import Row
from morphing.runs.pairs import lead, pairs_of
from morphing.ui.objectives import Objective
from morphing.ui.watch.differences import differences


def row(name: str, answer: str, score: float) -> Row:
    return {"id": name, "prompt": f"Q{name}", "target": "t", "answer": answer, "score": score}


MINE = [row("1", "t", 1.0), row("2", "t", 1.0), row("3", "no", 0.0), row("4", "a", 0.0)]
OTHER = [row("4", "b", 0.0), row("3", "t", 1.0), row("2", "t", 1.0), row("1", "<b>", 0.0)]


def test_samples_are_paired_by_their_ids() -> None:
    pairs = pairs_of(MINE, OTHER[:3])
    assert [(pair.mine["id"], pair.verdict) for pair in pairs] == [
        ("2", "both"),
        ("3", "behind"),
        ("4", "neither"),
    ]


def test_the_lead_is_of_pairs() -> None:
    ahead, error = lead(pairs_of(MINE, OTHER))
    assert ahead == 0.0
    assert error == pytest.approx(math.sqrt(2 / 3 / 4))
    assert lead(pairs_of(MINE[:1], OTHER)) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("kind", "asked"),
    [("differ", "134"), ("ahead", "1"), ("behind", "3"), ("neither", "4")],
)
def test_each_kind_of_difference_can_be_seen(kind: str, asked: str) -> None:
    html = differences(pairs_of(MINE, OTHER), kind, "Trial 1", "base")
    assert [name for name in "1234" if f"Q{name}<" in html] == list(asked)
    assert "only Trial 1 <b>1</b>" in html and "both right <b>1</b>" in html


def test_partial_scores_are_compared_too() -> None:
    pairs = pairs_of([row("1", "a", 0.6)], [row("1", "b", 0.4)])
    assert pairs[0].verdict == "ahead"
    assert "0.60" in differences(pairs, "differ", "Trial 1", "base")


def test_answers_are_escaped_and_nothing_in_common_is_said() -> None:
    html = differences(pairs_of(MINE, OTHER), "differ", "<i>", "base")
    assert "&lt;b&gt;" in html and "<i>" not in html
    prose = Objective("prose", "Prose", maximised=False, share=False)
    bits = differences(pairs_of(MINE, OTHER), "ahead", "Trial 1", "base", prose)
    assert "less is better" in bits and "less is better" not in html
    assert "points" not in bits and "✓" not in bits and "✗" not in bits
    assert "no sample in common" in differences([], "differ", "a", "b")
