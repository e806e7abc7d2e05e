"""MM-MO: model merging by multi-objective Bayesian optimisation (arXiv 2407.00487).

The constants are those of the authors' published code. Three things differ from it:

- Its reference point comes from raw scores while its models are z-scored, so its acquisition can
  be flat at zero. Ours is `pareto.reference_point`, z-scored like the values: the hypervolume
  improved is the one shown. It stays where the initial trials put it; the minimum of all trials
  would sink with every extreme tried and make the next extreme worth more.
- It maximises qEHVI by Monte Carlo, the points chosen before counted by inclusion and exclusion
  over their subsets: 2^10 - 1 of them for q = 10, minutes for a batch at four objectives. We use
  the exact expected improvement of one point (independent Gaussians need no samples; Yang et al.
  2019, eq. 19) and take each chosen point as observed at its posterior mean before choosing the
  next (the kriging believer, Ginsbourger et al. 2010).
- It identifies a configuration by values rounded to two decimals; we don't.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial

from morphing.search.pareto import reference_point
from morphing.search.samplers.history import (
    SPARSITY,
    HistorySampler,
    derive_seed,
    from_unit,
    history,
    to_unit,
    usable,
)

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
        objectives: the study's objectives by name, in its order, all maximised. All but
            "sparsity" are task scores, whose sum ranks trials for weak-to-strong.
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
        objectives: Sequence[str],
        *,
        n_initial: int = 10,
        batch_size: int = 5,
        candidates: int = 10,
        weak_to_strong: bool = True,
        fisher: Literal["lowest", "highest", "none"] = "lowest",
    ) -> None:
        super().__init__(seed)
        tasks = [i for i, name in enumerate(objectives) if name != SPARSITY]
        self._tasks = tasks or list(range(len(objectives)))
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
        trials = history(study)
        batch, place = divmod(len(trials) - self._n_initial, self._batch_size)
        if batch < 0 or not search_space:
            return {}
        start = self._n_initial + batch * self._batch_size
        evaluated = usable(trials[:start], search_space)
        values = np.array([t.values for t in evaluated])
        if len(evaluated) < 2 or (values == values[0]).all():
            return {}
        points = to_unit(evaluated, search_space)
        inputs = (start, tuple(search_space), points.tobytes(), values.tobytes())
        if self._last_batch is None or self._last_batch[0] != inputs:
            self._last_batch = inputs, self._propose(points, values, start)
        return from_unit(self._last_batch[1][place], search_space)

    def _propose(self, points: np.ndarray, values: np.ndarray, start: int) -> np.ndarray:
        """A batch, shape (batch_size, d), from points (n, d) in [0, 1] and their values (n, m)."""
        import torch

        seed = derive_seed(self._seed, start)
        rng = np.random.default_rng(seed)
        varying = values[:, (values != values[0]).any(axis=0)]
        mean, deviation = varying.mean(axis=0), varying.std(axis=0, ddof=1)
        z = torch.from_numpy((varying - mean) / deviation)
        reference = torch.from_numpy((reference_point(varying) - mean) / deviation)
        x = torch.from_numpy(points)
        with _reproducible(seed):
            model = _fit(x, z)
            chosen = _believer_ehvi(model, x, z, reference, self._candidates).numpy()
            if self._weak_to_strong:
                elite = points[np.argsort(-values[:, self._tasks].sum(axis=1), kind="stable")]
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


def _fit(x: "torch.Tensor", z: "torch.Tensor") -> "SingleTaskGP":
    """Independent Gaussian processes for the columns of z (n, m) over x (n, d), fitted.

    Fitted one by one (a joint fit takes twice as long) and put into one batched model, whose
    posterior costs a fraction of m separate ones.
    """
    import torch
    from botorch.exceptions import ModelFittingError
    from botorch.fit import fit_gpytorch_mll
    from botorch.models import SingleTaskGP
    from gpytorch.mlls import ExactMarginalLogLikelihood

    parts = []
    for column in z.split(1, dim=1):
        part = SingleTaskGP(x, column, outcome_transform=None)
        try:
            fit_gpytorch_mll(ExactMarginalLogLikelihood(part.likelihood, part))
        except ModelFittingError:
            # A new model has the most likely hyperparameters of its priors.
            part = SingleTaskGP(x, column, outcome_transform=None)
        parts.append(dict(part.named_parameters()))
    model = SingleTaskGP(x, z, outcome_transform=None)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            stacked = torch.stack([part[name] for part in parts])
            parameter.copy_(stacked.reshape(parameter.shape))
    return model.eval()


def _believer_ehvi(
    model: "SingleTaskGP",
    x: "torch.Tensor",
    z: "torch.Tensor",
    reference: "torch.Tensor",
    count: int,
) -> "torch.Tensor":
    """Points (count, d) of [0, 1]^d, each maximising the expected hypervolume improvement.

    Args:
        model: the fitted processes.
        x: (n, d) evaluated points.
        z: (n, m) their z-scored values, maximised.
        reference: (m,) the point hypervolume is measured from, z-scored.
        count: how many points to choose.
    """
    import torch
    from botorch.models import SingleTaskGP
    from botorch.optim import optimize_acqf

    from morphing.search.samplers.ehvi import ExpectedHypervolumeImprovement

    n, dimensions = x.shape
    bounds = torch.tensor([[0.0], [1.0]], dtype=x.dtype).expand(2, dimensions)
    fitted = model.state_dict()
    for _ in range(count):
        point, _ = optimize_acqf(
            ExpectedHypervolumeImprovement(model, z, reference),
            bounds,
            q=1,
            num_restarts=_RESTARTS,
            raw_samples=_RAW_SAMPLES,
        )
        with torch.no_grad():
            believed = model.posterior(point).mean
        x, z = torch.cat([x, point]), torch.cat([z, believed])
        model = SingleTaskGP(x, z, outcome_transform=None).eval()
        model.load_state_dict(fitted)
    return x[n:]


@contextmanager
def _reproducible(seed: int) -> Iterator[None]:
    """One thread and torch's global generator seeded, both put back after.

    Sums in another order differ in their last bits, and an optimiser makes them matter: a
    resumed search must not depend on how many threads it was given. One is also faster here.
    """
    import torch
    from botorch.exceptions.warnings import BotorchWarning
    from linear_operator.utils.warnings import NumericalWarning

    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # Restarts that failed and jitter that was added: botorch mends both itself.
        warnings.simplefilter("ignore", BotorchWarning)
        warnings.simplefilter("ignore", NumericalWarning)
        torch.manual_seed(seed)
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
