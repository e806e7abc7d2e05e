"""Benchmarks guessed from columns, over rows in the shapes that datasets have."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from morphing.benchmarks.data.dataset import read_rows
from morphing.benchmarks.data.guess import guess_benchmark
from morphing.benchmarks.data.sample import make_sample
from morphing.benchmarks.data.samples import load_samples
from morphing.errors import MorphingError
from tests.hub.server import RunningHub

Row = Mapping[str, Any]
COUNT = 12


def written(folder: Path, rows: Sequence[Row], name: str = "rows.jsonl") -> str:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return str(file)


def varied(row: Row, **series: Sequence[Any]) -> list[Row]:
    """Rows like one, some columns of which go through values."""
    return [
        {**row, **{name: values[n % len(values)] for name, values in series.items()}}
        for n in range(COUNT)
    ]


OPTIONS = ["red", "green", "blue", "grey"]
CHOICES = [
    # (rows, prompt, the first row's target and choices)
    (
        varied({"question": "Which?", "choices": OPTIONS}, answer=[2, 0]),
        "Question: Which?\nAnswer:",
        2,
    ),
    (varied({"question": "Which?", "options": OPTIONS}, answer=["C", "A"]), "Question: Which?", 2),
    (varied({"Question": "Which?", "options": OPTIONS}, answer=["blue", "red"]), "Question: ", 2),
    (
        [
            {"question": "Which?", **dict(zip("ABCD", OPTIONS, strict=True)), "answer": "BA"[n % 2]}
            for n in range(COUNT)
        ],
        "Question: Which?",
        1,
    ),
    (
        varied(
            {"question": "Which?", "choices": {"text": OPTIONS, "label": ["A", "B", "C", "D"]}},
            answerKey=["D", "B"],
        ),
        "Question: Which?",
        3,
    ),
    (
        varied(
            {
                "id": "1",
                "question": "Which?",
                "choices": [{"label": str(n + 1), "text": o} for n, o in enumerate(OPTIONS)],
            },
            answerKey=["2", "1"],
        ),
        "Question: Which?",
        1,
    ),
    (
        varied({"question": "Which?", "mc1_targets": {"choices": OPTIONS, "labels": [0, 0, 1, 0]}}),
        "Question: Which?",
        2,
    ),
    (
        varied(
            {
                "question": "Which?",
                "support": "It is so.",
                "correct_answer": "red",
                "distractor1": "green",
                "distractor2": "blue",
                "distractor3": "grey",
            }
        ),
        "It is so.\nQuestion: Which?\nAnswer:",
        0,
    ),
    (varied({"ctx": "He runs", "endings": OPTIONS}, label=["3", "0"]), "He runs", 3),
    (
        varied(
            {"goal": "Open it", "sol1": "red", "sol2": "green"},
            label=[1, 0],
        ),
        "Question: Open it",
        1,
    ),
    (
        varied(
            {"sentence": "It is _.", "option1": "red", "option2": "green"},
            answer=["2", "1"],
        ),
        "Question: It is _.",
        1,
    ),
    (
        [
            {
                "question": "何色？",
                **{f"choice{n}": o for n, o in enumerate([*OPTIONS, "black"])},
                "label": 4 - n % 5,
            }
            for n in range(COUNT)
        ],
        "Question: 何色？",
        4,
    ),
]


@pytest.mark.parametrize(("rows", "prompt", "target"), CHOICES)
def test_options(tmp_path: Path, rows: Sequence[Row], prompt: str, target: int) -> None:
    benchmark = guess_benchmark(written(tmp_path, rows))
    assert (benchmark.kind, benchmark.metric) == ("multiple_choice", "accuracy")
    samples = {s.id: s for p in ("search", "holdout") for s in load_samples(benchmark, p, COUNT)}
    first = samples["test/0"]
    assert first.prompt.startswith(prompt)
    assert first.target == target
    assert [choice.strip() for choice in first.choices][: len(OPTIONS)] == OPTIONS[
        : len(first.choices)
    ]


@pytest.mark.parametrize(
    ("rows", "prompt", "choices", "targets"),
    [
        (
            varied({"text": "Good."}, label=["positive", "negative", "positive"]),
            "Text: Good.\nLabel:",
            (" negative", " positive"),
            (1, 0),
        ),
        (
            varied({"review": "Good."}, sentiment=["pos", "neg"]),
            "Review: Good.\nSentiment:",
            (" neg", " pos"),
            (1, 0),
        ),
        (
            varied({"premise": "A.", "hypothesis": "B."}, label=["no", "so", "maybe"]),
            "Premise: A.\nHypothesis: B.\nLabel:",
            (" maybe", " no", " so"),
            (1, 2),
        ),
        (
            varied({"passage": "It is.", "question": "is it"}, answer=[True, False]),
            "Passage: It is.\nQuestion: is it\nAnswer:",
            (" no", " yes"),
            (1, 0),
        ),
    ],
)
def test_classes(
    tmp_path: Path,
    rows: Sequence[Row],
    prompt: str,
    choices: tuple[str, ...],
    targets: tuple[int, int],
) -> None:
    benchmark = guess_benchmark(written(tmp_path, rows))
    samples = {s.id: s for p in ("search", "holdout") for s in load_samples(benchmark, p, COUNT)}
    first, second = samples["test/0"], samples["test/1"]
    assert (first.prompt, first.choices) == (prompt, choices)
    assert (first.target, second.target) == targets


def test_names_of_numbered_classes(tmp_path: Path) -> None:
    import datasets

    rows = varied({"text": "Good."}, label=[1, 0])
    named = datasets.ClassLabel(names=["bad", "good"])
    table = datasets.Dataset.from_list([dict(row) for row in rows]).cast_column("label", named)
    file = tmp_path / "rows.parquet"
    table.to_parquet(file)
    benchmark = guess_benchmark(str(file))
    assert benchmark.choices == (" bad", " good")
    # Without the names the numbers are the classes, for whoever looks at them to name.
    assert guess_benchmark(written(tmp_path, rows)).choices == (" 0", " 1")


@pytest.mark.parametrize(
    ("row", "prompt", "target", "metric"),
    [
        (
            {"question": "2+2?", "answer": "It is 4.\n#### 4"},
            "Question: 2+2?\nAnswer:",
            "4",
            "numeric",
        ),
        ({"question": "2+2?", "answer": "4"}, "Question: 2+2?\nAnswer:", "4", "numeric"),
        ({"question": "2+2?", "answer_number": 4, "answer": 4.0}, "Question:", "4.0", "numeric"),
        (
            {"problem": "2+2?", "solution": "So \\boxed{\\frac{8}{2}}."},
            "2+2?\n\nReason step",
            "\\frac{8}{2}",
            "math",
        ),
        (
            {"problem": "2+2?", "solution": "See.", "answer": "4"},
            "2+2?\n\nReason step by step",
            "4",
            "math",
        ),
        (
            {
                "context": "It rains.",
                "question": "What?",
                "answers": {"text": ["rain"], "answer_start": [3]},
            },
            "It rains.\n\nQuestion: What?\nAnswer:",
            "rain",
            "f1",
        ),
        (
            {"question": "Who?", "answer": {"value": "Ada", "aliases": ["A."]}},
            "Question: Who?",
            "Ada",
            "f1",
        ),
        ({"question": "Who?", "answer": ["Ada", "A."]}, "Question: Who?", "Ada", "f1"),
        ({"question": "Who?", "answer": "Ada Lovelace"}, "Question: Who?", "Ada Lovelace", "f1"),
        (
            {
                "instruction": "Say it.",
                "input": "A",
                "output": "A long answer of many words, it is.",
            },
            "Say it.\n\nA",
            "A long answer of many words, it is.",
            "rougeL",
        ),
        (
            {"instruction": "Say it.", "input": "", "output": "A long answer of many words."},
            "Say it.",
            "A long answer of many words.",
            "rougeL",
        ),
        (
            {"prompt": "Say it.", "completion": "A long answer of many words."},
            "Say it.",
            "A long answer of many words.",
            "rougeL",
        ),
        (
            {"article": "It rained.", "highlights": "Rain fell all over the land."},
            "It rained.\n\nHighlights:",
            "Rain fell all over the land.",
            "rougeL",
        ),
        (
            {
                "messages": [
                    {"role": "system", "content": "Be."},
                    {"role": "user", "content": "Hi"},
                    {"role": "assistant", "content": "Hello"},
                ]
            },
            "Hi",
            "Hello",
            "rougeL",
        ),
        (
            {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yo"}]},
            "Hi",
            "Yo",
            "rougeL",
        ),
        (
            {"translation": {"en": "Hello", "ja": "こんにちは"}},
            "Text (en): Hello\nText (ja):",
            "こんにちは",
            "chrf",
        ),
        ({"text": "Once upon a time."}, "", "Once upon a time.", "bits_per_byte"),
    ],
)
def test_written_answers(tmp_path: Path, row: Row, prompt: str, target: str, metric: str) -> None:
    benchmark = guess_benchmark(written(tmp_path, varied(row)))
    sample = load_samples(benchmark, "search", 1)[0]
    assert sample.prompt.startswith(prompt)
    assert (sample.target, benchmark.metric) == (target, metric)
    assert benchmark.title.endswith("rows.jsonl")


def test_what_columns_are_for_can_be_said(tmp_path: Path) -> None:
    rows = varied({"Der Text": "Good.", "other": "x", "note": "of many words, it is long"})
    file = written(tmp_path, rows)
    benchmark = guess_benchmark(file, columns={"prompt": "Der Text", "target": "note"})
    sample = load_samples(benchmark, "search", 1)[0]
    assert sample.prompt == "Question: Good.\nAnswer:"
    assert sample.target == "of many words, it is long"
    asked = {"prompt": "Der Text", "choices": "other, note", "target": "other"}
    options = guess_benchmark(file, columns=asked)
    chosen = load_samples(options, "search", 1)[0]
    assert chosen.choices == (" x", " of many words, it is long")
    assert chosen.target == 0
    with pytest.raises(MorphingError, match="has no column 'absent' for the prompt: its columns"):
        guess_benchmark(file, columns={"prompt": "absent"})
    with pytest.raises(MorphingError, match="said to be the 'question': it can be prompt, con"):
        guess_benchmark(file, columns={"question": "note"})


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("Frage", "Antwort"),
        ("Aufgabe", "LÖSUNG"),
        ("pregunta", "respuesta"),
        ("question", "Réponse"),
        ("Вопрос", "Ответ"),
        ("質問", "回答"),
        ("問題", "答え"),
        ("问题", "答案"),
        ("คำถาม", "คำตอบ"),
        ("swali", "jibu"),
        ("প্রশ্ন", "উত্তর"),
        ("ప్రశ్న", "సమాధానం"),
    ],
)
def test_columns_are_known_in_the_catalogues_languages(
    tmp_path: Path, question: str, answer: str
) -> None:
    rows = varied({"note_1": "of many words, it is long", answer: "Yes.", question: "Is it so?"})
    benchmark = guess_benchmark(written(tmp_path, rows))
    assert benchmark.kind == "generation"
    sample = load_samples(benchmark, "search", 1)[0]
    assert "Is it so?" in sample.prompt and "note_1" not in benchmark.prompt
    assert sample.target == "Yes."


def test_nothing_fits(tmp_path: Path) -> None:
    file = written(tmp_path, varied({"x1": 3, "x2": 4}))
    with pytest.raises(MorphingError, match="which are x1, x2: say which of them is the prompt"):
        guess_benchmark(file)


def test_splits_with_answers_are_kept_apart(tmp_path: Path) -> None:
    labelled = varied({"ctx": "He runs", "endings": OPTIONS}, label=["3", "0"])
    hidden = varied({"ctx": "He runs", "endings": OPTIONS, "label": ""})
    for split, rows in (("train", labelled), ("validation", labelled), ("test", hidden)):
        written(tmp_path, rows, f"{split}.jsonl")
    benchmark = guess_benchmark(str(tmp_path))
    assert (benchmark.split, benchmark.holdout_split) == ("train", "validation")
    written(tmp_path, labelled, "test.jsonl")
    benchmark = guess_benchmark(str(tmp_path))
    assert (benchmark.split, benchmark.holdout_split) == ("validation", "test")
    assert guess_benchmark(str(tmp_path), split="train").holdout_split is None


def test_from_the_hub(hub: RunningHub) -> None:
    folder = hub.root / "datasets" / "alice" / "guessed"
    rows = varied({"question": "2+2?", "answer": "4"})
    for split in ("train", "test"):
        written(folder, rows, f"{split}.jsonl")
    benchmark = guess_benchmark("alice/guessed")
    assert (benchmark.name, benchmark.dataset) == ("guessed", "alice/guessed")
    assert (benchmark.split, benchmark.holdout_split) == ("train", "test")
    with pytest.raises(MorphingError, match="has no config 'hard'"):
        guess_benchmark("alice/guessed", config="hard")


@pytest.mark.testbed
@pytest.mark.parametrize(
    ("dataset", "config", "metric", "split"),
    [
        ("openai/gsm8k", None, "numeric", "test"),
        ("juletxara/mgsm", "ja", "numeric", "test"),
        ("morphing-testbed/mawps", None, "numeric", "train"),
        ("cornell-movie-review-data/rotten_tomatoes", None, "accuracy", "validation"),
    ],
)
def test_on_real_rows(
    testbed: Path, dataset: str, config: str | None, metric: str, split: str
) -> None:
    benchmark = guess_benchmark(dataset, config)
    assert (benchmark.metric, benchmark.split) == (metric, split)
    assert len(load_samples(benchmark, "search", 3)) == 3


PAIR = {"sentence1": "One.", "sentence2": "Two."}
WHOLE = [
    # What is asked has everything that it is about.
    (varied(PAIR, label=[0, 1]), ("One.", "Two.")),
    (varied({"question1": "One?", "question2": "Two?"}, label=[0, 1]), ("One?", "Two?")),
    (varied({"question": "One?", "sentence": "Two."}, label=[0, 1]), ("One?", "Two.")),
    (varied({"prompt": "One?", "completion": "Two."}, label=[True, False]), ("One?", "Two.")),
    (varied({"Body": "Three ducks.", "Question": "How many?"}, Answer=["3"]), ("Three", "many?")),
    (varied({"document": "Long.", "id": "x"}, summary=["short " * 9]), ("Long.",)),
    (
        varied(
            {"premise": "It fell.", "choice1": "a", "choice2": "b"}, question=["cause"], label=[1]
        ),
        ("It fell. because",),
    ),
    (
        varied(
            {"question_stem": "Which?", "answerKey": "B"},
            choices=[{"text": ["a", "b"], "label": ["A", "B"]}],
        ),
        ("Which?",),
    ),
    (
        varied(
            {"flores_passage": "Long.", "question": "Which?", "correct_answer_num": "3"},
            **{f"mc_answer{n}": [f"o{n}"] for n in (1, 2, 3, 4)},
        ),
        ("Long.", "Which?"),
    ),
    (
        varied(
            {"problem": "1+1?", "solution": "So \\boxed{2}"},
            messages=[[{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]],
        ),
        ("1+1?", "boxed"),
    ),
]


@pytest.mark.parametrize("case", range(len(WHOLE)))
def test_a_guess_asks_with_all_that_a_question_is_about(tmp_path: Path, case: int) -> None:
    rows, parts = WHOLE[case]
    guessed = guess_benchmark(written(tmp_path, rows))
    rows_read = read_rows(guessed, guessed.split)
    prompt = make_sample(guessed, guessed.split, rows_read[0]).prompt
    assert all(part in prompt for part in parts), prompt


@pytest.mark.parametrize(
    "row",
    [
        {"text": "Write f", "code": "def f(): pass", "test_list": ["assert f"]},
        {"question": "Which?", "choices": "['a', 'b']", "answer": "1"},
        {"question": "Which?", "options": {"A": "a", "B": "b"}, "answer": "a"},
    ],
)
def test_what_would_be_asked_in_part_is_not_guessed(tmp_path: Path, row: Row) -> None:
    with pytest.raises(MorphingError, match="can be guessed"):
        guess_benchmark(written(tmp_path, [row] * COUNT))
