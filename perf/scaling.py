"""A search on 1 to 64 workers: how busy they are kept, and hypervolume against time.

    python perf/scaling.py [--jobs 2] [--seeds 3] [--quick]

A discrete-event simulation: samplers and proposals are real, the clock is not. An evaluation of a
test function takes a time drawn from a lognormal distribution, a proposal takes none (what it
really took is told). *Asynchronous*: a worker asks for the next trial when it has told its last,
while the others' are pending. *Synchronous*: a batch of as many trials as there are workers is
asked for, and nobody goes on before the slowest has told.
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import statistics
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from machine import Machine, sentence
from problems import make_problem, volume
from report import table
from samplers import our_sampler, study_of

RESULTS = Path(__file__).parent / "results"
PROBLEM = "dtlz2-6"
SAMPLERS = ("random", "nsga2", "qlognehvi")
WORKERS = (1, 2, 4, 8, 16, 32, 64)
SPREAD = 0.6
"""Standard deviation of an evaluation's logarithmic time: one in ten takes over 2.2 times, one in a
hundred over 4 times the median."""


@dataclass(frozen=True)
class Setting:
    """One simulation."""

    sampler: str
    workers: int
    synchronous: bool
    seed: int

    @property
    def trials(self) -> int:
        """At least three for every worker, so that there are batches to wait for."""
        return max(64, 3 * self.workers)


def simulate(setting: Setting) -> dict[str, Any]:
    """Run it: when each evaluation ended (in mean evaluations), and its values."""
    import torch

    from morphing.search.samplers.history import VARIANCES

    torch.set_num_threads(1)
    problem = make_problem(PROBLEM)
    sampler = our_sampler(setting.sampler, problem, setting.seed, setting.trials)
    study = study_of(problem, sampler)
    # The n-th trial takes the same time whoever proposes it and however many workers there are.
    rng = np.random.default_rng(setting.seed)
    durations = rng.lognormal(-(SPREAD**2) / 2, SPREAD, setting.trials)
    proposing: list[float] = []
    running: list[tuple[float, int, Any]] = []
    ended: list[tuple[float, list[float]]] = []

    def ask(now: float) -> None:
        started = time.perf_counter()
        trial = study.ask(fixed_distributions=dict(problem.space))
        proposing.append(time.perf_counter() - started)
        heapq.heappush(running, (now + durations[trial.number], trial.number, trial))

    def tell() -> float:
        now, _, trial = heapq.heappop(running)
        values, variances = problem.evaluate(np.array([trial.params[n] for n in problem.space]))
        trial.set_user_attr(VARIANCES, variances.tolist())
        study.tell(trial, values.tolist())
        ended.append((now, values.tolist()))
        return now

    now = 0.0
    while len(ended) < setting.trials:
        free = setting.workers - len(running)
        for _ in range(min(free, setting.trials - len(proposing))):
            ask(now)
        if setting.synchronous:
            while running:
                now = tell()
        else:
            now = tell()
    return {
        "sampler": setting.sampler,
        "workers": setting.workers,
        "synchronous": setting.synchronous,
        "seed": setting.seed,
        "trials": setting.trials,
        "utilisation": round(float(durations.sum()) / (setting.workers * now), 4),
        "end": round(now, 4),
        "proposal_seconds": round(statistics.fmean(proposing), 4),
        "curve": _curve(ended),
    }


def _curve(ended: Sequence[tuple[float, list[float]]]) -> list[list[float]]:
    """[time, share of the front's hypervolume] whenever it grew."""
    problem = make_problem(PROBLEM)
    assert problem.front_volume
    values, points, best = [], [], 0.0
    for when, row in ended:
        values.append(row)
        reached = volume(np.array(values), problem.reference) / problem.front_volume
        if reached > best:
            best = reached
            points.append([round(when, 3), round(reached, 5)])
    return points


def settings(seeds: int, quick: bool) -> Iterator[Setting]:
    """The slowest first, so that no process is left alone with one at the end."""
    workers = (1, 4) if quick else WORKERS
    for sampler in reversed(SAMPLERS):
        for count in reversed(workers):
            for seed in range(1 if quick else seeds):
                for synchronous in (False, True):
                    if count > 1 or not synchronous:  # one worker waits for nobody
                        yield Setting(sampler, count, synchronous, seed)


def zoo_spread(trials: int = 40) -> float:
    """Standard deviation of the logarithm of the seconds that random merges of the zoo take."""
    problem = make_problem("zoo-sources")
    rng = np.random.default_rng(0)
    taken = []
    for point in rng.random((trials, problem.dimensions)):
        started = time.perf_counter()
        problem.evaluate(point)
        taken.append(time.perf_counter() - started)
    return float(np.std(np.log(taken), ddof=1))


def report(results: dict[str, Any]) -> str:
    """The tables."""
    runs = results["runs"]
    parts = [
        "# Workers: asynchronous and synchronous",
        f"Simulated searches on {PROBLEM} (two objectives, 6 numbers), seeds:"
        f" {results['seeds']}; real proposals, evaluation times lognormal with a logarithmic"
        f" standard deviation of {SPREAD}. That is an assumption: evaluations on rented machines"
        " differ with the length of answers and with the neighbours. (Merges of the zoo, in the"
        f" same run: {results['zoo_spread']:.2f}.) Times are in mean evaluations; a proposal takes"
        " none of the simulated time, its real seconds are in the last column. *Busy*: the share of"
        " the workers' time spent evaluating, from first to last evaluation. *T* is when the"
        " asynchronous search ended; hypervolumes are shares of the true front's, mean ± standard"
        " deviation over seeds.",
        # Only the last column depends on how busy the machine was.
        "Seconds a proposal are real ones: " + sentence({**results["machine"], "busy": False}),
        "![hypervolume against time](scaling.svg)",
    ]
    for sampler in SAMPLERS:
        rows = []
        for count in sorted({run["workers"] for run in runs}):
            own = [r for r in runs if r["sampler"] == sampler and r["workers"] == count]
            waits = [False, True] if count > 1 else [False]
            for synchronous in waits:
                rows.append(_row(own, synchronous))
        head = ["workers", "", "trials", "busy", "time", "at T/4", "at T/2", "at T", "at the end"]
        parts += [f"## {sampler}", table([*head, "s a proposal"], rows)]
    return "\n\n".join(parts) + "\n"


def _row(own: Sequence[dict[str, Any]], synchronous: bool) -> list[str]:
    ends = {run["seed"]: run["end"] for run in own if not run["synchronous"]}
    these = [run for run in own if run["synchronous"] == synchronous]
    reached = [
        [_at(run["curve"], share * ends[run["seed"]]) for run in these] for share in (0.25, 0.5, 1)
    ]
    last = [run["curve"][-1][1] if run["curve"] else 0.0 for run in these]
    return [
        str(these[0]["workers"]),
        "synchronous" if synchronous else "asynchronous",
        str(these[0]["trials"]),
        f"{100 * statistics.fmean(run['utilisation'] for run in these):.0f} %",
        f"{statistics.fmean(run['end'] for run in these):.1f}",
        *(_spread(shares) for shares in (*reached, last)),
        f"{statistics.fmean(run['proposal_seconds'] for run in these):.2f}",
    ]


def _at(curve: Sequence[Sequence[float]], when: float) -> float:
    return max((share for time_, share in curve if time_ <= when), default=0.0)


def _spread(shares: Sequence[float]) -> str:
    mean = f"{100 * statistics.fmean(shares):.1f}"
    return mean + (f" ± {100 * statistics.stdev(shares):.1f}" if len(shares) > 1 else "")


def draw(runs: Sequence[dict[str, Any]], path: Path) -> None:
    """Hypervolume against time: mean over seeds, a panel a sampler."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "morphing"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(SAMPLERS), figsize=(12, 4), sharey=True)
    times = np.geomspace(0.5, 100, 60)
    for axis, sampler in zip(axes, SAMPLERS, strict=True):
        for color, count in enumerate((1, 4, 16, 64)):
            for synchronous in (False, True):
                own = [
                    run
                    for run in runs
                    if (run["sampler"], run["workers"], run["synchronous"])
                    == (sampler, count, synchronous)
                ]
                if not own:
                    continue
                last = max(run["end"] for run in own)
                shown = times[times <= last]
                mean = [np.mean([_at(run["curve"], when) for run in own]) for when in shown]
                style = "--" if synchronous else "-"
                label = f"{count}{', synchronous' if synchronous else ''}"
                axis.plot(shown, mean, style, color=f"C{color}", label=label, linewidth=1.5)
        axis.set_xscale("log")
        axis.set_title(sampler)
        axis.set_xlabel("time (mean evaluations)")
    axes[0].set_ylabel("share of the front's hypervolume")
    axes[0].legend(title="workers", fontsize="small")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--jobs", type=int, default=2, help="processes, one thread each")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="a smoke test: 1 and 4 workers")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder")
    options = parser.parse_args()
    options.results.mkdir(parents=True, exist_ok=True)

    machine = Machine()
    spread = zoo_spread()
    wanted = list(settings(options.seeds, options.quick))
    runs = []
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        for number, run in enumerate(pool.map(simulate, wanted), 1):
            runs.append(run)
            print(f"{number}/{len(wanted)}", *list(run.values())[:-1], flush=True)
    results = {
        "zoo_spread": round(spread, 3),
        "seeds": 1 if options.quick else options.seeds,
        "machine": machine.facts(),
        "runs": runs,
    }
    lines = json.dumps(results, separators=(",", ":")).replace('{"sampler"', '\n{"sampler"')
    (options.results / "scaling.json").write_text(lines + "\n")
    (options.results / "scaling.md").write_text(report(results))
    draw(runs, options.results / "scaling.svg")


if __name__ == "__main__":
    main()
