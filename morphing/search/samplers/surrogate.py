"""Gaussian processes for the objectives, and what keeps their use reproducible."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch
    from botorch.models import SingleTaskGP

_ITERATIONS = 100
"""Of fitting: more took several times as long and moved the likelihood by less than 0.1."""
_LEAST_NOISE = 1e-4
"""What an exact value is taken to vary by, z-scored."""
_RELEVANCE_RANGE = 10.0
"""A parameter's relevance counts at most so many times more or less than the geometric mean."""


def fit_processes(
    x: torch.Tensor,
    z: torch.Tensor,
    noise: torch.Tensor | None = None,
    relevance: np.ndarray | None = None,
) -> SingleTaskGP:
    """Independent Gaussian processes for the columns of z (n, m) over x (n, d), fitted by MAP.

    Matern 5/2 kernels: among a few dozen trials they know much better than squared exponentials
    how wrong they may be. Lengthscales have BoTorch's dimension-scaled prior (Hvarfner et al. 2024,
    arXiv 2402.02229), under which most of many parameters count for little until trials say
    otherwise. Fitted one by
    one (a joint fit takes twice as long) and put into one batched model, whose posterior costs a
    fraction of m separate ones.

    Args:
        x: (n, d) in [0, 1].
        z: (n, m) z-scored.
        noise: (n, m) known variances of z; not given, each process finds its own.
        relevance: (d,) above 0; where it is larger, the prior expects a shorter lengthscale, in
            proportion.
    """
    import torch
    from botorch.exceptions import ModelFittingError
    from botorch.fit import fit_gpytorch_mll
    from gpytorch.mlls import ExactMarginalLogLikelihood

    if noise is not None:
        noise = noise.clamp_min(_LEAST_NOISE)
    parts = []
    for column in range(z.shape[1]):
        own = None if noise is None else noise[:, column : column + 1]

        def new(column: int = column, own: torch.Tensor | None = own) -> SingleTaskGP:
            return _process(x, z[:, column : column + 1], own, relevance)

        part = new()
        try:
            fit_gpytorch_mll(
                ExactMarginalLogLikelihood(part.likelihood, part),
                optimizer_kwargs={"options": {"maxiter": _ITERATIONS}},
            )
        except ModelFittingError:
            part = new()  # a new model has the most likely hyperparameters of its priors
        parts.append(dict(part.named_parameters()))
    model = _process(x, z, noise, relevance)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            stacked = torch.stack([part[name] for part in parts])
            parameter.copy_(stacked.reshape(parameter.shape))
    return model.eval()


def _process(
    x: torch.Tensor,
    z: torch.Tensor,
    noise: torch.Tensor | None,
    relevance: np.ndarray | None,
) -> SingleTaskGP:
    import torch
    from botorch.models import SingleTaskGP
    from botorch.models.utils.gpytorch_modules import get_covar_module_with_dim_scaled_prior

    kernel = get_covar_module_with_dim_scaled_prior(
        x.shape[1],
        batch_shape=torch.Size(z.shape[1:]) if z.shape[1] > 1 else None,
        use_rbf_kernel=False,
    )
    model = SingleTaskGP(x, z, train_Yvar=noise, covar_module=kernel, outcome_transform=None)
    if relevance is not None:
        kernel.lengthscale_prior.loc = kernel.lengthscale_prior.loc - _log_ratios(relevance, x)
        kernel.lengthscale = kernel.lengthscale_prior.mode
    return model


def _log_ratios(relevance: np.ndarray, x: torch.Tensor) -> torch.Tensor:
    """Logarithms (d,) of relevances over their geometric mean, kept within bounds."""
    import torch

    logs = np.log(relevance)
    bound = math.log(_RELEVANCE_RANGE)
    return torch.from_numpy(np.clip(logs - logs.mean(), -bound, bound)).to(x)


def relevance_of(
    names: Mapping[str, object], relevance: Mapping[str, float] | None
) -> np.ndarray | None:
    """Relevances (d,) in the order of ``names``; unknown and zero ones count as the mean ones."""
    if not relevance:
        return None
    known = np.array([relevance.get(name, 0.0) for name in names])
    if not (known > 0).any():
        return None
    return np.where(known > 0, known, np.exp(np.log(known[known > 0]).mean()))


@contextmanager
def reproducible(seed: int) -> Iterator[None]:
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
        warnings.filterwarnings("ignore", "Optimization failed", RuntimeWarning)
        torch.manual_seed(seed)
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
