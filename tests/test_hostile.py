"""Every string that comes from outside × every place where it is shown or used.

A world is a run with every kind of file, a benchmark of the visitor's own, a card and what a search
of the Hub found. Each field in turn holds hostile text in it; then each place shows the same tags,
links, tables and keys as with plain words, or the text was refused at the door. A string field that
is added to what comes from outside must be added here.
"""

from __future__ import annotations

import dataclasses
import io
import json
import re
import shlex
import time
import typing
from collections.abc import Callable, Collection, Iterator
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from markdown_it import MarkdownIt
from pydantic import BaseModel, ValidationError

from morphing.benchmarks.benchmark import Benchmark
from morphing.benchmarks.data.columns import Table
from morphing.benchmarks.data.draft import Draft
from morphing.benchmarks.data.sample import Sample
from morphing.benchmarks.data.samples import Draw
from morphing.benchmarks.results import Conditions, Output, Score
from morphing.cli import common, tables, terminal
from morphing.errors import MorphingError
from morphing.inert import whole
from morphing.merging.recipe import Recipe
from morphing.publishing.card import card_files
from morphing.publishing.facts import CardFacts, ObjectiveLine, ScoreLine, Standing
from morphing.publishing.publish import card_facts
from morphing.runs.evaluation import Evaluation
from morphing.runs.figures import Figures, figures_of
from morphing.runs.leases import Worker
from morphing.runs.pairs import pairs_of
from morphing.runs.records import Record, write_record
from morphing.runs.run import Run, Status
from morphing.runs.scales import scales
from morphing.runs.spec import (
    BenchmarkUse,
    Constraint,
    MeasureUse,
    RunSpec,
    SearchOptions,
    parse_spec,
)
from morphing.runs.trial import Raced, Result, Trial
from morphing.search.options import SpaceOptions
from morphing.sources.source import Inspection, ModelHit, Source
from morphing.ui import handlers, plots
from morphing.ui.cards import step_bar
from morphing.ui.compare import tab as compare
from morphing.ui.compose import cards, catalogue, own_cards
from morphing.ui.compose.choice import Choice, Settings
from morphing.ui.publish import tab as publish
from morphing.ui.scene import Scene
from morphing.ui.watch import differences, holdout, makeup, trials
from morphing.ui.watch.progress import progress, scales_note, state_chip
from tests.runs.recording import tell
from tests.test_inert import is_inert

PLAIN = "plain words"
HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "\"><script>alert(1)</script><a href='javascript:alert(1)'>",
    "[/INST] 42",
    "[red]x[/red] [link=http://evil.example]y[/link]",
    "\x1b[2J\x1b]0;owned\x07\x9b31m",
    "[click](javascript:alert(1)) ![](http://evil.example/x.png) <http://evil.example>",
    "http://evil.example www.evil.example @everyone #1",
    "{{7*7}} {% raw %} {task.description} %(x)s",
    "../../etc/passwd",
    "'; rm -rf ~ #$(id)`id`",
    "=cmd|' /C calc'!A0",
    "a\n---\n# h\n\n| a | b |\n- x: y\n```\n~~~\n&lt;",
    "\u202egnp.exe\u2066\u2028x",
    "lone \ud800 surrogate",
    "*a* _b_ ~~c~~ `d` \\ :smile: $x^2$",
)

