"""Searches as the command line starts them, with workers that join, die and are budgeted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
from linear_operator.utils.errors import NotPSDError

from morphing.cli.terminal import _line
from morphing.runs.figures import figures_of
from morphing.runs.leases import Worker, live_workers
from morphing.runs.loop import Loop
from morphing.runs.prepare import create_run
from morphing.runs.run import Run
from morphing.runs.spec import RunSpec, parse_spec
from morphing.search.samplers.history import history, slots
from morphing.search.samplers.random import UniformSampler

pytestmark = pytest.mark.slow


def told_slots(run: Run) -> list[int]:
    slot = slots(run.study.get_trials())
    return sorted(slot[trial.number] for trial in history(run.study))


def changed(spec: RunSpec, **search: object) -> RunSpec:
    data = spec.model_dump()
    data["search"] |= search
    return parse_spec(data)


def test_killed_workers_are_started_again(spec_file: Path, tmp_path: Path) -> None:
    """Both of two, while one joins from elsewhere; every recipe is told once, and all is
    recorded.
    """
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "morphing"]
    search = subprocess.Popen(
        [*command, "search", spec_file, "--run", folder, "--workers", "2", "--evaluations", "8"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        while not (folder / "spec.yaml").exists() or not Run(folder).trials():
            assert search.poll() is None, search.communicate()
            time.sleep(0.1)
        joined = subprocess.Popen([*command, "worker", folder, "--quiet"])
        victims = [w.pid for w in live_workers(folder) if w.pid != joined.pid]
        for victim in victims:
            os.kill(victim, signal.SIGKILL)
        assert victims
        out, err = search.communicate(timeout=400)
        assert search.returncode == 0, err
        assert joined.wait(timeout=120) == 0, "the worker that joined failed"
    finally:
        search.kill()
    assert "of 8 evaluations" in out
    run = Run(folder)
    assert Counter(told_slots(run)) == Counter(range(8))
    for trial in run.complete():
        assert run.outputs(trial.number).keys() == (trial.results or {}).keys()
    assert run.status().state == "finished"
    assert live_workers(folder) == []


def test_a_second_search_is_told_how_to_join(small_spec: RunSpec, tmp_path: Path) -> None:
    run = create_run(tmp_path / "run", small_spec)
    with run.writing():
        command = [sys.executable, "-m", "morphing", "search", "--run", run.folder, "--resume"]
        done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "morphing worker" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("budget", "words"),
    [({"hours": 1.0}, "1 hours of work"), ({"gpu_hours": 2.0}, "2 hours of all workers together")],
)
def test_hours_end_a_search(
    small_spec: RunSpec, tmp_path: Path, budget: dict[str, float], words: str
) -> None:
    """Two workers elsewhere have used an hour each once two recipes are told."""
    run = create_run(tmp_path / "run", changed(small_spec, **budget))

    def add_hours() -> None:
        if run.status().done == 2:
            for id in ("first", "second"):
                past = Worker(id, "elsewhere", 1, state="finished", spans=((0.0, 3600.0),))
                path = run.folder / "workers" / f"{id}.json"
                path.write_text(json.dumps(asdict(past)))

    Loop(run, changed=add_hours).search()
    assert run.status().state == "finished"
    assert words in run.status().message
    assert told_slots(run) == [0, 1]


def test_a_stalled_hypervolume_ends_a_search(small_spec: RunSpec, tmp_path: Path) -> None:
    """The sources that are tried first are on the front; the space holds nothing else."""
    spec = changed(
        small_spec,
        evaluations=12,
        stalled=2,
        seeds=("sources",),
        space={"fixed": {"density": 1.0}, "ranges": {"weight": (0.0, 1e-3)}},
    )
    run = create_run(tmp_path / "run", spec)
    Loop(run).search()
    assert "without hypervolume" in run.status().message
    assert figures_of(run).stalled >= 2
    assert len(run.trials()) < 12


def no_proposal(*_: object) -> dict[str, float]:
    raise NotPSDError("not positive definite\nand a long story")


def test_a_raising_objective_and_one_that_is_not_finite(
    small_spec: RunSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each fails its trial, with the reason kept, and the search goes on; nor does it end where
    its progress cannot be drawn, or its sampler fails.
    """
    from morphing.runs import loop

    evaluate, calls = loop.evaluate_recipe, iter(range(100))

    def sometimes(*arguments: object) -> object:
        call = next(calls)
        if call == 1:
            raise ZeroDivisionError("an answer of no tokens")
        found = evaluate(*arguments)  # type: ignore[arg-type]
        return found

    monkeypatch.setattr(loop, "evaluate_recipe", sometimes)
    morph, morphs = loop.Workbench.morph, iter(range(100))

    def broken(self: loop.Workbench, recipe: object) -> float:
        distance = morph(self, recipe)  # type: ignore[arg-type]
        return float("nan") if next(morphs) == 6 else distance

    monkeypatch.setattr(loop.Workbench, "morph", broken)
    run = create_run(tmp_path / "run", small_spec)

    monkeypatch.setattr(UniformSampler, "sample_relative", no_proposal)

    def draw() -> None:
        raise ValueError("closing tag '[/INST]' doesn't match any open tag")

    Loop(run, changed=draw).search()
    assert told_slots(run) == [0, 1, 2, 3]
    assert {trial.drawn for trial in run.trials()} == {"NotPSDError: not positive definite"}
    assert "at random: the sampler failed, NotPSDError" in _line(run, run.trials()[0]).plain
    errors = [trial.error for trial in run.trials() if trial.error]
    assert len(errors) == 2
    assert any("ZeroDivisionError: an answer of no tokens" in error for error in errors)
    assert any("finite" in error for error in errors)


def test_ps_and_then_dfs(
    small_spec: RunSpec, tmp_path: Path, morphing: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """The best merge becomes a source of paths; an export through it has both recipes."""
    spec = changed(
        small_spec, sampler="evolve", evaluations=6, space={"strategy": "ps+dfs", "repeats": 1}
    )
    run = create_run(tmp_path / "run", spec)
    Loop(run).search()
    assert told_slots(run) == list(range(6))
    assert (run.folder / "stages" / "ps" / "model.safetensors").exists()
    paths = [trial for trial in run.complete() if "slices" in trial.recipe.config]
    assert paths and all(trial.number >= 3 for trial in paths)
    out = tmp_path / "exported"
    done = morphing("export", run.folder, paths[-1].number, out)
    assert done.returncode == 0, done.stderr
    card = (out / "README.md").read_text()
    assert card.count("merge_method") >= 2
