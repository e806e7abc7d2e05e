"""Tasks of lm-evaluation-harness as benchmarks, beside the harness itself on a tiny model."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from morphing.benchmarks.benchmark import (
    Benchmark,
    catalogue,
    get_benchmark,
    parse_benchmark,
)
from morphing.benchmarks.data.dataset import pin_benchmark
from morphing.benchmarks.data.draws import halves
from morphing.benchmarks.data.sample import Sample
from morphing.benchmarks.data.samples import Part, load_samples
from morphing.benchmarks.evaluate import evaluate
from morphing.benchmarks.harness.files import find_task
from morphing.benchmarks.results import Score
from morphing.errors import MorphingError
from tests.benchmarks.conftest import TEMPLATE
from tests.benchmarks.twins import harness_records

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

WORDS = ("a cat", "two dogs", "nine", "the end of it", "why", "so 12 = 7 + 5")
ROWS = [
    {
        "question": f"what is {n} + {n * n}" + " please" * (n % 3),
        "answer": str(n + n * n),
        "options": [WORDS[(n + step) % 6] for step in range(2 + n % 3)],
        "right": n % 2,
        "long": " ".join(WORDS[(n * step) % 6] for step in range(5 * n)) or "none",
    }
    for n in range(12)
]
KINDS: dict[str, dict[str, Any]] = {
    "choice": {
        "output_type": "multiple_choice",
        "doc_to_text": "q: {{question}}?",
        "doc_to_choice": "options",
        "doc_to_target": "right",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}, {"metric": "acc_mutual_info"}],
    },
    "inputs": {
        "output_type": "multiple_choice",
        "doc_to_text": "{{right}}",
        "doc_to_choice": "options",
        "doc_to_target": "{{answer}}.",
        "metric_list": [{"metric": "acc"}],
    },
    "continuation": {
        "output_type": "loglikelihood",
        "doc_to_text": "{{question}} ",
        "doc_to_target": "{{answer}}",
        "metric_list": [{"metric": "perplexity"}, {"metric": "acc"}],
    },
    "text": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{long}}",
        "metric_list": [{"metric": "bits_per_byte"}, {"metric": "byte_perplexity"}],
    },
    "written": {
        "output_type": "generate_until",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{answer}}",
        "generation_kwargs": {"until": ["?", "z"], "max_gen_toks": 12, "do_sample": False},
        "filter_list": [
            {"name": "first", "filter": [{"function": "take_first"}]},
            {
                "name": "number",
                "filter": [
                    {"function": "regex", "regex_pattern": "([0-9]+)", "group_select": -1},
                    {"function": "take_first"},
                ],
            },
        ],
        "metric_list": [{"metric": "exact_match"}, {"metric": "chrf"}],
    },
}
Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """A folder with data and a task of one of ``KINDS``; returns what names it."""

    def write(kind: str, rows: Mapping[str, Sequence[Any]] | None = None, **fields: Any) -> str:
        for split, mine in (rows or {"test": ROWS}).items():
            lines = "".join(json.dumps(row) + "\n" for row in mine)
            (tmp_path / f"{split}.jsonl").write_text(lines, encoding="utf-8")
        task = {"task": kind, "dataset_path": str(tmp_path), "test_split": "test"}
        task |= KINDS[kind] | fields
        (tmp_path / f"{kind}.yaml").write_text(yaml.safe_dump(task), encoding="utf-8")
        return f"lm_eval:{tmp_path / kind}.yaml"

    return write


def harness(name: str, lm: Any, *, chat: bool = False) -> dict[tuple[int, str], dict[str, Any]]:
    """The harness's own records of all documents of a task, by document and filter."""
    path = Path(name.removeprefix("lm_eval:"))
    records = harness_records(lm, path, path.stem, chat=chat)
    return {(record["doc_id"], record["filter"]): record for record in records}


def all_samples(benchmark: Benchmark) -> list[Sample]:
    parts: tuple[Part, ...] = ("search", "holdout")
    samples = [sample for part in parts for sample in load_samples(benchmark, part, 100)]
    return sorted(samples, key=place)


def place(sample: Any) -> int:
    return int(sample.id.rpartition("/")[2])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gsm8k", ("openai/gsm8k", "main", "test", None, 5, "exact_match,strict-match")),
        ("hellaswag", ("Rowan/hellaswag", None, "validation", None, 0, "acc")),
        (
            "arc_challenge#acc_norm",
            ("allenai/ai2_arc", "ARC-Challenge", "validation", "test", 0, "acc_norm"),
        ),
        ("arithmetic_1dc", ("EleutherAI/arithmetic", None, "validation", None, 0, "acc")),
    ],
)
def test_a_task_declares_a_benchmark(name: str, expected: tuple[Any, ...]) -> None:
    found = get_benchmark(f"lm_eval:{name}")
    fields = ("dataset", "config", "split", "holdout_split", "few_shot", "metric")
    assert tuple(getattr(found, field) for field in fields) == expected
    assert parse_benchmark(found.model_dump(), "again") == found
    assert found.name == "lm_eval-" + name.replace("#", "-")