# Class.field -> where it lies in the world below.
SHOWN = {
    "RunSpec.base": "base",
    "RunSpec.sources": "source",
    "RunSpec.chat_template": "chat_template",
    "Benchmark.title": "title",
    "Benchmark.description": "description",
    "Benchmark.license": "license",
    "Benchmark.language": "language",
    "Benchmark.dataset": "dataset",
    "Benchmark.config": "config",
    "Benchmark.revision": "revision",
    "Benchmark.split": "split",
    "Benchmark.holdout_split": "holdout_split",
    "Benchmark.few_shot_split": "few_shot_split",
    "Benchmark.system": "system",
    "Benchmark.shot": "shot",
    "Benchmark.shot_separator": "shot_separator",
    "Benchmark.stop": "stop",
    "Benchmark.extract": "extract",
    "Benchmark.metric": "metric",
    "Trial.params": "number",
    "Trial.recipe": "recipe",
    "Trial.error": "error",
    "Trial.seed": "seed",
    "Trial.drawn": "drawn",
    "Worker.host": "host",
    "Worker.device": "device",
    "Worker.state": "worker_state",
    "Worker.message": "worker_message",
    "Worker.step": "worker_step",
    "Status.state": "state",
    "Status.message": "message",
    "Status.step": "step",
    "Output.id": "sample_id",
    "Output.prompt": "prompt",
    "Output.thought": "thought",
    "Score.remarks": "result_remark",
    "Result.remarks": "result_remark",
    "Conditions.device": "condition",
    "Conditions.dtype": "condition",
    "Conditions.thinking": "condition",
    "Conditions.versions": "condition",
    "Output.text": "text",
    "Output.answer": "answer",
    "Output.target": "target",
    "Sample.id": "shown_id",
    "Sample.prompt": "shown_prompt",
    "Sample.target": "shown_target",
    "Sample.choices": "option",
    "Sample.continuation": "continuation",
    "Sample.system": "shown_system",
    "Inspection.architecture": "architecture",
    "Inspection.base_models": "ancestor",
    "Inspection.remarks": "remark",
    "ModelHit.id": "hit",
    "CardFacts.title": "card_title",
    "CardFacts.version": "version",
    "CardFacts.licenses": "licence",
    "CardFacts.constraints": "constraint",
    "CardFacts.remarks": "card_remark",
    "ScoreLine.benchmark": "line_name",
    "ScoreLine.title": "line_title",
    "ScoreLine.dataset": "line_dataset",
    "ScoreLine.revision": "line_revision",
    "ScoreLine.split": "line_split",
    "ScoreLine.metric": "line_metric",
    "ScoreLine.thinking": "line_thinking",
    "ObjectiveLine.name": "objective",
    "ObjectiveLine.value": "objective_value",
    "ObjectiveLine.reference": "objective_reference",
    "ObjectiveLine.ideal": "objective_ideal",
    "Standing.best_source": "best_source",
    "Draft.fields": "draft_title",
    "Draft.splits": "draft_split",
    "Table.rows": "cell",
    "exception": "exception",
    "column": "column",
    "chat": "chat",
    "user": "user",
    "address": "address",
    "repository": "repository",
    "query": "query",
}
# Refused unless they are plain names or known words: each refuses every hostile text.
REFUSED: dict[str, Callable[[str], object]] = {
    "RunSpec.name": lambda t: spec_of({"name": t}),
    "RunSpec.method": lambda t: spec_of({"method": t}),
    "RunSpec.device": lambda t: spec_of({"device": t}),
    "RunSpec.dtype": lambda t: spec_of({"dtype": t}),
    "RunSpec.tokenizer_source": lambda t: spec_of({"tokenizer_source": t}),
    "RunSpec.placement": lambda t: spec_of({"placement": t}),
    "BenchmarkUse.benchmark": lambda t: BenchmarkUse(benchmark=t).declaration,
    "BenchmarkUse.direction": lambda t: BenchmarkUse(benchmark="gsm8k", direction=t),  # type: ignore[arg-type]
    "MeasureUse.measure": lambda t: MeasureUse(measure=t),
    "MeasureUse.direction": lambda t: MeasureUse(measure="sparsity", direction=t),  # type: ignore[arg-type]
    "Constraint.on": lambda t: spec_of({"constraints": [{"on": t, "at_least": 1}]}),
    "Constraint.at_least": lambda t: spec_of({"constraints": [{"on": "layers", "at_least": t}]}),
    "Constraint.at_most": lambda t: spec_of({"constraints": [{"on": "layers", "at_most": t}]}),
    "SearchOptions.sampler": lambda t: SearchOptions(sampler=t),
    "SearchOptions.weights": lambda t: spec_of(
        {"search": {"sampler": "evolve", "weights": {t: 1.0}}}
    ),
    "SpaceOptions.strategy": lambda t: SpaceOptions(strategy=t),  # type: ignore[arg-type]
    "SpaceOptions.layer_groups": lambda t: SpaceOptions(layer_groups=t),  # type: ignore[arg-type]
    "SpaceOptions.module_kinds": lambda t: SpaceOptions(module_kinds=(t,)),  # type: ignore[arg-type]
    "Benchmark.name": lambda t: own(name=t),
    "Benchmark.chat": lambda t: own(chat=t),
    "Benchmark.thinking": lambda t: own(chat=True, thinking=t),
    "BenchmarkUse.thinking": lambda t: BenchmarkUse(benchmark="gsm8k", thinking=t),  # type: ignore[arg-type]
    "Benchmark.kind": lambda t: own(kind=t),
    "Benchmark.normalize": lambda t: own(kind="multiple_choice", normalize=t),
}
# Not shown to anybody, or made by Morphing itself; why.
OTHER = {
    "RunSpec.digests": "models to digests that Morphing made; the models are the spec's",
    "SearchOptions.seeds": "files and recipes, read by Recipe; their label is shown: Trial.seed",
    "SpaceOptions.ranges": "names of numbers, refused where the space has none of the name",
    "SpaceOptions.fixed": "as ranges",
    "SpaceOptions.tied": "as ranges",
    **{
        f"Benchmark.{field}": "a template or rule of one's own, shown as YAML only: described()"
        for field in ("prompt", "target", "choices", "continuation", "program", "task", "include")
    },
    "Trial.results": "by benchmark, whose names are plain",
    "Trial.times": "by benchmark, whose names are plain",
    "Raced.samples": "by benchmark, whose names are plain",
    "Record.results": "by benchmark, whose names are plain",
    "Record.measures": "by measure, of a table",
    "Record.model": "looked up among the spec's models",
    "Worker.id": "names of files in the run's own folder; not shown",
    "Sample.row": "not shown",
    **{
        f"Draw.{field}": "compared, not shown"
        for field in ("dataset", "config", "revision", "part")
    },
    "Inspection.name": "the spec's",
    "Inspection.license": "as CardFacts.licenses",
    "Inspection.chat_template": "rendered in Jinja's sandbox, not shown",
    "Inspection.config": "read, not shown",
    "Table.classes": "names of classes, shown as cells are",
    "Table.columns": "as column",
    "Inspection.tensors": "names of tensors are shown in errors: exception",
    "ModelHit.base_models": "not shown",
    "Source.name": "the spec's",
    "Source.base_models": "not shown",
    "Source.digest": "Morphing made it",
    "CardFacts.base": "as RunSpec.base",
    "CardFacts.sources": "as RunSpec.sources",
    "CardFacts.recipe": "as Trial.recipe",
    "CardFacts.stage": "as Trial.recipe",
    "CardFacts.run": "Morphing's own words",
    "CardFacts.digests": "Morphing made them",
    "CardFacts.reference_search": "as ScoreLine",
    "CardFacts.reference_holdout": "as ScoreLine",
    "ScoreLine.part": "one of two words of Morphing's",
    "ObjectiveLine.direction": "one of two words of Morphing's",
    "Choice.base": "as RunSpec.base",
    "Choice.sources": "as RunSpec.sources",
    **{
        f"Choice.{field}": "changed by clicks on what is offered alone"
        for field in ("benchmarks", "measures", "floors", "strategy", "depth", "method", "sampler")
    },
    "Settings.name": "as RunSpec.name",
    "Settings.device": "as RunSpec.device",
    "Settings.dtype": "as RunSpec.dtype",
    "Figures.constraints": "of Constraint",
}
OF_ANOTHER_KIND = {"number", "query", "line_dataset", "line_revision"}
"""What is shown otherwise for good reasons: no part of the model is called so, nothing is found, no
dataset of the Hub is meant. It shows nothing that is not shown elsewhere."""
CLASSES: tuple[type, ...] = (
    *(RunSpec, BenchmarkUse, MeasureUse, Constraint, SearchOptions, SpaceOptions, Benchmark),
    *(Trial, Raced, Result, Record, Worker, Status, Output, Score, Sample, Draw, Inspection),
    *(ModelHit, Source, CardFacts, ScoreLine, ObjectiveLine, Standing, Choice, Settings, Draft),
    *(Figures, Table, Conditions),
)


