"""Expected hypervolume improvement of one point, exactly, in logarithms.

Under independent Gaussian posteriors the improvement is a sum over the boxes (l, u) that no known
point dominates: a point f adds the volume of its part in each, prod_k (min(f_k, u_k) - l_k)+, whose
expectation is prod_k (E(f_k - l_k)+ - E(f_k - u_k)+) (Yang et al. 2019, Multi-Objective Bayesian
Global Optimization using EHVI gradient). BoTorch's analytic EHVI expands each product into 2^m
terms; its Monte Carlo one doubles with every point that is waited for. Logarithms keep a gradient
where the improvement is next to nothing (Ament et al. 2023, arXiv 2310.20708).

Where values are noisy, the front is not known: noisy EHVI (Daulton et al. 2021, arXiv 2105.08195)
averages the improvement over `draws` of the noiseless values. Given a draw the rest is exact again.
"""

import math
from typing import TYPE_CHECKING

import torch
from botorch.acquisition import AcquisitionFunction
from botorch.optim import optimize_acqf
from botorch.sampling.qmc import NormalQMCEngine
from botorch.utils.multi_objective.pareto import is_non_dominated
from botorch.utils.safe_math import log1mexp
from botorch.utils.sampling import draw_sobol_samples
from botorch.utils.transforms import t_batch_mode_transform
from torch import Tensor

from morphing.search.samplers.boxes import undominated_boxes

if TYPE_CHECKING:
    from botorch.models import SingleTaskGP

_JITTER = 1e-6
_FAR = 1e10
"""Stands for an infinite upper bound, in standard deviations of an objective."""
_ROOT_TAU = (2 * math.pi) ** 0.5
_VERY_FAR = 1e4
_THINNEST = 1e-14
_MOST_BOXES = 4_000
"""Of all draws together; beyond it there are fewer draws."""
_AT_ONCE = 32
"""Points scored together, to bound memory."""


