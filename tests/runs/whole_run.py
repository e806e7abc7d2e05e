"""A whole run made by hand, in a moment, and all that is shown of it."""

from __future__ import annotations

import json
import time
from pathlib import Path

from morphing.benchmarks.results import Output, Score
from morphing.merging.recipe import Recipe
from morphing.runs.evaluation import Evaluation
from morphing.runs.figures import figures_of
from morphing.runs.records import Record, write_record
from morphing.runs.run import Run, list_runs
from morphing.runs.scales import fixed_scales, scales
from morphing.runs.selection import selection
from morphing.runs.spec import RunSpec, parse_spec
from morphing.runs.stage_model import STAGE_MODEL, StageModel, record_stage_model, stage_model
from morphing.runs.trial import Result
from morphing.ui.plots import front_plot, hypervolume_plot, trade_off_plot
from morphing.ui.scene import Scene
from morphing.ui.session import last_workers
from morphing.ui.watch import holdout, trials
from morphing.ui.watch.makeup import make_up
from morphing.ui.watch.progress import progress, state_chip
from tests.runs.recording import tell

A, B = "zoo-english-arithmetic", "zoo-kanji-numbers"
SOURCES = ("zoo:english-math", "zoo:japanese-numerals")


def _score(values: list[float]) -> Score:
    outputs = [Output(f"test/{n}", "1+1?", "2", "2", "2", v, 3) for n, v in enumerate(values)]
    return Score.of(outputs, 0, 1.0, generated=True)


def make_run(folder: Path) -> Run:
    """A finished run with every kind of file, as a search leaves it."""
    fields = {
        "base": "zoo:base",
        "sources": SOURCES,
        "benchmarks": [{"benchmark": name, "samples": 4, "holdout": 4} for name in (A, B)],
        "constraints": [{"on": A, "at_least": "sources"}],
        "dtype": "float32",
        "search": {"evaluations": 4, "space": {"strategy": "ps+dfs"}},
    }
    run = Run.create(folder, parse_spec(fields))
    scored = {A: _score([1, 1, 0, 1]), B: _score([0, 1, 1, 1])}
    outputs = {name: each.outputs for name, each in scored.items()}
    results = {name: Result.of(each) for name, each in scored.items()}
    measured = {"sparsity": -0.1, "parameters": 1e6, "layers": 4.0, "tokens": 3.0}
    for part in ("search", "holdout"):
        for model in ("zoo:base", *SOURCES):
            path = run.reference_path(part, model)
            write_record(path, Record(results, {**measured, "throughput": 9.0}, model), outputs)
    scales(run)
    merge = {
        "merge_method": "linear",
        "models": [{"model": name, "parameters": {"weight": 0.5}} for name in SOURCES],
    }
    layers = [{"model": STAGE_MODEL, "layer_range": [0, 2]}]
    path = {"merge_method": "passthrough", "slices": [{"sources": layers}]}
    values, noise = (0.75, 0.75, -0.1), (0.01, 0.01, 0.0)
    for config in (merge, path):
        complete = Evaluation(values, noise, (0.0,), results, outputs)
        number = tell(run, complete, Recipe(config, 7))
        write_record(run.holdout_path(number), Record(results, measured), outputs)
    tell(run, Evaluation(values, noise, raced=True, samples={A: 2, B: 2}))
    tell(run, "the recipe could not be merged")
    record_stage_model(run, StageModel(0, Recipe(merge, 7)))
    run.save_status(state="finished", message="ended", done=4, total=4, seconds_left=0.0)
    run.request("run")
    worker = {
        "id": "0123abcd",
        "host": "elsewhere",
        "pid": 7,
        "device": "cpu",
        "state": "running",
        "message": "",
        "trial": 3,
        "step": "scoring",
        "step_done": 1,
        "step_total": 4,
        "spans": [[time.time() - 9, time.time()]],
        "renewed": time.time() + 50,
    }
    (folder / "workers").mkdir()
    for id in ("0123abcd", "4567ef01"):
        (folder / "workers" / f"{id}.json").write_text(json.dumps({**worker, "id": id}))
    return run


def look(folder: Path, spec: RunSpec | None = None) -> str:
    """All that is shown of a run, as a page; raises MorphingError alone."""
    run = Run(folder)
    if spec is not None:
        run.__dict__["spec"] = spec  # which takes longest to read
    list_runs(folder.parent)
    run.requested()
    last_workers(run)
    status = run.status()
    figures = figures_of(run)
    held = ("holdout/00000.json",)
    scene = Scene(run, status, figures, run.references("search"), held, chosen=1)
    parts = [progress(scene), state_chip(scene), trials.front_table(scene), trials._facts(scene)]
    parts += [make_up(trial, run.spec) for trial in run.complete()]
    parts += [trials._answers(rows) for rows in run.outputs(0).values()]
    stage_model(run)
    fixed_scales(run)
    scene.__dict__["selection"] = selection(run)
    parts.append(holdout._table(scene))
    for trial in run.complete():
        trial.recipe.to_yaml()
    plots = [
        front_plot(scene.subject, *scene.objectives.names[:2]),
        hypervolume_plot(scene.subject),
    ]
    json.dumps([*plots, trade_off_plot(scene.subject)])
    return "".join(parts)
