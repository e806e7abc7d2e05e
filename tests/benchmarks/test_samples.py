"""Which rows become samples, and what they say."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from morphing.benchmarks.benchmark import Benchmark, parse_benchmark
from morphing.benchmarks.data.samples import Draw, Part, load_samples
from morphing.errors import MorphingError

Declare = Callable[..., Benchmark]
PARTS: tuple[Part, ...] = get_args(Part)
ROWS = [{"question": f"{n}?", "answer": str(n)} for n in range(41)]


@given(
    rows=st.integers(2, 60),
    counts=st.tuples(st.integers(1, 80), st.integers(1, 80)),
    seeds=st.tuples(st.integers(0, 2**32), st.integers(0, 2**32)),
)
def test_one_split_never_shows_the_search_a_holdout_row(
    rows: int, counts: tuple[int, int], seeds: tuple[int, int]
) -> None:
    benchmark = parse_benchmark(
        {
            "name": "toy",
            "dataset": "org/toy",
            "kind": "generation",
            "prompt": "{{ n }}",
            "target": "{{ n }}",
        },
        "toy",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "morphing.benchmarks.data.samples.read_rows", lambda *_: [{"n": n} for n in range(rows)]
        )
        search = load_samples(benchmark, "search", counts[0], seeds[0])
        holdout = load_samples(benchmark, "holdout", counts[1], seeds[1])
        again = load_samples(benchmark, "search", counts[0] + 1, seeds[0])
    ids = [{sample.id for sample in part} for part in (search, holdout)]
    assert len(ids[0]) == len(search) == min(counts[0], rows // 2)
    assert len(ids[1]) == len(holdout) == min(counts[1], rows - rows // 2)
    assert not ids[0] & ids[1]
    assert again[: len(search)] == search, "more samples add, they don't replace"


def test_two_splits(declare: Declare) -> None:
    benchmark = declare({"a": ROWS[:20], "b": ROWS[20:]}, split="a", holdout_split="b")
    search = load_samples(benchmark, "search", 100)
    holdout = load_samples(benchmark, "holdout", 100)
    assert {sample.id for sample in search} == {f"a/{n}" for n in range(20)}
    assert {sample.id for sample in holdout} == {f"b/{n}" for n in range(21)}
    assert all(sample.prompt == f"{20 + int(sample.id[2:])}?" for sample in holdout)


def test_seed_draws_other_rows_in_an_order_of_its_own(declare: Declare) -> None:
    benchmark = declare({"a": ROWS, "b": ROWS}, split="a", holdout_split="b")
    first, again, other = (load_samples(benchmark, "search", 10, seed) for seed in (1, 1, 2))
    assert first == again
    assert {s.id for s in first} != {s.id for s in other}
    assert [s.id for s in first] != sorted(s.id for s in first)


def test_holdout_split_that_names_the_same_split_is_divided(declare: Declare) -> None:
    benchmark = declare({"a": ROWS}, split="a", holdout_split="a")
    search = {sample.id for sample in load_samples(benchmark, "search", 100)}
    assert not search & {sample.id for sample in load_samples(benchmark, "holdout", 100)}


def test_templates(declare: Declare) -> None:
    rows = [{"the text": "good", "label": 1, "options": ["no", "yes"]}] * 2
    fields = {
        "kind": "multiple_choice",
        "prompt": "{{ row['the text'] | upper }}\n",
        "target": "{{ label }}",
        "choices": ["{{ options[0] }}", "{{ options[1] }}"],
    }
    sample = load_samples(declare({"test": rows}, **fields), "search", 1)[0]
    assert (sample.prompt, sample.target, sample.choices) == ("GOOD\n", 1, ("no", "yes"))


def test_examples_are_drawn_once_and_never_scored(declare: Declare) -> None:
    splits = {"a": ROWS, "b": ROWS, "c": [{"question": f"c{n}?", "answer": n} for n in range(9)]}
    benchmark = declare(splits, split="a", holdout_split="b", few_shot=3, few_shot_split="c")
    samples = [s for p in PARTS for seed in (0, 1) for s in load_samples(benchmark, p, 9, seed)]
    (examples,) = {sample.prompt.rpartition("\n\n")[0] for sample in samples}
    shown = examples.split("\n\n")
    assert len(set(shown)) == 3
    assert all(re.fullmatch(r"c(\d)\? \1", each) for each in shown)
    more = benchmark.model_copy(update={"few_shot": 4})
    assert load_samples(more, "search", 1)[0].prompt.startswith(f"{examples}\n\nc")
    with pytest.raises(MorphingError, match="asks for 10 examples and its split 'c' has 9"):
        load_samples(benchmark.model_copy(update={"few_shot": 10}), "search", 1)


def test_examples_of_a_choice_and_of_ones_own(declare: Declare) -> None:
    splits = {"a": ROWS, "c": [{"question": "c?", "answer": "1"}]}
    fields = {"split": "a", "few_shot": 1, "few_shot_split": "c", "shot_separator": "\n"}
    choice = {"kind": "multiple_choice", "choices": [" no", " yes"], "target": "{{ answer[0] }}"}
    sample = load_samples(declare(splits, **fields), "search", 1)[0]
    assert sample.prompt.startswith("c? 1\n")
    rows = [{"question": "q?", "answer": "0"}] * 2
    asked = declare({"a": rows, "c": splits["c"]}, **fields, **choice, continuation=".")
    assert load_samples(asked, "search", 1)[0].prompt == "c? yes.\nq?"
    own = asked.model_copy(update={"shot": "={{ answer }}"})
    assert load_samples(own, "search", 1)[0].prompt == "c?=1\nq?"


def test_a_single_file_has_one_split(tmp_path: Path, declare: Declare) -> None:
    """Whatever its splits are called: their rows would be the same."""
    declare({"rows": ROWS})
    file = str(tmp_path / "rows.jsonl")
    benchmark = declare({}, dataset=file, split="train", holdout_split="test")
    search, holdout = (load_samples(benchmark, part, 100) for part in PARTS)
    assert len(search) + len(holdout) == len(ROWS)
    assert not {s.prompt for s in search} & {s.prompt for s in holdout}
    shown = declare({}, dataset=file, few_shot=1, few_shot_split="dev")
    with pytest.raises(MorphingError, match="a single file, whose rows are all scored"):
        load_samples(shown, "search", 1)
    with pytest.raises(MorphingError, match="single file"):
        load_samples(shown, "holdout", 1)


def test_rows_of_several_configs_follow_each_other(tmp_path: Path, declare: Declare) -> None:
    for config, answers in (("one", "ab"), ("two", "cde")):
        (tmp_path / config).mkdir()
        rows = [{"question": f"{answer}?", "answer": answer} for answer in answers]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / config / "test.jsonl").write_text(lines)
    benchmark = declare({}, config=["one", "two"])
    found = {s.id: s.target for part in PARTS for s in load_samples(benchmark, part, 9)}
    assert found == {
        "test/one/0": "a",
        "test/one/1": "b",
        "test/two/0": "c",
        "test/two/1": "d",
        "test/two/2": "e",
    }


def test_options_vary_by_row(declare: Declare) -> None:
    rows = [{"q": "?", "options": list("abcd"[: 2 + n % 3]), "right": n % 2} for n in range(9)]
    fields = {"kind": "multiple_choice", "prompt": "{{ q }}", "target": "{{ right }}"}
    benchmark = declare({"a": rows}, split="a", choices="options | map('prefixed', ' ')", **fields)
    for sample in load_samples(benchmark, "search", 9):
        row = rows[int(sample.id.partition("/")[2])]
        assert sample.choices == tuple(f" {option}" for option in row["options"])
        assert sample.target == row["right"]
    for choices, said in (
        ("optoins", "choices of benchmark 'toy' uses a column that the dataset"),
        ("q", "'q' gives no list"),
        ("options[:1]", r"choices of benchmark 'toy' are \['a'\] at row a/"),
        ("['', 'b']", "two or more are needed, none of them empty"),
    ):
        with pytest.raises(MorphingError, match=said):
            load_samples(benchmark.model_copy(update={"choices": choices}), "search", 9)


def test_what_else_a_sample_carries(declare: Declare) -> None:
    rows = [{"question": "a _ c", "answer": "0", "when": None}] * 2
    gap = declare(
        {"a": rows},
        split="a",
        kind="multiple_choice",
        prompt="{{ question.split('_')[0] }}",
        choices=["b", "x"],
        continuation="{{ question.split('_')[1] }}",
    )
    sample = load_samples(gap, "search", 1)[0]
    assert (sample.prompt, sample.choices, sample.continuation) == ("a ", ("b", "x"), " c")
    told = declare({"a": rows}, split="a", chat=True, system="Mind {{ answer }}.")
    assert load_samples(told, "search", 1)[0].system == "Mind 0."
    assert load_samples(told, "search", 1)[0].row is None
    code = declare({"a": rows}, split="a", kind="code", program="{{ answer }}")
    assert load_samples(code, "search", 1)[0].row == rows[0]
    text = declare({"a": rows}, split="a", kind="perplexity", prompt="", target=" {{ question }}\n")
    assert load_samples(text, "search", 1)[0].target == " a _ c\n"


def test_what_was_drawn_is_recorded(tmp_path: Path, declare: Declare) -> None:
    declare({"rows": ROWS})
    file = tmp_path / "rows.jsonl"
    benchmark = declare({}, dataset=str(file))
    draw = Draw.of(benchmark, "search", load_samples(benchmark, "search", 2))
    assert draw.revision == f"sha256:{sha256(file.read_bytes()).hexdigest()}"
    data = TypeAdapter(Draw).dump_json(draw)
    assert TypeAdapter(Draw).validate_json(data) == draw
    hub = benchmark.model_copy(update={"dataset": "org/toy", "revision": "f" * 40})
    assert Draw.of(hub, "holdout", ()).revision == "f" * 40


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"prompt": "{{ questoin }}"}, "'questoin' is undefined.*its columns are question, answer"),
        ({"target": "{{ answer.nothing }}"}, "target of benchmark 'toy' uses a column"),
        ({"prompt": "{{ question.__class__.__mro__ }}"}, "prompt of benchmark 'toy'"),
        ({"prompt": "{{ 1 // 0 }}"}, "can't be made from the dataset"),
        ({"prompt": "{{ question | int + 'a' }}"}, "can't be made from the dataset"),
        (
            {"kind": "multiple_choice", "choices": ["a", "b"], "target": "{{ answer }}x"},
            "must be the index of the right choice, 0 to 1",
        ),
        (
            {"kind": "multiple_choice", "choices": ["a", "b"], "target": "2"},
            "must be the index of the right choice, 0 to 1",
        ),
    ],
)
def test_rows_that_do_not_fit(declare: Declare, fields: dict[str, object], said: str) -> None:
    with pytest.raises(MorphingError, match=said):
        load_samples(declare({"test": ROWS}, **fields), "search", 5)


def test_too_few(declare: Declare) -> None:
    with pytest.raises(MorphingError, match="asked for 0 samples"):
        load_samples(declare({"test": ROWS}), "search", 0)
    with pytest.raises(MorphingError, match="a single row"):
        load_samples(declare({"test": ROWS[:1]}), "search", 1)
