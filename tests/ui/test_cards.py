"""Small pieces of HTML."""

from __future__ import annotations

from morphing.runs.trial import Result
from morphing.ui.cards import cut_remark, score_notes


def test_cut_prompts_are_said_where_there_are_some() -> None:
    assert score_notes(Result(0.5, 40, 0.1)) == ""
    assert "3 prompts cut" in score_notes(Result(0.5, 40, 0.1, 3))
    assert "2 unfinished" in score_notes(Result(0.5, 40, 0.1, unfinished=2))
    scored = [Result(0.5, 40, 0.1, truncated) for truncated in (0, 7, 2)]
    assert cut_remark("GSM8K", scored) == "7 of 40 prompts of GSM8K were too long and were cut."
    assert cut_remark("GSM8K", scored[:1]) == cut_remark("GSM8K", []) == ""
