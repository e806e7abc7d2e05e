"""The peers: what others' programs do, from the same initial points.

Each is a function of a `Trials` to fill; it goes on until the budget is spent, which `Trials` says
by raising `Spent`.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence

import numpy as np
from problems import Problem

from morphing.search.samplers.mmmo import cross_with_elite


class Spent(Exception):
    """No evaluation is left."""


class Trials:
    """Evaluates points of a problem, keeps what came out, and counts.

    Args:
        problem: what is evaluated.
        seed: of the run.
        initial: (n, d) the points every run with this seed may begin with.
        budget: so many evaluations.
    """

    def __init__(self, problem: Problem, seed: int, initial: np.ndarray, budget: int) -> None:
        self.problem = problem
        self.seed = seed
        self.initial = initial
        self.budget = budget
        self.values: list[np.ndarray] = []
        self.variances: list[np.ndarray] = []
        self.evaluating = 0.0
        """Seconds spent in evaluations."""

    def evaluate(self, point: np.ndarray) -> np.ndarray:
        """All values at a point (d,); the first ``len(problem.objectives)`` are for searching."""
        if len(self.values) == self.budget:
            raise Spent
        started = time.perf_counter()
        values, variances = self.problem.evaluate(np.clip(point, 0.0, 1.0))
        self.evaluating += time.perf_counter() - started
        self.values.append(values)
        self.variances.append(variances)
        return values[: len(self.problem.objectives)]

    def evaluate_all(self, points: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
        """(n, m)"""
        return np.array([self.evaluate(point) for point in points])


def pymoo_nsga2(trials: Trials, population: int = 10) -> None:
    """pymoo's NSGA-II as mergenetic makes it: duplicates eliminated, everything else its default.

    The population is the 10 of the configurations mergenetic ships (configs/*.yaml; pymoo's
    defaults are SBX, eta 15, probability 0.9, and polynomial mutation, eta 20).
    """
    from pymoo.algorithms.moo.nsga2 import NSGA2
    from pymoo.core.problem import Problem as PymooProblem

    class Box(PymooProblem):
        def __init__(self) -> None:
            problem = trials.problem
            super().__init__(
                n_var=problem.dimensions, n_obj=len(problem.objectives), xl=0.0, xu=1.0
            )

        def _evaluate(self, x: np.ndarray, out: dict[str, np.ndarray], *_: object) -> None:
            out["F"] = -trials.evaluate_all(x)

    algorithm = NSGA2(
        pop_size=population, sampling=trials.initial[:population], eliminate_duplicates=True
    )
    algorithm.setup(Box(), termination=("n_eval", trials.budget + 1), seed=trials.seed)
    while algorithm.has_next():
        algorithm.next()


def mergekit_cma(trials: Trials) -> None:
    """pycma as mergekit-evolve calls it: fmin2, sigma0 = 1/6, no bounds, its own population.

    It minimises minus the sum of the task scores (of all objectives where none is a task's). Points
    outside are moved inside as mergekit does: weights by their absolute value (those above 1, which
    it allows, are cut here: they are outside of the space compared), densities cut at 1. The
    initial points are evaluated and counted; it starts where mergekit does (weights 1/K, densities
    1), or, where parameters are not a merge's, at the best of the initial points.
    """
    import cma

    columns = trials.problem.task_columns

    def costs(points: Sequence[np.ndarray]) -> list[float]:
        return [-float(trials.evaluate(np.abs(point))[columns].sum()) for point in points]

    initial = trials.initial[:10]
    best = initial[int(np.argmin(costs(list(initial))))]
    start = trials.problem.mergekit_start()
    while True:  # cma ends early once it has converged
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            cma.fmin2(
                None,
                best if start is None else start,
                1 / 6,
                {"seed": trials.seed + 1, "verbose": -9, "maxfevals": trials.budget},
                parallel_objective=costs,
            )


def optuna_gp(trials: Trials) -> None:
    """Optuna's GPSampler with its defaults: expected hypervolume improvement, Matern 5/2.

    The initial points are given to it in the place of its own first ten.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    names = [f"x{place}" for place in range(trials.problem.dimensions)]
    unit = optuna.distributions.FloatDistribution(0.0, 1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.GPSampler(seed=trials.seed)
    directions = ["maximize"] * len(trials.problem.objectives)
    study = optuna.create_study(directions=directions, sampler=sampler)
    for point in trials.initial[:10]:
        study.enqueue_trial(dict(zip(names, point.tolist(), strict=True)))
    while True:
        trial = study.ask(dict.fromkeys(names, unit))
        point = np.array([trial.params[name] for name in names])
        study.tell(trial, trials.evaluate(point).tolist())


def published_mmmo(trials: Trials) -> None:
    """MM-MO as its authors published it (arXiv 2407.00487), faults and all.

    Ten initial configurations, then batches: independent processes on z-scored values, qEHVI for 10
    candidates one after the other, weak-to-strong, the 5 with the lowest Fisher information. Faults
    kept: the reference point is the initial minimum of the raw scores x 0.9 (x 1.1 where negative)
    while everything else is z-scored, with the scores in percent; a configuration is its values
    rounded to two decimals, and candidates whose configuration was evaluated before are dropped.

    One thing is not theirs: `_greedy_qehvi` computes qEHVI of a candidate given the ones chosen
    before it without summing over their 2^(q-1) subsets. A constant that is 0 / 0 when z-scored
    stays 0.
    """
    import torch
    from botorch.exceptions.warnings import BotorchWarning
    from botorch.fit import fit_gpytorch_mll
    from botorch.models import ModelListGP, SingleTaskGP
    from gpytorch.mlls import SumMarginalLogLikelihood
    from linear_operator.utils.warnings import NumericalWarning

    torch.manual_seed(trials.seed)
    rng = np.random.default_rng(trials.seed)
    units = trials.problem.published_units()
    points = trials.initial[:10]
    values = trials.evaluate_all(points) * units
    seen = {_configuration(point) for point in points}
    least = values.min(axis=0)
    reference = torch.from_numpy(np.where(least < 0, least * 1.1, least * 0.9))
    while True:
        deviation = values.std(axis=0, ddof=1)
        z = (values - values.mean(axis=0)) / np.where(deviation > 0, deviation, 1.0)
        x, y = torch.from_numpy(points), torch.from_numpy(z)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", BotorchWarning)
            warnings.simplefilter("ignore", NumericalWarning)
            columns = y.split(1, dim=1)
            model = ModelListGP(*(SingleTaskGP(x, c, outcome_transform=None) for c in columns))
            fit_gpytorch_mll(SumMarginalLogLikelihood(model.likelihood, model))
            chosen = _greedy_qehvi(model, y, reference, points.shape[1], count=10)
            order = np.argsort(-values[:, trials.problem.task_columns].sum(axis=1), kind="stable")
            adjusted = cross_with_elite(chosen, points[order[:5]], rng)
            with torch.no_grad():
                variance = model.posterior(torch.from_numpy(adjusted)).variance.numpy()
        for place in np.argsort((1 / variance).sum(axis=1), kind="stable")[:5]:
            point = adjusted[place]
            if _configuration(point) in seen:
                continue
            seen.add(_configuration(point))
            values = np.vstack([values, trials.evaluate(point) * units])
            points = np.vstack([points, point])


def _configuration(point: np.ndarray) -> tuple[float, ...]:
    return tuple(np.round(point, 2))


def _greedy_qehvi(
    model: object, z: object, reference: object, dimensions: int, count: int
) -> np.ndarray:
    """So many points (count, d), each maximising qEHVI together with those before it.

    128 Sobol samples, 10 restarts, 512 raw samples.
    """
    import torch
    from botorch.optim import optimize_acqf
    from greedy_qehvi import GreedyEHVI

    bounds = torch.tensor([[0.0], [1.0]], dtype=torch.float64).expand(2, dimensions)
    chosen = torch.empty(0, dimensions, dtype=torch.float64)
    seed = int(torch.randint(2**31, (1,)))
    for _ in range(count):
        point, _ = optimize_acqf(
            GreedyEHVI(model, z, reference, chosen, seed),
            bounds,
            q=1,
            num_restarts=10,
            raw_samples=512,
            options={"init_batch_limit": 64},
        )
        chosen = torch.cat([chosen, point])
    return chosen.numpy()


PEERS = {
    "pymoo-nsga2": pymoo_nsga2,
    "mergekit-cma": mergekit_cma,
    "optuna-gp": optuna_gp,
    "published-mmmo": published_mmmo,
}
