"""Expected hypervolume improvement of one point under independent Gaussian posteriors."""

import torch
from botorch.acquisition import AcquisitionFunction
from botorch.models.model import Model
from botorch.utils.multi_objective.box_decompositions import FastNondominatedPartitioning
from botorch.utils.transforms import t_batch_mode_transform


class ExpectedHypervolumeImprovement(AcquisitionFunction):
    """The exact expectation, for m >= 1 maximised objectives.

    The region no known point dominates is cut into boxes (l, u). A point f adds the volume of
    its part in each, prod_k (min(f_k, u_k) - l_k)+, and as the f_k are independent the
    expectation is a sum of products: sum_boxes prod_k (E(f_k - l_k)+ - E(f_k - u_k)+)
    (Yang et al. 2019, Multi-Objective Bayesian Global Optimization using EHVI gradient). BoTorch's
    analytic EHVI expands each product into 2^m terms.

    Args:
        model: gives an m-output posterior with independent outputs.
        values: (n, m) known values.
        reference: (m,) the point hypervolume is measured from.
    """

    def __init__(self, model: Model, values: torch.Tensor, reference: torch.Tensor) -> None:
        super().__init__(model)
        if len(reference) == 1:
            lower = torch.maximum(values.max(dim=0).values, reference)[None]
            upper = torch.full_like(lower, torch.inf)
        else:
            partitioning = FastNondominatedPartitioning(reference, values)
            lower, upper = partitioning.get_hypercell_bounds()
        self.register_buffer("lower", lower)
        # An infinite bound has no gradient; 1e10 standard deviations are as good.
        self.register_buffer("upper", upper.clamp_max(1e10))

    @t_batch_mode_transform(expected_q=1)
    def forward(self, X: torch.Tensor) -> torch.Tensor:
        """The improvement expected at points X (b, 1, d): (b,)."""
        posterior = self.model.posterior(X)
        mean, deviation = posterior.mean, posterior.variance.clamp_min(1e-9).sqrt()
        above_lower = _expected_excess(mean, deviation, self.lower)
        above_upper = _expected_excess(mean, deviation, self.upper)
        return (above_lower - above_upper).prod(dim=-1).sum(dim=-1)


def _expected_excess(
    mean: torch.Tensor, deviation: torch.Tensor, bound: torch.Tensor
) -> torch.Tensor:
    """E max(f - bound, 0) for f ~ N(mean, deviation^2)."""
    u = (mean - bound) / deviation
    density = torch.exp(-0.5 * u.square()) / (2 * torch.pi) ** 0.5
    return deviation * (density + u * torch.special.ndtr(u))
