"""A task of lm-evaluation-harness built over data that we hold, to ask by and to score with."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask
from lm_eval.filters import build_filter_ensemble

from morphing.benchmarks.harness.fields import (
    check_usable,
    metric_name,
    metrics,
)
from morphing.benchmarks.harness.files import find_task
from morphing.benchmarks.harness.templates import render_apart
from morphing.benchmarks.judging.modules import guard_modules
from morphing.benchmarks.results import Output
from morphing.benchmarks.sandbox.check import ask_leave
from morphing.errors import MorphingError, first_line

if TYPE_CHECKING:
    from morphing.benchmarks.benchmark import Benchmark
    from morphing.benchmarks.data.sample import Sample
    from morphing.benchmarks.harness.model import Reply

Render = Callable[[Sequence[Mapping[str, str]], bool], str]
"""Turns of a chat, and whether a reply is to come, as text."""


class Docs(list[Mapping[str, Any]]):
    """Rows as the harness takes them, which also asks what columns there are."""

    @property
    def features(self) -> Mapping[str, Any]:
        return self[0]


def build_task(
    benchmark: Benchmark, splits: Mapping[str, Any], changes: Mapping[str, Any]
) -> ConfigurableTask:
    """The benchmark's task over ``splits`` instead of its dataset, with its one metric.

    Raises:
        MorphingError: it can't be built or used, or its metric can't be had.
    """
    task_file = find_task(str(benchmark.task), benchmark.include)
    check_usable(task_file)
    guard_modules()
    render_apart()
    config = {**task_file.loaded(), **changes}
    config["metric_list"] = [_metric(benchmark, config)]
    for key in ("tag", "group", "task_list", "dataset_kwargs"):
        config.pop(key, None)
    with_shots = bool(config.get("num_fewshot"))

    class Held(ConfigurableTask):
        def download(self, *args: Any, **kwargs: Any) -> None:
            self.dataset = splits

        def fewshot_docs(self) -> Any:
            # The harness reads a whole split for them even where no example is asked for.
            return super().fewshot_docs() if with_shots else None

    with quiet(), said(benchmark, "can't be built"):
        return Held(config=config)


def _metric(benchmark: Benchmark, config: Mapping[str, Any]) -> dict[str, Any]:
    from lm_eval.api.registry import METRIC_REGISTRY, get_metric

    wanted = benchmark.metric.partition(",")[0]
    named = {metric_name(entry): entry for entry in metrics(config)}
    entry = dict(named[wanted])
    if config.get("output_type") == "multiple_choice":
        entry.pop("hf_evaluate", None)  # the harness would fetch it and not use it
    if config.get("process_results") is not None or callable(entry["metric"]):
        return entry
    fetched = bool(entry.get("hf_evaluate")) or wanted not in METRIC_REGISTRY
    # Evaluate's own modules may be fetched by leave, as by `evaluate:`; others never.
    if fetched and "/" not in wanted:
        ask_leave(f"The metric {wanted!r} of benchmark {benchmark.name!r} is a program")
    with quiet():
        if fetched and ("/" in wanted or get_metric(wanted, True) is None):
            raise MorphingError(
                f"The metric {wanted!r} of benchmark {benchmark.name!r} can't be had from the"
                " evaluate library: check its name and the network, or choose another one after"
                " '#'."
            )
    return entry


def held_task(benchmark: Benchmark, rows: Sequence[Mapping[str, Any]]) -> ConfigurableTask:
    """The benchmark's task over documents that samples brought with them, to score answers.

    ``rows`` are the samples' rows, as `harness.docs` makes them.

    Raises:
        MorphingError: the task can't be built.
    """
    # The documents are processed already, and examples are part of the prompts.
    ready = dict.fromkeys(("process_docs", "training_split", "validation_split", "fewshot_split"))
    changes = {**ready, "fewshot_config": None, "num_fewshot": 0, "test_split": "docs"}
    task = build_task(benchmark, {"docs": Docs(row["doc"] for row in rows)}, changes)
    # The harness tells by the dataset's first document, which may be none of these.
    task.multiple_input, task.multiple_target = rows[0]["multiple"]
    return task


def instances(row: Mapping[str, Any], index: int, render: Render | None = None) -> list[Instance]:
    """The requests of a row; ``render`` writes a chat's turns, without it the text is plain."""
    asked = row["plain"] if render is None else row["chat"]
    contexts = [
        each if isinstance(each, str) or render is None else render(each["messages"], each["reply"])
        for each in asked["contexts"]
    ]
    metadata = (None, index, row["repeats"])
    return [
        Instance(kind, row["doc"], (contexts[context], *rest), at, metadata)
        for at, (kind, context, *rest) in enumerate(asked["requests"])
    ]