def test_a_declaration_needs_neither_the_harness_nor_torch() -> None:
    code = (
        "import sys; from morphing.benchmarks.benchmark import get_benchmark\n"
        "get_benchmark('lm_eval:gsm8k'), get_benchmark('ifeval')\n"
        "print([name for name in ('lm_eval', 'datasets', 'torch') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("gsmk8", "no task 'gsmk8': did you mean gsm8k"),
        ("mmlu", "group of tasks, and a benchmark is one: choose of mmlu_stem, mmlu_other"),
        ("ai2_arc", "tag of several tasks, and a benchmark is one: choose of arc_challenge, arc_e"),
        ("humaneval", "without a sandbox: use Morphing's own humaneval or mbpp"),
        ("squadv2", "is a Python class, and only those in YAML"),
        ("ruler_vt", "makes its data by a program of its own"),
        ("cola", "no metric of single samples, which a search compares: its mcc is"),
        ("gsm8k#f1", "no metric 'f1' of single samples: choose exact_match"),
        ("gsm8k#exact_match,lax", "no filter 'lax': choose strict-match, flexible-extract"),
        ("mmmu_val_art", "asks about pictures or sound"),
        ("nowhere/task.yaml", "nowhere/task.yaml can't be read"),
    ],
)
def test_what_no_benchmark_can_be_is_refused(name: str, said: str) -> None:
    with pytest.raises(MorphingError, match=said) as caught:
        get_benchmark(f"lm_eval:{name}")
    assert "\n" not in str(caught.value)


def test_fields_of_a_declaration_go_before_the_tasks_own(write: Write, tmp_path: Path) -> None:
    """In a file beside the task, which is found in its folder all the same."""
    write("written")
    path = tmp_path / "mine.yaml"

    def declared(**fields: Any) -> Benchmark:
        mine = {"name": "mine", "kind": "lm_eval", "task": "written", "include": ".", **fields}
        path.write_text(yaml.safe_dump(mine), encoding="utf-8")
        return get_benchmark(str(path))

    own = declared()
    assert (own.max_new_tokens, own.metric, own.few_shot) == (12, "exact_match,first", 0)
    found = declared(few_shot=2, metric="chrf", max_new_tokens=5)
    assert (found.max_new_tokens, found.metric, found.few_shot) == (5, "chrf,first", 2)
    with pytest.raises(MorphingError, match=r"mine.yaml is not a valid .*no task 'wirtten'"):
        declared(task="wirtten")


