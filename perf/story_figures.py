"""What the runs of `story.py` say: choices and fronts on the holdout with intervals, racing.

A choice is the trial with the best mean over the tasks on the search split; the holdout has no say
in it. Intervals are 95 % percentile bootstrap intervals over the holdout's samples, which are drawn
alike for all models, so that differences are paired.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from story import Search

    from morphing.runs.run import Run
    from morphing.runs.trial import Trial

Scores = Mapping[str, Mapping[str, float]]
"""By benchmark and sample."""
BEST_PATH = "best path"
"""Of PS+DFS, whatever the first stage's merge scores."""
AGAINST = (
    (BEST_PATH, 300, "ps", 150),
    ("ps+dfs", 300, "ps", 150),
    ("dfs", 150, "ps", 150),
    ("ps+dfs", 300, "qlognehvi", 60),
    ("ps", 150, "qlognehvi", 60),
    ("ps", 150, "mmmo", 60),
    ("qlognehvi", 60, "random", 60),
    ("mmmo", 60, "random", 60),
    ("qlognehvi", 60, "mmmo", 60),
)
"""Methods that are compared with each other, each after so many evaluations."""


def complete(run: Run, budget: int) -> list[Trial]:
    """Of the first so many evaluations, the trials that were scored whole."""
    return [trial for trial in run.trials()[:budget] if trial.state == "complete"]


def task_mean(trial: Trial, run: Run) -> float:
    """Over the tasks, on the search split."""
    return float(np.mean(trial.values[: len(run.spec.tasks)]))


def chosen(run: Run, budget: int) -> Trial:
    """The best by the mean over the tasks on the search split; the first of equals."""
    return max(complete(run, budget), key=lambda trial: task_mean(trial, run))


def best_path(run: Run, budget: int) -> Trial | None:
    """The best of the layer paths that do more than walk one model's layers in their order."""
    from itertools import pairwise

    from morphing.merging.paths import read_path

    def jumps(trial: Trial) -> bool:
        path = read_path(trial.recipe)
        return path is not None and any(
            step.scale != 1 or not step.continues(before) for before, step in pairwise(path.steps)
        )

    paths = [trial for trial in complete(run, budget) if jumps(trial)]
    return max(paths, key=lambda trial: task_mean(trial, run), default=None)


def choices(search: Search, run: Run) -> dict[tuple[str, int], Trial]:
    """What is looked at on the holdout, by what the report calls it and the evaluations."""
    found = {(search.method, budget): chosen(run, budget) for budget in search.checkpoints}
    if search.method == "ps+dfs" and (path := best_path(run, search.checkpoints[-1])):
        found[BEST_PATH, search.checkpoints[-1]] = path
    return found


def front(run: Run, budget: int) -> list[int]:
    """The front's trials after so many evaluations."""
    from morphing.runs.objectives import best_of

    return [trial.number for trial in best_of(run.spec, complete(run, budget))]


@dataclass(frozen=True)
class Model:
    """A model on the holdout; ``search`` is its mean over the tasks on the search split."""

    name: str
    scores: Scores
    search: float


class Holdout:
    """Models on the holdout with their bootstrap draws."""

    def __init__(self, models: Sequence[Model], tasks: Sequence[str]) -> None:
        from morphing.runs.selection import bootstrap_means

        self.tasks = tuple(tasks)
        self.search = {model.name: model.search for model in models}
        self._draws: dict[str, dict[str, np.ndarray]] = {model.name: {} for model in models}
        for benchmark, samples in models[0].scores.items():
            rows = [[model.scores[benchmark][id] for id in samples] for model in models]
            means = bootstrap_means(np.array(rows), seed=zlib.crc32(benchmark.encode()))
            for model, row in zip(models, means, strict=True):
                self._draws[model.name][benchmark] = row

    def scores(self, names: Sequence[str]) -> dict[str, list[float]]:
        """By benchmark: estimate and interval of the average of these models."""
        benchmarks = self._draws[names[0]]
        return {
            benchmark: _interval(np.mean([self._draws[name][benchmark] for name in names], axis=0))
            for benchmark in benchmarks
        }

    def mean(self, names: Sequence[str], rivals: Sequence[str] = ()) -> list[float]:
        """Estimate and interval of the mean over the tasks, averaged over models; less rivals'."""
        means = self._means(names)
        return _interval(means - self._means(rivals) if rivals else means)

    def _means(self, names: Sequence[str]) -> np.ndarray:
        return np.mean([self._draws[name][task] for name in names for task in self.tasks], axis=0)


