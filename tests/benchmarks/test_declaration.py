"""Reading declarations, the catalogue, and pinning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from morphing.benchmarks.benchmark import (
    catalogue,
    get_benchmark,
    parse_benchmark,
)
from morphing.benchmarks.data.dataset import pin_benchmark
from morphing.errors import MorphingError
from tests.hub.server import RunningHub

MINIMAL = {
    "name": "toy",
    "dataset": "org/toy",
    "kind": "generation",
    "prompt": "{{ question }}",
    "target": "{{ answer }}",
}


def test_the_catalogue_has_what_is_promised() -> None:
    known = catalogue()
    promised = {"gsm8k", "mgsm-en", "mgsm-ja", "mgsm-zh", "mgsm-es", "rotten-tomatoes"}
    assert promised <= set(known)
    assert all(name == benchmark.name for name, benchmark in known.items())
    assert known["rotten-tomatoes"].metric == "accuracy"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"promt": "x"}, "unknown field 'promt' (did you mean 'prompt'?)"),
        ({"dataset": None}, "dataset: input should be a valid string"),
        (
            {"kind": "essay"},
            "kind: unknown kind 'essay': choose generation, multiple_choice",
        ),
        ({"prompt": "{{ question"}, "prompt is not a Jinja template"),
        ({"extract": "number"}, "unknown extract 'number'"),
        ({"extract": "regex:("}, "malformed regular expression"),
        ({"metric": "f7"}, "unknown metric 'f7'"),
        ({"metric": "evaluate:someone/metric"}, "stranger's code"),
        ({"choices": ["a", "b"]}, "choices is for kind multiple_choice only, and this is genera"),
        ({"normalize": True}, "normalize is for kind multiple_choice only"),
        ({"continuation": "x"}, "continuation is for kind multiple_choice only"),
        ({"program": "x"}, "program is for kind code only"),
        ({"task": "x"}, "task is for kind lm_eval only"),
        ({"kind": "lm_eval", "task": "arc_easy"}, "prompt is for kind generation, multiple"),
        ({"kind": "code"}, "the field 'program' is missing: kind code needs it"),
        ({"kind": "code", "program": "{{ x"}, "program is not a Jinja template"),
        ({"kind": "multiple_choice"}, "the field 'choices' is missing: kind multiple_choice"),
        ({"kind": "multiple_choice", "choices": ["a"]}, "needs two or more choices"),
        ({"kind": "multiple_choice", "choices": "a b"}, "choices is not a Jinja expression"),
        ({"kind": "multiple_choice", "choices": "a", "extract": "boxed"}, "extract is for kind"),
        ({"kind": "multiple_choice", "choices": "a", "normalize": "words"}, "normalize: input"),
        ({"kind": "perplexity", "metric": "exact_match"}, "has the metric bits_per_byte only"),
        ({"system": "Be brief."}, "system is a turn of a chat: set chat to true"),
        ({"few_shot": 2}, "few_shot needs a few_shot_split"),
        ({"few_shot_split": "test"}, "few_shot_split is 'test', whose rows are scored"),
        ({"few_shot_split": "b", "holdout_split": "b"}, "few_shot_split is 'b', whose rows are"),
        ({"few_shot": -1}, "few_shot: input should be greater than or equal to 0"),
        ({"kind": "multiple_choice", "choices": ["a", "b"], "metric": "numeric"}, "accuracy only"),
        ({"max_new_tokens": 0}, "max_new_tokens: input should be greater than or equal to 1"),
        ({"stop": [""]}, "empty string"),
    ],
)
def test_a_wrong_field_is_named(change: dict[str, Any], said: str) -> None:
    with pytest.raises(MorphingError, match="here is not a valid benchmark") as caught:
        parse_benchmark({**MINIMAL, **change}, "here")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("written", "kept"), [(True, "tokens"), (False, None), ("bytes", "bytes")])
def test_normalize_as_it_was_written_once(written: object, kept: str | None) -> None:
    choice = {"kind": "multiple_choice", "choices": "options", "normalize": written}
    benchmark = parse_benchmark({**MINIMAL, **choice}, "here")
    assert benchmark.normalize == kept
    assert parse_benchmark(benchmark.model_dump(mode="json"), "again") == benchmark


def test_a_prompt_may_be_empty_where_only_a_text_counts() -> None:
    text = {"name": "text", "dataset": "org/toy", "kind": "perplexity", "target": "{{ text }}"}
    benchmark = parse_benchmark(text, "here")
    assert (benchmark.metric, benchmark.direction, benchmark.share) == (
        "bits_per_byte",
        "minimize",
        False,
    )
    assert (get_benchmark("gsm8k").direction, get_benchmark("gsm8k").share) == ("maximize", True)


def test_lm_eval_tasks_are_benchmarks_too() -> None:
    task = get_benchmark("lm_eval:arc_easy")
    assert (task.kind, task.dataset, task.direction) == ("lm_eval", "allenai/ai2_arc", "maximize")
    assert get_benchmark("lm_eval:wikitext").direction == "minimize"


@pytest.mark.parametrize(
    ("fields", "contaminates"),
    [
        ({}, True),
        ({"split": "validation"}, True),
        ({"split": "train"}, False),
        ({"holdout_split": "test"}, True),
        ({"split": "validation", "holdout_split": "test"}, False),
        ({"dataset": "mine/test.csv"}, False),
    ],
)
def test_contamination(fields: dict[str, str], contaminates: bool) -> None:
    assert parse_benchmark({**MINIMAL, **fields}, "here").contaminates == contaminates


def test_missing_field_and_no_mapping() -> None:
    with pytest.raises(MorphingError, match="the field 'prompt' is missing"):
        parse_benchmark({k: v for k, v in MINIMAL.items() if k != "prompt"}, "here")
    with pytest.raises(MorphingError, match="here is not a benchmark"):
        parse_benchmark(["a"], "here")


def test_unknown_name_gives_near_ones() -> None:
    with pytest.raises(MorphingError, match=r"no benchmark 'mgsm_ja': choose mgsm-ja"):
        get_benchmark("mgsm_ja")


def test_own_file_finds_the_data_beside_it(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"question": "1?", "answer": "1"}\n')
    file = tmp_path / "own.yaml"
    file.write_text(
        "{name: own, dataset: rows.jsonl, kind: generation, prompt: '{{ question }}',"
        " target: '{{ answer }}'}"
    )
    assert get_benchmark(str(file)).dataset == str(tmp_path / "rows.jsonl")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: [unclosed\nkind: x", "is not valid YAML in line"),
        ("just words", "is not a benchmark"),
        (None, "cannot be read"),
    ],
)
def test_malformed_files(tmp_path: Path, text: str | None, said: str) -> None:
    file = tmp_path / "bad.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(MorphingError, match=said):
        get_benchmark(str(file))


def test_pin_on_the_hub(hub: RunningHub) -> None:
    folder = hub.root / "datasets" / "alice" / "pinned"
    folder.mkdir(parents=True)
    (folder / "test.jsonl").write_text('{"question": "1?", "answer": "1"}\n')
    benchmark = parse_benchmark({**MINIMAL, "dataset": "alice/pinned"}, "here")
    pinned = pin_benchmark(benchmark)
    assert pinned.revision is not None and len(pinned.revision) == 40
    asked = len(hub.seen)
    assert pin_benchmark(pinned) == pinned
    assert len(hub.seen) == asked, "a commit needs no further question"
    with pytest.raises(MorphingError, match="has no revision 'v9'"):
        pin_benchmark(benchmark.model_copy(update={"revision": "v9"}))
    with pytest.raises(MorphingError, match="is not on the Hub, or it is private"):
        pin_benchmark(benchmark.model_copy(update={"dataset": "alice/absent"}))
    with pytest.raises(MorphingError, match="neither a Hub id"):
        pin_benchmark(benchmark.model_copy(update={"dataset": "alice/a/b"}))


def test_pin_local_and_zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    local = parse_benchmark({**MINIMAL, "dataset": "./data"}, "here")
    assert pin_benchmark(local).dataset == str(tmp_path / "data")
    zoo = parse_benchmark({**MINIMAL, "dataset": "zoo:anything"}, "here")
    assert pin_benchmark(zoo) == zoo
    with pytest.raises(MorphingError, match="does not exist"):
        pin_benchmark(parse_benchmark({**MINIMAL, "dataset": "./absent"}, "here"))


@pytest.mark.parametrize(
    ("field", "written", "meant"),
    [
        ("metric", "F1", "f1"),
        ("metric", "rouge-l", "rougeL"),
        ("metric", "exactmatch", "exact_match"),
        ("kind", "Generation", "generation"),
        ("kind", "multiple-choice", "multiple_choice"),
        ("kind", "multiple choice", "multiple_choice"),
        ("extract", "last number", "last_number"),
        ("extract", "Final-Answer", "final_answer"),
    ],
)
def test_what_was_meant_by_another_spelling_is_offered(
    field: str, written: str, meant: str
) -> None:
    fields = {"name": "x", "dataset": "a.csv", "kind": "generation", "prompt": "p", "target": "t"}
    with pytest.raises(MorphingError, match=f"did you mean '{meant}'"):
        parse_benchmark({**fields, field: written}, "b.yaml")


def test_a_benchmark_in_capitals_is_offered() -> None:
    with pytest.raises(MorphingError, match="choose gsm8k, or"):
        get_benchmark("GSM8K")
