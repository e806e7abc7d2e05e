"""Whether merged values are numbers in the dtype they are written in."""

from __future__ import annotations

import torch
from torch import Tensor

from morphing.errors import MorphingError
from morphing.sources.weights import is_finite


def check_merged(name: str, merged: Tensor) -> None:
    """Refuse a merged tensor that holds NaN or infinity.

    The models' own values are finite (`sources.weights`), so it is too large for its dtype or its
    weights are: float16 ends at 65504.

    Raises:
        MorphingError: naming the tensor, the dtype and what to set.
    """
    if is_finite(merged):
        return
    count = int((~torch.isfinite(merged)).sum())
    dtype = str(merged.dtype).removeprefix("torch.")
    largest = torch.finfo(merged.dtype).max
    half = merged.dtype == torch.float16
    mend = "set dtype: bfloat16 or float32" if half else "lower the recipe's weights"
    raise MorphingError(
        f"{count} merged values of {name} are beyond {dtype}, whose largest number is {largest:g}:"
        f" {mend}."
    )
