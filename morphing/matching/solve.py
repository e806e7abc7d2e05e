"""A solved recipe, carried out: teachers answer their prompts, then layers are solved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from morphing.benchmarks.data.samples import load_samples
from morphing.benchmarks.evaluate import evaluate, prepare
from morphing.benchmarks.find import find_benchmark
from morphing.matching.decoder import Decoder
from morphing.matching.match import match
from morphing.matching.prompts import taught_texts
from morphing.matching.recipe import MatchPlan, TaskPlan, read_plan
from morphing.matching.state import Progress, Report
from morphing.matching.tasks import Task
from morphing.matching.teachers import SourceTeacher
from morphing.merging.morph import Morpher
from morphing.merging.recipe import Recipe

PROBE = 8
"""Tokens of the pass by which a model's layers are found."""


@dataclass(frozen=True)
class Solved:
    """What was solved from what."""

    plan: MatchPlan
    tasks: tuple[Task, ...]
    report: Report


def solve(morpher: Morpher, recipe: Recipe, progress: Progress, token: str | None = None) -> Solved:
    """Change the morpher's model into a solved recipe's, in place.

    Each teacher answers the prompts of its tasks first, greedily; its own answers are what it
    teaches. No label is looked at.

    Args:
        morpher: with the recipe's models.
        recipe: of a solved method.
        progress: called with each step.
        token: for datasets on the Hub.

    Raises:
        MorphingError: prompts cannot be had or asked, or the merge cannot be solved.
    """
    plan = read_plan(recipe)
    tasks = []
    for task in plan.tasks:
        if task.share > 0:
            tasks.append(_asked(morpher, recipe, task, progress, token))
    morpher.morph(recipe.mean())
    report = solve_tasks(morpher, recipe, tasks, plan, progress)
    return Solved(plan, tuple(tasks), report)


def solve_tasks(
    morpher: Morpher,
    recipe: Recipe,
    tasks: Sequence[Task],
    plan: MatchPlan,
    progress: Progress,
) -> Report:
    """Solve the layers of the loaded model, which has the shape of the merge, from known texts."""
    names = dict.fromkeys(task.teacher for task in tasks)
    teachers = {name: SourceTeacher(morpher, _alone(recipe, name)) for name in names}
    device = morpher.device
    decoder = Decoder(morpher.model, torch.zeros(1, PROBE, dtype=torch.long, device=device))
    return match(decoder, tasks, teachers, plan.settings, progress)


def _asked(
    morpher: Morpher, recipe: Recipe, task: TaskPlan, progress: Progress, token: str | None
) -> Task:
    benchmark = find_benchmark(task.prompts, token).benchmark
    progress(f"getting prompts of {benchmark.name}", 0, 0)
    samples = load_samples(benchmark, "search", task.samples, seed=recipe.mask_seed, token=token)
    morpher.morph(_alone(recipe, task.teacher))
    prepared = prepare(morpher.tokenizer, benchmark, samples)
    outputs = evaluate(
        morpher.model,
        morpher.tokenizer,
        benchmark,
        prepared,
        progress=partial(progress, f"{task.teacher} answers {benchmark.name}"),
    ).outputs
    return Task(task.name, task.teacher, taught_texts(morpher.tokenizer, prepared, outputs))


def _alone(recipe: Recipe, name: str) -> Recipe:
    """One model as it is, in the merge's vocabulary and dtype."""
    mean = recipe.mean().config
    models = [
        {"model": entry["model"], "parameters": {"weight": float(entry["model"] == name)}}
        for entry in mean["models"]
    ]
    if not any(key in mean for key in ("tokenizer", "tokenizer_source")):
        models = [entry for entry in models if entry["model"] in (name, recipe.base)]
    return Recipe({**mean, "models": models}, recipe.mask_seed)


def _public(name: str) -> str:
    """A name without the folders of this machine, for what is published."""
    path = Path(name).expanduser()
    return path.name if path.is_absolute() or path.exists() else name


def about(solved: Solved) -> dict[str, object]:
    """What a solved merge was made from, as plain data for its record."""
    report = solved.report
    return {
        "ridge": solved.plan.settings.ridge,
        "tasks": [
            {
                "name": _public(task.name),
                "teacher": _public(task.teacher),
                "share": task.share,
                "texts": len(texts.texts),
                "tokens": report.tokens[task.name],
            }
            for task, texts in zip(
                [t for t in solved.plan.tasks if t.share > 0], solved.tasks, strict=True
            )
        ],
        "remarks": list(report.remarks),
    }
