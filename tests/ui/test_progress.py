"""Where a run stands, in words: stages, workers, what was given up, why there is no front."""

from __future__ import annotations

import socket
from dataclasses import asdict
from json import dumps
from pathlib import Path

from morphing.merging.recipe import Recipe
from morphing.runs.figures import Figures
from morphing.runs.leases import Worker
from morphing.runs.run import Run
from morphing.runs.spec import RunSpec, zoo_spec
from morphing.runs.status import Status
from morphing.runs.trial import Trial
from morphing.ui.scene import Scene
from morphing.ui.session import last_workers
from morphing.ui.watch.progress import progress


def scene(folder: Path, status: Status, figures: Figures, strategy: str = "ps") -> Scene:
    zoo = zoo_spec().model_dump()
    search = {**zoo["search"], "evaluations": 20, "space": {"strategy": strategy}}
    run = Run.create(folder / "run", RunSpec.model_validate({**zoo, "search": search}))
    return Scene(run, status, figures, {})


def test_two_stages_are_named_and_the_present_one_stands_out(tmp_path: Path) -> None:
    nothing = Figures((), (), None, ())
    first = scene(tmp_path / "a", Status("running", done=9, total=20), nothing, "ps+dfs")
    second = scene(tmp_path / "b", Status("running", done=10, total=20), nothing, "ps+dfs")
    assert '<span class="on" style="width:50.0%">1 · Weights' in progress(first)
    assert '<span class="on" style="width:50.0%">2 · Paths' in progress(second)
    single = scene(tmp_path / "c", Status("running", done=9, total=20), nothing)
    assert "m-stages" not in progress(single)


def test_several_workers_are_listed_and_one_alone_is_not(tmp_path: Path) -> None:
    here = Worker("a", socket.gethostname(), 1, "cpu", "running", trial=7, step="maths")
    there = Worker("b", "<elsewhere>", 2, "cuda:1", "preparing", step="loading")
    nothing = Figures((), (), None, ())
    both = progress(scene(tmp_path / "a", Status("running", workers=(here, there)), nothing))
    assert both.count("<li") == 2 and "Trial 7" in both
    assert "cuda:1 on &lt;elsewhere&gt;" in both and socket.gethostname() not in both
    alone = Status("running", step="maths", step_done=3, step_total=9, workers=(here,))
    told = progress(scene(tmp_path / "b", alone, nothing))
    assert "<li" not in told and "maths · 3/9" in told


def test_what_failed_was_given_up_or_broke_a_constraint_is_said(tmp_path: Path) -> None:
    trial = Trial(0, {}, Recipe({"merge_method": "linear"}), (0.1,) * 4, constraints=(0.5,))
    figures = Figures((trial,), (), None, (0.0,), failed=2, raced=3)
    told = progress(scene(tmp_path, Status("finished", done=6, total=6), figures))
    assert "2 failed" in told and "3 given up early" in told and figures.remark in told


def test_as_many_workers_go_on_as_ended_together(tmp_path: Path) -> None:
    run = scene(tmp_path, Status(), Figures((), (), None, ())).run
    assert last_workers(run) == 1
    (run.folder / "workers").mkdir()
    for name, end in (("a", 1000.0), ("b", 998.0), ("killed", 500.0)):
        worker = Worker(name, "here", 1, state="stopped", spans=((0.0, end),))
        (run.folder / "workers" / f"{name}.json").write_text(dumps(asdict(worker)))
    assert last_workers(run) == 2