def test_every_string_from_outside_is_in_the_table() -> None:
    found = {f"{cls.__name__}.{name}" for cls in CLASSES for name in _strings(cls)}
    listed = {name for name in (*SHOWN, *REFUSED, *OTHER) if "." in name}
    assert found == listed
    assert not set(SHOWN) & set(REFUSED) and not set(REFUSED) & set(OTHER)


def _strings(cls: type) -> Iterator[str]:
    if issubclass(cls, BaseModel):
        hints = {name: field.annotation for name, field in cls.model_fields.items()}
    else:
        hints = typing.get_type_hints(cls, localns=_LOCAL)
        hints = {field.name: hints[field.name] for field in dataclasses.fields(cls)}
    return (name for name, hint in hints.items() if _has_text(hint))


_LOCAL = {"Recipe": Recipe, "Mapping": typing.Mapping}


def _has_text(hint: Any) -> bool:
    if hint in (str, Any, Recipe):
        return True
    return any(isinstance(a, str) or _has_text(a) for a in typing.get_args(hint) if a is not ...)


@pytest.mark.parametrize("field", REFUSED)
def test_names_and_words_refuse_what_is_no_name(field: str) -> None:
    for text in HOSTILE:
        with pytest.raises((MorphingError, ValidationError)):
            REFUSED[field](text)


