"""Every declaration that ships, over made-up rows with the columns of its real dataset."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from morphing.benchmarks.benchmark import Benchmark, catalogue
from morphing.benchmarks.data import few_shot, samples
from morphing.benchmarks.data.samples import Part, load_samples
from morphing.benchmarks.judging.extract import extract_answer
from morphing.benchmarks.judging.metrics import get_metric

Row = Mapping[str, Any]
LETTERS = {"A": "one", "B": "two", "C": "three", "D": "four"}
MGSM = ("bn", "de", "en", "es", "fr", "ja", "ru", "sw", "te", "th", "zh")
PROMISED = {
    *("gsm8k", "math-500", "mmlu", "mmlu-pro", "cmmlu", "ceval", "arc-easy", "arc-challenge"),
    *("hellaswag", "winogrande", "boolq", "truthfulqa", "jcommonsenseqa", "rotten-tomatoes"),
    *(f"mgsm-{language}" for language in MGSM),
}

# By dataset: rows in the columns' shape, without the columns that nothing here uses.
ROWS: dict[str, Row] = {
    "openai/gsm8k": {"question": "1+1?", "answer": "It is 1+1=<<1+1=2>>2.\n#### 2"},
    "juletxara/mgsm": {
        "question": "1+1?",
        "answer": None,
        "answer_number": 2,
        "equation_solution": None,
    },
    "HuggingFaceH4/MATH-500": {
        "problem": "What is $1+1$?",
        "solution": "$\\boxed{2}$",
        "answer": "2",
        "subject": "Algebra",
        "level": 1,
        "unique_id": "test/1",
    },
    "cais/mmlu": {"question": "1+1?", "subject": "x", "choices": list("1234"), "answer": 1},
    "TIGER-Lab/MMLU-Pro": {
        "question_id": 1,
        "question": "1+1?",
        "options": list("123456"),
        "answer": "B",
        "answer_index": 1,
        "cot_content": "",
        "category": "math",
        "src": "x",
    },
    "haonan-li/cmmlu": {"Question": "1+1?", **LETTERS, "Answer": "B"},
    "ceval/ceval-exam": {"id": 0, "question": "1+1?", **LETTERS, "answer": "B", "explanation": ""},
    "allenai/ai2_arc": {
        "id": "1",
        "question": "1+1?",
        "choices": {"text": ["1", "2", "3"], "label": ["1", "2", "3"]},
        "answerKey": "2",
    },
    "Rowan/hellaswag": {
        "ind": 0,
        "activity_label": "Sums",
        "ctx_a": "[header] How to add [title] Begin.",
        "ctx_b": "then",
        "ctx": "How to add. Begin. then",
        "endings": ["[step] stop.", " go [substeps] on.", "sit.", "run."],
        "source_id": "x",
        "split": "train",
        "split_type": "indomain",
        "label": "1",
    },
    "allenai/winogrande": {
        "sentence": "Ann saw Bob because _ looked up.",
        "option1": "Ann",
        "option2": "Bob",
        "answer": "2",
    },
    "aps/super_glue": {"question": "is it so", "passage": "It is.", "idx": 0, "label": 1},
    "truthfulqa/truthful_qa": {
        "question": "1+1?",
        "mc1_targets": {"choices": ["3", "2"], "labels": [0, 1]},
        "mc2_targets": {"choices": ["2", "3"], "labels": [1, 0]},
    },
    "Rakuten/JGLUE": {
        "q_id": 0,
        "question": "何色？",
        **{f"choice{n}": c for n, c in enumerate("赤青白黒緑")},
        "label": 1,
    },
    "cornell-movie-review-data/rotten_tomatoes": {"text": "good .", "label": 1},
}
FOLDERS = {
    "openai/gsm8k": ["gsm8k"],
    "juletxara/mgsm": ["mgsm"],
    "HuggingFaceH4/MATH-500": ["hendrycks_math"],
    "cais/mmlu": ["mmlu", "tinyBenchmarks"],
    "TIGER-Lab/MMLU-Pro": ["mmlu_pro"],
    "haonan-li/cmmlu": ["cmmlu"],
    "ceval/ceval-exam": ["ceval"],
    "allenai/ai2_arc": ["arc"],
    "Rowan/hellaswag": ["hellaswag"],
    "allenai/winogrande": ["winogrande"],
    "aps/super_glue": ["super_glue"],
    "truthfulqa/truthful_qa": ["truthfulqa"],
    "Rakuten/JGLUE": ["japanese_leaderboard"],
}
"""Where the harness has tasks on them."""
OURS = {name: b for name, b in catalogue().items() if b.dataset in ROWS}


@pytest.fixture
def no_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows from above, numbered, instead of those of the Hub."""

    def read(benchmark: Benchmark, split: str, token: str | None = None) -> list[Row]:
        row = ROWS[benchmark.dataset]
        if split == "train" and benchmark.dataset == "juletxara/mgsm":
            row = {**row, **mgsm_example(str(benchmark.language))}
        return [row] * 10

    monkeypatch.setattr(samples, "read_rows", read)
    monkeypatch.setattr(few_shot, "read_rows", read)


