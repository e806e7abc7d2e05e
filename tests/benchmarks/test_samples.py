"""Which rows become samples, and what they say."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from morphing.benchmarks import load
from morphing.benchmarks.benchmark import Benchmark, parse_benchmark
from morphing.benchmarks.load import load_samples
from morphing.errors import MorphingError

Declare = Callable[..., Benchmark]
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
        patch.setattr(load, "read_rows", lambda *_: [{"n": n} for n in range(rows)])
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
