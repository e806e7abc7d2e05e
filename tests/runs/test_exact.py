"""What was evaluated is what is exported: scoring the export again gives the trial's scores."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from morphing.benchmarks.data.samples import load_samples
from morphing.benchmarks.evaluate import evaluate
from morphing.runs.loop import Loop
from morphing.runs.prepare import create_run
from morphing.runs.run import Run
from morphing.runs.spec import RunSpec

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_exported_trial_scores_the_same(
    dtype: str,
    small_spec: RunSpec,
    tmp_path: Path,
    morphing: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    search = small_spec.search.model_copy(update={"evaluations": 2})
    spec = small_spec.model_copy(update={"search": search, "dtype": dtype})
    run = create_run(tmp_path / "run", spec)
    Loop(run).search()
    trial = run.complete()[-1]

    out = tmp_path / "exported"
    done = morphing("export", run.folder, trial.number, out)
    assert done.returncode == 0, done.stderr

    model = AutoModelForCausalLM.from_pretrained(out)
    assert model.dtype == getattr(torch, dtype)
    tokenizer = AutoTokenizer.from_pretrained(out)
    for use in run.spec.tasks:
        benchmark = use.declaration
        samples = load_samples(benchmark, "search", use.samples)
        score = evaluate(model, tokenizer, benchmark, samples, batch_size=spec.batch_size)
        assert trial.results is not None
        recorded = trial.results[benchmark.name]
        assert (score.value, score.n, score.stderr) == (
            recorded.value,
            recorded.n,
            recorded.stderr,
        )
        answers = [(row["id"], row["text"]) for row in run.outputs(trial.number)[benchmark.name]]
        assert answers == [(output.id, output.text) for output in score.outputs]


def test_a_failing_recipe_fails_its_trial_only(small_spec: RunSpec, tmp_path: Path) -> None:
    """One broken score is kept with its reason; three in a row end the search."""
    from morphing.errors import MorphingError
    from morphing.runs import workbench

    run = create_run(tmp_path / "run", small_spec)
    loop = Loop(run)
    morph, calls = workbench.Workbench.morph, iter(range(1000))
    # Four morphs score the references; of the trials, the second breaks, then all do.
    broken = lambda call: call == 5 or call > 6  # noqa: E731

    def sometimes(self: workbench.Workbench, recipe: object) -> float:
        if broken(next(calls)):
            raise MorphingError("the weights are not finite.")
        return morph(self, recipe)  # type: ignore[arg-type]

    workbench.Workbench.morph = sometimes  # type: ignore[method-assign, assignment]
    try:
        run.set_budget(evaluations=10)
        with pytest.raises(MorphingError, match=r"3 trials in a row failed.*not finite"):
            loop.search()
    finally:
        workbench.Workbench.morph = morph  # type: ignore[method-assign]
    states = [trial.state for trial in Run(run.folder).trials()]
    assert states == ["complete", "failed", "complete", "failed", "failed", "failed"]
    assert run.status().state == "failed"
    assert "not finite" in run.status().message
