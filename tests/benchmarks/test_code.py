"""Answers that are programs; rows of our own in the columns of HumanEval and MBPP."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from morphing.benchmarks.benchmark import Benchmark, get_benchmark
from morphing.benchmarks.data.sample import Sample
from morphing.benchmarks.data.samples import load_samples
from morphing.benchmarks.evaluate import evaluate
from morphing.benchmarks.judging.extract import extract_answer
from morphing.benchmarks.kinds import code
from morphing.benchmarks.kinds.code import score_all
from morphing.benchmarks.sandbox.check import check_sandbox
from morphing.benchmarks.sandbox.run import Limits, run_program
from morphing.errors import MorphingError

Declare = Callable[..., Benchmark]
HUMANEVAL = {
    "task_id": "Own/0",
    "prompt": 'def double(number: int) -> int:\n    """Twice the number.\n    """\n',
    "canonical_solution": "    return 2 * number\n",
    "test": "def check(candidate):\n    assert candidate(4) == 8\n    assert candidate(-1) == -2\n",
    "entry_point": "double",
}
MBPP = {
    "task_id": 11,
    "text": "Write a function that triples a number.",
    "code": "def triple(number):\r\n  return 3 * number",
    "test_list": ["assert triple(2) == 6", "assert triple(0) == START", "assert triple(-1) == -3"],
    "test_setup_code": "START = 0",
    "challenge_test_list": [],
}
RIGHT = "def triple(number):\n    return 3 * number"


@pytest.fixture
def allowed(sandbox: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MORPHING_ALLOW_CODE", "1")


def rows_of(declare: Declare, name: str, row: dict[str, object]) -> tuple[Benchmark, Sample]:
    """A benchmark of the catalogue over a row of ours, and its sample."""
    known = get_benchmark(name).model_dump(exclude={"dataset", "config", "revision"})
    benchmark = declare({split: [row, row, row, row] for split in ("train", "test")}, **known)
    if benchmark.few_shot:
        benchmark = declare({"prompt": [row, row, row]}, **known)
    return benchmark, load_samples(benchmark, "search", 1)[0]


@pytest.mark.parametrize(
    ("answer", "passed"),
    [
        (RIGHT, True),
        ("def triple(number):\n    return 2 * number", False),
        ("def triple(number):\n    raise ValueError(number)", False),
        ("def triple(number):\n    while True: pass", False),
        ("import sys\nsys.exit(0)", False),
        ("", False),
    ],
    ids=["right", "wrong", "raising", "endless", "leaving", "empty"],
)
def test_scores(
    allowed: None,
    declare: Declare,
    monkeypatch: pytest.MonkeyPatch,
    answer: str,
    passed: bool,
) -> None:
    quick = functools.partial(run_program, limits=Limits(cpu_seconds=1))
    monkeypatch.setattr(code, "run_program", quick)
    benchmark, sample = rows_of(declare, "mbpp", MBPP)
    (execution,) = score_all(benchmark, [sample], [answer])
    assert execution.passed == passed


def test_a_model_is_scored_by_running_what_it_writes(
    allowed: None,
    declare: Declare,
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    rows = [{"holds": "1 == 1"}, {"holds": "1 == 2"}] * 4
    benchmark = declare(
        {"test": rows},
        kind="code",
        prompt="# ",
        target="",
        program="answer = {{ answer | tojson }}\nassert {{ holds }}",
        max_new_tokens=4,
    )
    samples = load_samples(benchmark, "search", 4)
    score = evaluate(model, tokenizer, benchmark, samples)
    holds = [sample.row == rows[0] for sample in samples]
    assert [output.score for output in score.outputs] == [float(each) for each in holds]
    assert ["AssertionError" in output.text for output in score.outputs] == [
        not each for each in holds
    ]
    assert score.tokens is not None


def test_several_at_once(allowed: None, declare: Declare, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = functools.partial(run_program, limits=Limits(cpu_seconds=1))
    monkeypatch.setattr(code, "run_program", quick)
    benchmark, sample = rows_of(declare, "mbpp", MBPP)
    endless = "def triple(number):\n    while True: pass"
    answers = [RIGHT, "raise ValueError('no')", endless, RIGHT, "("]
    seen: list[int] = []
    found = score_all(benchmark, [sample] * 5, answers, seen.append)
    assert [each.passed for each in found] == [True, False, False, True, False]
    assert [each.reason for each in found] == [
        "",
        "ValueError: no",
        "it took more than 1 s of processor time",
        "",
        "SyntaxError: '(' was never closed",
    ]
    assert seen == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("humaneval", "    return 2 * number\n"),
        ("humaneval", "\n    result = number + number\n    return result"),
        (
            "humaneval-instruct",
            f"Here:\n```python\n{HUMANEVAL['prompt']}    return 2*number\n```\n",
        ),
        (
            "humaneval-instruct",
            "```\ndef double(number):\n    return number * 2\n```\nThat doubles.",
        ),
        ("humaneval-instruct", "```py\n    return 2 * number"),
        ("mbpp", str(MBPP["code"])),
        ("mbpp-instruct", f"```python\n{RIGHT}\n```\n\n```python\ntriple(1, 2)\n```"),
    ],
)
def test_the_catalogue_runs_what_models_write(
    allowed: None, declare: Declare, name: str, answer: str
) -> None:
    benchmark, sample = rows_of(declare, name, HUMANEVAL if "human" in name else MBPP)
    given = extract_answer(benchmark.extract, answer)
    assert score_all(benchmark, [sample], [given])[0].reason == ""
    wrong = given.replace("2", "5").replace("3", "5").replace("number + number", "1")
    assert not score_all(benchmark, [sample], [wrong])[0].passed


def test_the_prompt_of_mbpp_has_examples(declare: Declare) -> None:
    _, sample = rows_of(declare, "mbpp", MBPP)
    assert sample.prompt.count("return 3 * number\n[DONE]\n\nProblem: Write a function") == 3
    assert (
        sample.prompt.endswith("assert triple(-1) == -3\n[BEGIN]\n") and "\r" not in sample.prompt
    )


def test_it_refuses_where_code_is_not_allowed(
    declare: Declare, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MORPHING_ALLOW_CODE", raising=False)
    benchmark, sample = rows_of(declare, "mbpp", MBPP)

    def never(program: str) -> None:
        raise AssertionError("it ran")

    monkeypatch.setattr(code, "run_program", never)
    with pytest.raises(MorphingError, match=r"which is off: allow it with --allow-code"):
        score_all(benchmark, [sample], [RIGHT])


def test_a_run_is_refused_before_anything_is_loaded(
    declare: Declare, monkeypatch: pytest.MonkeyPatch
) -> None:
    from morphing.runs.prepare import prepare
    from morphing.runs.spec import parse_spec

    benchmark, _ = rows_of(declare, "mbpp", MBPP)
    use = {"benchmark": benchmark.model_dump(exclude_unset=True), "samples": 1, "holdout": 1}
    spec = parse_spec(
        {"base": "nobody/nothing", "sources": ["nobody/a", "nobody/b"], "benchmarks": [use]}, "spec"
    )
    monkeypatch.delenv("MORPHING_ALLOW_CODE", raising=False)
    with pytest.raises(MorphingError, match=r"'mbpp' runs programs that the model writes"):
        prepare(spec)
    monkeypatch.setenv("MORPHING_ALLOW_CODE", "1")
    monkeypatch.setenv("PATH", "")
    check_sandbox.cache_clear()
    with pytest.raises(MorphingError, match=r"bubblewrap \(bwrap\) is missing"):
        prepare(spec)


def test_a_program_over_columns_that_are_not_there(allowed: None, declare: Declare) -> None:
    benchmark, sample = rows_of(declare, "mbpp", MBPP)
    changed = benchmark.model_copy(update={"program": "{{ answer }}{{ nothing }}"})
    with pytest.raises(
        MorphingError, match=r"program of benchmark 'mbpp' can't be made from sample train/\d"
    ):
        score_all(changed, [sample], [RIGHT])
