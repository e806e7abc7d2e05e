"""What `samplers.py` measured, as Markdown."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from machine import sentence
from problems import PROBLEMS, ZOO, make_problem, volume
from report import table

LABELS = {
    "pymoo-nsga2": "pymoo NSGA-II (mergenetic)",
    "mergekit-cma": "cma (mergekit-evolve)",
    "published-mmmo": "MM-MO as published",
    "optuna-gp": "Optuna's GPSampler",
    "long-nsga2": "pymoo NSGA-II, population 50",
}
CHECKPOINTS = (30, 60, 90, 150, 300, 1000)
SIX, TWENTY_FOUR = ([p for p in PROBLEMS if p.endswith(f"-{d}")] for d in (6, 24))
OURS = ("qlognehvi", "mmmo", "nsga2", "nsga3", "cmaes", "sobol", "random")
PEERS = ("published-mmmo", "pymoo-nsga2", "mergekit-cma", "optuna-gp")
ABLATIONS = (
    ("mmmo", "on", "lowest kept (the paper's)"),
    ("mmmo/highest", "on", "highest kept"),
    ("mmmo/no-fisher", "on", "none"),
    ("mmmo/no-w2s", "off", "lowest kept"),
    ("mmmo/no-w2s/highest", "off", "highest kept"),
    ("mmmo/no-w2s/no-fisher", "off", "none"),
)

_ABOUT = """\
Hypervolume as a share of a dense reference front's, mean ± standard deviation over seeds (`plan`
has 10, and 5 on the zoo; each row says how many are done).

Reference points: BoTorch's own for the test functions (on ZDT it is -11 in both objectives: the
first points already cover most of the volume, so small differences count), but for dtlz2-24, whose
own (-1.1) nobody reaches in hundreds of evaluations: there the worst value there is, -6.75, in
both; on the zoo a tenth of the range below the worst of base and sources. Reference fronts: the
analytic ones; on the zoo the union of all that any run evaluated, one of pymoo's NSGA-II with a
population of 50 and 1,000 evaluations among them once it is done. Hypervolumes are moocore's, not
ours.

Every run with the same seed begins with the same 10 uniform points, but for `sobol` (its own first
points) and for `cmaes`, which begins with a generation around the middle, as the evolutionary
paper; `evolve` is `cmaes`, trial for trial, but on layer paths.

