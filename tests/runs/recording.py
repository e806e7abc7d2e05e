"""Trials put into a run by hand, so that figures can be known beforehand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import optuna

from morphing.merging.recipe import Recipe
from morphing.runs.evaluation import Evaluation
from morphing.runs.outputs import write_outputs
from morphing.runs.records import Record, write_record
from morphing.runs.run import Run
from morphing.runs.scales import scales
from morphing.runs.trial import Result


def tell(run: Run, evaluation: Evaluation | str, recipe: Recipe | None = None) -> int:
    """Record an evaluation, or why there is none, as a trial; returns its number."""
    study, recipe = run.study, recipe or Recipe({"merge_method": "linear"})
    trial = study.ask()
    trial.set_user_attr("recipe", dict(recipe.config))
    trial.set_user_attr("mask_seed", recipe.mask_seed)
    if isinstance(evaluation, str):
        trial.set_user_attr("failure", evaluation)
        study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    elif evaluation.raced:
        part = {"values": evaluation.values, "variances": evaluation.variances}
        trial.set_user_attr("raced", {**part, "samples": dict(evaluation.samples)})
        study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    else:
        write_outputs(run.outputs_path(trial.number), evaluation.outputs)
        results = {name: asdict(result) for name, result in evaluation.results.items()}
        trial.set_user_attr("results", results)
        for number, broken_by in enumerate(evaluation.constraints):
            trial.set_constraint(str(number), broken_by)
        study.tell(trial, list(evaluation.values))
    return int(trial.number)


def tell_values(run: Run, *values: float) -> int:
    """Record a complete trial of these values, natural, in the objectives' order."""
    known = dict(zip(run.spec.objectives, values, strict=True))
    constraints = scales(run).slacks(known)
    return tell(run, Evaluation(values, (0.0,) * len(values), constraints))


def set_references(run: Run, known: Mapping[str, Mapping[str, float]]) -> None:
    """Record base and sources with these values by name on the search split."""
    tasks = {use.declaration.name for use in run.spec.tasks}
    for model, values in known.items():
        results = {name: Result(values[name], 10, 0.1) for name in tasks}
        measured: dict[str, Any] = {n: v for n, v in values.items() if n not in tasks}
        path = run.reference_path("search", model)
        write_record(path, Record(results, measured, model), {})