# --- a world


def own(**fields: Any) -> Benchmark:
    usual = {"name": "mine", "kind": "generation", "dataset": "rows.csv", "prompt": "{{ q }}"}
    if fields.get("kind") == "multiple_choice":
        usual["choices"] = ["a", "b"]
    return Benchmark.model_validate({**usual, "target": "{{ a }}", **fields})


def spec_of(fields: dict[str, Any]) -> RunSpec:
    usual = {"base": "zoo:base", "sources": ["zoo:english-math"], "benchmarks": ["gsm8k"]}
    return parse_spec({**usual, **fields})


class World:
    """All that comes from outside, with ``text`` in some places and plain words in the others."""

    run: Run

    def __init__(self, places: Collection[str], text: str) -> None:
        def say(name: str, otherwise: str = PLAIN) -> str:
            return text if name in places else otherwise

        self.say = say
        self.own = own(
            title=say("title"),
            description=say("description"),
            license=say("license"),
            language=say("language", "en"),
            dataset=say("dataset", "/data/rows.csv"),
            config=say("config", "main"),
            revision=say("revision", "abc"),
            split=say("split", "train"),
            holdout_split=say("holdout_split", "test"),
            few_shot_split=say("few_shot_split", "dev"),
            chat=True,
            system=say("system"),
            shot=say("shot"),
            shot_separator=say("shot_separator"),
            stop=(say("stop"),),
            extract="regex:" + re.escape(text) if "extract" in places else "strip",
            metric=say("metric", "exact_match"),
        )
        models = say("base", "/models/base"), say("source", "/models/mine")
        if len(set(models)) < 2:
            models = "/models/base", models[1]
        self.spec = parse_spec(
            {
                "name": "run",
                "base": models[0],
                "sources": [models[1]],
                "benchmarks": [
                    {"benchmark": self.own.model_dump(), "samples": 2, "holdout": 2},
                    {"benchmark": "zoo-kanji-numbers", "samples": 2, "holdout": 2},
                ],
                "method": "task_arithmetic",
                "dtype": "float32",
                "chat_template": say("chat_template", "words of mine"),
                "search": {"evaluations": 4},
            }
        )

    def written(self, folder: Path) -> World:
        """The same with a run of every kind of file in ``folder``."""
        say, models = self.say, (self.spec.base, *self.spec.sources)
        run = Run.create(folder, self.spec)
        said = [whole(say(each)) for each in ("prompt", "text", "answer", "target")]
        thought, condition = whole(say("thought")), whole(say("condition"))
        rows = [
            Output(f"{whole(say('sample_id'))}{n}", *said, float(n), 3, thought) for n in range(2)
        ]
        facts = {
            "remarks": [whole(say("result_remark"))],
            "conditions": Conditions(
                condition, condition, None, 1, condition, {condition: condition}
            ),
        }
        scored = {
            name: Score.of(rows, 1, 1.0, generated=True, **facts)
            for name in ("mine", "zoo-kanji-numbers")
        }
        results = {name: Result.of(score) for name, score in scored.items()}
        outputs = {name: score.outputs for name, score in scored.items()}
        measured = {"sparsity": -0.1, "parameters": 1e6, "layers": 4.0, "tokens": 3.0}
        for part in ("search", "holdout"):
            for model in models:
                record = Record(results, {**measured, "throughput": 9.0}, model)
                write_record(run.reference_path(part, model), record, outputs)
        scales(run)
        config: dict[str, Any] = {
            "merge_method": whole(say("recipe", "linear")),
            "models": [{"model": models[1], "parameters": {whole(say("recipe", "weight")): 0.5}}],
        }
        done = Evaluation((0.5, 0.5, -0.1), (0.01, 0.01, 0.0), (), results, outputs)
        for _ in range(2):
            number = tell(run, done, Recipe(config, 7))
            write_record(run.holdout_path(number), Record(results, measured), outputs)
        tell(run, say("error"))
        run.save_status(state="finished", message=say("message"), step=say("step"),
                        done=3, total=4)  # fmt: skip
        now = time.time()
        worker = Worker("0123abcd", say("host"), 7, say("device"), "running",
                        say("worker_message"), 3, say("worker_step"), 1, 4,
                        ((now - 9, now),), now + 600)  # fmt: skip
        (folder / "workers").mkdir()
        for id in ("0123abcd", "4567ef01"):
            data = json.dumps({**dataclasses.asdict(worker), "id": id}, ensure_ascii=False)
            (folder / "workers" / f"{id}.json").write_bytes(data.encode(errors="replace"))
        self.run = Run(folder)
        return self

    @property
    def scene(self) -> Scene:
        """As the app reads it, a trial in focus whose numbers and seed have names from outside."""
        status = self.run.status()
        # States are checked as they are read; what shows them does not count on it.
        state = self.say("worker_state", "running")
        workers = [dataclasses.replace(worker, state=state) for worker in status.workers]  # type: ignore[arg-type]
        status = dataclasses.replace(
            status,
            workers=tuple(workers),
            state=self.say("state", status.state),  # type: ignore[arg-type]
        )
        figures = figures_of(self.run)
        params = {f"{self.say('number', 'weight')}.{n}": 0.5 for n in range(3)}
        seen = [
            dataclasses.replace(
                trial, params=params, seed=self.say("seed"), drawn=self.say("drawn")
            )
            for trial in figures.trials
        ]
        figures = dataclasses.replace(figures, trials=tuple(seen))
        known = self.run.references("search")
        return Scene(self.run, status, figures, known, ("holdout/00000.json",), ("trial 0",), 0)

    def _samples(self) -> list[Sample]:
        say = self.say
        asked = Sample(
            id=say("shown_id"), prompt=say("shown_prompt"), target=say("shown_target"),
            system=say("shown_system"), row=None,
        )  # fmt: skip
        chosen = Sample(
            id="2", prompt="q", target=0, choices=(say("option"), "b"),
            continuation=say("continuation"), row=None,
        )  # fmt: skip
        return [asked, chosen]

    @property
    def draft(self) -> Draft:
        """A dataset of a visitor's own, with a column and a cell from outside."""
        say = self.say
        rows = [{say("column", "column"): say("cell"), "a": say("cell")}] * 3
        fields = {
            "name": "mine", "kind": "generation", "dataset": "rows.csv", "split": "train",
            "title": say("draft_title"), "prompt": "{{ a }}", "target": "{{ a }}",
        }  # fmt: skip
        table = Table(tuple(rows[0]), rows, {"a": (say("cell"), "b")})
        return Draft(fields, table, (say("draft_split"),))

    @property
    def facts(self) -> CardFacts:
        """What the run's card says, and lines that say all that a card can."""
        say = self.say
        line = ScoreLine(
            say("line_name"), say("line_title"), say("line_dataset", "org/data"),
            say("line_revision", "a" * 40), "holdout", say("line_split"), say("line_metric"),
            0.5, 10, 0.1, contaminated=True, thinking=say("line_thinking", "on"),
        )  # fmt: skip
        facts = card_facts(self.run, 0, say("card_title"))
        objective = ObjectiveLine(
            say("objective"), "maximize", say("objective_value"), say("objective_reference"),
            say("objective_ideal"),
        )  # fmt: skip
        return dataclasses.replace(
            facts,
            version=say("version"),
            licenses=dict.fromkeys(facts.models, say("licence")),
            constraints=(say("constraint"),),
            remarks=(say("card_remark"),),
            search=(*facts.search, line),
            holdout=(*facts.holdout, line),
            reference_holdout={facts.base: (line,)},
            objectives=(objective,),
            standing=Standing((0.5, 0.4, 0.6), say("best_source"), (0.1, 0.0, 0.2)),
        )