Peers: pymoo's NSGA-II as mergenetic makes it (population 10, as in the configurations it ships;
everything else is pymoo's default). pycma as mergekit-evolve calls it (the sum of task scores,
sigma 1/6, no bounds, from weights 1/K and densities 1; on test functions the sum of the objectives,
from the best of the 10). MM-MO as published, faults included (`peers.py` says which), with nothing
reduced: qEHVI with 128 samples, 10 restarts, 512 raw samples, q = 10; only the sums over subsets of
points chosen before are replaced by an exact equivalent (`greedy_qehvi.py`). It ends at 30
evaluations, as theirs, and has three seeds on the test functions of 24 dimensions. Optuna's
GPSampler with its defaults, on six dimensions and with five seeds. A number in brackets says how
many of the seeds a mean is of, where not all went so far."""

Line = Mapping[str, Any]


class Results:
    """The stored runs, and hypervolumes of them."""

    def __init__(self, lines: Iterable[Line]) -> None:
        self._runs: dict[tuple[str, str], dict[int, Line]] = {}
        for line in lines:
            key = line["problem"], line["sampler"]
            self._runs.setdefault(key, {})[line["seed"]] = line
        self._whole: dict[str, float] = {}

    def has(self, problem: str, sampler: str) -> bool:
        return (problem, sampler) in self._runs

    def seconds(self, problem: str, sampler: str) -> float:
        """Of a run, evaluations not counted, on average."""
        runs = self._runs[problem, sampler].values()
        return float(np.mean([run["seconds"] - run["evaluating"] for run in runs]))

    def hours(self) -> float:
        """Of all runs together, one after the other."""
        return sum(r["seconds"] for runs in self._runs.values() for r in runs.values()) / 3600

    def shares(
        self, problem: str, sampler: str, evaluations: int, judged: str | None = None
    ) -> dict[int, float]:
        """Hypervolume over the reference front's by seed; of runs with so many evaluations.

        ``judged`` is the problem whose objectives are looked at, if it is another.
        """
        return {
            seed: self._share(problem, sampler, seed, evaluations, judged or problem)
            for seed, run in sorted(self._runs.get((problem, sampler), {}).items())
            if run["evaluations"] >= evaluations
        }

    @cache  # noqa: B019 (one object a process)
    def _share(self, problem: str, sampler: str, seed: int, evaluations: int, judged: str) -> float:
        entered = self._runs[problem, sampler][seed]["entered"]
        kept = [row[1:] for row in entered if row[0] < evaluations]
        known = make_problem(judged)
        values = np.array(kept)[:, : len(known.objectives)]
        return volume(values, known.reference) / self._front_volume(judged)

    def _front_volume(self, problem: str) -> float:
        if problem not in self._whole:
            known = make_problem(problem)
            own = known.front_volume
            if own is None:
                # The two problems per source are the same merges, so they share one front.
                same = {"zoo-sources", "zoo-sources-tasks"}
                names = same if problem in same else {problem}
                rows = [
                    row[1:]
                    for (name, _), runs in self._runs.items()
                    if name in names
                    for run in runs.values()
                    for row in run["entered"]
                ]
                own = volume(np.array(rows)[:, : len(known.objectives)], known.reference)
            self._whole[problem] = own
        return self._whole[problem]

    def best(
        self, problems: Sequence[str], evaluations: int, names: Sequence[str] = OURS
    ) -> str | None:
        """The sampler with the highest mean over all these problems."""
        means = {}
        for name in names:
            shares = [list(self.shares(p, name, evaluations).values()) for p in problems]
            if all(shares):
                means[name] = float(np.mean([np.mean(share) for share in shares]))
        return max(means, key=lambda name: means[name]) if means else None


def report(lines: Sequence[Line], facts: Mapping[str, Any]) -> str:
    """Everything there is so far."""
    results = Results(lines)
    parts = ["# Samplers: hypervolume against evaluations", _about(results, facts)]
    parts += ["## The comparisons asked for", *_comparisons(results)]
    for title, problems in (
        ("6 dimensions", SIX),
        ("24 dimensions", TWENTY_FOUR),
        ("The zoo", [p for p in ZOO if not p.endswith("-tasks")]),
    ):
        parts += [f"## {title}", *_tables(results, problems)]
    parts += ["## What MM-MO's parts are worth", *_ablation(results)]
    if "proposals" in facts:
        parts += ["## Seconds a proposal takes", *_proposals(facts["proposals"])]
    return "\n\n".join(part for part in parts if part) + "\n"


def _about(results: Results, facts: Mapping[str, Any]) -> str:
    machine = sentence({**facts["machine"], "busy": False}) if "machine" in facts else ""
    return f"{_ABOUT}\n\nAll runs took {results.hours():.1f} hours of one thread. {machine}".strip()


def _tables(results: Results, problems: Sequence[str]) -> list[str]:
    return [_table(results, problem) for problem in problems]


def _table(results: Results, problem: str) -> str:
    names = [n for n in (*OURS, *PEERS) if results.has(problem, n)]
    if not names:
        return ""
    used = [c for c in CHECKPOINTS if any(results.shares(problem, n, c) for n in names)]
    rows = [
        [
            _label(name),
            str(len(results.shares(problem, name, used[0]))),
            *_cells([results.shares(problem, name, c).values() for c in used]),
            f"{results.seconds(problem, name):.1f}",
        ]
        for name in names
    ]
    head = [problem, "seeds", *(f"at {c}" for c in used), "s a run, without evaluations"]
    return table(head, rows)


def _comparisons(results: Results) -> list[str]:
    best_test = results.best(SIX, 30)
    parts = []
    rows = []
    for problems in (SIX, TWENTY_FOUR, [p for p in ZOO if not p.endswith("-tasks")]):
        for problem in problems:
            for peer, at in (("published-mmmo", 30), ("sobol", 30), ("nsga2", 60)):
                rows += _paired_row(results, problem, ("mmmo", 30), (peer, at))
    if rows:
        parts += ["`mmmo` after 30 evaluations:", table(_HEAD, rows)]
    rows = []
    if best_test:
        for problem in SIX:
            rows += _paired_row(results, problem, (best_test, 30), ("pymoo-nsga2", 300))
    for problem in [p for p in ZOO if not p.endswith("-tasks")]:
        best = results.best([problem], 30)
        if best:
            rows += _paired_row(results, problem, (best, 30), ("pymoo-nsga2", 90))
            rows += _paired_row(results, problem, (best, 30), ("random", 150))
    if rows:
        parts += [
            "The best of ours after 30 evaluations (the highest mean over the 6-dimensional"
            " functions; on the zoo, over that problem) against many more of others:",
            table(_HEAD, rows),
        ]
    return [
        "Paired by seed: mean difference in percentage points of the reference front's hypervolume,"
        " with its 95 % interval (Student's t).",
        *parts,
    ]


_HEAD = ["problem", "", "against", "difference", "95 % interval", "seeds", ""]


def _paired_row(
    results: Results, problem: str, ours: tuple[str, int], theirs: tuple[str, int]
) -> list[list[str]]:
    one, other = results.shares(problem, *ours), results.shares(problem, *theirs)
    seeds = sorted(one.keys() & other.keys())
    if len(seeds) < 2:
        return []
    mean, low, high = paired([one[s] - other[s] for s in seeds])
    verdict = "better" if low > 0 else "worse" if high < 0 else "not told apart"
    return [
        [
            problem,
            f"{_label(ours[0])} at {ours[1]}",
            f"{_label(theirs[0])} at {theirs[1]}",
            f"{100 * mean:+.2f}",
            f"{100 * low:+.2f} to {100 * high:+.2f}",
            str(len(seeds)),
            verdict,
        ]
    ]


def paired(differences: Sequence[float]) -> tuple[float, float, float]:
    """Mean and its 95 % interval by Student's t."""
    from scipy.stats import t

    mean = float(np.mean(differences))
    error = float(np.std(differences, ddof=1)) / math.sqrt(len(differences))
    half = float(t.ppf(0.975, len(differences) - 1)) * error
    return mean, mean - half, mean + half


