"""What `evaluate.py` scores: real problems, asked in the ways benchmarks ask."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from morphing.benchmarks.benchmark import Benchmark, parse_benchmark
from morphing.benchmarks.data.sample import Sample

SHOTS = 4
_OPTIONS = 4


@dataclass(frozen=True)
class Case:
    """A benchmark and its samples."""

    name: str
    about: str
    benchmark: Benchmark
    samples: tuple[Sample, ...]


@dataclass(frozen=True)
class Problem:
    question: str
    answer: str

    @property
    def halves(self) -> tuple[str, str]:
        """The question up to its last sentence, and that; of a single sentence the first words."""
        head, stop, tail = self.question.rpartition(". ")
        if not stop:
            words = self.question.split(" ")
            head, tail = " ".join(words[:-1]), words[-1]
        return head + stop.rstrip(), f" {tail}"


def cases(hub: Path | None, quick: bool) -> list[Case]:
    """From the test-bed's data sets under ``hub``, or from the zoo's."""
    if hub is None:
        return _zoo(4 if quick else 1)
    part = 4 if quick else 1
    data = hub / "datasets"
    problems = _problems(data / "openai/gsm8k/main/test.jsonl")
    words = _problems(data / "morphing-testbed/mawps/test.jsonl")
    reviews = _rows(data / "cornell-movie-review-data/rotten_tomatoes/test.jsonl")
    shots = "".join(f"{_asked(p)} {p.answer}\n\n" for p in problems[-SHOTS:])
    mixed = random.Random(0).sample(reviews, 128 // part)
    return [
        _choice(
            "endings",
            "GSM8K: the question's last sentence among those of four",
            problems,
            24 // part,
            lambda p: p.halves,
        ),
        _choice(
            "solutions",
            "GSM8K: the solution among those of four",
            problems,
            8 // part,
            lambda p: (_asked(p), f" {p.answer}"),
        ),
        _choice(
            "few-shot",
            f"GSM8K: as endings, after {SHOTS} solved problems",
            problems,
            4 // part,
            lambda p: (shots + p.halves[0], p.halves[1]),
        ),
        Case(
            "one token",
            "rotten_tomatoes: positive or negative, both one token",
            _declared(kind="multiple_choice", choices=["a", "b"], target="0"),
            tuple(
                Sample(
                    str(at),
                    f"Review: {row['text']}\nSentiment:",
                    row["label"],
                    (" negative", " positive"),
                )
                for at, row in enumerate(mixed)
            ),
        ),
        _written(
            "short answers", "MAWPS: an answer of one line", words[: 64 // part], "", 48, ["\n"]
        ),
        _written(
            "worked answers",
            "GSM8K: a solution, after two solved problems",
            problems[: 16 // part],
            "".join(f"{_asked(p)} {p.answer}\n\n" for p in problems[-2:]),
            96,
            ["\n\n", "Question:"],
        ),
    ]


def _zoo(part: int) -> list[Case]:
    from morphing.zoo import dataset_folder

    problems = _problems(Path(dataset_folder("english-arithmetic")) / "search.jsonl")
    puzzles = _problems(Path(dataset_folder("word-puzzles")) / "search.jsonl")
    return [
        _choice(
            "options",
            "word puzzles: the answer among those of four",
            puzzles,
            200 // part,
            lambda p: (p.question, f" {p.answer}"),
        ),
        _written("answers", "arithmetic", problems[: 400 // part], "", 5, []),
    ]


def _choice(name: str, about: str, problems: Sequence[Problem], count: int, split: Any) -> Case:
    drawn = random.Random(name)
    samples = []
    for at, problem in enumerate(problems[:count]):
        others = [p for p in problems[:100] if p is not problem]
        options = [problem, *drawn.sample(others, _OPTIONS - 1)]
        drawn.shuffle(options)
        texts = tuple(split(option)[1] for option in options)
        samples.append(Sample(str(at), split(problem)[0], options.index(problem), texts))
    declared = _declared(kind="multiple_choice", choices=["a", "b"], target="0")
    return Case(name, about, declared, tuple(samples))


def _written(
    name: str, about: str, problems: Sequence[Problem], shots: str, limit: int, stop: list[str]
) -> Case:
    declared = _declared(kind="generation", target="x", max_new_tokens=limit, stop=stop)
    samples = tuple(Sample(str(at), shots + _asked(p), p.answer) for at, p in enumerate(problems))
    return Case(name, f"{about}, at most {limit} tokens", declared, samples)


def _declared(**fields: Any) -> Benchmark:
    return parse_benchmark({"name": "case", "dataset": "zoo:none", "prompt": "x", **fields}, "case")


def _asked(problem: Problem) -> str:
    return f"Question: {problem.question}\nAnswer:"


def _problems(path: Path) -> list[Problem]:
    return [Problem(row["question"], str(row["answer"])) for row in _rows(path)]


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
