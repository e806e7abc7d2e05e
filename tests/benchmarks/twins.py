"""One question, asked by Morphing and by lm-evaluation-harness's own HFLM: are the answers equal?

A twin is a benchmark of ours and a task of the harness that ask the same: the harness's own task,
over the test-bed's data where it reads another's, or where ours asks in other words on purpose a
task written to ask in ours. `tests/benchmarks/test_harness.py` compares a few samples and
`perf/harness.py` many.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from morphing.benchmarks.benchmark import Benchmark, get_benchmark, parse_benchmark
from morphing.benchmarks.data.samples import load_samples
from morphing.benchmarks.evaluate import evaluate
from morphing.benchmarks.harness.files import library
from morphing.benchmarks.judging.answers import last_number
from morphing.benchmarks.judging.extract import extract_answer
from morphing.benchmarks.results import Output

if TYPE_CHECKING:
    from lm_eval.api.model import LM
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

LANGUAGES = ("en", "ja", "zh", "es")
MAWPS = "morphing-testbed/mawps"
NUMBER = "(-?[$0-9.,]{2,})|(-?[0-9]+)"
"""The harness's pattern for the last number of an answer to GSM8K."""
REVIEWS = "cornell-movie-review-data/rotten_tomatoes"
Row = dict[str, Any]


@dataclass(frozen=True)
class Twin:
    """``ours`` has the changes to a benchmark of the catalogue, or is a whole declaration without
    one; None asks the task itself through `lm_eval:`. ``task`` is the harness's YAML."""

    name: str
    task: Row
    ours: Row | None = None
    catalogue: str | None = None
    chat: bool = False

    @property
    def generates(self) -> bool:
        """Whether a text is asked for."""
        return "generation_kwargs" in self.task


@dataclass
class Agreement:
    """On how many of ``n`` samples both gave the same answer; and, beside that, the same text.

    ``extraction`` counts where our rule and the harness's filter find the same number in the
    harness's text. ``differences`` say what each made of the others.
    """

    name: str
    n: int
    same: int = 0
    texts: int | None = None
    extraction: int | None = None
    differences: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)
    """Differences in extraction alone."""


def twins(folder: Path, tokens: int) -> list[Twin]:
    """All twins; ``folder`` gets the data of those that need some, and the harness's tasks.

    Generated texts end after ``tokens`` new tokens on both sides.
    """
    made = [*_generations(tokens), *_choices(folder), *_texts()]
    for twin in made:
        text = yaml.safe_dump({**twin.task, "task": f"twin_{twin.name}"}, allow_unicode=True)
        (folder / f"{twin.name}.yaml").write_text(text, encoding="utf-8")
    return made


def _generations(tokens: int) -> Iterable[Twin]:
    """GSM8K and MGSM, each as the harness asks and as our catalogue does; MAWPS as in its tuning.

    The test-bed has only the test splits, so examples are left out.
    """
    alone = {"training_split": None, "fewshot_split": None, "num_fewshot": 0}
    own = {"gsm8k": "gsm8k/gsm8k.yaml"} | {
        f"mgsm_{code}": f"mgsm/direct/mgsm_direct_{code}.yaml" for code in LANGUAGES
    }
    for name, path in own.items():
        settings = yaml.load((library() / path).read_text(encoding="utf-8"), yaml.BaseLoader)
        until = settings["generation_kwargs"]["until"]
        limits = {"until": until, "do_sample": False, "max_gen_toks": tokens}
        include = {"include": str(library() / path), "generation_kwargs": limits}
        yield Twin(f"lm_eval_{name}", {**include, **alone}, chat=name == "gsm8k")
        ours = name.replace("_", "-")
        yield Twin(name, {**_asked_like(ours, tokens), **alone}, {}, ours, chat=True)
    mawps = {
        "name": "mawps",
        "dataset": MAWPS,
        "split": "train",
        "holdout_split": "test",
        "kind": "generation",
        "prompt": "Question: {{ question }}\nAnswer:",
        "target": "{{ answer }}",
        "stop": ["\n"],
        "extract": "last_number",
        "metric": "numeric",
        "max_new_tokens": 8,
    }
    yield Twin("mawps", {**_like(parse_benchmark(mawps, "mawps"), 8), **alone}, mawps)