# --- the places


def as_web_pages(world: World) -> Iterator[str]:
    """All HTML of the app."""
    scene, say = world.scene, world.say
    trial = scene.trial
    assert trial is not None
    yield progress(scene)
    yield state_chip(scene)
    yield scales_note(scene)
    yield trials.front_table(scene)
    yield trials._facts(scene)
    for rows in world.run.outputs(0).values():
        yield trials._answers(rows)
        yield trials._scored(rows)
        yield differences.differences(pairs_of(rows, rows[::-1]), "differ", "a", say("source"))
        swapped = [{**row, "score": 1 - row["score"]} for row in rows]
        yield differences.differences(pairs_of(rows, swapped), "differ", "Trial 0", "base")
    yield makeup.make_up(trial, world.spec)
    yield makeup.spark(trial, world.spec)
    yield holdout._table(scene)
    yield publish._preview(scene)
    yield publish._members(scene)
    yield publish._identity(say("user"))
    yield publish._done("Pushed", say("address"), say("address"))
    yield compare._members(scene)
    yield compare._hint(scene)
    yield compare._column_title(scene, "trial 0")
    yield compare._column_title(scene, world.spec.base)
    yield compare._note(say("exception"))
    yield step_bar(say("step"), 1, 2)
    choice = Choice(world.spec.base, world.spec.sources, (("mine", "objective"),), own=(world.own,))
    yield cards.models(choice, None)
    yield cards.benchmarks(choice)
    yield cards.summary(choice, Settings(), None)
    yield cards.hits([ModelHit(say("hit"), 1, 1, (), True)], choice)
    found = _Described("m", say("architecture"), {}, False, (say("ancestor"),), 1, 1, 1, None)
    yield cards._facts(found)
    yield cards._remark(say("remark"))
    yield catalogue.offer(dataclasses.replace(choice, benchmarks=()), say("query", ""))
    yield own_cards.workshop(world.draft)
    for sample in world._samples():
        benchmark = own(kind="multiple_choice") if sample.choices else world.own
        yield own_cards._example(benchmark, sample)
    yield _toast(say("exception"))


