"""How much hypervolume each sampler reaches with how many evaluations, beside its peers.

    python perf/samplers.py [--jobs 2] [--only zdt1-6,mmmo]   # measure what is missing
    python perf/samplers.py --quick                           # a smoke test
    python perf/samplers.py --proposals                       # seconds a proposal takes
    python perf/samplers.py --report                          # write samplers.md
    python perf/samplers.py --check-qehvi                     # compare a peer's with BoTorch's

Each finished run is a line of results/samplers.jsonl; a run that was killed starts again. Needs
`pip install morphing[perf]`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from machine import Machine
from problems import PROBLEMS, TEST_FUNCTIONS, Problem, TestFunction, make_problem

if TYPE_CHECKING:
    import optuna
    from optuna.samplers import BaseSampler

RESULTS = Path(__file__).parent / "results"
OURS = ("random", "sobol", "nsga2", "nsga3", "cmaes", "mmmo", "qlognehvi")
"""`evolve` is left out: over numbers it is `cmaes`, trial for trial; paths are another story's."""
PEERS = ("pymoo-nsga2", "mergekit-cma", "published-mmmo")
OPTUNAS = ("optuna-gp",)
"""On the functions of six dimensions alone: on the zoo a run of it takes seven minutes and more."""
ABLATIONS = {
    "mmmo/no-fisher": {"fisher": "none"},
    "mmmo/highest": {"fisher": "highest"},
    "mmmo/no-w2s": {"weak_to_strong": False},
    "mmmo/no-w2s/no-fisher": {"weak_to_strong": False, "fisher": "none"},
    "mmmo/no-w2s/highest": {"weak_to_strong": False, "fisher": "highest"},
}
"""`mmmo` itself has weak-to-strong and keeps the lowest Fisher information."""
LONG = "long-nsga2"
"""pymoo's NSGA-II with a population of 50, once, for the zoo's reference fronts."""


@dataclass(frozen=True)
class Work:
    """One run to make."""

    problem: str
    sampler: str
    seed: int
    budget: int

    @property
    def key(self) -> tuple[str, str, int]:
        """What makes it this run and no other."""
        return self.problem, self.sampler, self.seed


def budget_of(problem: str, sampler: str) -> int:
    """How many evaluations a run has."""
    zoo = problem.startswith("zoo")
    if sampler == LONG:
        return 1000
    if sampler == "random":
        return 150 if zoo else 1000
    if sampler in ("pymoo-nsga2", "nsga2"):
        return 90 if zoo else 300
    if sampler in ABLATIONS or sampler == "published-mmmo":
        return 30
    return 60


def seeds_of(problem: str, sampler: str) -> int:
    """How many seeds a sampler has on a problem; the published MM-MO's batches are the slowest."""
    if sampler == "published-mmmo" and problem.endswith("-24"):
        return 3
    if sampler == "optuna-gp":
        return 5
    return 5 if problem.startswith("zoo") else 10


def plan() -> Iterator[Work]:
    """All the runs, the most telling first, each part seed by seed."""
    everyone = (*OURS, *PEERS)
    functions = {d: [f"{function}-{d}" for function in TEST_FUNCTIONS] for d in (6, 24)}
    ablated = tuple(ABLATIONS)
    zoo = ["zoo-sources", "zoo-layers"]
    parts: tuple[tuple[tuple[list[str], tuple[str, ...]], ...], ...] = (
        ((functions[6], everyone),),
        ((zoo, everyone),),
        ((functions[6], ablated), (["zoo-sources"], ablated), (functions[24], everyone)),
        ((functions[6], OPTUNAS),),
        ((["zoo-sources-tasks"], ("mmmo", "qlognehvi", "nsga2")),),
    )
    for part in parts:
        for seed in range(10):
            for problems, samplers in part:
                for problem in problems:
                    for sampler in samplers:
                        if seed < seeds_of(problem, sampler):
                            yield Work(problem, sampler, seed, budget_of(problem, sampler))
    for problem in zoo:
        yield Work(problem, LONG, 0, budget_of(problem, LONG))


def quick() -> Iterator[Work]:
    """Does everything run at all."""
    for problem in ("zdt1-6", "zoo-sources"):
        for sampler in (*OURS, *PEERS, *OPTUNAS, *ABLATIONS):
            yield Work(problem, sampler, 0, 16)