def _asked_like(name: str, tokens: int) -> Row:
    return _like(get_benchmark(name), tokens)


def _like(benchmark: Benchmark, tokens: int) -> Row:
    """A task that asks what a benchmark of kind generation asks."""
    return {
        "dataset_path": benchmark.dataset,
        "dataset_name": benchmark.config,
        "test_split": benchmark.split,
        "output_type": "generate_until",
        "doc_to_text": benchmark.prompt,
        "doc_to_target": benchmark.target,
        "generation_kwargs": {
            "until": list(benchmark.stop),
            "do_sample": False,
            "max_gen_toks": tokens,
        },
        "filter_list": [
            {
                "name": "flexible-extract",
                "filter": [
                    {
                        "function": "regex",
                        "group_select": -1,
                        "regex_pattern": NUMBER,
                    },
                    {"function": "take_first"},
                ],
            }
        ],
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    }


def _choices(folder: Path) -> Iterable[Twin]:
    """The catalogue's multiple choices beside the harness's own tasks, over rows like theirs."""
    yield Twin(
        "rotten_tomatoes",
        {
            "dataset_path": REVIEWS,
            "test_split": "validation",
            "output_type": "multiple_choice",
            "doc_to_text": "Review: {{text}}\nSentiment:",
            "doc_to_choice": ["negative", "positive"],
            "doc_to_target": "label",
            "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        },
        {},
        "rotten-tomatoes",
    )
    problems, reviews = _rows(MAWPS, "test"), _rows(REVIEWS, "test")
    made: dict[str, tuple[str, str, Callable[[int], Row], int]] = {
        "arc": ("arc-challenge", "arc/arc_challenge.yaml", _science(problems), 340),
        "hellaswag": ("hellaswag", "hellaswag/hellaswag.yaml", _scene(_rows("openai/gsm8k")), 600),
        "boolq": ("boolq", "super_glue/boolq/default.yaml", _passage(reviews), 600),
        "winogrande": ("winogrande", "winogrande/default.yaml", _gap(reviews), 600),
    }
    for name, (catalogue, path, row, count) in made.items():
        data = folder / name
        data.mkdir(parents=True, exist_ok=True)
        rows = [row(index) for index in range(count)]
        for split in ("train", "validation", "test"):
            lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            (data / f"{split}.jsonl").write_text(lines, encoding="utf-8")
        task = {"include": str(library() / path), "dataset_path": str(data), "dataset_name": None}
        ours = {"dataset": str(data), "config": None, "split": "validation", "holdout_split": None}
        yield Twin(name, task | {"test_split": None}, ours, catalogue)
        yield Twin(f"lm_eval_{name}", task | {"test_split": None})


def _texts() -> Iterable[Twin]:
    """How likely a text is, by itself."""
    task = {
        "dataset_path": REVIEWS,
        "test_split": "validation",
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{text}}",
        "metric_list": [{"metric": "bits_per_byte"}],
    }
    ours = {
        "name": "reviews",
        "dataset": REVIEWS,
        "split": "validation",
        "kind": "perplexity",
        "target": "{{ text }}",
    }
    yield Twin("perplexity", task, ours)
    yield Twin("lm_eval_perplexity", task)


def _rows(dataset: str, split: str = "test") -> list[Row]:
    from datasets import load_dataset

    config = "main" if dataset == "openai/gsm8k" else None
    return [dict(row) for row in load_dataset(dataset, config, split=split)]


def _science(rows: Sequence[Row]) -> Callable[[int], Row]:
    """Sums with three to five answers to choose from, as ARC's rows are."""

    def row(index: int) -> Row:
        count, right = 3 + index % 3, index % 3
        answers = [str(rows[(index + 7 * step) % len(rows)]["answer"]) for step in range(count)]
        answers[0], answers[right] = answers[right], answers[0]
        labels = list("ABCDE" if index % 2 else "12345")[:count]
        return {
            "id": str(index),
            "question": rows[index % len(rows)]["question"],
            "choices": {"text": answers, "label": labels},
            "answerKey": labels[right],
        }

    return row


