"""What scores depend on is recorded with them, and told where it changes."""

from __future__ import annotations

import dataclasses
import json
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

from morphing.benchmarks.results import Conditions as Made
from morphing.benchmarks.results import Output, Score
from morphing.errors import MorphingError
from morphing.publishing.card import model_card
from morphing.publishing.publish import card_facts
from morphing.runs.conditions import (
    conditions_here,
    conditions_of,
    described_conditions,
    mixed,
    unfinished_remark,
)
from morphing.runs.evaluation import evaluate_recipe
from morphing.runs.plain_recipes import alone
from morphing.runs.prepare import create_run
from morphing.runs.records import Record, read_record, write_record
from morphing.runs.run import Run
from morphing.runs.spec import RunSpec, parse_spec
from morphing.runs.trial import Conditions, Result
from morphing.runs.workbench import Workbench
from tests.runs.recording import tell

CPU = Conditions("cpu", "bfloat16", None, 128, "auto", {"torch": "2.13.0"})


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, None),
        ({"rows": 64}, None),
        ({"thinking": "on"}, None),
        ({"device": "cuda (NVIDIA H100)"}, "different devices (cpu, cuda (NVIDIA H100)):"),
        ({"dtype": "float32"}, "different dtypes (bfloat16, float32):"),
        ({"batch_size": 8}, "different batch sizes (automatic, 8):"),
        ({"versions": {"torch": "2.14.0"}}, "different versions of torch (2.13.0, 2.14.0):"),
        ({"versions": {}}, "different versions of torch (2.13.0, unknown):"),
        (
            {"device": "mps", "batch_size": 1},
            "different devices (cpu, mps) and batch sizes (automatic, 1):",
        ),
    ],
)
def test_what_differs_is_told(changes: dict[str, object], told: str | None) -> None:
    found = mixed([CPU, dataclasses.replace(CPU, **changes), CPU])  # type: ignore[arg-type]
    assert found is None if told is None else found is not None and told in found
    assert mixed([]) is None


def test_conditions_in_words() -> None:
    assert described_conditions(CPU) == "bfloat16, on cpu, in batches of at most 128, torch 2.13.0"
    asked = dataclasses.replace(CPU, batch_size=8, thinking="off", versions={})
    assert described_conditions(asked) == "bfloat16, on cpu, in batches of 8, thinking off"


def test_unfinished_answers_are_told() -> None:
    outputs = [Output(str(n), "", "", "", "", 0.0, 5, "hm", n < 3) for n in range(8)]
    made = Made("cpu", "float32")
    score = Score.of(outputs, 0, 1.0, generated=True, remarks=("Look.",), conditions=made)
    result = Result.of(score)
    assert (result.unfinished, result.remarks) == (3, ("Look.",))
    assert "Up to 3 of 8 answers to GSM8K ended inside a thought" in unfinished_remark(
        "GSM8K", [Result(0.5, 8, 0.1), result]
    )
    assert unfinished_remark("GSM8K", [Result(0.5, 8, 0.1)]) == unfinished_remark("GSM8K", []) == ""


def test_records_keep_them_and_old_ones_are_read(tmp_path: Path) -> None:
    path = tmp_path / "00.json"
    result = Result(0.5, 4, 0.1, 1, 2.0, 3, ("Look.",), CPU)
    write_record(path, Record({"a": result}, {"layers": 2.0}, "zoo:base"), {})
    assert read_record(path).results["a"] == result
    old = {"results": {"a": {"value": 0.5, "n": 4, "stderr": 0.1}}, "measures": {"layers": 2.0}}
    path.write_text(json.dumps(old))
    assert read_record(path).results["a"] == Result(0.5, 4, 0.1)
    broken = {"results": {"a": {"value": 0.5, "n": 4, "stderr": 0.1, "conditions": "cpu"}}}
    path.write_text(json.dumps(broken))
    with pytest.raises(MorphingError, match=r"00\.json"):
        read_record(path)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """References and one trial of the zoo, scored here."""
    spec = {
        "base": "zoo:base",
        "sources": ["zoo:english-math", "zoo:word-games"],
        "benchmarks": [{"benchmark": "zoo-english-arithmetic", "samples": 4, "holdout": 4}],
        "device": "cpu",
    }
    made = create_run(tmp_path_factory.mktemp("conditions") / "run", parse_spec(spec))
    bench = Workbench(made)
    bench.reference_results("search")
    recipe = alone("zoo:english-math", made.spec)
    tell(made, evaluate_recipe(made, bench, recipe), recipe)
    return made


def test_a_run_records_what_its_scores_depend_on(run: Run) -> None:
    found = conditions_of(run)
    assert len(found) == 4 and mixed(found) is None
    assert (found[0].device, found[0].dtype, found[0].batch_size) == ("cpu", "float32", None)
    assert found[0].rows is not None and found[0].rows > 0
    assert found[0].versions == {name: version(name) for name in ("torch", "transformers")}
    assert mixed([*found, conditions_here(run)]) is None


def test_another_batch_is_told_at_resume_and_on_the_card(run: Run, tmp_path: Path) -> None:
    path = run.folder / "spec.yaml"
    before = path.read_text()
    data = yaml.safe_load(before)
    path.write_text(yaml.safe_dump(data | {"batch_size": 1}))
    try:
        again = Run(run.folder)
        told = mixed([*conditions_of(again), conditions_here(again)])
        assert told is not None and "different batch sizes (automatic, 1)" in told
        text = model_card(card_facts(again, 0, "x"), "x")
        assert "Scored in float32, on cpu, in batches of at most" in text
        assert "different batch sizes" not in text, "nothing was scored so yet"
    finally:
        path.write_text(before)


def test_thinking_is_said_by_a_run(small_spec: RunSpec) -> None:
    data = small_spec.model_dump()
    asked = [{"benchmark": "gsm8k", "thinking": "off"}, {"benchmark": "math-500"}]
    off, auto = parse_spec(data | {"benchmarks": asked}).benchmarks
    assert (off.declaration.thinking, auto.declaration.thinking) == ("off", "auto")
    with pytest.raises(MorphingError, match="only chats whose answers are written"):
        parse_spec(data | {"benchmarks": [{"benchmark": "mmlu", "thinking": "on"}]})