@pytest.mark.testbed
def test_data_on_the_hub_is_pinned_however_a_task_names_it(testbed: Path, write: Write) -> None:
    mawps = "morphing-testbed/mawps"
    file = f"hf://datasets/{mawps}/test.jsonl"
    asks = {"doc_to_text": "{{question}}", "doc_to_target": "{{answer}}"}
    found = []
    for fields in (
        {"dataset_path": mawps},
        {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": file}}},
    ):
        benchmark = pin_benchmark(get_benchmark(write("written", **asks, **fields)))
        assert benchmark.dataset == mawps and len(str(benchmark.revision)) == 40
        found.append(load_samples(benchmark, "search", 3))
    assert found[0] == found[1] and found[0][0].target.isdecimal()


def test_lower_is_better_where_the_task_says_so(write: Write) -> None:
    assert get_benchmark(write("text")).direction == "minimize"
    assert get_benchmark(write("continuation")).direction == "minimize"
    assert get_benchmark(write("continuation") + "#acc").direction == "maximize"
    turned = [{"metric": "acc", "higher_is_better": False, "aggregation": "mean"}]
    name = write("inputs", metric_list=turned)
    assert get_benchmark(name).direction == "minimize"


@pytest.mark.parametrize(
    ("kind", "metric"),
    [
        *(("choice", metric) for metric in ("acc", "acc_norm", "acc_mutual_info")),
        ("inputs", "acc"),
        *(("continuation", metric) for metric in ("perplexity", "acc")),
        *(("text", metric) for metric in ("bits_per_byte", "byte_perplexity")),
        *(("written", metric) for metric in ("exact_match,number", "chrf,first")),
    ],
)
def test_scores_are_the_harnesss(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    write: Write,
    kind: str,
    metric: str,
) -> None:
    """Every sample's; the longest texts do not fit the model's context at once."""
    from lm_eval.api.registry import get_metric_aggregation
    from lm_eval.models.huggingface import HFLM

    path = write(kind)
    benchmark = get_benchmark(f"{path}#{metric}")
    score = evaluate(model, tokenizer, benchmark, all_samples(benchmark))
    assert score.n == len(ROWS) and (score.tokens is not None) == (kind == "written")
    records = harness(path, HFLM(pretrained=model, tokenizer=tokenizer, batch_size=4))
    name, _, wanted = metric.partition(",")
    aggregate = get_metric_aggregation(name)
    for index, output in enumerate(score.outputs):
        record = records[index, wanted or "none"]
        assert output.score == pytest.approx(float(aggregate([record[name]])), rel=1e-6), output
        if kind == "written":
            assert (output.text, output.answer) == (
                record["resps"][0][0],
                record["filtered_resps"][0],
            )
    assert len({output.text for output in score.outputs}) > 3, "little was compared"


def test_the_engine_as_a_model_of_the_harness(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, write: Write
) -> None:
    from morphing.benchmarks.harness.model import EngineLM

    for kind in KINDS:
        path = write(kind)
        benchmark = get_benchmark(path)
        score = evaluate(model, tokenizer, benchmark, all_samples(benchmark))
        records = harness(path, EngineLM(model, tokenizer, limit=benchmark.max_new_tokens))
        for index, output in enumerate(score.outputs):
            reply = records[index, benchmark.metric.partition(",")[2] or "none"]["resps"][0][0]
            if kind == "written":
                assert output.text == reply
            else:
                logprob = reply[0] if isinstance(reply, tuple) else reply
                assert f"={logprob:.4f}" in output.text


@pytest.mark.parametrize("chat", [False, True])
def test_prompts_are_those_of_a_whole_run_of_the_harness(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, write: Write, chat: bool
) -> None:
    """Examples drawn from another split, for every document anew; in a chat as turns."""
    from morphing.benchmarks.harness.bridge import requests
    from morphing.benchmarks.harness.model import EngineLM

    speaking = tokenizer.__class__.from_pretrained(_saved(tokenizer, write))
    speaking.chat_template = TEMPLATE
    train = [{**row, "options": [f"train {row['answer']}"] * 2} for row in ROWS]
    splits = {"test": ROWS, "train": train}
    path = write("inputs", splits, num_fewshot=2, fewshot_split="train", description="pick: ")
    benchmark = get_benchmark(path).model_copy(update={"chat": chat})
    samples = all_samples(benchmark)
    asked = requests(speaking, benchmark, samples)
    records = harness(path, EngineLM(model, speaking), chat=chat)
    for index, (sample, mine) in enumerate(zip(samples, asked, strict=True)):
        arguments = records[index, "none"]["arguments"]
        texts = [speaking.decode(request.ids) for request in mine]
        # The tiny tokenizer knows no capitals and no quotes, as the template writes none.
        assert texts == ["".join(pair) for pair in arguments]
        assert sample.prompt.count("train") == 2
        assert chat == texts[0].startswith("<")


def _saved(tokenizer: PreTrainedTokenizerFast, write: Write) -> Path:
    folder = Path(write("text").removeprefix("lm_eval:")).parent / "tokenizer"
    tokenizer.save_pretrained(folder)
    return folder


def test_search_and_holdout_are_disjoint_in_examples_too(write: Write) -> None:
    """Where examples come from the rows that are scored, the search sees the holdout's neither."""
    path = write("choice", num_fewshot=3, fewshot_split="test")
    benchmark = get_benchmark(path)
    assert benchmark.contaminates
    parts = {part: load_samples(benchmark, part, 100) for part in ("search", "holdout")}
    assert not {s.id for s in parts["search"]} & {s.id for s in parts["holdout"]}
    search, holdout = (({ROWS[at]["question"] for at in half}) for half in halves(len(ROWS)))
    for sample in [*parts["search"], *parts["holdout"]]:
        *examples, question = sample.prompt.split("q: ")[1:]
        shown = {example.partition("?")[0] for example in examples}
        assert len(shown) == 3 and shown <= search and question.rstrip("?") not in shown
    assert {s.prompt.split("q: ")[-1].rstrip("?") for s in parts["holdout"]} == holdout


def test_examples_from_the_holdout_are_refused(write: Write) -> None:
    splits = {"test": ROWS, "validation": ROWS}
    path = write(
        "choice", splits, num_fewshot=1, fewshot_split="test", validation_split="validation"
    )
    benchmark = get_benchmark(path)
    assert (benchmark.split, benchmark.holdout_split) == ("validation", "test")
    with pytest.raises(MorphingError, match="takes its examples from its holdout_split 'test'"):
        load_samples(benchmark, "search", 3)


def test_samples_need_no_dataset_once_they_are_loaded(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, write: Write, tmp_path: Path
) -> None:
    from pydantic import TypeAdapter

    kept = TypeAdapter(list[Sample])
    benchmark = get_benchmark(write("written") + "#exact_match,number")
    samples = load_samples(benchmark, "search", 4)
    before = evaluate(model, tokenizer, benchmark, samples)
    (tmp_path / "test.jsonl").unlink()
    again = kept.validate_json(kept.dump_json(samples))
    assert evaluate(model, tokenizer, benchmark, again) == before


def test_python_beside_a_task_runs_only_where_code_may(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own.py").write_text("def asked(doc):\n    return doc['question'].upper()\n")
    path = Path(write("written").removeprefix("lm_eval:"))
    text = path.read_text().replace(
        "doc_to_text: '{{question}}'", "doc_to_text: !function own.asked"
    )
    path.write_text(text)
    monkeypatch.delenv("MORPHING_ALLOW_CODE", raising=False)
    with pytest.raises(MorphingError, match=r"runs Python that .* names .*--allow-code"):
        get_benchmark(f"lm_eval:{path}")
    monkeypatch.setenv("MORPHING_ALLOW_CODE", "1")
    benchmark = get_benchmark(f"lm_eval:{path}")
    assert load_samples(benchmark, "search", 1)[0].prompt.startswith("WHAT IS")
    monkeypatch.delenv("MORPHING_ALLOW_CODE")
    with pytest.raises(MorphingError, match="--allow-code"):
        load_samples(benchmark, "search", 1)


@pytest.mark.parametrize("metric", ["no_such_metric", "somebody/metric"])
def test_a_metric_that_cannot_be_had_is_said_before_a_run(
    write: Write, metric: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MORPHING_ALLOW_CODE", "1")
    fetched = {"metric": metric, "aggregation": "mean", "higher_is_better": True}
    path = write("written", metric_list=[fetched])
    with pytest.raises(
        MorphingError, match=f"'{metric}' .* can't be had from the evaluate library"
    ):
        load_samples(get_benchmark(path), "search", 1)


def test_a_column_that_is_not_there_is_named(write: Write) -> None:
    path = write("choice", doc_to_target="{{wrong}}", doc_to_choice="choices")
    with pytest.raises(MorphingError, match="'lm_eval-choice' can't be built") as caught:
        load_samples(get_benchmark(path), "search", 1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["choice", "written", "text"])
def test_logits_that_are_not_finite_are_named_where_they_arise(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, write: Write, name: str
) -> None:
    from transformers import LlamaForCausalLM

    broken = LlamaForCausalLM(model.config).double()
    broken.lm_head.weight.data.fill_(math.nan)
    benchmark = get_benchmark(write(name))
    with pytest.raises(MorphingError, match=r"sample test/\d+: .*NaN or infinite"):
        evaluate(broken, tokenizer, benchmark, load_samples(benchmark, "search", 4))


def ifeval(folder: Path, instruction: str, **settings: Any) -> Benchmark:
    row = {
        "key": 1,
        "prompt": "say a word",
        "instruction_id_list": [instruction],
        "kwargs": [settings],
    }
    lines = "".join(json.dumps(row) + "\n" for _ in range(4))
    (folder / "train.jsonl").write_text(lines, encoding="utf-8")
    return catalogue()["ifeval"].model_copy(update={"dataset": str(folder), "max_new_tokens": 8})


def test_ifeval(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    def scored(instruction: str, **settings: Any) -> Score:
        benchmark = ifeval(tmp_path, instruction, **settings)
        return evaluate(model, tokenizer, benchmark, load_samples(benchmark, "search", 2))

    assert scored("punctuation:no_comma").value == 1.0
    assert scored("keywords:existence", keywords=["never to be found"]).value == 0.0


def test_ifeval_says_which_data_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nltk

    benchmark = ifeval(
        tmp_path, "length_constraints:number_sentences", num_sentences=3, relation="at least"
    )
    monkeypatch.setattr(nltk.data, "path", [])
    monkeypatch.setattr(nltk, "download", lambda name: False)
    with pytest.raises(
        MorphingError, match="needs NLTK's data 'punkt_tab', which is not here: run"
    ):
        load_samples(benchmark, "search", 1)


def test_a_task_of_the_library_is_read_as_the_harness_reads_it() -> None:
    """Its files, with what they include and functions by name, against the harness's own index."""
    from lm_eval.tasks import TaskManager

    folder = find_task("hellaswag").path.parent
    index = TaskManager(include_path=str(folder), include_defaults=False).task_index
    ours, theirs = find_task("hellaswag").config, index["hellaswag"].cfg
    assert ours.keys() == theirs.keys()
    (function,) = find_task("hellaswag").functions
    assert theirs["process_docs"] == str(function.folder / function.path)
    assert all(ours[key] == theirs[key] for key in ours if key != "process_docs")
