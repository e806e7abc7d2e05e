"""Columns are mapped by a click, what is guessed is seen first, and what is shown is harmless."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from morphing.benchmarks.data.draft import ROLES, Draft, choices_of, choices_text, draft_of, moved
from morphing.errors import MorphingError
from morphing.ui.compose.choice import Choice, Settings
from morphing.ui.compose.own_cards import workshop

ROWS = [
    {"q": f"Which is a{n}?", "opts": ["x", f"a{n}", "y"], "right": "B", "note": f"hint {n}"}
    for n in range(9)
]


def file_of(tmp_path: Path, rows: list[dict[str, Any]], name: str = "mine.jsonl") -> str:
    path = tmp_path / name
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


def roles(draft: Draft) -> dict[str, str]:
    return {name: draft.role(name) for name in draft.columns}


@pytest.fixture
def questions(tmp_path: Path) -> Draft:
    rows = [{"question": f"What is {n} + 1?", "answer": n + 1, "hint": f"{n}"} for n in range(9)]
    return draft_of(file_of(tmp_path, rows))


def test_a_guess_is_shown_filled_in(questions: Draft) -> None:
    assert questions.guessed and roles(questions)["question"] == "prompt"
    assert questions.role("answer") == "target" and questions.role("hint") == "unused"
    assert [sample.target for sample in questions.examples()] == ["1", "4", "7"]
    assert questions.fields["title"] == "mine.jsonl"
    html = workshop(questions)
    assert html.count("m-example") == 3 and "What is 3 + 1?" in html


def test_a_click_gives_a_column_another_role(questions: Draft) -> None:
    more = questions.after_role("hint", "prompt")
    assert not more.guessed and roles(more) == {**roles(questions), "hint": "prompt"}
    assert "0" in more.examples()[0].prompt and "What is 0 + 1?" in more.examples()[0].prompt
    other = questions.after_role("hint", "target")
    assert roles(other) == {"question": "prompt", "answer": "unused", "hint": "target"}
    assert other.examples()[1].target == "3"
    for column in questions.columns:
        for role in ROLES:
            assert questions.after_role(column, role).role(column) == role
    assert questions.after_role("nothing", "prompt") is questions


def test_where_nothing_can_be_guessed_columns_are_mapped_by_hand(tmp_path: Path) -> None:
    draft = draft_of(file_of(tmp_path, ROWS))
    assert set(roles(draft).values()) == {"unused"}
    assert "could not be guessed" in workshop(draft) and "m-mapping" in workshop(draft)
    assert "m-error" not in workshop(draft)
    draft = draft.after_role("q", "prompt")
    assert "could not be guessed" not in workshop(draft) and "m-error" in workshop(draft)
    draft = draft.after_role("opts", "choices")
    draft = draft.after_role("right", "target")
    assert draft.benchmark.kind == "multiple_choice"
    first = draft.examples()[0]
    assert (first.choices, first.target) == ((" x", " a0", " y"), 1)
    assert 'class="right">a0' in workshop(draft)
    plain = draft.after_role("opts", "unused")
    assert plain.benchmark.kind == "generation" and plain.examples()[0].target == "B"


def test_what_is_written_by_hand_is_kept_and_its_mistakes_are_told(questions: Draft) -> None:
    changed = questions.after_field("prompt", "{{ question }} Quick!")
    assert changed.examples()[0].prompt.endswith("Quick!")
    broken = questions.after_field("prompt", "{{ question")
    assert broken.fields["prompt"] == "{{ question"
    assert "m-error" in workshop(broken) and "m-example" not in workshop(broken)
    absent = questions.after_field("target", "{{ solution }}")
    with pytest.raises(MorphingError, match="question, answer, hint"):
        absent.examples()
    chosen = questions.after_field("kind", "multiple_choice")
    chosen = chosen.after_field("choices", choices_of(" {{ answer }}\n no")).after_field(
        "target", "0"
    )
    assert chosen.benchmark.metric == "accuracy"
    assert chosen.examples()[0].choices == (" 1", " no")


@pytest.mark.parametrize("text", ["opts | map('prefixed', ' ')", " {{ a }}\n {{ b }}", ""])
def test_options_are_written_as_an_expression_or_line_by_line(text: str) -> None:
    assert choices_text(choices_of(text)) == text


def test_another_split_brings_its_own_rows(tmp_path: Path) -> None:
    for split in ("train", "test"):
        rows = [{"question": f"{split} {n}", "answer": str(n)} for n in range(9)]
        file_of(tmp_path, rows, f"{split}.jsonl")
    draft = draft_of(str(tmp_path))
    assert set(draft.splits) == {"train", "test"}
    other = moved(draft, "split", "train" if draft.fields["split"] == "test" else "test")
    assert other.examples()[0].prompt != draft.examples()[0].prompt
    with pytest.raises(MorphingError):
        moved(draft, "split", "nowhere")


def test_what_is_taken_goes_into_the_spec(questions: Draft) -> None:
    choice = Choice.zoo().adding(questions.benchmark, "objective")
    spec = choice.spec(Settings(evaluations=5, samples=2, holdout=2))
    assert spec.benchmarks[-1].declaration == questions.benchmark
    assert spec.objectives[-2] == "mine"
    reported = choice.adding(questions.after_field("chat", False).benchmark, "report")
    assert reported.roles["mine"] == "report" and len(reported.own) == 1
    assert "mine" not in choice.after("off", "mine").roles
    assert "mine" in choice.after("off", "mine").known
    taken = questions.after_field("name", "gsm8k").benchmark
    with pytest.raises(MorphingError, match="gsm8k"):
        choice.adding(taken, "objective")


def test_data_from_outside_is_escaped(tmp_path: Path) -> None:
    bad = "<img src=x onerror=alert(1)>"
    rows = [{"question": bad, "answer": bad, bad: bad} for _ in range(9)]
    html = workshop(draft_of(file_of(tmp_path, rows)))
    assert "<img" not in html and "&lt;img" in html