def study_of(problem: Problem, sampler: BaseSampler) -> optuna.Study:
    """An empty study of a problem, in memory."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    directions = ["maximize"] * len(problem.objectives)
    return optuna.create_study(directions=directions, sampler=sampler)


def our_sampler(name: str, problem: Problem, seed: int, budget: int) -> BaseSampler:
    """One of our samplers, or of the ablations."""
    from morphing.search.samplers import make_sampler
    from morphing.search.samplers.history import Problem as Known
    from morphing.search.samplers.mmmo import MMMOSampler

    known = Known(
        objectives=problem.objectives,
        tasks=problem.tasks,
        space=problem.space,
        reference=tuple(problem.reference.tolist()),
        ideal=tuple(problem.ideal.tolist()),
        relevance=problem.relevance,
        budget=budget,
    )
    if name in ABLATIONS:
        options: Any = ABLATIONS[name]
        return MMMOSampler(seed, known, **options)
    return make_sampler(name, seed, known)


def initial_points(problem: Problem, seed: int, count: int) -> np.ndarray:
    """The points (count, d) of the first trials of `random`, with which others begin too."""
    study = study_of(problem, our_sampler("random", problem, seed, count))
    asked = [study.ask(fixed_distributions=dict(problem.space)) for _ in range(count)]
    return np.array([[trial.params[name] for name in problem.space] for trial in asked])


def search(trials: Any, sampler: BaseSampler) -> None:
    """Ask, evaluate, tell, until the budget is spent."""
    from morphing.search.samplers.history import VARIANCES

    problem = trials.problem
    study = study_of(problem, sampler)
    for _ in range(trials.budget):
        trial = study.ask(fixed_distributions=dict(problem.space))
        values = trials.evaluate(np.array([trial.params[name] for name in problem.space]))
        variances = trials.variances[-1][: len(values)]
        trial.set_user_attr(VARIANCES, variances.tolist())
        study.tell(trial, values.tolist())


def do(work: Work) -> dict[str, Any]:
    """Make a run: what is kept of it.

    ``entered`` has number and values of each trial that was on the front when it came: all that
    hypervolumes after any number of evaluations, from any reference point, depend on.
    """
    import torch
    from peers import PEERS as PEER_FUNCTIONS
    from peers import Spent, Trials, pymoo_nsga2

    torch.set_num_threads(1)
    started = time.perf_counter()
    problem = make_problem(work.problem)
    trials = Trials(problem, work.seed, initial_points(problem, work.seed, 50), work.budget)
    functions = {**PEER_FUNCTIONS, LONG: partial(pymoo_nsga2, population=50)}
    started = time.perf_counter()
    try:
        if work.sampler in functions:
            functions[work.sampler](trials)
        else:
            search(trials, our_sampler(work.sampler, problem, work.seed, work.budget))
    except Spent:
        pass
    seconds = time.perf_counter() - started
    return {
        "problem": work.problem,
        "sampler": work.sampler,
        "seed": work.seed,
        "evaluations": len(trials.values),
        "seconds": round(seconds, 1),
        "evaluating": round(trials.evaluating, 1),
        "entered": _entered(np.array(trials.values)),
    }


def _entered(values: np.ndarray) -> list[list[float]]:
    """[number, values...] of the rows no earlier one is at least as good as everywhere."""
    kept: list[int] = []
    for number, row in enumerate(values):
        if not (values[kept] >= row).all(axis=1).any():
            kept.append(number)
    return [[n, *(float(f"{value:.6g}") for value in values[n])] for n in kept]


def stored(path: Path) -> list[dict[str, Any]]:
    """The runs that are finished; a line torn by a kill is not one."""
    if not path.exists():
        return []
    lines = path.read_text().split("\n")
    return [json.loads(line) for line in lines[:-1] if line]


def measure(works: Sequence[Work], path: Path, jobs: int) -> None:
    """Make the runs that are not in ``path`` yet, and append each as it is done."""
    if path.exists() and not path.read_bytes().endswith(b"\n"):
        whole = path.read_bytes()
        path.write_bytes(whole[: whole.rfind(b"\n") + 1])
    done = {(line["problem"], line["sampler"], line["seed"]) for line in stored(path)}
    left = [work for work in dict.fromkeys(works) if work.key not in done]
    print(f"{len(left)} runs to make, {len(done)} there", flush=True)
    started = time.monotonic()
    failed = 0
    with (
        path.open("a") as file,
        ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool,
    ):
        queue = iter(left)
        running: dict[Any, Work] = {}
        finished = 0
        while True:
            # As many as there are processes: a stop by the keyboard has nothing queued to wait for.
            while len(running) < jobs and (work := next(queue, None)):
                running[pool.submit(do, work)] = work
            if not running:
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                work = running.pop(future)
                finished += 1
                try:
                    line = future.result()
                except Exception:
                    failed += 1
                    print(f"FAILED {work}\n{traceback.format_exc()}", file=sys.stderr, flush=True)
                    continue
                file.write(json.dumps(line, separators=(",", ":")) + "\n")
                file.flush()
                minutes = (time.monotonic() - started) / 60
                print(
                    f"{finished}/{len(left)} {minutes:.1f} min: {work.problem} {work.sampler}"
                    f" seed {work.seed}, {line['seconds']} s",
                    flush=True,
                )
    if failed:
        print(f"{failed} runs failed; start again to try them again", file=sys.stderr)


def proposals(anyway: bool) -> dict[str, Any]:
    """Seconds for one proposal after 100 trials, at 6 and 24 dimensions, 2 and 4 objectives."""
    machine = Machine()
    machine.check_idle(anyway)
    taken = {}
    for objectives in (2, 4):
        for dimensions in (6, 24):
            problem = TestFunction("dtlz2", dimensions, objectives)
            points = initial_points(problem, 0, 100)
            for name in OURS:
                taken[f"{name},{dimensions},{objectives}"] = _proposal(name, problem, points)
                print(name, dimensions, objectives, taken[f"{name},{dimensions},{objectives}"])
    return {"seconds": taken, "machine": machine.facts()}


def _proposal(name: str, problem: Problem, points: np.ndarray, repeats: int = 3) -> float:
    """The median; each with a sampler that has not seen the study before, as after a resume."""
    import optuna

    from morphing.search.samplers.history import VARIANCES

    taken = []
    for seed in range(repeats):
        study = study_of(problem, our_sampler(name, problem, seed, 150))
        for point in points:
            values, variances = problem.evaluate(point)
            study.add_trial(
                optuna.trial.create_trial(
                    params=dict(zip(problem.space, map(float, point), strict=True)),
                    distributions=dict(problem.space),
                    values=values.tolist(),
                    user_attrs={VARIANCES: variances.tolist()},
                )
            )
        started = time.perf_counter()
        study.ask(fixed_distributions=dict(problem.space))
        taken.append(time.perf_counter() - started)
    return round(statistics.median(taken), 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--jobs", type=int, default=2, help="processes, one thread each")
    parser.add_argument("--only", default="", help="problems and samplers, with commas between")
    parser.add_argument("--seeds", type=int, help="only the first so many")
    parser.add_argument("--quick", action="store_true", help="a smoke test, in results/quick.jsonl")
    parser.add_argument("--proposals", action="store_true", help="time proposals instead")
    parser.add_argument("--anyway", action="store_true", help="... on a busy machine too")
    parser.add_argument("--report", action="store_true", help="only write the report")
    parser.add_argument("--check-qehvi", action="store_true", help="compare with BoTorch's")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder")
    options = parser.parse_args()

    options.results.mkdir(parents=True, exist_ok=True)
    if options.check_qehvi:
        from greedy_qehvi import compare_with_botorch

        print(compare_with_botorch())
        return
    facts_path = options.results / "samplers.json"
    facts = json.loads(facts_path.read_text()) if facts_path.exists() else {}
    path = options.results / ("quick.jsonl" if options.quick else "samplers.jsonl")
    if options.proposals:
        facts["proposals"] = proposals(options.anyway)
    elif not options.report:
        machine = Machine()
        measure(_chosen(options), path, options.jobs)
        facts["machine"] = machine.facts()
    if not options.quick:
        facts_path.write_text(json.dumps(facts, indent=1) + "\n")
    if not options.quick:
        from sampler_report import report

        (options.results / "samplers.md").write_text(report(stored(path), facts))


def _chosen(options: argparse.Namespace) -> list[Work]:
    wanted = {name.strip() for name in options.only.split(",") if name.strip()}
    if unknown := wanted - {*PROBLEMS, *OURS, *PEERS, *ABLATIONS, LONG}:
        sys.exit(f"unknown problem or sampler: {', '.join(sorted(unknown))}")
    problems, samplers = wanted & set(PROBLEMS), wanted - set(PROBLEMS)
    return [
        work
        for work in (quick() if options.quick else plan())
        if (not problems or work.problem in problems)
        and (not samplers or work.sampler in samplers)
        and (options.seeds is None or work.seed < options.seeds)
    ]


if __name__ == "__main__":
    main()