def mgsm_example(language: str) -> Row:
    """Examples of MGSM have headings, the answers' as long as lm-eval takes them to be."""
    from lm_eval.tasks.mgsm.utils import LANGUAGES

    words = LANGUAGES[language]
    asked = words["QUESTION"] if words["QUESTION"].endswith("：") else f"{words['QUESTION']} "
    return {"question": f"{asked}1+1?", "answer": f"{words['ANSWER']} It is 2."}


def test_what_is_promised_is_there() -> None:
    assert set(OURS) >= PROMISED
    assert all(name == benchmark.name for name, benchmark in OURS.items())
    assert {benchmark.dataset for benchmark in OURS.values()} == set(ROWS)


@pytest.mark.parametrize("name", OURS)
def test_a_declaration_fits_its_dataset(no_data: None, name: str) -> None:
    benchmark = OURS[name]
    shots = benchmark.few_shot or (2 if benchmark.few_shot_split else 0)
    asked = benchmark.model_copy(update={"few_shot": shots})
    parts: tuple[Part, ...] = ("search", "holdout")
    for part in parts:
        sample = load_samples(asked, part, 1)[0]
        question = sample.prompt.split(benchmark.shot_separator)[-1]
        assert sample.prompt.count(question) == shots + 1, "examples are written as questions are"
        if benchmark.dataset == "juletxara/mgsm":
            assert sample.prompt.count(" It is 2.\n") == shots
        assert "{{" not in sample.prompt and question.strip()
        if benchmark.kind == "multiple_choice":
            assert sample.target == 1
            assert len(set(sample.choices)) == len(sample.choices) > 1
        else:
            metric = get_metric(benchmark.metric, benchmark.language)
            for right, answer in ((1.0, "so 2"), (0.0, "so 3")):
                text = answer if benchmark.extract != "boxed" else f"\\boxed{{{answer[-1]}}}"
                found = extract_answer(benchmark.extract, text, benchmark.language)
                assert metric(found, str(sample.target)) == right
            assert all(stop not in question for stop in benchmark.stop)


@pytest.mark.parametrize("name", OURS)
def test_a_declaration_keeps_to_the_rules(name: str) -> None:
    benchmark = OURS[name]
    assert benchmark.title and benchmark.language
    assert benchmark.description.endswith(".") and benchmark.description.isprintable()
    assert benchmark.revision is None, "a revision is resolved when a run starts"
    assert benchmark.few_shot == 0 or benchmark.few_shot_split
    if benchmark.contaminates:
        assert "share" in benchmark.description, "what is shared is said"
    if benchmark.kind == "generation":
        assert benchmark.chat, "asked as the model is used to be asked"


@pytest.mark.parametrize("name", [n for n, b in OURS.items() if b.dataset in FOLDERS])
def test_ids_and_configs_are_the_harness_own(name: str) -> None:
    """As lm-eval's task files name them; MMLU's `all`, its subjects together, is tinyMMLU's too."""
    import lm_eval

    benchmark = OURS[name]
    tasks = Path(lm_eval.__file__).parent / "tasks"
    files = [f for folder in FOLDERS[benchmark.dataset] for f in (tasks / folder).rglob("*yaml")]
    text = "\n".join(file.read_text(encoding="utf-8").replace('"', "") for file in files)
    assert re.search(rf"^dataset_path: {benchmark.dataset}\b", text, re.M)
    configs = benchmark.config if isinstance(benchmark.config, tuple) else (benchmark.config,)
    named = set(re.findall(r"^dataset_name: ([\w.-]+)", text, re.M))
    assert {config for config in configs if config is not None} <= named
