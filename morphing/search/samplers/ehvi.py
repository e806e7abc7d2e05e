"""Expected hypervolume improvement of one point, exactly, in logarithms.

The part of objective space that no known point dominates is cut into boxes (l, u) (`boxes`). A new
point f adds to the hypervolume the part of each box that lies below f:

    HVI(f) = sum over boxes of prod_k (min(f_k, u_k) - l_k)+                                    (1)

Under independent Gaussian posteriors f_k ~ N(mu_k, sigma_k^2) the expectation of a product is the
product of expectations, and min(f, u) - l above 0 is (f - l)+ - (f - u)+:

    EHVI = sum over boxes of prod_k (E(f_k - l_k)+ - E(f_k - u_k)+)                             (2)
    E(f - b)+ = sigma h((mu - b) / sigma),  h(u) = phi(u) + u Phi(u)                            (3)

(Yang et al. 2019, Multi-Objective Bayesian Global Optimization using Expected Hypervolume
Improvement Gradient, whose function psi, equation 19, is (3) for minimised values.) BoTorch's
analytic EHVI expands each product into 2^m terms; (2) needs none of them. Everything is computed in
logarithms, which keep a gradient where the improvement is next to nothing (Ament et al. 2023, arXiv
2310.20708):

    log EHVI = logsumexp over boxes of sum_k (log a_k + log(1 - exp(log b_k - log a_k)))        (4)

with a_k = E(f_k - l_k)+ and b_k = E(f_k - u_k)+.

Where scores are noisy the front itself is uncertain. Noisy EHVI (Daulton et al. 2021, arXiv
2105.08195) averages the improvement over draws of the noiseless values; given a draw, (4) holds:

    log NEHVI = log(1 / draws) + logsumexp over the boxes of all draws of the summand of (4)    (5)

The Gaussian processes' posterior is that of Rasmussen and Williams 2006 (GPML): algorithm 2.1, with
the Matern 5/2 kernel, their equation 4.17.
"""

from __future__ import annotations

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


class LogEHVI(AcquisitionFunction):  # type: ignore[misc]  # BoTorch is not read by mypy
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
        model: SingleTaskGP,
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
            # GPML, algorithm 2.1: L = chol(K + noise), alpha = (K + noise)^-1 (y - mean).
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
        # GPML, algorithm 2.1: mean + k alpha, and 1 - |L^-1 k|^2 (the kernels' variance is 1).
        cross = _kernel(points, self.x, self.lengthscale)  # (m, b, n)
        solved = torch.linalg.solve_triangular(self.root, cross.transpose(1, 2), upper=False)
        deviation = (1 - solved.square().sum(dim=1)).clamp_min(1e-9).sqrt()
        return cross @ self.weights + self.constant[..., None], deviation

    @t_batch_mode_transform(expected_q=1)  # type: ignore[untyped-decorator]
    def forward(self, X: Tensor) -> Tensor:
        """The logarithm of the expected improvement at points X (b, 1, d): (b,)."""
        mean, deviation = self.posterior(X.squeeze(-2))
        mean = mean[:, :, self.draw].permute(1, 2, 0)  # (b, boxes, m)
        scale = deviation.T[:, None]
        above_lower = _log_expected_excess(mean, scale, self.lower)  # log a of (4)
        above_upper = _log_expected_excess(mean, scale, self.upper)  # log b of (4)
        # The sides of a box may be equal to rounding: then its logarithm would be infinite.
        share = log1mexp((above_upper - above_lower).clamp_max(-_THINNEST))
        boxes = (above_lower + share).sum(dim=-1)
        improvement: Tensor = boxes.logsumexp(dim=-1) - math.log(self.weights.shape[-1])  # (5)
        return improvement


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
        scores = torch.cat(
            [acquisition(part[:, None]) for part in torch.split(candidates, _AT_ONCE)]
        )
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


def hyperparameters(model: SingleTaskGP) -> tuple[Tensor, Tensor]:
    """Lengthscales (m, 1, d) and constant means (m, 1) of fitted processes.

    Raises:
        TypeError: the processes have another kernel than `_kernel`, or another mean than a
        constant,
            so that their posterior would not be the one computed here. A later BoTorch may change
            what it makes.
    """
    from gpytorch.kernels import MaternKernel
    from gpytorch.means import ConstantMean

    kernel, mean = model.covar_module, model.mean_module
    if type(kernel) is not MaternKernel or kernel.nu != 2.5 or type(mean) is not ConstantMean:
        raise TypeError(
            "The processes must have a plain Matern 5/2 kernel and a constant mean; they have"
            f" {type(kernel).__name__} and {type(mean).__name__}."
        )
    lengthscale = kernel.lengthscale
    lengthscale = lengthscale.reshape(-1, 1, lengthscale.shape[-1]).detach()
    return lengthscale, mean.constant.reshape(-1, 1).detach()


def noise_of(model: SingleTaskGP, count: int) -> Tensor:
    """Noise variances (m, count) of fitted processes, known or found."""
    noise: Tensor = model.likelihood.noise.detach()
    noise = noise.reshape(-1, noise.shape[-1])
    return noise.expand(len(noise), count)


def draws(
    model: SingleTaskGP, x: Tensor, z: Tensor, running: Tensor, count: int, seed: int
) -> Tensor:
    """Draws of the noiseless values at all points, for (5).

    The joint posterior of GPML, equations 2.23 and 2.24, by the Cholesky factor of its covariance
    and quasi-random normal numbers.

    Args:
        model: processes of `surrogate.fit_processes`.
        x: (n, d) evaluated points.
        z: (n, m) their z-scored values.
        running: (r, d) points that are being evaluated.
        count: how many draws.
        seed: of the normal numbers.

    Returns:
        (count, m, n + r) values, first of the evaluated points, then of the running ones.
    """
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
    drawn: Tensor = mean + (spread @ normals[..., None]).squeeze(-1)
    return drawn


def _kernel(a: Tensor, b: Tensor, lengthscale: Tensor) -> Tensor:
    """Matern 5/2 kernels (m, len(a), len(b)) of points, by lengthscales (m, 1, d).

    GPML, equation 4.17: (1 + sqrt(5) r + 5 r^2 / 3) exp(-sqrt(5) r), with r the distance in
    lengthscales.
    """
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
    """log E(f - bound)+ for f ~ N(mean, deviation^2): equation (3)."""
    return _log_excess((mean - bound) / deviation) + deviation.log()


def _log_excess(u: Tensor) -> Tensor:
    """log h(u) of (3), h(u) = phi(u) + u Phi(u), with a finite gradient for any finite u.

    Computed in three ranges, as Ament et al. 2023 do (arXiv 2310.20708, section 4.1):

    - u > -1: as it stands;
    - below: h = phi(u) (1 - |u| M(|u|)), where M(v) = (1 - Phi(v)) / phi(v) = sqrt(pi / 2)
      erfcx(v / sqrt(2)) is Mills' ratio, which has no cancellation;
    - below -10^4, where 1 - |u| M is lost to rounding: 1 / u^2, which is right to 1e-8.
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