class Scoring:
    """From replies to a benchmark's requests to its outputs, by the task's own filters and code."""

    def __init__(self, benchmark: Benchmark, task: ConfigurableTask) -> None:
        self.benchmark, self.task = benchmark, task
        self.name, _, wanted = benchmark.metric.partition(",")
        self.filter = _filter(task.config, wanted)
        self.lower_better = benchmark.direction == "minimize"

    def outputs(
        self,
        samples: Sequence[Sample],
        groups: Sequence[Sequence[Instance]],
        replies: Sequence[Sequence[Reply]],
    ) -> list[Output]:
        """What the harness makes of the replies to each sample's requests.

        Raises:
            MorphingError: the task's own code fails on an answer.
        """
        every = [instance for group in groups for instance in group]
        values = [reply.value for group in replies for reply in group]
        for instance, value in zip(every, values, strict=True):
            # More than one answer to a question would have to be sampled; ours is the likeliest.
            instance.resps = [value] * (instance.repeats or 1)
        with said(self.benchmark, "can't filter an answer"):
            self.filter.apply(every)
        return [self._output(*each) for each in zip(samples, groups, replies, strict=True)]

    def _output(self, sample: Sample, group: Sequence[Instance], mine: Sequence[Reply]) -> Output:
        results = [instance.filtered_resps[self.filter.name] for instance in group]
        target, tokens = str(sample.target), sum(reply.tokens for reply in mine)
        if group[0].request_type == "generate_until":
            text, thought = mine[0].value, mine[0].thought
            if mine[0].unfinished:
                value = math.nan if self.lower_better else 0.0
                return Output(
                    sample.id, sample.prompt, text, "", target, value, tokens, thought, True
                )
            value, answer = self._value(group[0].doc, results), str(results[0])
            return Output(sample.id, sample.prompt, text, answer, target, value, tokens, thought)
        logs = [_log(reply) for reply in mine]
        options = [str(instance.args[-1]).strip() for instance in group]
        if group[0].request_type == "loglikelihood_rolling":
            options = ["text"] * len(group)
        text = " ".join(f"{a}={b:.4f}" for a, b in zip(options, logs, strict=True))
        value, answer = self._value(group[0].doc, results), text
        if self.task.OUTPUT_TYPE == "multiple_choice":
            answer = self._chosen(group[0].doc, options, logs)
        return Output(sample.id, sample.prompt, text, answer, target, value)

    def _chosen(self, doc: Mapping[str, Any], options: list[str], logs: list[float]) -> str:
        """The option that the metric counts as the model's."""
        choices = self.task.doc_to_choice(doc)
        sizes = {
            "acc_norm": [len(choice) for choice in choices],
            "acc_bytes": [len(choice.encode()) for choice in choices],
        }.get(self.name, [1] * len(choices))
        # Where the options' own likelihoods are asked for too, these come last.
        values = [log / (size or 1) for log, size in zip(logs, sizes, strict=False)]
        if self.name == "acc_mutual_info":
            values = [a - b for a, b in zip(logs, logs[len(choices) :], strict=False)]
        best = max(range(len(values)), key=values.__getitem__)
        return str(choices[best]).strip()

    def _value(self, doc: Mapping[str, Any], results: list[Any]) -> float:
        with quiet(), said(self.benchmark, "can't score an answer"):
            scores = self.task.process_results(doc, results)
            if self.name not in scores and len(scores) == 1:
                (name,) = scores  # a metric that names its result itself, such as pass@1
            else:
                name = self.name
            aggregate = self.task.aggregation().get(name) or self.task.aggregation()[self.name]
            try:
                return float(aggregate([scores[name]]))
            except OverflowError:
                return math.inf


def _filter(config: Any, name: str) -> Any:
    """The filter pipeline called ``name``, or the harness's default one."""
    for entry in config.filter_list or ():
        if entry["name"] == name:
            steps = [
                (step["function"], {key: step[key] for key in step if key != "function"})
                for step in entry["filter"]
            ]
            return build_filter_ensemble(name, steps)
    return build_filter_ensemble("none", [("take_first", None)])


def _log(reply: Reply) -> float:
    value = reply.value
    return float(value[0] if isinstance(value, tuple) else value)


@contextmanager
def quiet() -> Iterator[None]:
    """Without the harness's remarks on how a task is written."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextmanager
def said(benchmark: Benchmark, problem: str) -> Iterator[None]:
    """Turn whatever a task's own code raises into a MorphingError that names the benchmark."""
    try:
        yield
    except MorphingError:
        raise
    except ModuleNotFoundError as error:
        raise MorphingError(
            f"Benchmark {benchmark.name!r} needs the package {error.name!r}, which is not"
            f" installed: pip install {error.name}."
        ) from error
    except Exception as error:
        # A task is a program: what it raises can't be told in advance.
        if missing := re.search(r"nltk\.download\('(\w+)'\)", str(error)):
            raise MorphingError(
                f"Benchmark {benchmark.name!r} needs NLTK's data {missing[1]!r}, which is not here:"
                f" run `python -m nltk.downloader {missing[1]}` once where there is a network."
            ) from error
        raise MorphingError(
            f"The task of benchmark {benchmark.name!r} {problem}: {first_line(error)}."
        ) from error