class LogEHVI(AcquisitionFunction):
    """The logarithm of the hypervolume a point is expected to add, the mean over draws.

    Args:
        model: processes of `surrogate.fit_processes`, whose hyperparameters are used.
        x: (n, d) known points.
        values: (draws, m, n) what the processes are conditioned on, z-scored, maximised.
        noise: (m, n) variances of ``values``.
        reference: (m,) the point hypervolume counts from, z-scored.
        counted: (n,) bool, the points that may be on the front.
    """

    def __init__(
        self,
        model: "SingleTaskGP",
        x: Tensor,
        values: Tensor,
        noise: Tensor,
        reference: Tensor,
        counted: Tensor,
    ) -> None:
        super().__init__(model)
        with torch.no_grad():
            lengthscale, constant = hyperparameters(model)
            lower, upper, draw = _boxes(values[:, :, counted].transpose(1, 2), reference)
            kept = values[: int(draw.max()) + 1]
            covariance = _kernel(x, x, lengthscale) + torch.diag_embed(noise)
            root = torch.linalg.cholesky(covariance)
            weights = torch.cholesky_solve((kept - constant).permute(1, 2, 0), root)
        self.register_buffer("x", x)
        self.register_buffer("lengthscale", lengthscale)
        self.register_buffer("constant", constant)
        self.register_buffer("root", root)
        self.register_buffer("weights", weights)  # (m, n, draws)
        self.register_buffer("lower", lower)  # (boxes, m)
        self.register_buffer("upper", upper)
        self.register_buffer("draw", draw)  # (boxes,)

    def posterior(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Means (m, b, draws) and deviations (m, b) of noiseless values at points (b, d)."""
        cross = _kernel(points, self.x, self.lengthscale)  # (m, b, n)
        solved = torch.linalg.solve_triangular(self.root, cross.transpose(1, 2), upper=False)
        deviation = (1 - solved.square().sum(dim=1)).clamp_min(1e-9).sqrt()
        return cross @ self.weights + self.constant[..., None], deviation

    @t_batch_mode_transform(expected_q=1)
    def forward(self, X: Tensor) -> Tensor:
        """The logarithm of the expected improvement at points X (b, 1, d): (b,)."""
        mean, deviation = self.posterior(X.squeeze(-2))
        mean = mean[:, :, self.draw].permute(1, 2, 0)  # (b, boxes, m)
        scale = deviation.T[:, None]
        above_lower = _log_expected_excess(mean, scale, self.lower)
        above_upper = _log_expected_excess(mean, scale, self.upper)
        # The sides of a box may be equal to rounding: then its logarithm would be infinite.
        share = log1mexp((above_upper - above_lower).clamp_max(-_THINNEST))
        boxes = (above_lower + share).sum(dim=-1)
        return boxes.logsumexp(dim=-1) - math.log(self.weights.shape[-1])


def maximise(
    acquisition: LogEHVI,
    front: Tensor,
    seed: int,
    *,
    raw_samples: int = 256,
    restarts: int = 5,
    iterations: int = 60,
) -> Tensor:
    """The best point of [0, 1]^d, (1, d), by L-BFGS from several starts.

    Half of the ``raw_samples`` that starts are chosen from lie all over the space. The others are
    members of the ``front`` (k, d) with some coordinates moved: in many dimensions a point all over
    the space is far from everything known. Draws from torch's global generator too.
    """
    dimensions = front.shape[1]
    bounds = torch.tensor([[0.0], [1.0]], dtype=front.dtype).expand(2, dimensions)
    wide = draw_sobol_samples(bounds, n=raw_samples // 2, q=1, seed=seed).squeeze(1)
    members = front[torch.randint(len(front), (raw_samples // 2,))]
    moved = torch.rand_like(members) < max(0.2, 2 / dimensions)
    near = torch.where(moved, members + 0.2 * torch.randn_like(members), members)
    candidates = torch.cat([wide, near.clamp(0, 1)])
    with torch.no_grad():
        scores = torch.cat([acquisition(part[:, None]) for part in candidates.split(_AT_ONCE)])
    starts = candidates[scores.topk(restarts).indices]
    point: Tensor = optimize_acqf(
        acquisition,
        bounds,
        q=1,
        num_restarts=restarts,
        batch_initial_conditions=starts[:, None],
        options={"maxiter": iterations},
    )[0]
    return point


def non_dominated(x: Tensor, values: Tensor) -> Tensor:
    """The points (k, d) of x (n, d) whose values (n, m) no other's dominate."""
    return x[is_non_dominated(values)]


def hyperparameters(model: "SingleTaskGP") -> tuple[Tensor, Tensor]:
    """Lengthscales (m, 1, d) and constant means (m, 1) of fitted processes."""
    lengthscale = model.covar_module.lengthscale
    lengthscale = lengthscale.reshape(-1, 1, lengthscale.shape[-1]).detach()
    return lengthscale, model.mean_module.constant.reshape(-1, 1).detach()


def noise_of(model: "SingleTaskGP", count: int) -> Tensor:
    """Noise variances (m, count) of fitted processes, known or found."""
    noise = model.likelihood.noise.detach()
    noise = noise.reshape(-1, noise.shape[-1])
    return noise.expand(len(noise), count)


def draws(
    model: "SingleTaskGP", x: Tensor, z: Tensor, running: Tensor, count: int, seed: int
) -> Tensor:
    """Noiseless values (count, m, n + r) at x (n, d) and running (r, d), given z (n, m) at x."""
    lengthscale, constant = hyperparameters(model)
    known = torch.cat([x, running])
    prior = _kernel(known, known, lengthscale)
    seen = len(x)
    noise = torch.diag_embed(noise_of(model, seen))
    root = torch.linalg.cholesky(prior[:, :seen, :seen] + noise)
    cross = torch.linalg.solve_triangular(root, prior[:, :seen], upper=False)
    residual = torch.linalg.solve_triangular(root, (z.T - constant)[..., None], upper=False)
    mean = constant + (cross.transpose(1, 2) @ residual).squeeze(-1)
    covariance = prior - cross.transpose(1, 2) @ cross
    identity = torch.eye(len(known), dtype=x.dtype)
    # The posterior covariance of many near trials is singular to rounding.
    spread = torch.linalg.cholesky(covariance + 10 * _JITTER * identity)
    engine = NormalQMCEngine(d=mean.numel(), seed=seed)
    normals = engine.draw(count, dtype=x.dtype).reshape(count, *mean.shape)
    return mean + (spread @ normals[..., None]).squeeze(-1)


def _kernel(a: Tensor, b: Tensor, lengthscale: Tensor) -> Tensor:
    """Matern 5/2 kernels (m, len(a), len(b)) of points, by lengthscales (m, 1, d)."""
    a, b = a / lengthscale, b / lengthscale
    sums = a.square().sum(-1)[..., :, None] + b.square().sum(-1)[..., None, :]
    # The square root has no gradient at 0.
    squared = (sums - 2 * a @ b.transpose(-1, -2)).clamp_min(1e-20)
    root = (5 * squared).sqrt()
    return (1 + root + 5 / 3 * squared) * torch.exp(-root)


def _boxes(values: Tensor, reference: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The boxes no point dominates: bounds (boxes, m) of all draws, and each box's draw (boxes,).

    ``values`` are (draws, n, m). All draws together have a bounded number of boxes: there may be
    fewer draws than given.
    """
    lower, upper, draw = undominated_boxes(values, reference)
    ends = torch.bincount(draw, minlength=len(values)).cumsum(dim=0)
    kept = max(int((ends <= _MOST_BOXES).sum()), 1)
    boxes = int(ends[kept - 1])
    return lower[:boxes], upper[:boxes].clamp_max(_FAR), draw[:boxes]


def _log_expected_excess(mean: Tensor, deviation: Tensor, bound: Tensor) -> Tensor:
    """log E max(f - bound, 0) for f ~ N(mean, deviation^2)."""
    return _log_excess((mean - bound) / deviation) + deviation.log()


def _log_excess(u: Tensor) -> Tensor:
    """log(phi(u) + u Phi(u)), and its gradient, for any finite u.

    Below -1 the sum is phi(u) (1 - |u| M(|u|)) with Mills' ratio M, which erfcx gives without
    cancelling; where 1 - |u| M is lost to rounding it is 1 / u^2 to 1e-8.
    """
    near = u.clamp_min(-1)
    usual = torch.exp(-0.5 * near.square()) / _ROOT_TAU + near * torch.special.ndtr(near)
    below = u.clamp(-_VERY_FAR, -1)
    mills = (torch.pi / 2) ** 0.5 * torch.special.erfcx(-below / 2**0.5)
    tail = torch.log1p(below * mills)
    far = -2 * u.clamp_max(-_VERY_FAR).neg().log()
    log_density = -0.5 * u.clamp_max(-1).square() - math.log(_ROOT_TAU)
    return torch.where(u > -1, usual.log(), log_density + torch.where(u > -_VERY_FAR, tail, far))


def jitter(like: Tensor) -> Tensor:
    """Variances for exact values, so that a covariance of near points can be factorised."""
    return torch.full_like(like, _JITTER)