def _interval(draws: np.ndarray) -> list[float]:
    from morphing.runs.selection import interval

    found = interval(draws)
    return [found.value, found.low, found.high]


def figures(folder: Path, searches: Iterable[Search]) -> dict[str, Any]:
    """Everything that is reported, from the runs that are finished."""
    from story import BASELINES, SEEDS, merges

    from morphing.runs.run import Run

    runs: dict[str, Run] = {}
    made: list[Search] = []
    for search in searches:
        if (folder / search.name / "spec.yaml").exists():
            run = Run(folder / search.name)
            if len(run.trials()) >= search.checkpoints[-1]:
                runs[search.name] = run
                made.append(search)
    plain = next(search for search in made if search.method == BASELINES)
    known = runs[plain.name]
    names = [label for label, _ in merges()]
    models = [*_models(known), *_merged(known, names)]
    shown = [search for search in made if search.for_holdout and search is not plain]
    picks = {
        (method, budget, search.seed): (search, trial)
        for search in shown
        for (method, budget), trial in choices(search, runs[search.name]).items()
        if trial.number in _scored(runs[search.name])
    }
    models += [
        _picked(_label(*key), runs[search.name], trial) for key, (search, trial) in picks.items()
    ]
    tasks = [use.declaration.name for use in known.spec.tasks]
    holdout = Holdout(models, tasks)
    sources = list(known.spec.sources)
    best = max(sources, key=lambda name: holdout.mean([name])[0])
    rivals = [*sources, *names]
    keys = list(dict.fromkeys(key[:2] for key in picks))
    by_method = {key: [_label(*k) for k in picks if k[:2] == key] for key in keys}
    return {
        "samples": {use.declaration.name: use.samples for use in known.spec.benchmarks},
        "holdout": {name: len(samples) for name, samples in models[0].scores.items()},
        "tasks": tasks,
        "best_source": best,
        "models": [
            {"name": name, **_estimates(holdout, [name], [])}
            for name in (known.spec.base, *sources, *names)
        ],
        "methods": [
            {
                "method": method,
                "evaluations": budget,
                "seeds": len(labels),
                "spread": [f([holdout.mean([name])[0] for name in labels]) for f in (min, max)],
                **_estimates(holdout, labels, rivals),
            }
            for (method, budget), labels in by_method.items()
        ],
        "choices": [
            {
                "method": method,
                "evaluations": budget,
                "seed": seed,
                **_about(runs[search.name], trial),
                **_estimates(holdout, [_label(method, budget, seed)], rivals),
            }
            for (method, budget, seed), (search, trial) in picks.items()
        ],
        "against": [
            {
                "method": [ours, budget],
                "rival": [theirs, other],
                "seeds": len(seeds),
                "less": holdout.mean(
                    [_label(ours, budget, seed) for seed in seeds],
                    [_label(theirs, other, seed) for seed in seeds],
                ),
            }
            for ours, budget, theirs, other in AGAINST
            if (
                seeds := [s for s in SEEDS if {(ours, budget, s), (theirs, other, s)} <= set(picks)]
            )
        ],
        "fronts": [
            {"method": search.method, "seed": search.seed, "evaluations": search.checkpoints[-1]}
            | _front(runs[search.name], search.checkpoints[-1])
            for search in shown
            if set(front(runs[search.name], search.checkpoints[-1])) <= _scored(runs[search.name])
        ],
        "racing": [
            _racing(runs[s.name.replace("-racing", "")], runs[s.name], s)
            for s in made
            if s.method.endswith("-racing")
        ],
        "same_first_stage": [
            _same_trials(runs[f"ps-{s.seed}"], runs[s.name]) for s in shown if s.method == "ps+dfs"
        ],
    }


def _label(method: str, budget: int, seed: int) -> str:
    return f"{method}, {budget} evaluations, seed {seed}"


def _scored(run: Run) -> set[int]:
    """Trials that are scored on the holdout."""
    return {trial.number for trial in run.complete() if run.holdout(trial.number) is not None}