def _scene(rows: Sequence[Row]) -> Callable[[int], Row]:
    """The last sentences of long problems, of which one belongs to the problem: long options."""

    def parts(index: int) -> tuple[str, str]:
        *before, last = rows[index % len(rows)]["question"].split(". ")
        return ". ".join(before) or "A problem", last

    def row(index: int) -> Row:
        before, _ = parts(index)
        endings = [
            parts(index + 11 * step)[1] + (" [step] and so on" if index % 5 == 0 else "")
            for step in range(4)
        ]
        right = index % 4
        endings[0], endings[right] = endings[right], endings[0]
        return {
            "ind": index,
            "activity_label": "Solving problems",
            "ctx_a": before + ".",
            "ctx_b": "and",
            "endings": [
                ending + (" [step] and so on" if index % 5 == 0 else "") for ending in endings
            ],
            "label": str(right),
        }

    return row


def _passage(rows: Sequence[Row]) -> Callable[[int], Row]:
    def row(index: int) -> Row:
        review = rows[index * 37 % len(rows)]
        return {
            "passage": review["text"],
            "question": "did the writer like the film",
            "idx": index,
            "label": review["label"],
        }

    return row


def _gap(rows: Sequence[Row]) -> Callable[[int], Row]:
    """A word left out of a review, and another review's word beside it."""

    def words(index: int) -> list[str]:
        return str(rows[index * 53 % len(rows)]["text"]).replace("_", " ").split()

    def row(index: int) -> Row:
        mine, other = words(index), words(index + 1)
        at = len(mine) // 2
        options = [mine[at], other[len(other) // 2]]
        if index % 2:
            options.reverse()
        sentence = " ".join([*mine[:at], "_", *(mine[at + 1 :] or ["."])])
        answer = str(1 + index % 2)
        return {
            "sentence": sentence,
            "option1": options[0],
            "option2": options[1],
            "answer": answer,
        }

    return row


def compare(
    twin: Twin,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    count: int,
    tokens: int,
    batch_size: int = 8,
) -> Agreement:
    """Ask both the same ``count`` questions."""
    benchmark = _ours(twin, folder, tokens)
    samples = load_samples(benchmark, "search", count)
    ours = {
        int(output.id.rpartition("/")[2]): output
        for output in evaluate(model, tokenizer, benchmark, samples, batch_size).outputs
    }
    theirs = _harness(twin, model, tokenizer, folder, sorted(ours), batch_size)
    found = Agreement(twin.name, len(ours))
    for index in sorted(ours):
        reply = theirs[index][0]["resps"][0][0]
        if isinstance(reply, str):
            _compare_texts(found, benchmark, ours[index], theirs[index])
        elif isinstance(reply, float):
            _compare_bits(found, ours[index], theirs[index][0])
        else:
            _compare_orders(found, benchmark, ours[index], theirs[index][0])
    return found


def _ours(twin: Twin, folder: Path, tokens: int) -> Benchmark:
    if twin.ours is None:
        benchmark = get_benchmark(f"lm_eval:{folder / twin.name}.yaml")
        return benchmark.model_copy(update={"chat": twin.chat})
    if twin.catalogue is None:
        return parse_benchmark(twin.ours, twin.name)
    benchmark = get_benchmark(twin.catalogue)
    limit = {"max_new_tokens": tokens} if benchmark.kind == "generation" else {}
    return benchmark.model_copy(update={**twin.ours, **limit})


def _harness(
    twin: Twin,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    indices: list[int],
    batch_size: int,
) -> dict[int, list[Row]]:
    """The harness's own record of each document, one for each of the task's filters."""
    from lm_eval.models.huggingface import HFLM

    lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size)
    path = folder / f"{twin.name}.yaml"
    records = harness_records(lm, path, f"twin_{twin.name}", indices, chat=twin.chat)
    found: dict[int, list[Row]] = {}
    for record in records:
        found.setdefault(record["doc_id"], []).append(record)
    return found


def harness_records(
    lm: LM, path: Path, name: str, indices: list[int] | None = None, *, chat: bool = False
) -> list[Row]:
    """The harness's own records of the documents of a YAML task: all, or those at ``indices``.

    Its `simple_evaluate` does the same and spends seconds on describing the machine.
    """
    import lm_eval
    from lm_eval.tasks import TaskManager

    tasks = TaskManager(include_defaults=False).load([str(path)])
    tasks["tasks"][name].set_fewshot_seed(1234)
    done = lm_eval.evaluate(
        lm,
        tasks,
        samples=indices and {name: indices},
        apply_chat_template=chat,
        fewshot_as_multiturn=True,
        bootstrap_iters=0,
    )
    records: list[Row] = done["samples"][name]
    return records


def _compare_texts(
    found: Agreement, benchmark: Benchmark, ours: Output, records: Sequence[Row]
) -> None:
    """By the answers that were extracted; of the harness's filters by the one like ours."""
    wanted = benchmark.metric.partition(",")[2] or "flexible-extract"
    record = next((r for r in records if r["filter"] == wanted), records[0])
    text, answer = record["resps"][0][0], str(record["filtered_resps"][0])
    found.texts = (found.texts or 0) + (ours.text == text)
    if benchmark.kind == "lm_eval":
        same = ours.answer == answer
        numbers: tuple[str, str] | None = None
    else:
        mine, own = extract_answer(benchmark.extract, text, benchmark.language), _plain(answer)
        numbers = last_number(text, benchmark.language), own
        found.extraction = (found.extraction or 0) + (numbers[0] == own)
        same = ours.answer == mine
    found.same += same
    if not same:
        found.differences.append(
            f"{ours.id}: {ours.answer!r} for {answer!r}; ours wrote {ours.text!r}, HFLM {text!r}"
        )
    if numbers and numbers[0] != numbers[1]:
        end = text[-60:]
        found.elsewhere.append(f"{ours.id}: {numbers[0]!r} for {answer!r} in {end!r}")


def solutions() -> Agreement:
    """Our `last_number` and the harness's filter on GSM8K's written solutions, without their last
    line, which has the answer alone."""
    from lm_eval.filters.extraction import RegexFilter

    find = RegexFilter(NUMBER, group_select=-1)
    texts = [str(row["answer"]).partition("\n####")[0] for row in _rows("openai/gsm8k")]
    found = Agreement("solutions", len(texts), extraction=0)
    for text, (number,) in zip(texts, find.apply([[text] for text in texts], []), strict=True):
        mine = last_number(text, "en")
        found.same += mine == _plain(number)
        if mine != _plain(number):
            found.elsewhere.append(f"{mine!r} for {number!r} in {text[-60:]!r}")
    found.extraction = found.same
    return found


def _plain(number: str) -> str:
    """What the harness's filter extracted, written as we write numbers."""
    text = number.replace("$", "").replace(",", "").rstrip(".")
    if text in ("", "-", "[invalid]"):
        return ""
    try:
        value = float(text)
    except ValueError:
        return text
    return str(int(value)) if value == int(value) else repr(value)


def _compare_orders(found: Agreement, benchmark: Benchmark, ours: Output, record: Row) -> None:
    """By the order of the options' log-likelihoods, normalised where ours are."""
    theirs = [float(reply[0][0]) for reply in record["resps"]]
    if benchmark.normalize == "characters":
        options = [str(each[1]) for each in record["arguments"]]
        theirs = [a / len(b.lstrip()) for a, b in zip(theirs, options, strict=True)]
    mine = [float(each[1:]) for each in _VALUE.findall(ours.text)]
    assert len(mine) == len(theirs), ours.text
    found.same += _order(mine) == _order(theirs)
    if _order(mine) != _order(theirs):
        pairs = zip(mine, theirs, strict=True)
        found.differences.append(
            f"{ours.id}: " + ", ".join(f"{a:.4f} for {b:.4f}" for a, b in pairs)
        )


_VALUE = re.compile(r"=(?:-?\d+\.\d{4}|nan|-inf)(?= |$)")


def _order(values: Sequence[float]) -> list[int]:
    return sorted(range(len(values)), key=values.__getitem__)


def _compare_bits(found: Agreement, ours: Output, record: Row) -> None:
    """By bits a byte, to a thousandth."""
    size = len(str(record["target"]).encode())
    theirs = -record["resps"][0][0] / math.log(2) / size
    same = math.isclose(ours.score, theirs, rel_tol=1e-3)
    found.same += same
    if not same:
        found.differences.append(f"{ours.id}: {ours.score:.5f} for {theirs:.5f}")