class _Described(Inspection):
    """An inspection whose tensors need no dtype."""

    @property
    def dtype(self) -> str:
        return "float32"


def _toast(text: str) -> str:
    """What a visitor is shown of an exception's words."""
    shown: list[str] = []
    before = handlers.gr.Warning
    handlers.gr.Warning = lambda said, **_: shown.append(said)
    try:

        @handlers.guarded()
        def fails() -> None:
            raise MorphingError(text)

        fails()
    finally:
        handlers.gr.Warning = before
    return shown[0]


def as_terminal(world: World) -> Iterator[str]:
    """All that is printed, by what prints it."""
    say, run = world.say, world.run
    single = SimpleNamespace(name=world.spec.sources[0], base=world.spec.base)
    failed = Trial(3, {}, Recipe({}), error=say("error"), drawn=say("drawn"))
    score = Score.of([Output("1", "q", "t", "a", "t", 1.0, 3)], 1, 1.0, generated=True)
    for act in (
        lambda: terminal.print_front(run),
        lambda: common.show(json.dumps(terminal.front_data(run), ensure_ascii=False)),
        lambda: tables.print_scores(single, [world.own], {"mine": score}, say("split", "test")),  # type: ignore[arg-type]
        lambda: common.show(tables.described(world.own)),
        lambda: [common.show(tables.example_text(sample)) for sample in world._samples()],
        lambda: common.say(say("exception")),
        lambda: terminal.console().print(terminal._line(run, failed)),
        lambda: [terminal.console().print(terminal._line(run, trial)) for trial in run.trials()],
    ):  # fmt: skip
        with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
            act()
        yield out.getvalue() + err.getvalue()


