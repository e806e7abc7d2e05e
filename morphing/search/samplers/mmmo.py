"""MM-MO: model merging by multi-objective Bayesian optimisation (arXiv 2407.00487).

Ten uniform trials, then batches of five. For a batch (the names are the paper's):

1. a Gaussian process for each objective learns from all trials before the batch;
2. ten candidates are chosen by expected hypervolume improvement (the acquisition strategy);
3. *weak-to-strong*: each candidate is crossed with a mutant of the five best trials,
   mutant = clip(a + 0.5 (b - c)), each coordinate taken from it with probability 0.5;
4. *Fisher screening*: of the ten, the five with the lowest information
   I(x) = sum over objectives of 1 / sigma^2(x) are tried.

The constants are those of the authors' published code. All that differs from that code:

- **Reference point.** Theirs is the minimum of the first scores in percent, times 0.9, beside
  z-scored models, so that the acquisition can be zero everywhere. Ours is the one that the shown
  hypervolume counts from (else `pareto.reference_point`), z-scored like the values. It stays where
  the initial trials put it: the minimum of all trials would sink with every extreme that is tried
  and make the next extreme worth more.
- **Acquisition.** Theirs is qEHVI by 128 Monte Carlo samples; it counts the points chosen before by
  inclusion and exclusion over their subsets, 2^10 - 1 for ten, minutes for a batch at four
  objectives. Ours is the exact expected improvement of one point (`ehvi`), and each chosen point is
  taken as observed at its posterior mean before the next is chosen (the kriging believer,
  Ginsbourger et al. 2010).
- **Starts of the optimiser.** 512 raw samples and 10 restarts as theirs, but half of the samples
  are members of the front with some coordinates moved, and L-BFGS stops after 60 steps.
- **Kernel.** Matern 5/2 under BoTorch's dimension-scaled prior. Theirs is the default of BoTorch's
  SingleTaskGP, in today's versions a squared exponential.
- **Fitting.** One process after the other, at most 100 steps each, not all together to convergence.
- **Noise.** The variances of scores are known (they are shares of so many samples) and are given to
  the processes. Theirs find one noise level for each objective.
- **Objectives that were equal in all trials** are left out of a batch. Theirs are divided by zero.
- **Identity.** Theirs takes configurations that agree to two decimals for the same one and drops
  it. Ours does not, and a batch always has its five trials.
- **Sparsity** is relative to the base's size, with the head counted (docs/architecture.md); theirs
  is the plain sum without the head. Orders of recipes are the same but for the head.
- **Failures.** Trials that failed or were given up early teach the processes nothing. With fewer
  than two trials to learn from, proposals stay uniform.
- **Budget.** Theirs is four batches; ours is as many as the search has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial

from morphing.search.pareto import reference_point
from morphing.search.samplers.history import (
    VARIANCES,
    HistorySampler,
    Problem,
    derive_seed,
    from_unit,
    history,
    known_variances,
    signs,
    slot_of,
    slots,
    to_unit,
    usable,
)
from morphing.search.samplers.surrogate import fit_processes, reproducible

if TYPE_CHECKING:
    import torch
    from botorch.models import SingleTaskGP

_RESTARTS = 10
_RAW_SAMPLES = 512
_ELITE = 5
_DIFFERENTIAL_WEIGHT = 0.5
_CROSSOVER_RATE = 0.5


class MMMOSampler(HistorySampler):
    """MM-MO: uniform initial trials, then batches from Gaussian processes.

    A batch: a Gaussian process per objective on all trials before the batch; ``candidates``
    points by expected hypervolume improvement; each crossed with a mutant of the best trials
    (weak-to-strong); of these, ``batch_size`` by their Fisher information. A resumed search
    computes the batch it is in again.

    Trials without finite values teach the processes nothing, nor do objectives that were equal in
    all trials. With fewer than two trials to learn from, proposals stay uniform.

    Args:
        seed: at least 0.
        problem: what is known of the search; the sum of task scores ranks trials for
            weak-to-strong.
        n_initial: uniform trials before the first batch.
        batch_size: trials in a batch.
        candidates: points a batch is screened from.
        weak_to_strong: cross candidates with mutants of the best trials.
        fisher: which candidates a batch keeps: those of "lowest" (the paper's) or "highest"
            information, or with "none" the first ones chosen.
    """

    def __init__(
        self,
        seed: int,
        problem: Problem | None = None,
        *,
        n_initial: int = 10,
        batch_size: int = 5,
        candidates: int = 10,
        weak_to_strong: bool = True,
        fisher: Literal["lowest", "highest", "none"] = "lowest",
    ) -> None:
        super().__init__(seed, problem)
        self._n_initial = n_initial
        self._batch_size = batch_size
        self._candidates = candidates
        self._weak_to_strong = weak_to_strong
        self._fisher = fisher
        self._last_batch: tuple[Any, np.ndarray] | None = None

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The slot's place in its batch; nothing in initial trials, which are uniform."""
        first = self._problem.first_slot
        slot = slot_of(study, trial)
        batch, place = divmod(slot - first - self._n_initial, self._batch_size)
        if batch < 0 or not search_space:
            return {}
        start = slot - place
        slot_by_number = slots(study.get_trials(deepcopy=False))
        before = [t for t in history(study) if slot_by_number[t.number] < start]
        evaluated = usable(before, search_space)
        if len(evaluated) < 2:
            return {}
        values = np.array([t.values for t in evaluated]) * signs(study)
        if (values == values[0]).all():
            return {}
        points = to_unit([t.params for t in evaluated], search_space)
        noise = known_variances([t.user_attrs.get(VARIANCES) for t in evaluated])
        inputs = (start, tuple(search_space), points.tobytes(), values.tobytes())
        if self._last_batch is None or self._last_batch[0] != inputs:
            reference = self._problem.reference
            corner = None if reference is None else np.array(reference) * signs(study)
            self._last_batch = inputs, self._propose(points, values, noise, corner, start)
        return from_unit(self._last_batch[1][place], search_space)

    def _propose(
        self,
        points: np.ndarray,
        values: np.ndarray,
        noise: np.ndarray | None,
        corner: np.ndarray | None,
        start: int,
    ) -> np.ndarray:
        """A batch, (batch_size, d), from points (n, d) in [0, 1] and maximised values (n, m).

        ``noise`` (n, m) are the values' variances, where they are known. Hypervolume counts from
        ``corner`` (m,), or from the initial trials' worst.
        """
        import torch

        seed = derive_seed(self._seed, start)
        rng = np.random.default_rng(seed)
        taught = (values != values[0]).any(axis=0)
        varying = values[:, taught]
        corner = reference_point(varying) if corner is None else corner[taught]
        mean, deviation = varying.mean(axis=0), varying.std(axis=0, ddof=1)
        z = torch.from_numpy((varying - mean) / deviation)
        reference = torch.from_numpy((corner - mean) / deviation)
        x = torch.from_numpy(points)
        with reproducible(seed):
            known = None if noise is None else torch.from_numpy(noise[:, taught] / deviation**2)
            model = fit_processes(x, z, known)
            chosen = _believer_ehvi(model, x, z, reference, self._candidates, seed).numpy()
            if self._weak_to_strong:
                tasks = self._problem.task_indices(values.shape[1])
                elite = points[np.argsort(-values[:, tasks].sum(axis=1), kind="stable")]
                chosen = cross_with_elite(chosen, elite[:_ELITE], rng)
            if self._fisher != "none":
                with torch.no_grad():
                    variance = model.posterior(torch.from_numpy(chosen)).variance.numpy()
                information = (1 / variance).sum(axis=1)
                order = np.argsort(information, kind="stable")
                chosen = chosen[order if self._fisher == "lowest" else order[::-1]]
        return chosen[: self._batch_size]


def cross_with_elite(
    candidates: np.ndarray, elite: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Weak-to-strong: each candidate crossed with a mutant of three elite points.

    Differential evolution's rand/1/bin: mutant = clip(a + 0.5 (b - c)) with a, b, c drawn without
    replacement, and each coordinate taken from it with probability 0.5, at least one.

    Args:
        candidates: (q, d) in [0, 1].
        elite: (k, d) in [0, 1]; with k < 3 there is no mutant and candidates stay as they are.
        rng: the source of the draws.
    """
    if len(elite) < 3:
        return candidates
    count, dimensions = candidates.shape
    crossed = candidates.copy()
    for row in range(count):
        a, b, c = elite[rng.choice(len(elite), size=3, replace=False)]
        mutant = np.clip(a + _DIFFERENTIAL_WEIGHT * (b - c), 0.0, 1.0)
        take = np.less(rng.random(dimensions), _CROSSOVER_RATE)
        take[rng.integers(dimensions)] = True
        crossed[row, take] = mutant[take]
    return crossed


def _believer_ehvi(
    model: SingleTaskGP,
    x: torch.Tensor,
    z: torch.Tensor,
    reference: torch.Tensor,
    count: int,
    seed: int,
) -> torch.Tensor:
    """Points (count, d) of [0, 1]^d, each maximising the expected hypervolume improvement.

    Args:
        model: the fitted processes.
        x: (n, d) evaluated points.
        z: (n, m) their z-scored values, maximised.
        reference: (m,) the point hypervolume is measured from, z-scored.
        count: how many points to choose.
        seed: of the optimisation's starts.
    """
    import torch

    from morphing.search.samplers.ehvi import LogEHVI, maximise, noise_of, non_dominated

    n = len(x)
    noise = noise_of(model, n)
    for chosen in range(count):
        counted = torch.ones(len(x), dtype=torch.bool)
        acquisition = LogEHVI(model, x, z.T[None], noise, reference, counted)
        point = maximise(
            acquisition,
            non_dominated(x, z),
            seed + chosen,
            raw_samples=_RAW_SAMPLES,
            restarts=_RESTARTS,
        )
        with torch.no_grad():
            believed = acquisition.posterior(point)[0][..., 0].T
        x, z = torch.cat([x, point]), torch.cat([z, believed])
        noise = torch.cat([noise, noise.mean(dim=1, keepdim=True)], dim=1)
    return x[n:]
