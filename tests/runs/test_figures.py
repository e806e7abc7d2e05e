"""Front, knee and hypervolume of runs whose trials are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from morphing.errors import MorphingError
from morphing.runs.evaluation import Evaluation
from morphing.runs.figures import figures_of
from morphing.runs.run import Run
from morphing.runs.scales import fixed_scales, scales
from morphing.runs.spec import parse_spec
from tests.runs.recording import set_references, tell, tell_values

A, B = "zoo-english-arithmetic", "zoo-kanji-numbers"
REFERENCES = {
    "zoo:base": {A: 0.0, B: 0.0, "sparsity": 0.0, "tokens": 8.0, "layers": 4.0},
    "zoo:english-math": {A: 1.0, B: 0.0, "sparsity": -0.5, "tokens": 4.0, "layers": 4.0},
    "zoo:word-games": {A: 0.0, B: 0.8, "sparsity": -0.1, "tokens": 4.0, "layers": 4.0},
}


def make(folder: Path, **fields: Any) -> Run:
    data = {
        "base": "zoo:base",
        "sources": ["zoo:english-math", "zoo:word-games"],
        "benchmarks": [A, B],
        "measures": ["tokens"],
        "dtype": "float32",
        **fields,
    }
    run = Run.create(folder / "run", parse_spec(data))
    set_references(run, REFERENCES)
    return run


def test_scales_are_fixed_once(tmp_path: Path) -> None:
    run = make(tmp_path)
    assert fixed_scales(run) is None
    first = scales(run)
    assert first.reference == pytest.approx((-0.1, -0.08, 8.4))
    changed = {model: {**values, A: 0.5} for model, values in REFERENCES.items()}
    set_references(run, changed)
    assert scales(run) == scales(Run(run.folder)) == fixed_scales(run) == first


def test_scales_need_base_and_sources(tmp_path: Path) -> None:
    run = make(tmp_path)
    run.reference_path("search", "zoo:base").unlink()
    with pytest.raises(MorphingError, match="no scores of zoo:base yet"):
        scales(run)
    assert figures_of(run).hypervolume == ()


def test_a_minimised_objective_counts_the_other_way(tmp_path: Path) -> None:
    run = make(tmp_path)
    scales(run)
    ideal, longer = tell_values(run, 1.0, 0.8, 4.0), tell_values(run, 1.0, 0.8, 6.0)
    short = tell_values(run, 0.0, 0.0, 2.0)
    figures = figures_of(run)
    assert figures.front == (ideal, short) and longer not in figures.front
    assert figures.knee == ideal
    # As good as the best of them at everything: 1. The short one adds a box beyond it.
    added = (0.1 / 1.1) * (0.08 / 0.88) * (2.0 / 4.4)
    assert figures.hypervolume == pytest.approx((1.0, 1.0, 1.0 + added))
    assert figures.scales == scales(run)


def test_the_knee_balances_scores_and_measures_only_where_there_is_one_score(
    tmp_path: Path,
) -> None:
    run = make(tmp_path)
    tell_values(run, 0.9, 0.0, 9.0)
    balanced = tell_values(run, 0.6, 0.6, 9.0)
    tell_values(run, 0.0, 0.9, 9.0)
    tell_values(run, 0.4, 0.4, 1.0)  # nearest to the ideal of all three
    assert figures_of(run).front == (0, 1, 2, 3) and figures_of(run).knee == balanced

    alone = make(tmp_path / "alone", benchmarks=[A])
    for value, tokens in ((0.9, 9.0), (0.7, 3.0), (0.1, 1.0)):
        tell_values(alone, value, tokens)
    assert figures_of(alone).knee == 1


def test_what_breaks_a_constraint_is_on_no_front(tmp_path: Path) -> None:
    run = make(tmp_path, constraints=[{"on": A, "at_least": 0.5}])
    scales(run)
    tell_values(run, 0.4, 0.8, 4.0)
    figures = figures_of(run)
    assert figures.front == () and figures.knee is None and figures.hypervolume == (0.0,)
    assert "No trial of 1 keeps the constraints" in figures.remark
    assert f"{A} at least 50.0" in figures.remark
    kept = tell_values(run, 0.6, 0.1, 5.0)
    assert figures_of(run).front == (kept,) and figures_of(run).remark == ""
    assert figures_of(run).hypervolume[1] > 0


def test_what_was_given_up_or_failed_is_counted_and_on_no_front(tmp_path: Path) -> None:
    run = make(tmp_path)
    scales(run)
    assert figures_of(run).remark == "No trial is complete yet."
    best = tell_values(run, 0.9, 0.7, 5.0)
    part = Evaluation((1.0, 1.0, 1.0), (0.1, 0.1, 0.1), raced=True, samples={A: 16, B: 16})
    given_up = tell(run, part)
    tell(run, "it broke.")
    figures = figures_of(run)
    assert figures.front == (best,) and [t.number for t in figures.trials] == [best]
    assert (figures.failed, figures.raced, figures.evaluations) == (1, 1, 3)
    assert figures.stalled == 2 and len(figures.hypervolume) == 1
    states = [trial.state for trial in run.trials()]
    assert states == ["complete", "raced", "failed"]
    raced = run.trials()[1].raced
    assert raced is not None and raced.values == (1.0, 1.0, 1.0) and raced.samples[A] == 16
    with pytest.raises(MorphingError, match=f"no completed trial {given_up}"):
        run.trial(given_up)
    tell_values(run, 0.95, 0.75, 5.0)
    assert figures_of(run).stalled == 0
