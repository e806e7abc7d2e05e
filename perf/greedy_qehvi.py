"""qEHVI of one more point, the others of its batch chosen already.

BoTorch's qExpectedHypervolumeImprovement takes q points and sums over their 2^q - 1 subsets
(inclusion and exclusion): minutes for each batch of ten. Chosen one after the other, q - 1 of them
are fixed, and so, sample by sample, are their values: each sample has a front of its own to which
the last point adds. Cutting these fronts into boxes once gives the same estimate, less what the
q - 1 add by themselves, which does not depend on the last point. (`perf/samplers.py --check-qehvi`
compares the two.)
"""

from __future__ import annotations

import torch
from botorch.acquisition import AcquisitionFunction
from botorch.models.model import Model
from botorch.sampling.normal import SobolQMCNormalSampler
from botorch.utils.multi_objective.box_decompositions import (
    BoxDecompositionList,
    FastNondominatedPartitioning,
)
from botorch.utils.transforms import t_batch_mode_transform

SAMPLES = 128


class GreedyEHVI(AcquisitionFunction):
    """The hypervolume a point adds to that of ``chosen`` and the known values, on average.

    Args:
        model: the fitted processes, m outputs.
        z: (n, m) known values.
        reference: (m,).
        chosen: (c, d) points of the batch so far.
        seed: of the Sobol samples.
    """

    def __init__(
        self,
        model: Model,
        z: torch.Tensor,
        reference: torch.Tensor,
        chosen: torch.Tensor,
        seed: int,
    ) -> None:
        super().__init__(model)
        self.chosen = chosen
        self.sampler = SobolQMCNormalSampler(torch.Size([SAMPLES]), seed=seed)
        with torch.no_grad():
            values = z.expand(1, *z.shape)
            if len(chosen):
                # The last point comes last, so the samples of the others do not depend on it.
                anywhere = chosen[:1].expand(1, 1, -1) / 2
                drawn = self._draw(anywhere)[:, 0, :-1]
                values = torch.cat([z.expand(SAMPLES, *z.shape), drawn], dim=1)
            if z.shape[1] == 2:
                boxes = FastNondominatedPartitioning(reference, values)
            else:
                parts = (FastNondominatedPartitioning(reference, sample) for sample in values)
                boxes = BoxDecompositionList(*parts)
            lower, upper = boxes.get_hypercell_bounds()
        # (samples or 1, 1, boxes, m)
        self.lower, self.upper = lower.unsqueeze(1), upper.unsqueeze(1)

    def _draw(self, last: torch.Tensor) -> torch.Tensor:
        """Samples (s, b, c + 1, m) of the chosen points' values and of the last's, (b, 1, d)."""
        points = torch.cat([self.chosen.expand(len(last), -1, -1), last], dim=1)
        return self.sampler(self.model.posterior(points))

    @t_batch_mode_transform(expected_q=1)
    def forward(self, X: torch.Tensor) -> torch.Tensor:
        """(b,) for points (b, 1, d)."""
        values = self._draw(X)[:, :, -1:]
        sides = (torch.minimum(values, self.upper) - self.lower).clamp_min(0.0)
        return sides.prod(dim=-1).sum(dim=-1).mean(dim=0)


def compare_with_botorch() -> str:
    """How far this is from BoTorch's qEHVI of all points less that of those chosen before."""
    from botorch.acquisition.multi_objective import qExpectedHypervolumeImprovement
    from botorch.models import ModelListGP, SingleTaskGP

    lines = []
    for outputs, dimensions in ((2, 6), (4, 6)):
        generator = torch.Generator().manual_seed(0)
        x = torch.rand(20, dimensions, generator=generator, dtype=torch.float64)
        z = torch.randn(20, outputs, generator=generator, dtype=torch.float64)
        reference = torch.full((outputs,), -3.0, dtype=torch.float64)
        columns = z.split(1, dim=1)
        model = ModelListGP(*(SingleTaskGP(x, c, outcome_transform=None) for c in columns)).eval()
        for count in (0, 1, 4):
            chosen, last = x[:count] / 2, x[5:, None] / 2
            sampler = SobolQMCNormalSampler(torch.Size([SAMPLES]), seed=1)
            theirs = qExpectedHypervolumeImprovement(
                model, reference, FastNondominatedPartitioning(reference, z), sampler
            )
            ours = GreedyEHVI(model, z, reference, chosen, seed=1)
            with torch.no_grad():
                together = theirs(torch.cat([chosen.expand(len(last), -1, -1), last], dim=1))
                constant = together - ours(last)
            spread = float(constant.max() - constant.min())
            lines.append(
                f"{outputs} objectives, {count} chosen before: the difference is"
                f" {float(constant.mean()):.6f} for all points, give or take {spread:.1e}"
            )
    return "\n".join(lines)