def as_plots(world: World) -> Iterator[str]:
    """The figures' texts."""
    subject = world.scene.subject
    for figure in (
        plots.front_plot(subject, *subject.objectives.names[:2]),
        plots.hypervolume_plot(subject),
        plots.trade_off_plot(subject),
    ):
        yield "\n".join(_texts(json.loads(json.dumps(figure))))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _texts(each)


class _Tags(HTMLParser):
    """The tags of a page with the names of their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, tuple[str, ...]]] = []
        self.targets: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, tuple(name for name, _ in attrs)))
        self.targets += [value or "" for name, value in attrs if name in ("href", "src")]

    def handle_endtag(self, tag: str) -> None:
        self.found.append((f"/{tag}", ()))

    def handle_comment(self, data: str) -> None:
        self.found.append(("comment", ()))


def skeleton(page: str) -> list[tuple[str, tuple[str, ...]]]:
    """A page's tags; none of its links leads anywhere but to a page."""
    parser = _Tags()
    parser.feed(page)
    parser.close()
    assert all(t.startswith(("http://", "https://", "./")) for t in parser.targets), parser.targets
    return parser.found


def outline(markdown: str) -> list[str]:
    """The elements of a text in Markdown, without its words."""
    tokens = MarkdownIt("commonmark", {"linkify": False}).enable(["table", "strikethrough"])
    found = []
    for token in tokens.parse(markdown):
        found.append(token.type)
        for child in token.children or ():
            if child.type not in ("text", "text_special", "softbreak"):
                found.append(child.type)
            if child.type == "link_open":
                assert str(child.attrs["href"]).startswith("https://huggingface.co/")
    return found


def keys(value: Any) -> Any:
    """The shape of data: its keys and lengths."""
    if isinstance(value, dict):
        return {key: keys(each) for key, each in value.items()}
    return [keys(each) for each in value] if isinstance(value, list) else None


@cache
def plain(root: Path) -> dict[str, Any]:
    """What every place shows of a world of plain words."""
    return shown(World((), "").written(root / "plain"))


def shown(world: World) -> dict[str, Any]:
    """What every place shows, without the words."""
    found: dict[str, Any] = {}
    for number, page in enumerate(as_web_pages(world)):
        assert is_inert(page), (number, page)
        found[f"page {number}"] = skeleton(page)
    for number, text in enumerate(as_terminal(world)):
        assert is_inert(text), (number, text)
    for number, text in enumerate(as_plots(world)):
        assert is_inert(text)
        found[f"plot {number}"] = skeleton(text)
    for number, (path, text) in enumerate(card_files(world.facts, world.say("repository")).items()):
        assert is_inert(text), text
        assert re.fullmatch(r"README\.md|\.eval_results/[\w-]+\.yaml", path)
        if path != "README.md":
            found[f"results {number}"] = keys(yaml.safe_load(text))
            continue
        metadata, body = re.match(r"---\n(.*?)\n---\n(.*)", text, re.DOTALL).groups()  # type: ignore[union-attr]
        found["metadata"] = keys(yaml.safe_load(metadata))
        found["card"] = outline(body)
    talk = compare._inert([{"role": "assistant", "content": world.say("chat")}])
    assert is_inert(talk[0]["content"])
    return found


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("worlds")


def is_taken(place: str, text: str) -> bool:
    """Whether the doors let a text into a place."""
    try:
        World({place}, text)
    except (MorphingError, ValidationError):
        return False
    return True