def _ablation(results: Results) -> list[str]:
    problems = [p for p in (*SIX, "zoo-sources") if results.has(p, "mmmo/no-w2s")]
    parts = []
    if problems:
        rows = [
            [w2s, fisher, *(_spread(results.shares(p, name, 30).values()) for p in problems)]
            for name, w2s, fisher in ABLATIONS
        ]
        parts += [
            "After 30 evaluations:",
            table(["weak-to-strong", "Fisher screening", *problems], rows),
        ]
        rows = []
        for problem in problems:
            for name, _, _ in ABLATIONS[1:]:
                rows += _paired_row(results, problem, (name, 30), ("mmmo", 30))
        parts += ["Each variant against `mmmo` with everything:", table(_HEAD, rows)]
    with_, without = "zoo-sources", "zoo-sources-tasks"
    rows = []
    for name in OURS:
        for at in (30, 60):
            one = results.shares(with_, name, at, judged=without)
            other = results.shares(without, name, at)
            seeds = sorted(one.keys() & other.keys())
            if len(seeds) < 2:
                continue
            mean, low, high = paired([one[s] - other[s] for s in seeds])
            rows.append(
                [
                    f"{name} at {at}",
                    _spread(one[s] for s in seeds),
                    _spread(other[s] for s in seeds),
                    f"{100 * mean:+.2f} ({100 * low:+.2f} to {100 * high:+.2f})",
                ]
            )
    if rows:
        parts += [
            "The sparsity objective, on the zoo per source: both searches judged by the hypervolume"
            " of the three task scores alone.",
            table(["", "with sparsity", "without", "difference, 95 % interval"], rows),
        ]
    return parts


def _proposals(proposals: Mapping[str, Any]) -> list[str]:
    taken = proposals["seconds"]
    sizes = sorted({tuple(map(int, key.split(",")[1:])) for key in taken})
    rows = [
        [name, *(f"{taken[f'{name},{d},{m}']:.2f}" for d, m in sizes)]
        for name in OURS
        if f"{name},{sizes[0][0]},{sizes[0][1]}" in taken
    ]
    head = ["", *(f"{d} numbers, {m} objectives" for d, m in sizes)]
    return [
        "One proposal with 100 told trials, by a sampler that sees the study for the first time, as"
        " after a resume; median of three. `mmmo` proposes five trials at once in that time."
        f" {sentence(proposals['machine'])}",
        table(head, rows),
    ]


def _label(name: str) -> str:
    return LABELS.get(name, f"`{name}`")


def _cells(columns: Sequence[Collection[float]]) -> list[str]:
    """Spreads; where fewer seeds are left than in the first, how many."""
    return [
        _spread(shares) + (f" ({len(shares)})" if 0 < len(shares) < len(columns[0]) else "")
        for shares in columns
    ]


def _spread(shares: Iterable[float]) -> str:
    values = 100 * np.array(list(shares))
    if not len(values):
        return ""
    if len(values) == 1:
        return f"{values[0]:.1f}"
    return f"{values.mean():.1f} ± {values.std(ddof=1):.1f}"