def _models(run: Run) -> list[Model]:
    found = []
    search = run.reference_scores("search")
    for name in (run.spec.base, *run.spec.sources):
        scores = _by_sample(run.reference_outputs("holdout", name))
        found.append(Model(name, scores, float(np.mean([r.value for r in search[name].values()]))))
    return found


def _merged(run: Run, names: Sequence[str]) -> list[Model]:
    return [_picked(name, run, trial) for name, trial in zip(names, run.complete(), strict=True)]


def _picked(name: str, run: Run, trial: Trial) -> Model:
    return Model(name, _by_sample(run.holdout_outputs(trial.number)), task_mean(trial, run))


def _by_sample(outputs: Mapping[str, list[dict[str, Any]]]) -> Scores:
    return {name: {row["id"]: row["score"] for row in rows} for name, rows in outputs.items()}


def _estimates(holdout: Holdout, names: Sequence[str], rivals: Sequence[str]) -> dict[str, Any]:
    return {
        "search_mean": float(np.mean([holdout.search[name] for name in names])),
        "mean": holdout.mean(names),
        "scores": holdout.scores(names),
        "less": {rival: holdout.mean(names, [rival]) for rival in rivals},
    }


def _about(run: Run, trial: Trial) -> dict[str, Any]:
    """Which trial it is, and its recipe as far as a line can say it."""
    from morphing.merging.paths import describe, read_path
    from morphing.runs.stage_model import stage_model

    path = read_path(trial.recipe)
    about: dict[str, Any] = {"trial": trial.number, "path": describe(path) if path else None}
    about["params"] = {name: round(value, 4) for name, value in trial.params.items()}
    if model := stage_model(run):
        about["stage_model"] = model.trial
    return about


def _front(run: Run, budget: int) -> dict[str, Any]:
    """Members, how many of them hold on the holdout, and hypervolumes on the run's scales."""
    from morphing.runs.selection import selection

    members = front(run, budget)
    again = selection(run, members)
    assert again is not None
    return {
        "members": len(members),
        "held": sum(standing.on_front for standing in again.members),
        "optimism": again.optimism,
        "hypervolume": _hypervolume(run, run, budget),
        "holdout_hypervolume": again.hypervolume,
    }


def _hypervolume(run: Run, measured_by: Run, budget: int) -> float:
    """Of the trials scored whole, on the scales of ``measured_by``."""
    from morphing.runs.scales import scales
    from morphing.search import pareto

    values = [trial.values for trial in complete(run, budget)]
    normal = scales(measured_by).normalise(values)
    return pareto.hypervolume(normal, np.zeros(normal.shape[1]))


def _racing(off: Run, on: Run, search: Search) -> dict[str, Any]:
    """The same search without and with racing, after as many evaluations and as many samples."""
    budget = search.checkpoints[0]
    spent = np.cumsum([_samples(trial) for trial in on.trials()])
    whole = sum(_samples(trial) for trial in off.trials()[:budget])
    equal = int(np.searchsorted(spent, whole, side="right"))
    raced = [trial for trial in on.trials()[:budget] if trial.state == "raced"]
    same = search.method.startswith("random")
    best = set(front(off, budget))
    return {
        "sampler": search.method.removesuffix("-racing"),
        "seed": search.seed,
        "evaluations": budget,
        "given_up": len(raced),
        "of_the_front": sum(trial.number in best for trial in raced) if same else None,
        "samples": [whole, int(spent[budget - 1])],
        "seconds": [sum(trial.seconds for trial in r.trials()[:budget]) for r in (off, on)],
        "hypervolume": [_hypervolume(off, off, budget), _hypervolume(on, off, budget)],
        "at_equal_samples": {
            "evaluations": equal,
            "samples": int(spent[equal - 1]),
            "hypervolume": _hypervolume(on, off, equal),
        },
    }


def _samples(trial: Trial) -> int:
    if trial.raced:
        return sum(trial.raced.samples.values())
    return sum(result.n for result in (trial.results or {}).values())


def _same_trials(first: Run, both: Run) -> bool:
    """Whether a search in two stages began with the trials of the search in one."""
    return [t.params for t in first.trials()] == [
        t.params for t in both.trials()[: len(first.trials())]
    ]