PLACES = sorted({*SHOWN.values()} - OF_ANOTHER_KIND)
CHOOSY = [place for place in PLACES if not is_taken(place, " ".join(HOSTILE))]
"""Places that take some hostile texts and refuse others."""


def test_hostile_text_is_text_wherever_it_is_shown(root: Path) -> None:
    everywhere = {place for place in PLACES if place not in (*CHOOSY, "base", "source")}
    assert len(everywhere) > 40
    made = shown(World(everywhere, " ".join(HOSTILE)).written(root / "everywhere"))
    for where, expected in plain(root).items():
        assert made[where] == expected, where


@pytest.mark.parametrize("place", sorted({*CHOOSY, "base", "source"}))
def test_what_a_door_lets_in_is_text_too(root: Path, place: str) -> None:
    text = " ".join(piece for piece in HOSTILE if is_taken(place, piece))
    if text:
        made = shown(World({place}, text).written(root / place))
        for where, expected in plain(root).items():
            assert made[where] == expected, where


@pytest.mark.parametrize("place", sorted(OF_ANOTHER_KIND))
def test_what_is_shown_otherwise_has_no_tags_of_its_own(root: Path, place: str) -> None:
    made = shown(World({place}, " ".join(HOSTILE)).written(root / place))
    pages = [where for where in plain(root) if where.startswith(("page", "card", "plot"))]
    known = {tag for where in pages for tag in plain(root)[where]}
    assert {tag for where in pages for tag in made[where]} <= known


# --- where a string is used, not shown


def test_a_folder_in_a_command_that_is_proposed_is_one_word(tmp_path: Path) -> None:
    from morphing.cli.runs import _resume_command

    for text in ("'; rm -rf x", "$(id)", "a b", "=cmd", "-rf"):
        run = Run.create(tmp_path / text, spec_of({}))
        words = shlex.split(_resume_command(run))
        assert words[:3] == ["morphing", "search", "--run"] and words[4:] == ["--resume"]
        assert Path(words[3]).resolve() == run.folder


def test_a_jobs_command_holds_no_string_from_outside() -> None:
    from morphing.jobs import launch

    assert "{" not in launch._PROGRAM.replace("{ hf", "").replace("() {", "")
    assert set(re.findall(r'"?\$(\w+)"?', launch._PROGRAM)) <= {
        "MORPHING_SPEC", "MORPHING_RESULTS", "uploads", "status",
    }  # fmt: skip
    for variable in ("MORPHING_SPEC", "MORPHING_RESULTS"):
        assert f'"${variable}"' in launch._PROGRAM and f" ${variable}" not in launch._PROGRAM


def test_uploads_keep_their_place_whatever_they_are_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from morphing.ui.quotas import Quotas, uploads_root

    monkeypatch.setenv("MORPHING_RUNS", str(tmp_path / "runs"))
    for number, text in enumerate(HOSTILE):
        name = re.sub("[/\x00\ud800]", "_", text)[:80] + ".csv"
        file = tmp_path / name
        file.write_text(f"q,a\n{number},2\n")
        kept = Quotas().keep_upload(file)
        assert kept.parent.parent == uploads_root() and re.fullmatch(r"[\w-]+\.csv", kept.name)


def test_cells_and_columns_are_data_and_no_templates(tmp_path: Path) -> None:
    from morphing.benchmarks.data.draft import draft_of

    for number, text in enumerate(HOSTILE):
        if "\ud800" in text:
            continue
        rows = [{"question": f"{text} {n}?", "answer": str(n), text: "x"} for n in range(9)]
        file = tmp_path / f"{number}.jsonl"
        file.write_text("\n".join(map(json.dumps, rows)))
        draft = draft_of(str(file))
        for sample in draft.examples():
            assert text in sample.prompt, "the cell is asked as it is"


def test_nothing_writes_tables_that_a_spreadsheet_would_run() -> None:
    package = Path(terminal.__file__).parents[1]
    for path in package.rglob("*.py"):
        assert not re.search(r"csv\.(DictW|w)riter|to_csv|to_excel", path.read_text()), path
